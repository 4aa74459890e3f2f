"""What becomes of an exception in a callback: the exception handlers, and the two that go through."""

import asyncio
import contextvars
import gc
import logging
import sys

import pytest

from tests.helpers.outcomes import async_outcome_of, logged, outcome_of, plain
from tests.helpers.waiting import turn

var = contextvars.ContextVar("var", default="unset")


def fail(text="boom"):
    raise ValueError(text)


def reporting(loop):
    """Set an exception handler that collects; return the list of contexts."""
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    return contexts


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_the_handler_gets_message_exception_and_handle(both, method):
    def scenario(loop):
        contexts = reporting(loop)
        when = {"call_later": (0,), "call_at": (loop.time(),)}.get(method, ())
        handle = getattr(loop, method)(*when, fail)
        loop.call_later(0, loop.stop)
        loop.run_forever()
        (context,) = contexts
        return sorted(context), plain(context["message"]), repr(context["exception"]), context["handle"] is handle

    keys, message, exception, same = both(scenario)
    assert keys == ["exception", "handle", "message"]
    assert message.startswith("Exception in callback fail() at ")
    assert (exception, same) == ("ValueError('boom')", True)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_debug_mode_adds_where_the_handle_was_made(both, method):
    def scenario(loop):
        contexts = reporting(loop)
        when = {"call_later": (0,), "call_at": (loop.time(),)}.get(method, ())
        getattr(loop, method)(*when, fail)
        loop.call_later(0, loop.stop)
        loop.run_forever()
        (context,) = contexts
        return sorted(context), context["source_traceback"][-1].name

    assert both(scenario, debug=True) == (["exception", "handle", "message", "source_traceback"], "scenario")


def test_one_failure_does_not_keep_the_others_from_running(both):
    def scenario(loop):
        contexts, seen = reporting(loop), []
        for n in range(5):
            loop.call_soon(seen.append, n)
            loop.call_soon(fail, str(n))
        turn(loop)
        return seen, [str(context["exception"]) for context in contexts]

    assert both(scenario) == ([0, 1, 2, 3, 4], ["0", "1", "2", "3", "4"])


def test_the_traceback_starts_in_the_callback(both):
    def scenario(loop):
        contexts = reporting(loop)
        loop.call_soon(fail)
        turn(loop)
        traceback = contexts[0]["exception"].__traceback__
        while traceback.tb_next:
            traceback = traceback.tb_next
        return traceback.tb_frame.f_code.co_name

    assert both(scenario) == "fail"


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, BaseException, StopIteration])
def test_other_base_exceptions_are_reported_too(both, error):
    def scenario(loop):
        contexts = reporting(loop)

        def callback():
            raise error

        loop.call_soon(callback)
        turn(loop)
        return [type(context["exception"]).__name__ for context in contexts]

    assert both(scenario) == [error.__name__]


def test_set_and_get_exception_handler(both):
    def scenario(loop):
        def handler(loop, context):
            pass

        states = [loop.get_exception_handler()]
        loop.set_exception_handler(handler)
        states.append(loop.get_exception_handler() is handler)
        loop.set_exception_handler(None)
        states.append(loop.get_exception_handler())
        return states, outcome_of(loop.set_exception_handler, 1)

    refused = ("TypeError", "A callable object or None is expected, got 1")
    assert both(scenario) == ([None, True, None], refused)


def test_the_handler_is_called_with_the_loop(both):
    def scenario(loop):
        seen = []
        loop.set_exception_handler(lambda *args: seen.append(args))
        context = {"message": "by hand"}
        loop.call_exception_handler(context)
        ((given, passed),) = seen
        return given is loop, passed is context

    assert both(scenario) == (True, True)


def test_the_default_handler_logs(both):
    def scenario(loop):
        with logged() as lines:
            loop.call_soon(fail)
            turn(loop)
            loop.default_exception_handler({"message": "by hand", "exception": ValueError(), "extra": 1})
            loop.call_exception_handler({})
        return [(level, plain(text)) for level, text in lines]

    lines = both(scenario)
    assert [level for level, text in lines] == ["ERROR"] * 3
    assert lines[0][1].startswith("Exception in callback fail() at ")
    assert [text for level, text in lines[1:]] == ["by hand", "Unhandled exception in event loop"]


def test_a_handler_that_raises_is_itself_reported(both):
    def scenario(loop):
        loop.set_exception_handler(lambda loop, context: fail("from the handler"))
        seen = []
        with logged() as lines:
            loop.call_soon(fail)
            loop.call_soon(seen.append, "next")
            turn(loop)
        return lines, seen

    assert both(scenario) == ([("ERROR", "Unhandled error in exception handler")], ["next"])


