"""Handoff: stop, shutdown, failures, signals and forks while callbacks are stuck."""

import asyncio
import os
import signal
import threading
import time
import warnings

import pytest

import goloop
from tests.helpers.handoffs import on_main, run
from tests.helpers.waiting import SECONDS, async_until, polled


def test_stop_while_home_is_stuck():
    event = threading.Event()
    loop = goloop.Loop(handoff=True)
    order = []

    def blocks():
        event.wait(SECONDS)
        order.append("ends")

    def stops():
        loop.stop()
        order.append("stopped")
        loop.call_soon(order.append, "too late")
        timer.start()

    timer = threading.Timer(0.05, event.set)
    loop.call_soon(blocks)
    loop.call_soon(stops)
    loop.run_forever()
    assert order == ["stopped", "ends"]
    timer.join()
    loop.close()


def test_a_run_that_ends_waits_for_those_that_are_stuck():
    barrier = threading.Barrier(2)
    ended = []

    async def blocks():
        barrier.wait(SECONDS)
        time.sleep(0.05)
        ended.append(threading.current_thread().name)

    async def main():
        # Two are stuck, so that one is on a substitute; and home is back first.
        tasks = [asyncio.create_task(blocks()) for _ in range(2)]
        await async_until(lambda: ended)
        return tasks

    loop = goloop.Loop(handoff=True)
    loop.run_until_complete(main())
    assert len(ended) == 2
    loop.close()


def test_a_run_that_ends_does_not_wait_for_ever(caplog):
    event = threading.Event()
    loop = goloop.Loop(handoff=True)
    loop._ownership.drain_timeout = 0.05
    ended = []

    async def blocks_at_home():
        first.wait(SECONDS)

    async def blocks():
        event.wait(SECONDS)
        ended.append(asyncio.current_task() is task)

    async def main():
        nonlocal task
        home = asyncio.create_task(blocks_at_home())
        task = asyncio.create_task(blocks())
        await async_until(lambda: loop._stats()["handoffs"] == 2)
        first.set()
        await home

    first, task = threading.Event(), None
    loop.run_until_complete(main())
    assert "is stuck in a blocking call" in caplog.text and "event.wait(SECONDS)" in caplog.text
    assert loop._stats()["away"] == 1
    event.set()
    time.sleep(0.02)
    assert ended == []  # the loop does not run, so that nobody may run callbacks
    loop.run_until_complete(task)
    assert ended == [True]
    loop.close()


def test_a_loop_closed_while_a_callback_is_stuck():
    event, first = threading.Event(), threading.Event()
    loop = goloop.Loop(handoff=True)
    loop._ownership.drain_timeout = 0.05
    errors = []

    def blocks():
        event.wait(SECONDS)
        try:
            loop.call_soon(print)
        except RuntimeError as exc:
            errors.append(str(exc))

    async def main():
        loop.call_soon(lambda: first.wait(SECONDS))
        loop.call_soon(blocks)
        await async_until(lambda: loop._stats()["handoffs"] == 2)
        first.set()

    loop.run_until_complete(main())
    loop.close()
    event.set()
    while not errors:
        time.sleep(0.001)
    assert errors == ["Event loop is closed"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_run_forever_raises_also_an_exit_that_happened_on_a_substitute(error):
    event = threading.Event()
    loop = goloop.Loop(handoff=True)

    def raises():
        event.set()
        raise error("from a substitute")

    loop.call_soon(lambda: event.wait(SECONDS))
    loop.call_soon(raises)
    with pytest.raises(error, match="from a substitute"):
        loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_ctrl_c_while_home_is_stuck():
    event = threading.Event()
    cancelled = []

    async def blocks():
        event.wait(SECONDS)

    async def main():
        task = asyncio.create_task(blocks())
        await async_until(lambda: not on_main())
        os.kill(os.getpid(), signal.SIGINT)  # its handler, which cancels us, runs in the thread that is stuck
        try:
            await asyncio.sleep(SECONDS)
        except asyncio.CancelledError:
            cancelled.append(True)
            event.set()
            await task
            raise

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cancelled == [True]


def test_ctrl_c_without_a_handler_interrupts_the_call():
    loop = goloop.Loop(handoff=True)

    def interrupts():
        os.kill(os.getpid(), signal.SIGINT)

    loop.call_soon(lambda: threading.Event().wait(SECONDS))
    loop.call_soon(interrupts)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.close()


def test_signal_handlers_of_the_loop_run_while_home_is_stuck():
    event = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, event.set)
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        assert event.wait(SECONDS)

    run(main())


def test_each_of_many_signals_is_handled_while_home_is_stuck():
    event, seen = threading.Event(), []

    def handler():
        seen.append(None)
        if len(seen) == 1000:
            event.set()

    def sends():
        for _ in range(1000):
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # not to the main thread, which may be late

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, handler)
        thread = threading.Thread(target=sends)
        thread.start()
        assert event.wait(SECONDS)
        thread.join()
        await polled()

    run(main())
    assert len(seen) == 1000


def test_a_fork_while_callbacks_are_stuck():
    event = threading.Event()

    async def blocks():
        event.wait(SECONDS)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.events._set_running_loop(None)
                child = threading.Event()

                async def in_child():
                    asyncio.get_running_loop().call_soon(child.set)
                    return child.wait(10)

                os.write(write, b"yes" if run(in_child()) else b"no")
            finally:
                os._exit(0)
        os.close(write)
        got = os.read(read, 10)
        os.close(read)
        os.waitpid(pid, 0)
        event.set()
        await task
        return got

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: other threads exist
        assert run(main()) == b"yes"
