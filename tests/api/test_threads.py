"""Other threads: the callbacks they schedule, the coroutines they submit, the loops they run."""

import asyncio
import contextvars
import sys
import threading

import pytest

from tests.helpers.outcomes import outcome_of
from tests.helpers.waiting import turn


@pytest.fixture
def busy_switching():
    """Let threads take turns often, so that a race has a chance in every round."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


# call_soon_threadsafe


def test_nothing_is_lost_and_each_threads_order_is_kept(both):
    async def scenario(loop):
        seen = {name: [] for name in range(4)}
        start = threading.Barrier(4)

        def produce(name):
            start.wait()
            for n in range(10_000):
                loop.call_soon_threadsafe(seen[name].append, n)

        threads = [in_thread(produce, name) for name in seen]
        for thread in threads:
            await loop.run_in_executor(None, thread.join)
        await asyncio.sleep(0)
        return [numbers == list(range(10_000)) for numbers in seen.values()]

    assert both(scenario) == [True] * 4


def test_a_sleeping_loop_is_woken_each_time(both):
    def scenario(loop):
        ran = threading.Event()
        woken = []

        def knock():
            for _n in range(300):
                loop.call_soon_threadsafe(ran.set)
                woken.append(ran.wait(30))
                ran.clear()
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=knock)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
        return len(woken), all(woken)

    assert both(scenario) == (300, True)


def test_two_loops_wake_each_other(both):
    def scenario(loop):
        other = type(loop)()
        thread = in_thread(other.run_forever)
        count = 0

        def ping():
            nonlocal count
            count += 1
            if count < 500:
                other.call_soon_threadsafe(loop.call_soon_threadsafe, ping)
            else:
                loop.stop()

        loop.call_soon(ping)
        loop.run_forever()
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()
        return count

    assert both(scenario) == 500


def test_nothing_is_lost_while_the_loop_starts_and_stops(both, busy_switching):
    def scenario(loop):
        seen = []

        def produce():
            for n in range(10_000):
                loop.call_soon_threadsafe(seen.append, n)

        thread = in_thread(produce)
        while thread.is_alive():
            loop.run_until_complete(asyncio.sleep(0))
        thread.join()
        turn(loop)
        return seen == list(range(10_000))

    assert both(scenario) is True


def test_a_loop_that_closes_refuses_and_never_runs_out_of_order(both, busy_switching):
    def race(loop_class):
        loop, seen, errors = loop_class(), [], []
        scheduled = threading.Event()

        def produce():
            n = 0
            try:
                while True:
                    loop.call_soon_threadsafe(seen.append, n)
                    scheduled.set()
                    n += 1
            except Exception as exc:
                errors.append((type(exc).__name__, str(exc)))

        thread = in_thread(produce)
        scheduled.wait()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        thread.join()
        return seen == list(range(len(seen))), len(seen) > 0, *errors

    def scenario(loop):
        return {race(type(loop)) for _ in range(60)}

    assert both(scenario) == {(True, True, ("RuntimeError", "Event loop is closed"))}


def test_it_returns_a_handle_that_cancels(both):
    def scenario(loop):
        seen = []
        handle = loop.call_soon_threadsafe(seen.append, "cancelled")
        loop.call_soon_threadsafe(seen.append, "other")
        handle.cancel()
        turn(loop)
        return seen, handle.cancelled()

    assert both(scenario) == (["other"], True)


def test_a_threads_callback_runs_in_the_threads_context(both):
    def scenario(loop):
        var, seen = contextvars.ContextVar("var", default="unset"), []

        def schedule():
            var.set("thread")
            loop.call_soon_threadsafe(lambda: seen.append(var.get()))

        in_thread(schedule).join()
        turn(loop)
        return seen, var.get()

    assert both(scenario) == (["thread"], "unset")


def test_a_loop_runs_in_any_thread(both):
    def scenario(loop):
        seen = []

        async def main():
            await asyncio.sleep(0.001)
            return threading.current_thread().name

        thread = threading.Thread(target=lambda: seen.append(loop.run_until_complete(main())), name="elsewhere")
        thread.start()
        thread.join()
        return seen, loop.run_until_complete(main())

    assert both(scenario) == (["elsewhere"], "MainThread")


# run_coroutine_threadsafe


def test_run_coroutine_threadsafe_brings_results_and_errors(both):
    async def scenario(loop):
        async def echo(value):
            await asyncio.sleep(0)
            if isinstance(value, Exception):
                raise value
            return value

        def submit(value):
            return outcome_of(asyncio.run_coroutine_threadsafe(echo(value), loop).result, 30)

        return [await loop.run_in_executor(None, submit, value) for value in ("value", ValueError("error"))]

    assert both(scenario) == ["value", ("ValueError", "error")]


def test_cancelling_the_threads_future_cancels_the_task(both):
    async def scenario(loop):
        started, cancelled = threading.Event(), loop.create_future()

        async def sleep():
            started.set()
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                cancelled.set_result("cancelled")
                raise

        def submit():
            future = asyncio.run_coroutine_threadsafe(sleep(), loop)
            started.wait()
            return future.cancel(), outcome_of(future.result)[0]

        return await loop.run_in_executor(None, submit), await cancelled

    assert both(scenario) == ((True, "CancelledError"), "cancelled")


def test_run_coroutine_threadsafe_wants_a_coroutine_and_an_open_loop(both):
    def scenario(loop):
        async def coroutine():
            pass

        loop.close()
        unused = coroutine()
        try:
            return (
                outcome_of(asyncio.run_coroutine_threadsafe, coroutine, loop),
                outcome_of(asyncio.run_coroutine_threadsafe, unused, loop),
            )
        finally:
            unused.close()

    assert both(scenario) == (
        ("TypeError", "A coroutine object is required"),
        ("RuntimeError", "Event loop is closed"),
    )
