"""Other threads: callbacks they schedule, coroutines they submit, and the executors that run functions in them."""

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
import warnings

import pytest

from looptools import attempt, attempt_await, turn


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
            for n in range(300):
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
            return attempt(asyncio.run_coroutine_threadsafe(echo(value), loop).result, 30)

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
            return future.cancel(), attempt(future.result)[0]

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
                attempt(asyncio.run_coroutine_threadsafe, coroutine, loop),
                attempt(asyncio.run_coroutine_threadsafe, unused, loop),
            )
        finally:
            unused.close()

    assert both(scenario) == (
        ("TypeError", "A coroutine object is required"),
        ("RuntimeError", "Event loop is closed"),
    )


# Executors


def test_run_in_executor_returns_and_raises(both):
    async def scenario(loop):
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        error = await attempt_await(loop.run_in_executor(None, int, "x"))
        future = loop.run_in_executor(None, int)
        return name.startswith("asyncio_"), error[0], isinstance(future, asyncio.Future), await future

    assert both(scenario) == (True, "ValueError", True, 0)


def test_the_result_wakes_a_sleeping_loop(both):
    async def scenario(loop):
        return [await loop.run_in_executor(None, int, n) for n in range(200)]

    assert both(scenario) == list(range(200))


def test_to_thread_takes_the_context_along_and_run_in_executor_does_not(both):
    async def scenario(loop):
        var = contextvars.ContextVar("var", default="unset")
        var.set("task")
        return await asyncio.to_thread(var.get), await loop.run_in_executor(None, var.get)

    assert both(scenario) == ("task", "unset")


def test_a_given_executor_is_used_and_left_open(both):
    async def scenario(loop):
        with concurrent.futures.ThreadPoolExecutor(1, "given") as pool:
            name = await loop.run_in_executor(pool, lambda: threading.current_thread().name)
            await loop.shutdown_default_executor()
            return name, await loop.run_in_executor(pool, int)

    assert both(scenario) == ("given_0", 0)


def test_cancelling_keeps_queued_work_from_running(both):
    async def scenario(loop):
        release, seen = threading.Event(), []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = loop.run_in_executor(pool, release.wait)
            queued = loop.run_in_executor(pool, seen.append, "queued")
            queued.cancel()
            outcome = await attempt_await(queued)
            release.set()
            return outcome, await first, seen

    assert both(scenario) == (("CancelledError", ""), True, [])


@pytest.mark.parametrize("debug", [False, True])
def test_what_cannot_run_in_an_executor(both, debug):
    async def scenario(loop):
        async def coroutine_function():
            pass

        def submit(function):
            return attempt(loop.run_in_executor, None, function)

        outcomes = [submit(1)]
        if debug:
            outcomes.append(submit(coroutine_function))
        return [outcome if isinstance(outcome, tuple) else await attempt_await(outcome) for outcome in outcomes]

    assert [kind for kind, text in both(scenario, debug=debug)] == ["TypeError"] * (2 if debug else 1)


def test_the_default_executor_can_be_set(both):
    async def scenario(loop):
        pool = concurrent.futures.ThreadPoolExecutor(1, "default")
        loop.set_default_executor(pool)
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        await loop.shutdown_default_executor()
        return name, attempt(pool.submit, int)[0]

    assert both(scenario) == ("default_0", "RuntimeError")


@pytest.mark.parametrize(
    "executor", [None, object(), concurrent.futures.Executor()], ids=["None", "object", "Executor"]
)
def test_the_default_executor_must_be_a_thread_pool(both, executor):
    def scenario(loop):
        return attempt(loop.set_default_executor, executor)

    assert both(scenario) == ("TypeError", "executor must be ThreadPoolExecutor instance")


def test_shutdown_default_executor_waits_off_the_loop(both):
    async def scenario(loop):
        release, seen = threading.Event(), []

        def work():
            release.wait()
            seen.append("work done")

        future = loop.run_in_executor(None, work)
        loop.call_later(0.001, release.set)
        await loop.shutdown_default_executor()
        seen.append("shut down")
        await future
        return seen

    assert both(scenario) == ["work done", "shut down"]


def test_run_in_executor_after_the_shutdown_is_an_error(both):
    async def scenario(loop):
        await loop.shutdown_default_executor()
        await loop.shutdown_default_executor()
        return attempt(loop.run_in_executor, None, int)

    assert both(scenario) == ("RuntimeError", "Executor shutdown has been called")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="shutdown_default_executor(timeout) is new in Python 3.12")
def test_shutdown_default_executor_gives_up_with_a_warning(both):
    async def scenario(loop):
        release, shown = threading.Event(), []

        def show(message, category, *args):
            shown.append((category.__name__, str(message)))
            release.set()  # here, for Python 3.12 joins the executor's threads after the warning

        future = loop.run_in_executor(None, release.wait)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            await loop.shutdown_default_executor(timeout=0.01)
        return shown, await future

    ((kind, text),), result = both(scenario)
    assert kind == "RuntimeWarning" and text.endswith("its threads within 0.01 seconds.")
    assert result is True


@pytest.mark.skipif(sys.version_info < (3, 12), reason="shutdown_default_executor(timeout) is new in Python 3.12")
def test_shutdown_default_executor_in_time_does_not_warn(both):
    async def scenario(loop):
        done = await loop.run_in_executor(None, int)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await loop.shutdown_default_executor(timeout=30)
        return done, [str(warning.message) for warning in caught]

    assert both(scenario) == (0, [])


def test_closing_the_loop_shuts_its_executor_without_waiting(both):
    def scenario(loop):
        pool, release = concurrent.futures.ThreadPoolExecutor(1), threading.Event()
        loop.set_default_executor(pool)
        running = pool.submit(release.wait)
        loop.close()
        outcome = running.done(), attempt(pool.submit, int)[0]
        release.set()
        return outcome, running.result()

    assert both(scenario) == ((False, "RuntimeError"), True)
