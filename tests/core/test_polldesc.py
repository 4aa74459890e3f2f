"""Waiting for descriptors: edges, closes, deadlines, cancellations, from goroutines on any worker and plain threads."""

import asyncio
import contextlib
import fcntl
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
import warnings

import pytest

import goloop
from goloop.core.net.polldesc import PollDesc, live_polldescs
from goloop.core.sched import scheduler
from goloop.errors import ClosedError
from goloop.runtime import shutdown
from tests.helpers.actors import InThread, in_thread
from tests.helpers.sockets import stream_pair
from tests.helpers.waiting import until

IN_BOTH = pytest.mark.parametrize("run", ["goroutine", "thread"])


@pytest.fixture
def pair():
    with stream_pair() as pair:
        yield pair


@pytest.fixture
def desc(pair):
    desc = PollDesc(pair[0])
    yield desc
    desc.close()


def start(run, function, *args):
    return goloop.go(function, *args) if run == "goroutine" else in_thread(function, *args)


def fill(sock):
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass


def empty(sock):
    try:
        while True:
            sock.recv(1 << 20)
    except BlockingIOError:
        pass


def waiters(desc):
    return repr(desc)[1:-1].split(", ", 1)[1]


def on_its_own_worker(function, *args):
    """Run it in a goroutine on a worker where no other starts meanwhile; returns the goroutine and the worker."""
    started = goloop.Chan(1)

    def run():
        with goloop.lock_os_thread():
            started.send(scheduler.this_worker())
            return function(*args)

    g = goloop.go(run)
    return g, started.recv(timeout=20)


# ------------------------------------------------------------------- readiness
@IN_BOTH
def test_waiting_for_data(run, pair, desc):
    a, b = pair
    waits = start(run, desc.wait_read)
    until(lambda: waiters(desc) == "1 reading, 0 writing")
    b.send(b"x")
    waits.result(20)
    start(run, desc.wait_read).result(20)  # still there, though its edge is spent
    assert a.recv(10) == b"x"
    with pytest.raises(TimeoutError, match="timed out"):
        start(run, desc.wait_read, 0.01).result(20)


@IN_BOTH
def test_waiting_for_room(run, pair, desc):
    a, b = pair
    start(run, desc.wait_write).result(20)
    fill(a)
    with pytest.raises(TimeoutError):
        start(run, desc.wait_write, 0).result(20)
    waits = start(run, desc.wait_write)
    until(lambda: waiters(desc) == "0 reading, 1 writing")
    empty(b)
    waits.result(20)


@IN_BOTH
def test_the_end_and_a_hangup_are_readable(run, pair, desc):
    a, b = pair
    waits = start(run, desc.wait_read)
    until(lambda: waiters(desc) == "1 reading, 0 writing")
    b.close()
    waits.result(20)
    assert a.recv(1) == b""


def test_an_end_of_a_pipe_is_waited_for_like_a_socket():
    reads, writes = os.pipe()
    desc = PollDesc(reads)
    g = goloop.go(desc.wait_read)
    os.write(writes, b"x")
    g.join(timeout=20)
    assert os.read(reads, 10) == b"x"
    desc.close()
    os.close(reads)
    os.close(writes)


@IN_BOTH
def test_a_regular_file_is_always_ready(run, tmp_path):
    with open(tmp_path / "file", "w+") as file:
        desc = PollDesc(file)
        for _ in range(3):
            start(run, desc.wait_read).result(20)
            start(run, desc.wait_write).result(20)
        assert waiters(desc) == "0 reading, 0 writing"
        desc.close()


@IN_BOTH
def test_every_waiter_of_an_edge_is_woken(run, pair, desc):
    all_wait = [start(run, desc.wait_read) for _ in range(5)]
    until(lambda: waiters(desc) == "5 reading, 0 writing")
    pair[1].send(b"x")
    for waits in all_wait:
        waits.result(20)
    assert waiters(desc) == "0 reading, 0 writing" and pair[0].recv(10) == b"x"


