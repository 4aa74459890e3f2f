"""The life of a loop: run_until_complete, run_forever, close, what it warns of."""

import asyncio
import functools
import gc
import inspect
import os
import sys
import threading
import warnings
import weakref

import pytest

from tests.helpers.outcomes import outcome_of
from tests.helpers.scripts import run_loop_script
from tests.helpers.waiting import turn


def noop(*args):
    pass


async def answer(value="answer"):
    return value


def caught_warnings(function):
    """Call, collect garbage, and return the warnings as ``(category name, text)``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
        gc.collect()
    return [(warning.category.__name__, str(warning.message)) for warning in caught]


# run_until_complete


def test_it_returns_and_raises_what_the_coroutine_does(both):
    def scenario(loop):
        async def fail():
            await asyncio.sleep(0)
            raise ValueError("text")

        return loop.run_until_complete(answer()), outcome_of(loop.run_until_complete, fail())

    assert both(scenario) == ("answer", ("ValueError", "text"))


def test_it_takes_futures_and_awaitables(both):
    class Awaitable:
        def __await__(self):
            yield
            return "awaited"

    def scenario(loop):
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        return loop.run_until_complete(future), loop.run_until_complete(future), loop.run_until_complete(Awaitable())

    assert both(scenario) == ("future", "future", "awaited")


def test_it_takes_nothing_else(both):
    def scenario(loop):
        return outcome_of(loop.run_until_complete, 1), outcome_of(loop.run_until_complete, answer)

    assert [kind for kind, text in both(scenario)] == ["TypeError", "TypeError"]


def test_a_cancelled_task_raises(both):
    def scenario(loop):
        task = loop.create_task(asyncio.sleep(3600))
        loop.call_soon(task.cancel)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            return "cancelled"

    assert both(scenario) == "cancelled"


def test_a_loop_stopped_too_early_is_an_error(both):
    def scenario(loop):
        future = loop.create_future()
        loop.call_soon(loop.stop)
        return outcome_of(loop.run_until_complete, future), future.done()

    assert both(scenario) == (("RuntimeError", "Event loop stopped before Future completed."), False)


def test_a_future_of_another_loop_is_refused(both):
    def scenario(loop):
        other = type(loop)()
        try:
            return outcome_of(loop.run_until_complete, other.create_future())[0]
        finally:
            other.close()

    assert both(scenario) == "ValueError"


@pytest.mark.parametrize("sleeps", [0, 1, 5])
def test_it_runs_no_more_iterations_than_asyncio(both, sleeps):
    def scenario(loop):
        ticks = 0

        def tick():
            nonlocal ticks
            ticks += 1
            loop.call_soon(tick)

        async def main():
            for _ in range(sleeps):
                await asyncio.sleep(0)

        loop.call_soon(tick)
        loop.run_until_complete(main())
        return int(ticks)

    assert both(scenario) == sleeps + 2


def test_nested_it_is_refused_and_the_coroutine_left_unawaited(both):
    async def scenario(loop):
        coroutine = answer()
        outcome = outcome_of(loop.run_until_complete, coroutine)
        state = inspect.getcoroutinestate(coroutine)
        coroutine.close()
        return outcome, state, loop.is_running()

    running = ("RuntimeError", "This event loop is already running")
    assert both(scenario) == (running, "CORO_CREATED", True)


def test_nested_run_forever_is_refused(both):
    """asyncio of Python 3.13.0 takes itself for stopped after this, so the state is not compared."""

    def scenario(loop):
        other, seen = type(loop)(), []
        loop.call_soon(lambda: seen.append(outcome_of(loop.run_forever)))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_soon(lambda: seen.append(outcome_of(other.run_forever)))
        loop.call_soon(loop.stop)
        loop.run_forever()
        other.close()
        return seen

    assert both(scenario) == [
        ("RuntimeError", "This event loop is already running"),
        ("RuntimeError", "Cannot run the event loop while another loop is running"),
    ]


def test_another_loop_is_refused_while_one_runs(both):
    async def scenario(loop):
        other, coroutine = type(loop)(), answer()
        outcome = outcome_of(other.run_until_complete, coroutine), other.is_running(), loop.is_running()
        coroutine.close()
        other.close()
        return outcome

    running = ("RuntimeError", "Cannot run the event loop while another loop is running")
    assert both(scenario) == (running, False, True)


def test_a_coroutine_refused_is_warned_of(both):
    async def scenario(loop):
        return caught_warnings(lambda: outcome_of(loop.run_until_complete, answer()))

    assert both(scenario) == [("RuntimeWarning", "coroutine 'answer' was never awaited")]


def test_after_an_exit_its_callback_does_not_stop_the_next_run(both):
    def scenario(loop):
        async def leave():
            sys.exit(3)

        seen = []
        try:
            loop.run_until_complete(leave())
        except SystemExit as exc:
            seen.append(exc.code)

        def last():
            seen.append("last")
            loop.stop()

        loop.call_soon(loop.call_soon, last)
        loop.run_forever()
        return seen

    assert both(scenario) == [3, "last"]


def test_an_exit_leaves_a_given_future_alone(both):
    def scenario(loop):
        future, seen = loop.create_future(), []
        loop.call_soon(sys.exit)
        try:
            loop.run_until_complete(future)
        except SystemExit:
            seen.append("exit")
        future.set_result(None)
        loop.call_soon(loop.call_soon, seen.append, "two iterations on")
        loop.call_soon(loop.call_soon, loop.stop)
        loop.run_forever()
        return seen

    assert both(scenario) == ["exit", "two iterations on"]


# run_forever and the state of the loop


def test_a_loop_runs_again_and_again(both):
    def scenario(loop):
        seen = []
        for n in range(3):
            loop.call_soon(seen.append, n)
            turn(loop)
        return seen, loop.run_until_complete(answer()), loop.is_closed()

    assert both(scenario) == ([0, 1, 2], "answer", False)


def test_is_running_and_the_running_loop(both):
    def scenario(loop):
        def look():
            seen.append((loop.is_running(), asyncio.get_running_loop() is loop, asyncio.get_event_loop() is loop))

        seen = [(loop.is_running(), outcome_of(asyncio.get_running_loop)[0])]
        loop.call_soon(look)
        turn(loop)
        return seen, loop.is_running(), outcome_of(asyncio.get_running_loop)[0]

    assert both(scenario) == ([(False, "RuntimeError"), (True, True, True)], False, "RuntimeError")


def test_the_repr_tells_the_state(both):
    def scenario(loop):
        seen = []
        name = type(loop).__name__
        loop.call_soon(lambda: seen.append(repr(loop).replace(name, "Loop")))
        seen.append(repr(loop).replace(name, "Loop"))
        turn(loop)
        loop.set_debug(True)
        loop.close()
        return [*seen, repr(loop).replace(name, "Loop")]

    assert both(scenario) == [
        "<Loop running=False closed=False debug=False>",
        "<Loop running=True closed=False debug=False>",
        "<Loop running=False closed=True debug=True>",
    ]


def test_loops_hash_compare_and_take_weak_references(both):
    def scenario(loop):
        other = type(loop)()
        other.close()
        outcome = loop == loop, loop == other, len({loop, other}), isinstance(loop, asyncio.AbstractEventLoop)
        ref = weakref.ref(other)
        del other
        gc.collect()
        return outcome, ref() is None

    assert both(scenario) == ((True, False, 2, True), True)


# close


def test_close_twice_is_harmless(both):
    def scenario(loop):
        states = [loop.is_closed()]
        for _ in range(2):
            loop.close()
            states.append(loop.is_closed())
        return states

    assert both(scenario) == [False, True, True]


def test_a_running_loop_cannot_be_closed(both):
    async def scenario(loop):
        return outcome_of(loop.close), loop.is_closed(), loop.is_running()

    assert both(scenario) == (("RuntimeError", "Cannot close a running event loop"), False, True)


def test_a_closed_loop_refuses_work(both):
    def scenario(loop):
        loop.close()
        coroutine = answer()
        try:
            return [
                outcome_of(loop.call_soon, noop),
                outcome_of(loop.call_soon_threadsafe, noop),
                outcome_of(loop.call_later, 1, noop),
                outcome_of(loop.call_at, 1, noop),
                outcome_of(loop.run_in_executor, None, noop),
                outcome_of(loop.run_forever),
                outcome_of(loop.run_until_complete, coroutine),
                outcome_of(loop.create_task, coroutine),
            ]
        finally:
            coroutine.close()

    assert both(scenario) == [("RuntimeError", "Event loop is closed")] * 8


def test_a_closed_loop_answers_questions(both):
    def scenario(loop):
        loop.close()
        loop.stop()
        return loop.is_running(), loop.get_debug(), type(loop.time()), loop.create_future().done()

    assert both(scenario) == (False, False, float, False)


def test_close_drops_what_was_scheduled(both):
    def scenario(loop):
        things = [functools.partial(noop) for _ in range(3)]
        refs = [weakref.ref(thing) for thing in things]
        seen = []
        loop.call_soon(seen.append, things.pop())
        loop.call_later(3600, seen.append, things.pop())
        loop.call_soon_threadsafe(seen.append, things.pop())
        loop.close()
        gc.collect()
        return seen, [ref() is None for ref in refs]

    assert both(scenario) == ([], [True] * 3)


def test_an_unclosed_loop_is_warned_of_and_closed(both):
    def scenario(loop):
        def forget():
            other = type(loop)()
            other.set_debug(False)
            fds.append(len(os.listdir("/proc/self/fd")))
            turn(other)

        fds = []
        before = len(os.listdir("/proc/self/fd"))
        ((category, text),) = caught_warnings(forget)
        closed = len(os.listdir("/proc/self/fd")) == before and fds[0] > before
        return category, text.replace(type(loop).__name__, "Loop"), closed

    expected = "unclosed event loop <Loop running=False closed=False debug=False>"
    assert both(scenario) == ("ResourceWarning", expected, True)


def test_a_closed_loop_is_not_warned_of(both):
    def scenario(loop):
        return caught_warnings(lambda: type(loop)().close())

    assert both(scenario) == []


def test_many_loops_come_and_go(both):
    def scenario(loop):
        before = len(os.listdir("/proc/self/fd"))
        for n in range(100):
            other = type(loop)()
            assert other.run_until_complete(answer(n)) == n
            other.close()
        return len(os.listdir("/proc/self/fd")) - before

    assert both(scenario) == 0


def test_loops_run_side_by_side_in_threads(both):
    def scenario(loop):
        async def main(n):
            for _ in range(50):
                await asyncio.sleep(0)
            return n, asyncio.get_running_loop().is_running()

        def work(n):
            own = type(loop)()
            results[n] = own.run_until_complete(main(n))
            own.close()

        results = {}
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    assert both(scenario) == {n: (n, True) for n in range(8)}


def test_an_interpreter_ends_with_a_loop_left_open(both):
    def scenario(loop):
        source = """
            loop.run_until_complete(asyncio.sleep(0.001))
            task = loop.create_task(asyncio.sleep(3600))
            loop.run_until_complete(asyncio.sleep(0))
            print("end")
        """
        return run_loop_script(loop, source)

    assert both(scenario) == (0, "end\n")


def test_an_interpreter_ends_with_the_current_loop_left_open(both, capsys):
    """asyncio's module holds it, and drops it when most other modules are gone."""

    def scenario(loop):
        return run_loop_script(loop, "asyncio.set_event_loop(loop)\ndel loop\nprint('end')\n")

    assert both(scenario) == (0, "end\n")
    assert "Traceback" not in capsys.readouterr().err
