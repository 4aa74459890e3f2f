"""The patched clocks and sleeps in a bubble of goloop.testing, and outside of one."""

import asyncio
import queue
import select
import socket
import threading
import time

import pytest

import goloop
from goloop.testing import bubble, run
from tests.monkey import before


def test_time_sleep_and_the_clocks_follow_a_bubble():
    with bubble(start=1000) as loop:
        assert (time.time(), time.monotonic(), time.perf_counter()) == (1000, 1, 1)
        time.sleep(3600)
        before.sleep(0.5)
        assert (time.time(), time.monotonic(), time.perf_counter()) == (4600.5, 3601.5, 3601.5)
        assert (time.time_ns(), time.monotonic_ns()) == (4_600_500_000_000, 3_601_500_000_000)
        assert time.perf_counter_ns() == 3_601_500_000_000
        assert loop.time() == 3601.5


def test_a_coroutine_that_calls_time_sleep_keeps_the_others_waiting_for_that_time():
    order = []

    async def other():
        await asyncio.sleep(1)
        order.append(("other", asyncio.get_running_loop().time()))

    async def main():
        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        time.sleep(10)
        order.append(("main", time.monotonic()))
        await task

    run(main)
    assert order == [("main", 11), ("other", 11)]


def test_timeouts_of_the_standard_library_s_queues_and_locks_take_no_time():
    with bubble() as loop:
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=100)
        assert threading.Lock().acquire(timeout=1)
        assert not threading.Event().wait(50)
        assert loop.time() == pytest.approx(151)


def test_a_queue_carries_values_between_goroutines_of_a_bubble():
    with bubble():
        values = queue.Queue(1)
        producer = goloop.go(lambda: [values.put(n) for n in range(5)])
        assert [values.get() for _ in range(5)] == list(range(5))
        producer.join()


def test_real_io_in_a_bubble_is_an_error_that_says_so():
    ours, theirs = socket.socketpair()
    with ours, theirs, bubble():
        for call in (
            lambda: socket.getaddrinfo("localhost", 80),
            lambda: ours.recv(1),
            lambda: select.select([ours], [], [], 1),
        ):
            with pytest.raises(RuntimeError, match="not possible in a bubble"):
                call()


def test_outside_of_a_bubble_the_clocks_are_the_process_s():
    with bubble():
        pass
    begun = time.monotonic()
    with bubble():
        done = []

        def look():
            done.append((time.monotonic() - begun < 1000, time.time() > 1.7e9))

        thread = threading.Thread(target=look)
        thread.start()
        while thread.is_alive():
            goloop.gosched()
        time.sleep(10_000)
    assert done == [(True, True)]
    assert 0 <= time.monotonic() - begun < 1000


def test_a_lock_of_the_standard_library_goes_to_any_waiter_with_a_seed():
    def order(seed):
        got = []
        with bubble(seed):
            lock = threading.Lock()
            lock.acquire()

            def take(n):
                goloop.sleep(n)  # so that they wait in this order
                with lock:
                    got.append(n)

            for n in range(3):
                goloop.go(take, n)
            goloop.sleep(10)
            lock.release()
        return tuple(got)

    assert order(None) == (0, 1, 2)
    assert len({order(seed) for seed in range(100)}) > 2
