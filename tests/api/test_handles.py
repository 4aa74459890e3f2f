"""Handles: how a callback is cancelled, what it keeps alive, how it shows itself."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import random
import sys
import sysconfig
import threading
import time
import weakref

import pytest

import goloop
from tests.helpers.outcomes import plain
from tests.helpers.waiting import async_until, turn

var = contextvars.ContextVar("var", default="unset")


def noop(*args):
    pass


def context_with(value):
    context = contextvars.Context()
    context.run(var.set, value)
    return context


def test_handles_are_asyncios(both):
    def scenario(loop):
        handles = loop.call_soon(noop), loop.call_soon_threadsafe(noop), loop.call_later(1, noop), loop.call_at(1, noop)
        return [(isinstance(handle, asyncio.Handle), isinstance(handle, asyncio.TimerHandle)) for handle in handles]

    assert both(scenario) == [(True, False)] * 2 + [(True, True)] * 2


def test_a_cancelled_callback_does_not_run(both):
    def scenario(loop):
        seen = []
        handle = loop.call_soon(seen.append, "cancelled")
        loop.call_soon(seen.append, "other")
        states = [handle.cancelled()]
        handle.cancel()
        states.append(handle.cancelled())
        handle.cancel()
        turn(loop)
        return seen, states, handle.cancelled()

    assert both(scenario) == (["other"], [False, True], True)


def test_a_callback_can_cancel_a_later_one_and_itself(both):
    def scenario(loop):
        seen = []

        def callback():
            seen.append("callback")
            itself.cancel()
            later.cancel()

        itself = loop.call_soon(callback)
        later = loop.call_soon(seen.append, "later")
        turn(loop)
        return seen, itself.cancelled()

    assert both(scenario) == (["callback"], True)


def test_cancelling_after_the_run_is_harmless(both):
    def scenario(loop):
        seen = []
        handle = loop.call_soon(seen.append, 1)
        turn(loop)
        ran = handle.cancelled()
        handle.cancel()
        turn(loop)
        return seen, ran, handle.cancelled()

    assert both(scenario) == ([1], False, True)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_cancel_frees_the_callback_and_its_arguments_at_once(both, method):
    def scenario(loop):
        def callback(argument):
            pass

        argument = functools.partial(noop)
        freed = weakref.ref(callback), weakref.ref(argument)
        handle = getattr(loop, method)(callback, argument)
        del callback, argument
        alive = [ref() is not None for ref in freed]
        handle.cancel()
        return alive, [ref() is not None for ref in freed]

    assert both(scenario) == ([True, True], [False, False])


def test_a_callback_that_has_run_is_freed_without_the_collector(both):
    def scenario(loop):
        argument = functools.partial(noop)
        freed = weakref.ref(argument)
        handle = weakref.ref(loop.call_soon(noop, argument))
        del argument
        gc.disable()
        try:
            turn(loop)
            turn(loop)
            return freed() is None, handle() is None
        finally:
            gc.enable()

    assert both(scenario) == (True, True)


class Holder:
    """What a callback may belong to, and a handle to it."""

    def fail(self):
        raise ZeroDivisionError


def run_soon(loop, holder):
    holder.handle = loop.call_soon(noop, holder)


def run_from_a_thread(loop, holder):
    thread = threading.Thread(target=lambda: setattr(holder, "handle", loop.call_soon_threadsafe(noop, holder)))
    thread.start()
    thread.join()


def cancel(loop, holder):
    run_soon(loop, holder)
    holder.handle.cancel()


def fail(loop, holder):
    loop.set_exception_handler(lambda loop, context: setattr(holder, "handle", context["handle"]))
    loop.call_soon(holder.fail)


def run_later(loop, holder):
    holder.handle = loop.call_later(0, noop, holder)


def cancel_later(loop, holder):
    run_later(loop, holder)
    holder.handle.cancel()


def fail_later(loop, holder):
    loop.set_exception_handler(lambda loop, context: setattr(holder, "handle", context["handle"]))
    loop.call_later(0, holder.fail)


def wait_long(loop, holder):
    holder.handle = loop.call_later(1000, noop, holder)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("schedule", [run_soon, run_from_a_thread, cancel, fail, run_later, cancel_later, fail_later])
def test_a_cycle_through_a_handle_is_collected_once_it_has_run(both, schedule, debug):
    async def scenario(loop):
        loop.set_debug(debug)
        holder = Holder()
        schedule(loop, holder)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)  # a timer that is due after all the others: timers run in the order of their times
        held, ref = isinstance(holder.handle, asyncio.Handle), weakref.ref(holder)
        loop.set_exception_handler(None)
        del holder
        gc.collect()
        return held, ref() is None

    assert both(scenario) == (True, True)


@pytest.mark.parametrize("schedule", [run_soon, run_later, wait_long, cancel_later])
def test_a_loop_that_stopped_with_callbacks_left_is_collected(both, schedule):
    def scenario(loop):
        other, holder = type(loop)(), Holder()
        other.call_soon(other.stop)
        other.call_soon(schedule, other, holder)
        other.run_forever()
        refs = weakref.ref(other), weakref.ref(holder)
        del other, holder
        with pytest.warns(ResourceWarning, match="unclosed event loop"):
            gc.collect()
        return [ref() is None for ref in refs]

    assert both(scenario) == [True, True]


@pytest.mark.skipif(
    sysconfig.get_config_var("Py_GIL_DISABLED") == 1,
    reason="a free-threaded Python's collector finds objects without tracking them",
)
@pytest.mark.parametrize("seed", range(10))
def test_the_collector_passes_over_the_timers_of_a_loop_only_while_it_runs(seed):
    async def scenario():
        loop = asyncio.get_running_loop()
        for _ in range(300):
            what = rng.random()
            if what < 0.6:
                handles.append(loop.call_later(rng.choice((0, 0.0005, 1000)), noop))
            elif what < 0.9 and handles:
                rng.choice(handles).cancel()
            else:
                await asyncio.sleep(0)
        pending = [handle for handle in handles if handle._scheduled]
        return len(pending) > 20 and not any(map(gc.is_tracked, set(pending) - before))

    rng, handles = random.Random(seed), []
    with contextlib.closing(goloop.new_event_loop()) as loop:
        for _ in range(3):
            before = set(handles)  # tracked at the last stop, and no more than they were
            assert loop.run_until_complete(scenario())
            assert all(map(gc.is_tracked, handles))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Handle.get_context is new in Python 3.12")
def test_a_handle_shows_its_context(both):
    def scenario(loop):
        given = context_with("given")
        own = context_with("caller").run(loop.call_soon, noop).get_context()
        return loop.call_soon(noop, context=given).get_context() is given, own[var]

    assert both(scenario) == (True, "caller")


def test_handles_compare_by_identity_and_hash(both):
    def scenario(loop):
        one, other = loop.call_soon(noop), loop.call_soon(noop)
        return one == one, one == other, len({one, other, one})

    assert both(scenario) == (True, False, 2)


def test_the_repr_of_a_handle_names_the_callback(both):
    def scenario(loop):
        handles = [
            loop.call_soon(noop, 1, "text"),
            loop.call_soon_threadsafe(functools.partial(noop, 1), 2),
            loop.call_soon([].append, None),
            loop.call_at(loop.time() + 100, noop),
        ]
        reprs = [plain(handle) for handle in handles]
        for handle in handles:
            handle.cancel()
        return reprs, [plain(handle) for handle in handles]

    pending, cancelled = both(scenario)
    assert pending[0].startswith("<Handle noop(1, 'text')") or pending[0].startswith("<Handle noop() at ")
    assert pending[3].startswith("<TimerHandle when=S noop() at ")
    shared = "_ThreadSafeHandle" if sys.version_info >= (3, 14) else "Handle"
    assert cancelled == [
        "<Handle cancelled>",
        f"<{shared} cancelled>",
        "<Handle cancelled>",
        "<TimerHandle cancelled when=S>",
    ]


def test_the_repr_of_a_handle_in_debug_mode_says_where_it_was_made(both):
    def scenario(loop):
        handles = [
            loop.call_soon(noop, 1),
            loop.call_soon_threadsafe(noop, 1),
            loop.call_later(100, noop, 1),
            loop.call_at(100.5, noop, 1),
        ]
        before = [plain(handle) for handle in handles]
        for handle in handles:
            handle.cancel()
        return before, [plain(handle) for handle in handles]

    before, cancelled = both(scenario, debug=True)
    assert all(f" created at {plain(__file__)}:" in text for text in before)
    assert all("noop" in text and " cancelled " in text for text in cancelled)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's handles are not thread-safe before Python 3.14")
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
def test_another_threads_cancel_waits_for_the_callback_that_runs(both, method):
    def scenario(loop):
        started, finished = threading.Event(), threading.Event()
        handles, seen = [], []

        def callback():
            started.set()
            time.sleep(0.05)
            finished.set()

        def other_thread():
            handles.append(loop.call_soon_threadsafe(callback))
            started.wait()
            seen.append((getattr(handles[0], method)(), finished.is_set()))
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=other_thread)
        thread.start()
        loop.run_forever()
        thread.join()
        return seen, handles[0].cancelled(), isinstance(handles[0], asyncio.Handle)

    before = None if method == "cancel" else False
    assert both(scenario) == ([(before, True)], method == "cancel", True)


def test_another_threads_cancel_of_a_callback_that_waits_takes_effect_at_once(both):
    def scenario(loop):
        cancelled, seen = threading.Event(), []

        def other_thread():
            handle = loop.call_soon_threadsafe(seen.append, "ran")
            handle.cancel()
            seen.append(handle.cancelled())
            cancelled.set()
            loop.call_soon_threadsafe(loop.stop)

        loop.call_soon(cancelled.wait)
        thread = threading.Thread(target=other_thread)
        thread.start()
        loop.run_forever()
        thread.join()
        return seen

    assert both(scenario) == [True]


def test_a_callback_from_another_thread_cancels_itself_to_no_effect(both):
    def scenario(loop):
        seen, handles = [], []
        given = threading.Event()

        def callback():
            given.wait()
            handles[0].cancel()
            seen.append(handles[0].cancelled())
            loop.stop()

        def other_thread():
            handles.append(loop.call_soon_threadsafe(callback))
            given.set()

        thread = threading.Thread(target=other_thread)
        thread.start()
        loop.run_forever()
        thread.join()
        return seen

    assert both(scenario) == [True]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's handles are not thread-safe before Python 3.14")
def test_a_handle_that_another_thread_cancels_has_run_or_never_runs(both):
    def scenario(loop):
        late = []

        def other_thread(number):
            rng = random.Random(number)
            for _ in range(100):
                ran = []
                handle = loop.call_soon_threadsafe(lambda ran=ran: (ran.append(1), time.sleep(0), ran.append(2)))
                for _ in range(rng.randrange(3)):
                    time.sleep(0)
                handle.cancel()
                then = list(ran)
                time.sleep(0)
                if then not in ([], [1, 2]) or ran != then or not handle.cancelled():
                    late.append((then, ran))

        threads = [threading.Thread(target=other_thread, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        loop.run_until_complete(async_until(lambda: not any(thread.is_alive() for thread in threads)))
        for thread in threads:
            thread.join()
        return late

    assert both(scenario) == []
