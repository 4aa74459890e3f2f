"""net.copy(): from one connection to another, by the kernel where both are sockets."""

import asyncio
import contextlib
import os
import random
import resource
import socket

import pytest

import goloop
from goloop import go, net
from goloop.net import ClosedError, TLSConn
from tests.helpers.waiting import SECONDS, until

DATA = random.Random(3).randbytes(3_000_000)


@pytest.fixture(params=["tcp", "unix", "tls", "pipe"])
def kind(request):
    return request.param


@pytest.fixture
def make(tls_contexts):
    """make(kind): a pair of connected ends, closed after the test."""
    made = []

    def make(kind):
        if kind == "pipe":
            pair = net.pipe()
        elif kind == "unix":
            pair = tuple(map(net.Conn, socket.socketpair()))
        else:
            with net.listen("tcp", "127.0.0.1:0") as listener:
                pair = (net.dial("tcp", listener.addr), listener.accept())
        if kind == "tls":
            server, client = tls_contexts
            pair = (TLSConn(pair[0], client, server_hostname="localhost"), TLSConn(pair[1], server, server_side=True))
            shaking = go(pair[0].handshake)
            pair[1].handshake()
            shaking.result(SECONDS)
        made.extend(pair)
        return pair

    yield make
    for conn in made:
        conn.close()


def read_all(conn):
    return b"".join(iter(lambda: conn.read(), b""))


def send_all(conn, data):
    conn.write(data)
    conn.close_write()


@pytest.mark.parametrize("other", ["tcp", "unix", "tls", "pipe"])
def test_all_bytes_arrive_in_order(make, kind, other, start):
    ours, source = make(kind)
    target, theirs = make(other)
    sending, receiving = go(send_all, ours, DATA), go(read_all, theirs)
    copying = start(net.copy, target, source)
    assert copying.result(SECONDS) == len(DATA)
    target.close_write()
    assert receiving.result(SECONDS) == DATA
    sending.result(SECONDS)


def test_what_was_read_ahead_comes_first(make, kind):
    ours, source = make(kind)
    target, theirs = make("tcp")
    sending = go(send_all, ours, b"line\nread ahead" + DATA)
    assert source.readline() == b"line\n"
    receiving = go(read_all, theirs)
    assert go(net.copy, target, source).result(SECONDS) == len(DATA) + 10
    target.close_write()
    assert receiving.result(SECONDS) == b"read ahead" + DATA
    sending.result(SECONDS)


def test_a_proxy_copies_both_ways_at_once(make):
    client, front = make("tcp")
    back, server = make("tcp")

    def one_way(target, source):
        net.copy(target, source)
        target.close_write()

    ways = [go(one_way, back, front), go(one_way, front, back)]
    echoing = go(lambda: send_all(server, read_all(server).upper()))
    sending = go(send_all, client, b"abc" * 300_000)
    assert read_all(client) == b"ABC" * 300_000
    for g in (*ways, echoing, sending):
        g.result(SECONDS)


@pytest.mark.parametrize("other", ["tcp", "tls", "pipe"])
def test_what_could_not_be_written_is_there_for_the_next_read(make, kind, other):
    """The target's reader takes a part of it, and then nothing: the deadline ends the copy."""
    ours, source = make(kind)
    target, theirs = make(other)
    if other != "pipe":  # or the kernel would take all of it
        target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sending = go(send_all, ours, DATA)
    copying = go(net.copy, target, source)
    taken = theirs.read_exactly(50_000)
    target.set_write_deadline(0.05)
    with pytest.raises(TimeoutError) as caught:
        copying.result(SECONDS)
    assert caught.value.bytes_written >= 50_000
    rest = go(read_all, source)
    target.set_write_deadline(None)
    target.close()
    if other == "tls":  # what was encrypted counts as written, and goes with the connection
        assert DATA.endswith(rest.result(SECONDS))
    else:
        assert taken + read_all(theirs) + rest.result(SECONDS) == DATA
    sending.result(SECONDS)


def test_a_read_deadline_and_a_cancellation_end_it(make, kind):
    _, source = make(kind)
    target, theirs = make("tcp")
    source.set_read_deadline(0.02)
    with pytest.raises(TimeoutError):
        net.copy(target, source)
    source.set_read_deadline(None)
    copying = go(net.copy, target, source)
    until(lambda: copying.state == "IO wait")
    copying.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        copying.result(SECONDS)
    assert caught.value.bytes_written == 0


def test_a_close_of_either_ends_it(make, kind):
    for which in (0, 1):
        _, source = make(kind)
        target, theirs = make("tcp")
        copying = go(net.copy, target, source)
        until(lambda copying=copying: copying.state == "IO wait")
        if which:
            target.close()
            source.set_read_deadline(0)  # it does not look at the target while it waits for the source
            error = TimeoutError
        else:
            source.close()
            error = ClosedError
        with pytest.raises(error):
            copying.result(SECONDS)
        if not source.closed:
            source.set_read_deadline(None)
        with pytest.raises(ClosedError):
            net.copy(target, source)


def test_a_target_whose_reader_is_gone_is_an_error(make):
    ours, source = make("tcp")
    target, theirs = make("tcp")
    theirs.close()
    sending = go(ours.write, DATA)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        net.copy(target, source)
    source.close()
    with contextlib.suppress(OSError):  # unless the kernel has taken all of it
        sending.result(SECONDS)


def test_without_a_free_descriptor_it_copies_all_the_same(make):
    ours, source = make("tcp")
    target, theirs = make("tcp")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sending, receiving = go(send_all, ours, DATA), go(read_all, theirs)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    try:
        copied = go(net.copy, target, source).result(SECONDS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    target.close_write()
    assert copied == len(DATA) and receiving.result(SECONDS) == DATA
    sending.result(SECONDS)


def test_misuse(make):
    one, other = make("tcp")
    with pytest.raises(RuntimeError, match="cannot be copied to itself"):
        net.copy(one, one)
    for args in ((one, None), (1, other)):
        with pytest.raises(TypeError):
            net.copy(*args)

    async def main():
        with pytest.raises(RuntimeError, match="asyncio's streams"):
            net.copy(one, other)

    goloop.run(main())
