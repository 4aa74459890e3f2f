"""What a deadline may be: seconds from now, a Context, nothing; and what is refused. dial() with a Context."""

import asyncio
import contextlib
import gc
import math
import threading
import time
import weakref

import pytest

import goloop
from goloop import context, net
from goloop.core.net.polldesc import PollDesc
from goloop.net import _address, _dial
from tests.helpers.descriptors import waiters, waiters_anywhere
from tests.helpers.waiting import SECONDS, until


@pytest.fixture(params=["Conn", "TLSConn", "PacketConn", "Listener", "TLSListener", "PollDesc"])
def thing(request, tls_contexts):
    """Something that has a deadline, what waits for it, and how that is called in errors."""
    server_context, client_context = tls_contexts
    with contextlib.ExitStack() as stack:
        if request.param == "PacketConn":
            conn = stack.enter_context(net.listen_packet("udp", "127.0.0.1:0"))
            yield conn.set_read_deadline, conn.read, r"PacketConn.read\(\)"
            return
        listener = stack.enter_context(net.listen("tcp", "127.0.0.1:0"))
        if request.param == "Listener":
            yield listener.set_deadline, listener.accept, r"Listener.accept\(\)"
        elif request.param == "TLSListener":
            tls = stack.enter_context(net.listen_tls("tcp", "127.0.0.1:0", server_context))
            yield tls.set_deadline, tls.accept, r"Listener.accept\(\)"
        else:
            conn = stack.enter_context(net.dial("tcp", listener.addr))
            stack.enter_context(listener.accept())
            if request.param == "TLSConn":
                conn = stack.enter_context(net.TLSConn(conn, client_context, server_hostname="localhost"))
                yield conn.set_deadline, conn.read, r"TLSConn.read\(\)"
            elif request.param == "Conn":
                yield conn.set_read_deadline, conn.read, r"Conn.read\(\)"
            else:
                desc = PollDesc(conn)
                stack.callback(desc.close)
                yield desc.set_read_deadline, desc.wait_read, r"wait_read\(\)"


def test_a_number_is_seconds_from_now(thing, start):
    set_deadline, use, name = thing
    set_deadline(0.02)
    with pytest.raises(TimeoutError, match=f"{name}: the deadline has passed"):
        start(use).result()
    for endless in (None, math.inf):
        set_deadline(endless)


