"""run_in_executor, and the default executor: set, shut down, given up on."""

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
import warnings

import pytest

from tests.helpers.outcomes import async_outcome_of, outcome_of


def test_run_in_executor_returns_and_raises(both):
    async def scenario(loop):
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        error = await async_outcome_of(loop.run_in_executor(None, int, "x"))
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
            outcome = await async_outcome_of(queued)
            await asyncio.sleep(0)  # the pool hears of it in a callback
            release.set()
            return outcome, await first, seen

    assert both(scenario) == (("CancelledError", ""), True, [])


@pytest.mark.parametrize("debug", [False, True])
def test_an_executor_refuses_coroutines_and_what_cannot_be_called(both, debug):
    async def scenario(loop):
        async def coroutine_function():
            pass

        def submit(function):
            return outcome_of(loop.run_in_executor, None, function)

        outcomes = [submit(1)]
        if debug:
            outcomes.append(submit(coroutine_function))
        return [outcome if isinstance(outcome, tuple) else await async_outcome_of(outcome) for outcome in outcomes]

    assert [kind for kind, text in both(scenario, debug=debug)] == ["TypeError"] * (2 if debug else 1)


def test_the_default_executor_can_be_set(both):
    async def scenario(loop):
        pool = concurrent.futures.ThreadPoolExecutor(1, "default")
        loop.set_default_executor(pool)
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        await loop.shutdown_default_executor()
        return name, outcome_of(pool.submit, int)[0]

    assert both(scenario) == ("default_0", "RuntimeError")


@pytest.mark.parametrize(
    "executor", [None, object(), concurrent.futures.Executor()], ids=["None", "object", "Executor"]
)
def test_the_default_executor_must_be_a_thread_pool(both, executor):
    def scenario(loop):
        return outcome_of(loop.set_default_executor, executor)

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
        return outcome_of(loop.run_in_executor, None, int)

    assert both(scenario) == ("RuntimeError", "Executor shutdown has been called")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="early releases of Python 3.12 wait without a timeout")
def test_shutdown_default_executor_gives_up_with_a_warning(both):
    async def scenario(loop):
        release, shown = threading.Event(), []

        def show(message, category, *args):
            shown.append((category.__name__, str(message)))
            release.set()

        future = loop.run_in_executor(None, release.wait)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            await loop.shutdown_default_executor(timeout=0.01)
        return shown, await future

    ((kind, text),), result = both(scenario)
    assert kind == "RuntimeWarning"
    assert text.endswith("its threads within 0.01 seconds.")
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
        outcome = running.done(), outcome_of(pool.submit, int)[0]
        release.set()
        return outcome, running.result()

    assert both(scenario) == ((False, "RuntimeError"), True)
