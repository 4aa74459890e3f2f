"""Plain callbacks: the order they run in, the context they see, the arguments that are refused, the slow ones."""

import asyncio
import contextvars
import threading

import pytest

from tests.helpers.outcomes import logged, outcome_of, plain
from tests.helpers.waiting import turn

var = contextvars.ContextVar("var", default="unset")


def noop(*args):
    pass


async def coroutine_function():
    pass


def context_with(value):
    context = contextvars.Context()
    context.run(var.set, value)
    return context


# Order


def test_callbacks_run_in_order_of_scheduling(both):
    def scenario(loop):
        seen = []
        for n in range(1000):
            loop.call_soon(seen.append, n)
        turn(loop)
        return seen

    assert both(scenario) == list(range(1000))


def test_a_callback_scheduled_by_a_callback_waits_for_the_next_iteration(both):
    def scenario(loop):
        seen = []

        def outer():
            seen.append("outer")
            loop.call_soon(seen.append, "inner")

        loop.call_soon(outer)
        loop.call_soon(seen.append, "second")
        turn(loop)
        after_one = list(seen)
        turn(loop)
        return after_one, seen

    assert both(scenario) == (["outer", "second"], ["outer", "second", "inner"])


def test_threadsafe_callbacks_keep_their_place_among_the_others(both):
    def scenario(loop):
        seen = []

        def schedule():
            loop.call_soon(seen.append, 1)
            loop.call_soon_threadsafe(seen.append, 2)
            loop.call_soon(seen.append, 3)
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, 4))
            thread.start()
            thread.join()
            loop.call_soon(seen.append, 5)
            loop.call_soon(loop.stop)

        loop.call_soon(schedule)
        loop.run_forever()
        return seen

    assert both(scenario) == [1, 2, 3, 4, 5]


def test_a_threadsafe_callback_scheduled_by_a_callback_waits_too(both):
    def scenario(loop):
        seen = []

        def again():
            seen.append(len(seen))
            loop.call_soon_threadsafe(again)

        loop.call_soon_threadsafe(again)
        turn(loop)
        return list(seen)

    assert both(scenario) == [0]


def test_stop_before_run_forever_runs_one_iteration(both):
    def scenario(loop):
        seen = []

        def again():
            seen.append(len(seen))
            loop.call_soon(again)

        loop.call_soon(again)
        loop.stop()
        loop.run_forever()
        return list(seen), loop.is_running()

    assert both(scenario) == ([0], False)


def test_stop_lets_the_iteration_finish(both):
    def scenario(loop):
        seen = []
        loop.call_soon(seen.append, "before")
        loop.call_soon(loop.stop)
        loop.call_soon(seen.append, "after")
        loop.call_soon(loop.call_soon, seen.append, "later")
        loop.run_forever()
        return list(seen)

    assert both(scenario) == ["before", "after"]


def test_stop_holds_for_one_run_only(both):
    def scenario(loop):
        seen = []
        loop.stop()
        loop.run_forever()
        loop.call_soon(loop.call_soon, loop.call_soon, seen.append, "third iteration")
        loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)
        loop.run_forever()
        return seen

    assert both(scenario) == ["third iteration"]


# Contexts


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_callback_runs_in_a_copy_of_the_callers_context(both, method):
    def scenario(loop):
        seen = []
        when = {"call_later": (0,), "call_at": (loop.time(),)}.get(method, ())

        def callback():
            seen.append(var.get())
            var.set("callback")

        caller = context_with("caller")
        caller.run(getattr(loop, method), *when, callback)
        caller.run(var.set, "changed")
        loop.call_later(0, loop.stop)
        loop.run_forever()
        return seen, caller[var]

    assert both(scenario) == (["caller"], "changed")


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_callback_runs_in_the_given_context_itself(both, method):
    def scenario(loop):
        seen = []
        when = {"call_later": (0,), "call_at": (loop.time(),)}.get(method, ())

        def callback():
            seen.append(var.get())
            var.set("callback")

        given = context_with("given")
        getattr(loop, method)(*when, callback, context=given)
        loop.call_later(0, loop.stop)
        loop.run_forever()
        return seen, given[var], var.get()

    assert both(scenario) == (["given"], "callback", "unset")


def test_a_context_that_is_entered_already_is_an_error_of_the_callback(both):
    def scenario(loop):
        seen = []
        given = context_with("given")
        with logged() as lines:
            loop.call_soon(seen.append, "ran", context=given)
            given.run(turn, loop)
        return lines, seen

    ((level, text),), seen = both(scenario)
    assert level == "ERROR"
    assert text.startswith("Exception in callback list.append(")
    assert seen == []