def test_goroutines_on_different_workers_and_a_thread(pair, desc):
    first, one = on_its_own_worker(desc.wait_read)
    until(lambda: first.state == "IO wait")
    second, other = on_its_own_worker(desc.wait_read)
    assert one is not other
    third = in_thread(desc.wait_read)
    until(lambda: waiters(desc) == "3 reading, 0 writing")
    pair[1].send(b"x")
    first.join(timeout=20)
    second.join(timeout=20)
    third.result(20)


def test_both_directions_on_different_workers(pair, desc):
    a, b = pair
    fill(a)
    reads, _ = on_its_own_worker(desc.wait_read)
    until(lambda: reads.state == "IO wait")
    writes, _ = on_its_own_worker(desc.wait_write)
    until(lambda: waiters(desc) == "1 reading, 1 writing")
    empty(b)
    writes.join(timeout=20)
    assert not reads.done()
    b.send(b"x")
    reads.join(timeout=20)
    assert a.recv(10) == b"x"


# ------------------------------------------------------- workers come and go
def test_the_loop_that_it_was_registered_with_goes_away(pair, desc):
    first, worker = on_its_own_worker(desc.wait_read)
    until(lambda: first.state == "IO wait")
    second, _ = on_its_own_worker(desc.wait_read)
    until(lambda: waiters(desc) == "2 reading, 0 writing")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        first.result(timeout=20)
    worker.retire()
    worker.loop.call_soon_threadsafe(worker.loop.stop)
    until(worker.loop.is_closed)
    pair[1].send(b"x")
    second.join(timeout=20)


def test_it_moves_to_the_worker_where_it_is_waited_on(pair, desc):
    def stats(worker):
        return worker.loop._stats()["descriptors"]

    first, one = on_its_own_worker(desc.wait_read)
    until(lambda: first.state == "IO wait")
    assert stats(one) == 1
    pair[1].send(b"x")
    first.join(timeout=20)
    pair[0].recv(1)
    hold, _ = on_its_own_worker(goloop.Chan().recv)  # `one`, maybe
    second, other = on_its_own_worker(desc.wait_read)
    until(lambda: second.state == "IO wait")
    assert stats(other) == 1 and (other is one or stats(one) == 0)
    pair[1].send(b"x")
    second.join(timeout=20)
    hold.cancel()


def test_used_again_after_the_pool_has_ended(pair, desc):
    for _ in range(2):
        g = goloop.go(desc.wait_read)
        until(lambda: g.state == "IO wait")  # noqa: B023
        pair[1].send(b"x")
        g.join(timeout=20)
        assert pair[0].recv(1) == b"x"
        shutdown.shutdown()


def test_a_thread_waits_on_while_the_pool_ends(pair, desc):
    g = goloop.go(desc.wait_read)
    until(lambda: g.state == "IO wait")
    thread = in_thread(desc.wait_read)
    until(lambda: waiters(desc) == "2 reading, 0 writing")
    shutdown.shutdown()
    with pytest.raises(asyncio.CancelledError):
        g.result()
    until(lambda: waiters(desc) == "1 reading, 0 writing")
    pair[1].send(b"x")
    thread.result(20)


# --------------------------------------------------------------- cancellation
def test_cancelled_and_used_again(pair, desc):
    for _ in range(3):
        g = goloop.go(desc.wait_read)
        until(lambda: g.state == "IO wait")  # noqa: B023
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result(timeout=20)
        assert waiters(desc) == "0 reading, 0 writing"
    g = goloop.go(desc.wait_read)
    pair[1].send(b"x")
    g.join(timeout=20)


# ----------------------------------------------------------------------- close
@IN_BOTH
def test_a_close_wakes_everybody(run, pair, desc):
    a, b = pair
    fill(a)
    before = live_polldescs()
    all_wait = [start(run, wait) for wait in (desc.wait_read, desc.wait_read, desc.wait_write)]
    until(lambda: waiters(desc) == "2 reading, 1 writing")
    desc.close()
    desc.close()
    for waits in all_wait:
        with pytest.raises(ClosedError, match="use of a closed"):
            waits.result(20)
    with pytest.raises(ClosedError):
        start(run, desc.wait_read).result(20)
    with pytest.raises(ClosedError):
        desc.set_read_deadline(1)
    assert desc.closed and desc.fd == -1 and live_polldescs() == before - 1
    assert a.fileno() >= 0  # not its own to close


