"""asyncio.Runner with the loop's class as its loop_factory: runs, contexts, debug mode, what close sees to."""

import asyncio
import contextvars
import os
import sys
import threading

import pytest

from tests.helpers.outcomes import logged, outcome_of

var = contextvars.ContextVar("var", default="unset")


async def answer(value="answer"):
    return value


def test_a_runner_runs_coroutines_on_one_loop(both):
    def scenario(loop):
        async def which():
            return asyncio.get_running_loop()

        with asyncio.Runner(loop_factory=type(loop)) as runner:
            first, second, own = runner.run(which()), runner.run(which()), runner.get_loop()
        return first is second is own, type(first) is type(loop), first.is_closed()

    assert both(scenario) == (True, True, True)


def test_a_runner_keeps_its_context(both):
    def scenario(loop):
        async def change(value):
            before = var.get()
            var.set(value)
            return before

        with asyncio.Runner(loop_factory=type(loop)) as runner:
            inside = [runner.run(change("one")), runner.run(change("two"))]
            given = contextvars.Context()
            given.run(var.set, "given")
            inside.append(runner.run(change("three"), context=given))
        return inside, given[var], var.get()

    assert both(scenario) == (["unset", "one", "given"], "three", "unset")


@pytest.mark.parametrize("debug", [None, True, False])
def test_a_runner_sets_debug_mode(both, debug):
    def scenario(loop):
        async def look():
            return asyncio.get_running_loop().get_debug()

        with asyncio.Runner(debug=debug, loop_factory=type(loop)) as runner:
            return runner.run(look())

    default = sys.flags.dev_mode or bool(os.environ.get("PYTHONASYNCIODEBUG"))
    assert both(scenario) is (default if debug is None else debug)


def test_a_runner_is_refused_inside_a_running_loop(both):
    async def scenario(loop):
        coroutine = answer()
        outcome = outcome_of(asyncio.Runner(loop_factory=type(loop)).run, coroutine)
        coroutine.close()
        return outcome

    assert both(scenario) == ("RuntimeError", "Runner.run() cannot be called from a running event loop")


def test_a_closed_runner_is_refused(both):
    def scenario(loop):
        runner = asyncio.Runner(loop_factory=type(loop))
        first = runner.run(answer())
        runner.close()
        runner.close()
        coroutine = answer()
        outcome = outcome_of(runner.run, coroutine)
        coroutine.close()
        return first, outcome

    assert both(scenario) == ("answer", ("RuntimeError", "Runner is closed"))


def test_close_cancels_the_tasks_that_are_left(both):
    def scenario(loop):
        seen = []

        async def linger(n):
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0)
                seen.append(n)

        async def main():
            held.extend(asyncio.create_task(linger(n)) for n in range(3))
            await asyncio.sleep(0)
            return "main"

        held = []
        with asyncio.Runner(loop_factory=type(loop)) as runner:
            result = runner.run(main())
        return result, sorted(seen), [task.cancelled() for task in held]

    assert both(scenario) == ("main", [0, 1, 2], [True] * 3)


def test_close_reports_the_errors_of_tasks_that_are_left(both):
    def scenario(loop):
        async def linger():
            try:
                await asyncio.sleep(3600)
            finally:
                raise ValueError("lingering")

        async def main():
            held.append(asyncio.create_task(linger()))
            await asyncio.sleep(0)

        held = []
        with logged() as lines, asyncio.Runner(loop_factory=type(loop)) as runner:
            runner.run(main())
        return lines

    assert both(scenario) == [("ERROR", "unhandled exception during asyncio.run() shutdown")]


def test_close_waits_for_the_executor(both):
    def scenario(loop):
        seen, release = [], threading.Event()

        def work():
            release.wait()
            seen.append("work")

        async def main():
            asyncio.get_running_loop().run_in_executor(None, work)
            release.set()

        with asyncio.Runner(loop_factory=type(loop)) as runner:
            runner.run(main())
        return seen

    assert both(scenario) == ["work"]


def test_errors_and_exits_leave_through_the_runner(both):
    def scenario(loop):
        async def fail(error):
            raise error

        seen = []
        for error in (ValueError("text"), SystemExit(3), KeyboardInterrupt()):
            runner = asyncio.Runner(loop_factory=type(loop))
            try:
                runner.run(fail(error))
            except BaseException as exc:
                seen.append(exc is error)
            own = runner.get_loop()
            runner.close()
            seen.append(own.is_closed())
        return seen

    assert both(scenario) == [True] * 6


def test_a_runner_works_in_another_thread(both):
    def scenario(loop):
        seen = []

        def work():
            with asyncio.Runner(loop_factory=type(loop)) as runner:
                seen.append(runner.run(asyncio.sleep(0.001, "slept")))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return seen

    assert both(scenario) == ["slept"]