def test_a_value_that_cannot_be_meant_is_refused_and_changes_nothing(thing, start):
    set_deadline, use, name = thing
    set_deadline(0.02)
    for wrong, message in [
        (time.time() + 5, r"more than 30 years: for a time of the clock subtract time.time\(\)"),
        (-0.001, "seconds from now, and not negative, got -0.001"),
        (math.nan, "cannot be NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            set_deadline(wrong)
    for wrong in ("1", [], object()):
        with pytest.raises(TypeError, match=r"a deadline is a number of seconds from now, a goloop.context.Context or"):
            set_deadline(wrong)
    with pytest.raises(TimeoutError, match=name):
        start(use).result()


def test_a_cancelled_context_ends_calls_under_way_and_to_come(thing, start):
    set_deadline, use, name = thing
    ctx, cancel = context.with_cancel_cause(context.background())
    set_deadline(ctx)
    waits = start(use)
    until(lambda: waiters(use.__self__) == 1)
    cancel(KeyError("why"))
    for each in (waits, start(use)):
        with pytest.raises(context.Canceled, match=f"{name}: context canceled") as caught:
            each.result()
        assert isinstance(caught.value.__cause__, KeyError)
    set_deadline(0.01)
    with pytest.raises(TimeoutError, match=f"{name}: the deadline has passed"):
        start(use).result()


def test_a_context_s_own_deadline_counts(thing, start):
    set_deadline, use, name = thing
    with context.with_timeout(context.background(), 0.03) as ctx:
        set_deadline(ctx)
        with pytest.raises(context.DeadlineExceeded, match=f"{name}: context deadline exceeded"):
            start(use).result()


def test_a_context_that_was_replaced_has_no_say_any_more(thing, start):
    set_deadline, use, name = thing
    first, cancel = context.with_cancel_cause(context.background())
    second, cancel_second = context.with_cancel_cause(context.background())
    set_deadline(first)
    set_deadline(second)
    assert not first._scope.children
    waits = start(use)
    until(lambda: waiters(use.__self__) == 1)
    cancel(KeyError("the first"))
    cancel_second(KeyError("the second"))
    with pytest.raises(context.Canceled) as caught:
        waits.result()
    assert caught.value.__cause__.args == ("the second",)
    set_deadline(context.background())  # never cancelled: no deadline
    set_deadline(None)


def test_a_context_that_is_cancelled_already(thing, start):
    set_deadline, use, name = thing
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    set_deadline(ctx)
    with pytest.raises(context.Canceled, match=name):
        start(use).result()


def test_a_context_keeps_no_connection(pair):
    client, server = pair
    ctx, cancel = context.with_cancel(context.background())
    server.set_deadline(ctx)
    assert len(ctx._scope.children) == 2
    server.close()
    assert not ctx._scope.children
    client.set_deadline(ctx)
    gone = weakref.ref(ctx)
    client.close()
    del ctx, cancel
    gc.collect()
    assert gone() is None


# ------------------------------------------------------------------------ dial(ctx=)
def test_a_context_ends_a_dial(deaf, start):
    ctx, cancel = context.with_cancel(context.background())
    dials = start(lambda: net.dial("tcp", deaf, ctx=ctx))
    until(lambda: waiters_anywhere() == 1)
    cancel()
    with pytest.raises(context.Canceled, match=f"dial tcp {deaf}: context canceled"):
        dials.result()
    with pytest.raises(context.Canceled, match=f"dial tcp {deaf}: context canceled"):
        start(lambda: net.dial("tcp", deaf, ctx=ctx)).result()


@pytest.mark.parametrize(("timeout", "seconds", "error", "message"), [
    (20, 0.03, context.DeadlineExceeded, "context deadline exceeded"),
    (0.03, 20, TimeoutError, "timed out"),
    (None, 0.03, context.DeadlineExceeded, "context deadline exceeded"),
])  # fmt: skip
def test_a_dial_ends_with_the_first_of_its_timeout_and_its_context(deaf, start, timeout, seconds, error, message):
    with context.with_timeout(context.background(), seconds) as ctx:
        with pytest.raises(error, match=f"dial tcp {deaf}: {message}") as caught:
            start(lambda: net.dial("tcp", deaf, timeout, ctx=ctx)).result()
        assert type(caught.value) is error


@pytest.mark.parametrize("ends", ["context", "timeout"])
def test_a_look_up_is_left_behind_at_the_end(names, start, ends):
    go_on = goloop.Chan(1)
    names["slow"] = lambda: go_on.recv(timeout=20) and []
    ctx, cancel = context.with_cancel(context.background())
    try:
        if ends == "timeout":
            with pytest.raises(TimeoutError, match="dial tcp slow:80: timed out"):
                start(lambda: net.dial("tcp", "slow:80", 0.03, ctx=ctx)).result()
        else:
            dials = start(lambda: net.dial("tcp", "slow:80", ctx=ctx))
            until(lambda: "1 receiving" in repr(go_on))
            cancel()
            with pytest.raises(context.Canceled, match="dial tcp slow:80: context canceled"):
                dials.result()
    finally:
        go_on.send(True)


def test_a_context_ends_a_race_of_both_families(names, start, monkeypatch):
    def finish(sock, target, until):
        goloop.sleep(0.01)
        assert until.context is ctx
        until.left()

    monkeypatch.setattr(_dial, "_finish_connect", finish)
    names["both"] = ["::1", "127.0.0.1"]
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with pytest.raises(context.Canceled, match="dial tcp both:80: context canceled"):
        start(lambda: net.dial("tcp", "both:80", ctx=ctx)).result()


def test_a_context_ends_the_wait_for_room_in_a_unix_backlog(tmp_path, start, monkeypatch):
    import socket

    def pauses():
        yield 0.001
        refused.set()
        while True:
            yield 0.001

    refused = threading.Event()
    monkeypatch.setattr(_dial, "pauses", pauses)
    path = str(tmp_path / "socket")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(0)
    ctx, cancel = context.with_cancel(context.background())
    with net.dial("unix", path), sock:
        dials = start(lambda: net.dial("unix", path, ctx=ctx))
        assert refused.wait(SECONDS)
        cancel()
        with pytest.raises(context.Canceled):
            dials.result()


def test_a_connection_outlives_the_context_of_its_dial(serve):
    ctx, cancel = context.with_cancel(context.background())
    with net.listen("tcp", "127.0.0.1:0") as listener, net.dial("tcp", listener.addr, ctx=ctx) as conn:
        with listener.accept() as server:
            cancel()
            assert not ctx._scope.children
            server.write(b"x")
            assert conn.read() == b"x"


@pytest.mark.parametrize("timeout", [None, 20])
def test_a_context_ends_a_tls_handshake(tls_contexts, start, timeout):
    ctx, cancel = context.with_cancel(context.background())
    with net.listen("tcp", "localhost:0") as silent:
        dials = start(lambda: net.dial_tls("tcp", silent.addr, tls_contexts[1], timeout=timeout, ctx=ctx))
        with silent.accept() as conn:
            assert conn.read()  # so it has begun
            cancel()
            with pytest.raises(context.Canceled, match="TLSConn"):
                dials.result()


def test_a_tls_connection_outlives_the_context_of_its_dial(tls_contexts, serve, start):
    ctx, cancel = context.with_cancel(context.background())
    listener = net.listen_tls("tcp", "localhost:0", tls_contexts[0])
    serve(listener, lambda conn: conn.write(conn.read()))
    with start(lambda: net.dial_tls("tcp", listener.addr, tls_contexts[1], timeout=20, ctx=ctx)).result() as conn:
        cancel()
        conn.write(b"x")
        assert conn.read() == b"x"


def test_a_cancelled_goroutine_is_cancelled_in_a_dial_with_a_context(deaf, names):
    go_on = goloop.Chan(1)
    names["slow"] = lambda: go_on.recv(timeout=20) and []
    for address, state in ((deaf, "IO wait"), ("slow:80", "select")):
        g = goloop.go(lambda address=address: net.dial("tcp", address, ctx=context.background()))
        until(lambda g=g, state=state: g.state == state)
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result(timeout=20)
    go_on.send(True)
    assert _address.AddressSpec.look_up is not None
