"""Debug mode, what can be set on a loop, and subclasses of the loop's class."""

import asyncio
import sys

from tests.helpers.outcomes import async_outcome_of
from tests.helpers.scripts import run_loop_script


async def answer():
    return "answer"


# Debug mode


def test_debug_mode_is_set_and_told(both):
    def scenario(loop):
        states = [loop.get_debug()]
        for value in (True, False):
            loop.set_debug(value)
            states.append(loop.get_debug())
        return states

    assert both(scenario) == [False, True, False]


def test_debug_mode_comes_from_the_environment(both):
    def scenario(loop):
        return [run_loop_script(loop, "print(loop.get_debug())", PYTHONASYNCIODEBUG=value)[1] for value in ("", "1")]

    assert both(scenario) == ["False\n", "True\n"]


def test_debug_mode_tracks_the_origin_of_coroutines_while_it_runs(both):
    def scenario(loop):
        async def depth():
            return sys.get_coroutine_origin_tracking_depth() > 0

        sys.set_coroutine_origin_tracking_depth(0)
        seen = []
        for debug in (True, False):
            loop.set_debug(debug)
            seen.append((loop.run_until_complete(depth()), sys.get_coroutine_origin_tracking_depth()))
        return seen

    assert both(scenario) == [(True, 0), (False, 0)]


def test_debug_mode_can_change_while_the_loop_runs(both):
    async def scenario(loop):
        seen = []
        for debug in (True, False):
            loop.set_debug(debug)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(sys.get_coroutine_origin_tracking_depth() > 0)
        return seen

    assert both(scenario) == [True, False]


def test_the_depth_before_is_put_back(both):
    def scenario(loop):
        sys.set_coroutine_origin_tracking_depth(3)
        try:
            loop.run_until_complete(answer())
            return sys.get_coroutine_origin_tracking_depth()
        finally:
            sys.set_coroutine_origin_tracking_depth(0)

    assert both(scenario, debug=True) == 3


# Attributes and subclasses


def test_methods_can_be_replaced_on_the_loop(both):
    def scenario(loop):
        seen, original = [], loop.call_soon

        def call_soon(callback, *args, context=None):
            seen.append("call_soon")
            return original(callback, *args, context=context)

        async def patched(*args, **kwargs):
            return "patched"

        loop.call_soon = call_soon
        loop.getaddrinfo = patched
        loop.create_server = patched
        loop.anything = 1
        result = loop.run_until_complete(loop.getaddrinfo("host", 1)), loop.run_until_complete(loop.create_server())
        del loop.call_soon
        return result, loop.anything, len(seen) > 0, loop.call_soon == original

    assert both(scenario) == (("patched", "patched"), 1, True, True)


def test_tasks_and_futures_go_through_a_subclass(both):
    def scenario(loop):
        class Sub(type(loop)):
            def __init__(self):
                super().__init__()
                self.calls = []

            def call_soon(self, callback, *args, context=None):
                self.calls.append("call_soon")
                return super().call_soon(callback, *args, context=context)

            def create_task(self, coro, **kwargs):
                self.calls.append("create_task")
                return super().create_task(coro, **kwargs)

            def call_exception_handler(self, context):
                self.calls.append(context["message"])

        async def main():
            await asyncio.create_task(answer())
            future = asyncio.get_running_loop().create_future()
            future.get_loop().call_exception_handler({"message": "by hand"})
            asyncio.get_running_loop().call_soon(future.set_result, None)
            return await async_outcome_of(future)

        sub = Sub()
        try:
            sub.run_until_complete(main())
            return sub.calls
        finally:
            sub.close()

    calls = both(scenario)
    assert "create_task" in calls
    assert "by hand" in calls
    assert calls.count("call_soon") > 3