def test_a_number_used_again_without_a_close(pair, one_worker):
    """Whoever closes a descriptor behind its back gets an error instead of another file's events, on that worker."""
    a, b = pair
    stale = PollDesc(a)
    g = goloop.go(stale.wait_read)
    until(lambda: g.state == "IO wait")
    number = a.fileno()
    c, d = socket.socketpair()
    os.dup2(c.fileno(), number)
    fresh = PollDesc(number)
    waits = goloop.go(fresh.wait_read)
    with pytest.raises(ClosedError):
        g.result(timeout=20)
    d.send(b"x")
    waits.join(timeout=20)
    fresh.close()
    c.close()
    d.close()


# ------------------------------------------------------------------- deadlines
@IN_BOTH
def test_a_deadline_is_there_until_it_is_set_again(run, pair, desc):
    desc.set_read_deadline(0.02)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="deadline"):
            start(run, desc.wait_read).result(20)
    start(run, desc.wait_write).result(20)  # has its own
    pair[1].send(b"x")
    with pytest.raises(TimeoutError):
        start(run, desc.wait_read).result(20)
    desc.set_read_deadline(None)
    start(run, desc.wait_read).result(20)


@IN_BOTH
def test_a_deadline_set_while_somebody_waits(run, desc):
    waits = start(run, desc.wait_read)
    until(lambda: waiters(desc) == "1 reading, 0 writing")
    desc.set_read_deadline(0)
    with pytest.raises(TimeoutError):
        waits.result(20)


@IN_BOTH
def test_a_deadline_that_moves_away(run, pair, desc):
    desc.set_read_deadline(60)
    waits = start(run, desc.wait_read)
    until(lambda: waiters(desc) == "1 reading, 0 writing")
    desc.set_read_deadline(0.5)  # brings the alarm forward: it looks again, and waits
    until(lambda: waiters(desc) == "1 reading, 0 writing")
    desc.set_read_deadline(60)  # and leaves it behind
    with stream_pair() as (other, _), contextlib.closing(PollDesc(other)) as later:
        with pytest.raises(TimeoutError):
            start(run, later.wait_read, 0.5).result(20)  # the time at which the alarm was to go off is over
    pair[1].send(b"x")
    waits.result(20)
    pair[0].recv(1)
    waits = start(run, desc.wait_read)
    until(lambda: waiters(desc) == "1 reading, 0 writing")
    desc.set_read_deadline(0.01)
    with pytest.raises(TimeoutError):
        waits.result(20)


def test_a_deadline_of_one_who_waits_on_another_worker(desc):
    first, _ = on_its_own_worker(desc.wait_read)
    until(lambda: first.state == "IO wait")
    desc.set_read_deadline(0.05)
    second, _ = on_its_own_worker(desc.wait_read)
    for g in (first, second):
        with pytest.raises(TimeoutError):
            g.result(timeout=20)


def test_a_deadline_costs_no_timer_for_each_wait(pair, desc):
    a, b = pair

    def server():
        for _ in range(100):
            desc.set_read_deadline(30)
            desc.wait_read()
            assert a.recv(10)
        return scheduler.this_worker().loop._stats()["timers"]

    g = goloop.go(server)
    for _ in range(100):
        until(lambda: g.done() or g.state == "IO wait")
        b.send(b"x")
        until(lambda: not select.select([a], [], [], 0)[0])
    assert g.result(timeout=20) <= 2  # the worker's own, and one


@pytest.mark.parametrize("bad", [float("nan"), "1"])
def test_bad_deadlines(desc, bad):
    with pytest.raises((ValueError, TypeError)):
        desc.set_read_deadline(bad)


# ------------------------------------------------------------ where it may wait
def test_in_a_coroutine_it_says_what_to_do(desc):
    async def main():
        desc.wait_read()

    with pytest.raises(RuntimeError, match=r"wait_read\(\) would block the event loop: use add_reader"):
        goloop.run(main())


def test_a_plain_thread_needs_no_worker(pair, desc):
    assert not scheduler.all_workers()
    pair[1].send(b"x")
    desc.wait_read()
    desc.wait_write()
    pair[0].recv(1)
    with pytest.raises(TimeoutError):
        desc.wait_read(0.01)
    assert not scheduler.all_workers()