def test_there_is_a_running_loop_but_no_current_task(both):
    async def scenario(loop):
        seen = []

        def look(*ignored):
            seen.append((asyncio.current_task(), asyncio.get_running_loop() is loop))

        loop.call_soon(look)
        loop.call_soon_threadsafe(look)
        loop.call_later(0, look)
        asyncio.ensure_future(asyncio.sleep(0)).add_done_callback(look)
        while len(seen) < 4:
            await asyncio.sleep(0)
        return seen, asyncio.current_task() is not None

    assert both(scenario) == ([(None, True)] * 4, True)


# Bad arguments


def test_missing_and_unknown_arguments_are_type_errors(both):
    def scenario(loop):
        attempts = [
            outcome_of(loop.call_soon),
            outcome_of(loop.call_soon, noop, surprise=1),
            outcome_of(loop.call_soon_threadsafe),
            outcome_of(loop.call_later, 1),
            outcome_of(loop.call_at, 1),
        ]
        return [outcome[0] for outcome in attempts]

    assert both(scenario) == ["TypeError"] * 5


def test_debug_mode_refuses_what_is_not_callable(both):
    def scenario(loop):
        return [
            outcome_of(loop.call_soon, 1),
            outcome_of(loop.call_soon_threadsafe, 1),
            outcome_of(loop.call_later, 0, 1),
            outcome_of(loop.call_at, 0, 1),
        ]

    outcome = both(scenario, debug=True)
    assert outcome[0] == ("TypeError", "a callable object was expected by call_soon(), got 1")
    assert [kind for kind, text in outcome] == ["TypeError"] * 4


def test_an_object_that_is_not_callable_never_passes_in_silence(both):
    """asyncio reports it when the callback is due; a loop may also refuse it at the call."""

    def scenario(loop):
        noticed = []
        loop.set_exception_handler(lambda loop, context: noticed.append(type(context["exception"]).__name__))
        for method, when in ((loop.call_soon, ()), (loop.call_soon_threadsafe, ()), (loop.call_later, (0,))):
            refused = outcome_of(method, *when, 1)
            if isinstance(refused, tuple):
                noticed.append(refused[0])
        turn(loop)
        return noticed

    assert both(scenario) == ["TypeError"] * 3


def test_debug_mode_refuses_coroutines(both):
    def scenario(loop):
        coroutine = coroutine_function()
        try:
            return [
                outcome_of(method, *when, callback)
                for callback in (coroutine_function, coroutine)
                for method, when in (
                    (loop.call_soon, ()),
                    (loop.call_soon_threadsafe, ()),
                    (loop.call_later, (0,)),
                    (loop.call_at, (0,)),
                )
            ]
        finally:
            coroutine.close()

    outcome = both(scenario, debug=True)
    assert outcome[0] == ("TypeError", "coroutines cannot be used with call_soon()")
    assert [kind for kind, text in outcome] == ["TypeError"] * 8


def test_debug_mode_refuses_another_threads_call(both):
    async def scenario(loop):
        def calls():
            return [
                outcome_of(loop.call_soon, noop),
                outcome_of(loop.call_later, 0, noop),
                outcome_of(loop.call_at, 0, noop),
                isinstance(loop.call_soon_threadsafe(noop), asyncio.Handle),
            ]

        return await loop.run_in_executor(None, calls)

    outcome = both(scenario, debug=True)
    assert [kind for kind, text in outcome[:3]] == ["RuntimeError"] * 3
    assert outcome[3] is True


# Slow callbacks


def test_debug_mode_logs_slow_callbacks(both):
    def scenario(loop):
        loop.slow_callback_duration = 0.0
        with logged() as lines:
            loop.call_soon(noop, 1)
            turn(loop)
        level, text = lines[0]
        return level, plain(text)

    level, text = both(scenario, debug=True)
    assert level == "WARNING"
    assert text.startswith("Executing <Handle noop(1)")
    assert text.endswith(" took S seconds")


def test_debug_mode_logs_slow_steps_of_a_task(both):
    def scenario(loop):
        loop.slow_callback_duration = 0.0
        with logged() as lines:
            loop.run_until_complete(coroutine_function())
        level, text = lines[0]
        return level, plain(text)

    level, text = both(scenario, debug=True)
    assert level == "WARNING"
    assert text.startswith("Executing <Task finished name='Task-N' coro=<coroutine_function() done")


@pytest.mark.parametrize(("debug", "threshold"), [(False, 0.0), (True, 1000.0)])
def test_slow_callbacks_are_not_logged_otherwise(both, debug, threshold):
    def scenario(loop):
        default = loop.slow_callback_duration
        loop.slow_callback_duration = threshold
        with logged() as lines:
            loop.call_soon(noop)
            turn(loop)
        return default, lines

    assert both(scenario, debug=debug) == (0.1, [])
