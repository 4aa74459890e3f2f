"""What was made, bound or imported before the patch parks as well; and nothing has changed its identity."""

import importlib
import queue
import select
import socket
import subprocess
import sys
import threading
import time

import pytest

from goloop import go
from tests.helpers.waiting import until
from tests.monkey import before


def test_sleep_imported_before(overlap):
    assert overlap(lambda i: before.sleep(0.05)) == [None] * 8


def test_bound_methods_of_a_lock(overlap):
    before.acquire()
    waiters = [go(lambda: before.acquire() and before.release()) for _ in range(3)]
    until(lambda: [g.state for g in waiters] == ["lock"] * 3)
    before.release()
    for g in waiters:
        g.result(10)
    assert not before.lock.locked()


def test_condition_with_an_rlock():
    # It holds on to the methods of its RLock.
    def wait():
        with before.condition:
            return before.condition.wait(10)

    waiters = [go(wait) for _ in range(3)]
    until(lambda: [g.state for g in waiters] == ["lock"] * 3)
    with before.condition:
        before.condition.notify_all()
    assert [g.result(10) for g in waiters] == [True] * 3


def test_event_and_queues():
    waiters = [go(before.event.wait, 10), go(before.fifo.get), go(before.simple.get)]
    until(lambda: [g.state for g in waiters] == ["lock", "lock", "queue get"])
    before.event.set()
    before.fifo.put(1)
    before.simple.put(2)
    assert [g.result(10) for g in waiters] == [True, 1, 2]


def test_socket_and_its_bound_method():
    g = go(before.recv, 10)
    until(lambda: g.state == "IO wait")
    before.right.send(b"hello")
    assert g.result(10) == b"hello"


def test_select_and_poll():
    before.poll.register(before.left, select.POLLIN)
    waiters = [go(before.select_, [before.left], [], [], 10), go(before.poll.poll, 10_000)]
    until(lambda: [g.state for g in waiters] == ["IO wait"] * 2)
    before.right.send(b"x")
    assert waiters[0].result(10) == ([before.left], [], [])
    assert waiters[1].result(10) == [(before.left.fileno(), select.POLLIN)]
    assert before.left.recv(1) == b"x"


def test_thread_started_before():
    g = go(before.thread.join)
    until(lambda: g.state == "chan receive")
    before.thread_ends.set()
    g.result(10)
    assert not before.thread.is_alive()


def test_identities():
    now = {
        "socket": socket.socket,
        "raw socket": socket.SocketType,
        "Lock": threading.Lock,
        "RLock": threading.RLock,
        "lock": type(threading.Lock()),
        "sleep": time.sleep,
        "SimpleQueue": queue.SimpleQueue,
        "local": threading.local,
        "Thread": threading.Thread,
        "Popen": subprocess.Popen,
    }
    assert all(now[name] is before.types[name] for name in now) and now.keys() == before.types.keys()
    assert time.sleep.__module__ == "time" and type(time.sleep) is type(len)
    assert type(before.lock).acquire.__objclass__ is type(before.lock)


def test_another_instance_of_a_module_is_left_alone():
    """Its types are others, though their methods are in the same table: those of another interpreter, for one."""

    def use():
        queue, timer = sys.modules.pop("_queue"), sys.modules.pop("time")
        try:
            items = importlib.import_module("_queue").SimpleQueue()
            items.put(1)
            importlib.import_module("time").sleep(0.001)
            return type(items) is not before.types["SimpleQueue"], items.get(), items.empty()
        finally:
            sys.modules["_queue"], sys.modules["time"] = queue, timer

    assert go(use).result(10) == (True, 1, True)


@pytest.mark.parametrize("inside", [False, True])
def test_errors_are_the_originals(inside):
    def errors():
        found = []
        for call in (
            lambda: time.sleep(-1),
            lambda: time.sleep("1"),
            lambda: before.lock.acquire(False, 1),
            lambda: before.lock.acquire(True, -5),
            lambda: before.lock.acquire(True, "x"),
            lambda: before.lock.release(),
            lambda: before.rlock.release(),
            lambda: before.simple.get(timeout=-1),
            lambda: before.simple.get(False),
            lambda: before.left.recv(-1),
            lambda: before.left.recv_into(b"readonly"),
            lambda: before.left.recv_into(bytearray(2), 3),
            lambda: before.left.send("text"),
            lambda: before.left.sendto(b""),
            lambda: select.select([-1], [], [], 1),
            lambda: select.select([object()], [], [], 1),
            lambda: select.select([], [], [], "x"),
            lambda: before.poll.poll("x"),
        ):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                call()
            found.append((caught.type, str(caught.value)))
        return found

    expected = errors()
    if inside:
        assert go(errors).result(10) == expected
    assert expected[0] == (ValueError, "sleep length must be non-negative")
