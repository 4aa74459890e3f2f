"""Misuse of public functions: a clear error at the call, and nothing left behind."""

import asyncio
import gc
import math
import socket
import ssl
import time
import warnings

import pytest

import goloop
from goloop import Chan, context, errgroup, go, net, sync, timer

BACKGROUND = context.background()
SECONDS = r"a number of seconds is needed, got '1'"
FOR_A_CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
FOR_A_SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
UNIX_TIME = time.time() + 5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # net
        (lambda: net.listen("tcp", 8080), TypeError, 'an address is a str, such as ":8080", got 8080'),
        (lambda: net.listen_packet("udp", 53), TypeError, 'an address is a str, such as ":53", got 53'),
        (lambda: net.dial("tcp", ("127.0.0.1", 80)), TypeError, r"an address is a str, host:port, got \('127"),
        (lambda: net.listen("unix", 1), TypeError, "an address is a str, a path, got 1"),
        (lambda: net.dial([], ":80"), ValueError, r"unknown network \[\]: it is one of tcp"),
        (lambda: net.listen("unix", "@goloop-misuse", reuse_port=True), ValueError, "a Unix socket has none"),
        (lambda: net.dial("tcp", ":1", timeout="1"), TypeError, r"dial\(\): a timeout is a number of seconds or None"),
        (lambda: net.dial("tcp", ":1", timeout=b"1"), TypeError, r"dial\(\): a timeout is a number of seconds or None"),
        (lambda: net.dial("tcp", ":1", timeout=math.nan), ValueError, r"dial\(\): a timeout cannot be NaN"),
        (lambda: net.dial("tcp", ":1", ctx=1), TypeError, r"dial\(\): ctx is a goloop.context.Context, got 1"),
        (lambda: net.dial_tls("tcp", ":1", timeout="1"), TypeError, r"dial_tls\(\): a timeout is a number of seconds"),
        (lambda: net.dial_tls("tcp", ":1", FOR_A_SERVER), ValueError, "needs a client's context, and this one"),
        (lambda: net.dial_tls("tcp", ":1", 1), TypeError, "an ssl.SSLContext is needed, got 1"),
        (lambda: net.dial_tls("tcp", ":1", server_hostname=0), TypeError, "a server_hostname is a str, got 0"),
        (lambda: net.dial_tls("unix", "/no", FOR_A_CLIENT), ValueError, "needs a server_hostname"),
        (
            lambda: net.listen_tls("tcp", ":0", FOR_A_CLIENT),
            ValueError,
            "needs a server's context.*PROTOCOL_TLS_CLIENT",
        ),
        (lambda: net.listen_tls("tcp", ":0", None), TypeError, "an ssl.SSLContext is needed, got None"),
        (lambda: net.TLSListener(1, FOR_A_SERVER), TypeError, "a Listener is needed, got 1"),
        (lambda: net.Conn(1), TypeError, "a connected stream socket is needed, got 1"),
        # the runtime
        (lambda: goloop.Loop(1), TypeError, "not one of the standard library's"),
        (lambda: goloop.gomaxprocs(10**12), ValueError, r"gomaxprocs\(\) takes at least 1, and at most 2147483647"),
        (lambda: goloop.gomaxprocs("2"), TypeError, r"gomaxprocs\(\) takes an int"),
        (lambda: goloop.sleep("1"), TypeError, SECONDS),
        (lambda: goloop.blocking(1), TypeError, "argument"),
        (lambda: go(1), TypeError, r"go\(\) takes a function, got 1"),
        (lambda: go(goloop.wait, 1).result(10), TypeError, "awaitable is required"),
        (lambda: goloop.Loop(handoff="0"), TypeError, "handoff is True, False or None, got '0'"),
        (lambda: goloop.Loop(watch=[]), TypeError, r"watch is True, False or None, got \[\]"),
        # channels, locks, timers
        (lambda: Chan(2**70), ValueError, "a channel's capacity is at most"),
        (lambda: sync.Semaphore(2**70), ValueError, "a semaphore's size is at least 1, and at most"),
        (lambda: sync.WaitGroup().add(2**70), ValueError, r"WaitGroup.add\(\) takes at most"),
        (lambda: Chan("1"), TypeError, "a channel's capacity is an int, got '1'"),
        (lambda: Chan(1).recv("1"), TypeError, SECONDS),
        (lambda: goloop.select(Chan()), TypeError, r"select\(\) takes recv\(chan\)"),
        (lambda: goloop.select(goloop.recv(Chan()), timeout="1"), TypeError, SECONDS),
        (lambda: sync.Mutex(1), TypeError, "argument"),
        (lambda: sync.RWMutex(1), TypeError, "argument"),
        (lambda: sync.WaitGroup(3), TypeError, "argument"),
        (lambda: sync.Once(print), TypeError, "argument"),
        (lambda: sync.Semaphore("1"), TypeError, "a semaphore's size is an int"),
        (lambda: timer.Timer("1"), TypeError, SECONDS),
        (lambda: timer.Ticker("1"), TypeError, SECONDS),
        (lambda: timer.after_func(print, 1), TypeError, "a number of seconds is needed"),
        # groups and contexts
        (lambda: errgroup.Group().set_limit(0), ValueError, r"set_limit\(\) takes at least 1, or None for any number"),
        (lambda: errgroup.Group().set_limit(10**30), ValueError, r"set_limit\(\) takes at least 1"),
        (lambda: errgroup.Group().set_limit("1"), TypeError, r"set_limit\(\) takes an int or None, got '1'"),
        (lambda: errgroup.Group().wait("1"), TypeError, SECONDS),
        (lambda: context.with_timeout(BACKGROUND, "1"), TypeError, "a timeout is a number of seconds, got '1'"),
        (lambda: context.with_timeout(1, BACKGROUND), TypeError, "a timeout is a number of seconds"),
        (lambda: context.with_timeout(BACKGROUND, UNIX_TIME), ValueError, "from now, and .* is more than 30 years"),
        (lambda: context.with_deadline(BACKGROUND, UNIX_TIME), ValueError, r"in seconds of time.monotonic\(\)"),
    ],
)
def test_an_error_at_the_call_says_what_is_wrong(call, error, message):
    procs = goloop.gomaxprocs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=message):
            call()
        gc.collect()
    assert goloop.gomaxprocs() == procs


def test_listening_that_is_refused_leaves_the_address_free():
    with net.listen("tcp", "127.0.0.1:0") as listener:
        address = listener.addr
    for _ in range(2):
        with pytest.raises(ValueError, match="server's context"):
            net.listen_tls("tcp", address, FOR_A_CLIENT)
    net.listen("tcp", address).close()


def test_a_context_for_the_wrong_side_leaves_a_connection_alone():
    one, other = socket.socketpair()
    with net.Conn(one) as conn, other:
        with pytest.raises((ssl.SSLError, ValueError)):
            net.TLSConn(conn, FOR_A_CLIENT, server_side=True)
        other.send(b"x")
        assert conn.read() == b"x"


@pytest.mark.parametrize("options", [{"timeout": "1"}, {"loop": 1}, {"loop": "closed"}])
def test_wait_that_is_refused_leaves_no_coroutine_behind(options):
    if options.get("loop") == "closed":
        options = {"loop": goloop.new_event_loop()}
        options["loop"].close()
    with pytest.raises((TypeError, RuntimeError)):
        go(lambda: goloop.wait(asyncio.sleep(0), **options)).result(10)
    gc.collect()  # "never awaited" would be an error