def test_a_default_handler_that_raises_is_logged(both):
    def scenario(loop):
        class Sub(type(loop)):
            def default_exception_handler(self, context):
                fail()

        sub = Sub()
        try:
            with logged() as lines:
                sub.call_soon(fail)
                turn(sub)
                sub.set_exception_handler(fail)
                sub.call_soon(fail)
                turn(sub)
            return lines
        finally:
            sub.close()

    assert [text.split(" while")[0] for level, text in both(scenario)] == ["Exception in default exception handler"] * 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="handlers run in the failing context since Python 3.12")
def test_the_handler_runs_in_the_context_of_what_failed(both):
    async def scenario(loop):
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append((var.get(), str(context["exception"]))))

        async def failing():
            var.set("task")
            fail("task")

        def callback():
            var.set("callback")
            fail("callback")

        loop.call_soon(callback)
        task = loop.create_task(failing())
        await asyncio.wait([task])
        del task
        gc.collect()
        return seen

    assert both(scenario) == [("callback", "callback"), ("task", "task")]


def test_a_tasks_exception_that_nobody_retrieved_is_reported(both):
    async def scenario(loop):
        contexts = reporting(loop)

        async def failing():
            fail()

        task = loop.create_task(failing())
        await asyncio.wait([task])
        del task
        gc.collect()
        return [(sorted(context), context["message"], str(context["exception"])) for context in contexts]

    assert both(scenario) == [(["exception", "future", "message"], "Task exception was never retrieved", "boom")]


# The two that go through


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_they_leave_run_forever_and_the_loop_is_usable_after(both, error, method):
    def scenario(loop):
        contexts, seen = reporting(loop), []

        def callback():
            seen.append((loop.is_running(), asyncio.get_running_loop() is loop))
            raise error(3)

        getattr(loop, method)(*((0,) if method == "call_later" else ()), callback)
        try:
            loop.run_forever()
        except error as exc:
            seen.append((type(exc).__name__, exc.args))
        seen.append((loop.is_running(), outcome_of(asyncio.get_running_loop)[0]))
        loop.call_soon(seen.append, "usable")
        turn(loop)
        return seen, contexts

    expected = [(True, True), (error.__name__, (3,)), (False, "RuntimeError"), "usable"]
    assert both(scenario) == (expected, [])


def test_callbacks_after_one_that_exits_wait_for_the_next_run(both):
    def scenario(loop):
        seen = []
        loop.call_soon(seen.append, "before")
        loop.call_soon(sys.exit)
        loop.call_soon(seen.append, "after")
        try:
            loop.run_forever()
        except SystemExit:
            seen.append("exit")
        turn(loop)
        return seen

    assert both(scenario) == ["before", "exit", "after"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_they_leave_run_until_complete_from_a_task(both, error):
    def scenario(loop):
        contexts, seen = reporting(loop), []

        async def other():
            await asyncio.sleep(0)
            seen.append("other")

        async def main():
            raise error

        pending = loop.create_task(other())
        try:
            loop.run_until_complete(main())
        except error:
            seen.append("raised")
        loop.run_until_complete(pending)
        gc.collect()
        return seen, contexts

    assert both(scenario) == (["raised", "other"], [])


def test_they_go_through_the_exception_handler(both):
    def scenario(loop):
        loop.set_exception_handler(lambda loop, context: sys.exit(7))
        loop.call_soon(fail)
        try:
            loop.run_forever()
        except SystemExit as exc:
            return exc.code

    assert both(scenario) == 7


def test_a_task_that_swallows_the_interrupt_of_another_is_not_disturbed(both):
    def scenario(loop):
        async def interrupted():
            raise KeyboardInterrupt

        async def main(task):
            return await async_outcome_of(asyncio.sleep(0, "slept"))

        task = loop.create_task(interrupted())
        try:
            loop.run_until_complete(main(task))
        except KeyboardInterrupt:
            return task.done(), type(task.exception()).__name__, loop.run_until_complete(main(task))

    assert both(scenario) == (True, "KeyboardInterrupt", "slept")


def test_errors_are_logged_at_error_level_with_a_traceback(both, caplog):
    def scenario(loop):
        caplog.clear()
        with caplog.at_level(logging.ERROR, logger="asyncio"):
            loop.call_soon(fail)
            turn(loop)
        return [(record.name, record.exc_info[0].__name__) for record in caplog.records]

    assert both(scenario) == [("asyncio", "ValueError")]