def test_bad_descriptors():
    for bad in (-1, 1 << 40, "x", None):
        with pytest.raises(ValueError, match=r"Invalid file (descriptor|object)"):
            PollDesc(bad)
    a, b = socket.socketpair()
    number = fcntl.fcntl(a, fcntl.F_DUPFD_CLOEXEC, 1000)  # a worker that starts meanwhile gets the lowest ones
    desc = PollDesc(number)
    os.close(number)
    a.close()
    b.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        goloop.go(desc.wait_read).result(timeout=20)
    desc.close()


def test_in_a_forked_child(pair, desc):
    a, b = pair
    waits = goloop.go(desc.wait_read)
    until(lambda: waits.state == "IO wait")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later: there are other threads
        pid = os.fork()
    if pid == 0:
        try:
            g = goloop.go(desc.wait_read, 20)
            until(lambda: g.state == "IO wait" or g.done())
            b.send(b"child")
            g.join(timeout=20)
            assert a.recv(10) == b"child"
            desc.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    if waits.done():  # the socket is the same one, so the child's byte may have woken it
        waits = goloop.go(desc.wait_read)
    b.send(b"parent")
    waits.join(timeout=20)
    assert a.recv(10) == b"parent"


# ---------------------------------------------------------------------- stress
@pytest.mark.parametrize("seed", range(3))
def test_no_edge_is_lost(seed):
    """Readers that are cancelled, time out and move between workers and threads see every byte."""
    rng = random.Random(seed)
    a, b = socket.socketpair()
    a.setblocking(False)
    desc = PollDesc(a)
    total, got, lock = 600, [], threading.Lock()

    def read(timeout):
        while True:
            try:
                data = a.recv(rng.randint(1, 3))
            except BlockingIOError:
                desc.wait_read(timeout)
                continue
            with lock:
                got.append(data)
            return

    def write():
        for _ in range(total):
            b.send(b"x")
            if rng.random() < 0.2:
                goloop.sleep(rng.random() / 2000)

    writer = goloop.go(write)
    active = []
    end = time.monotonic() + 60
    while sum(map(len, got)) < total:
        assert time.monotonic() < end, f"{sum(map(len, got))} of {total} bytes, {desc!r}"
        while len(active) < 6:
            timeout = rng.choice([None, None, 0.001, 0.01])
            if rng.random() < 0.2:
                active.append(in_thread(read, timeout))
            else:
                active.append(goloop.go(read, timeout))
        for waits in list(active):
            if isinstance(waits, InThread):
                if not waits.thread.is_alive():
                    active.remove(waits)
            elif waits.done():
                active.remove(waits)
            elif rng.random() < 0.1:
                waits.cancel()
        time.sleep(0.0005)
    writer.join()
    desc.close()
    for waits in active:
        try:
            assert waits.result(20) is None  # it took one of the last bytes
        except (ClosedError, asyncio.CancelledError, TimeoutError):
            pass
    a.close()
    b.close()


def test_a_signal_just_before_the_sleep_is_not_lost():
    script = """
import os, random, signal, socket, sys, threading, time
from goloop.core.net.polldesc import PollDesc

class Came(Exception):
    pass

def handler(*_):
    raise Came

def kill():
    while request.acquire() and not over:
        until = time.perf_counter() + random.random() * 60e-6
        while time.perf_counter() < until:
            pass
        if random.random() < 0.5:
            signal.pthread_kill(main, signal.SIGUSR1)
        else:
            os.kill(os.getpid(), signal.SIGUSR1)  # to whichever thread the kernel chooses

signal.signal(signal.SIGUSR1, handler)
sys.setswitchinterval(1e-5)
main, request, over, lost = threading.get_ident(), threading.Semaphore(0), False, 0
here, there = socket.socketpair()
desc = PollDesc(here.fileno())
killer = threading.Thread(target=kill)
killer.start()
for _ in range(1000):
    try:
        request.release()
        desc.wait_read(1)
    except Came:
        pass
    except TimeoutError:
        lost += 1
        try:
            time.sleep(10)
        except Came:
            pass
over = True
request.release()
killer.join()
desc.close()
print(lost)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("0\n", "")
