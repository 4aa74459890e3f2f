"""add_signal_handler and remove_signal_handler: when handlers run, what is put back, what is refused."""

import _thread
import asyncio
import contextvars
import os
import signal
import socket
import sys
import threading
import time

import pytest

from tests.helpers.outcomes import outcome_of
from tests.helpers.recorders import decreed, stock
from tests.helpers.scripts import run_loop_script
from tests.helpers.waiting import async_until, polled, turn

USR1 = signal.SIGUSR1


def kill(number=USR1):
    os.kill(os.getpid(), number)


# Handlers


def test_a_handler_is_called_with_its_arguments(both):
    async def scenario(loop):
        seen = []

        def handler(*args):
            seen.append((args, asyncio.get_running_loop() is loop, asyncio.current_task()))

        loop.add_signal_handler(USR1, handler, 1, "two")
        kill()
        await async_until(lambda: seen)
        return seen, loop.remove_signal_handler(USR1)

    assert both(scenario) == ([((1, "two"), True, None)], True)


def test_adding_again_replaces(both):
    async def scenario(loop):
        seen = []
        loop.add_signal_handler(USR1, seen.append, "first")
        loop.add_signal_handler(USR1, seen.append, "second")
        kill()
        await async_until(lambda: seen)
        return seen, loop.remove_signal_handler(USR1), loop.remove_signal_handler(USR1)

    assert both(scenario) == (["second"], True, False)


def test_each_signal_has_its_own_handler(both):
    async def scenario(loop):
        seen = []
        for number in (USR1, signal.SIGUSR2, signal.SIGTERM):
            loop.add_signal_handler(number, seen.append, number)
        for number in (signal.SIGTERM, USR1, signal.SIGUSR2):
            kill(number)
        await async_until(lambda: len(seen) == 3)
        return sorted(seen)

    assert both(scenario) == sorted([USR1, signal.SIGUSR2, signal.SIGTERM])


def test_a_signal_before_the_run_is_handled_in_the_next(both):
    def scenario(loop):
        seen = []
        loop.add_signal_handler(USR1, seen.append, "handled")
        turn(loop)
        kill()
        between = list(seen)
        loop.run_until_complete(async_until(lambda: seen))
        return between, seen

    assert both(scenario) == ([], ["handled"])


def test_a_signal_in_a_callback_is_handled_after_it(both):
    async def scenario(loop):
        seen = []

        def callback():
            kill()
            seen.append("callback")

        loop.add_signal_handler(USR1, seen.append, "handler")
        loop.call_soon(callback)
        await async_until(lambda: len(seen) == 2)
        return seen

    assert both(scenario) == ["callback", "handler"]


@pytest.mark.parametrize("target", ["main thread", "another thread", "process"])
def test_a_signal_wakes_a_sleeping_loop(both, target):
    def scenario(loop):
        def send():
            asleep.wait()
            if target == "process":
                kill()
            else:
                thread = threading.main_thread() if target == "main thread" else threading.current_thread()
                signal.pthread_kill(thread.ident, USR1)

        asleep, seen = threading.Event(), []
        loop.add_signal_handler(USR1, lambda: (seen.append("handled"), loop.stop()))
        loop.call_soon(asleep.set)
        thread = threading.Thread(target=send)
        thread.start()
        loop.run_forever()
        thread.join()
        return seen

    assert both(scenario) == ["handled"]


def test_a_signal_is_handled_while_another_thread_computes(both):
    async def scenario(loop):
        seen, handled = [], threading.Event()

        def compute():
            started.set()
            while not handled.is_set():
                pass

        def handler():
            seen.append("handled")
            handled.set()

        started = threading.Event()
        loop.add_signal_handler(USR1, handler)
        work = loop.run_in_executor(None, compute)
        started.wait()
        kill()
        await work
        return seen

    assert both(scenario) == ["handled"]


def test_a_handler_that_raises_is_reported_and_stays(both):
    async def scenario(loop):
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(str(context["exception"])))

        def handler():
            raise ValueError(len(reports))

        loop.add_signal_handler(USR1, handler)
        for n in range(2):
            kill()
            await async_until(lambda n=n: len(reports) > n)
        return reports

    assert both(scenario) == ["0", "1"]


def test_a_handler_can_remove_itself(both):
    async def scenario(loop):
        seen = []

        def handler():
            seen.append(loop.remove_signal_handler(USR1))

        loop.add_signal_handler(USR1, handler)
        kill()
        await async_until(lambda: seen)
        return seen, signal.getsignal(USR1)

    assert both(scenario) == ([True], signal.SIG_DFL)


def test_the_handler_runs_in_the_context_of_the_call(both):
    async def scenario(loop):
        var, seen = contextvars.ContextVar("var", default="unset"), []
        context = contextvars.copy_context()
        context.run(var.set, "caller")
        context.run(loop.add_signal_handler, USR1, lambda: seen.append(var.get()))
        kill()
        await async_until(lambda: seen)
        return seen

    assert both(scenario) == ["caller"]


def test_plain_handlers_run_while_the_loop_sleeps(both):
    """Without a wake-up descriptor a signal that comes just before the system call is seen only after it: asyncio's
    own gap, hence more than one signal.
    """

    def scenario(loop):
        def handler(number, frame):
            seen.add(number)
            loop.call_soon_threadsafe(loop.stop)
            handled.set()

        def send():
            asleep.wait()
            while not handled.wait(0.05):
                kill()

        asleep, handled, seen = threading.Event(), threading.Event(), set()
        before = signal.signal(USR1, handler)
        try:
            thread = threading.Thread(target=send)
            thread.start()
            loop.call_soon(asleep.set)
            loop.run_forever()
            thread.join()
        finally:
            signal.signal(USR1, before)
        return seen

    assert both(scenario) == {USR1}


# Nothing is lost


FULL = "asyncio knows what has come from the wake-up descriptor alone, which may be full"


def test_a_signal_is_handled_although_others_have_filled_the_wakeup_descriptor(both):
    @decreed(["handled"], because=FULL)
    async def scenario(loop):
        seen = []
        before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
        try:
            loop.add_signal_handler(USR1, seen.append, "handled")
            for _ in range(2000):
                kill(signal.SIGUSR2)
            kill()
            await async_until(lambda: seen)
            await polled()
        finally:
            signal.signal(signal.SIGUSR2, before)
        return seen

    assert both(scenario) == ["handled"]


def test_each_of_many_signals_in_one_callback_is_handled(both):
    @decreed(2000, because=FULL)
    async def scenario(loop):
        seen = []
        loop.add_signal_handler(USR1, seen.append, None)
        for _ in range(2000):
            kill()
        await async_until(lambda: len(seen) >= 2000)
        await polled()
        return len(seen)

    assert both(scenario) == 2000


def test_each_of_many_signals_from_another_thread_is_handled_once(both):
    """Real-time signals, which the kernel queues; they interrupt everything that handles those before them."""

    @decreed(2000, because=FULL)
    async def scenario(loop):
        seen = []
        loop.add_signal_handler(signal.SIGRTMIN, seen.append, None)

        def send():
            for n in range(1, 2001):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGRTMIN)
                while n - len(seen) > 500:  # fewer than may be pending
                    time.sleep(0.0001)

        await loop.run_in_executor(None, send)
        await async_until(lambda: len(seen) >= 2000)
        await polled()
        return len(seen)

    assert both(scenario) == 2000


def test_signals_are_handled_in_the_order_in_which_they_came(both):
    async def scenario(loop):
        seen = []
        numbers = [signal.SIGUSR2, USR1, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP, USR1]
        for number in set(numbers):
            loop.add_signal_handler(number, seen.append, numbers.index(number))
        for number in numbers:
            kill(number)
        await async_until(lambda: len(seen) == len(numbers))
        return seen

    assert both(scenario) == [0, 1, 2, 0, 4, 1]


def test_interrupt_main_is_handled_as_a_signal_that_came(both):
    async def scenario(loop):
        seen = []
        loop.add_signal_handler(USR1, seen.append, "handled")
        for _ in range(2):
            kill()
        _thread.interrupt_main(USR1)
        await async_until(lambda: len(seen) == 3)
        await loop.run_in_executor(None, _thread.interrupt_main, USR1)
        await async_until(lambda: len(seen) == 4)
        await polled()
        return seen

    assert both(scenario) == ["handled"] * 4


def test_a_handler_that_was_exchanged_and_put_back_is_called_as_before(both):
    async def scenario(loop):
        seen = []
        loop.add_signal_handler(USR1, seen.append, "handled")
        ours = signal.signal(USR1, signal.SIG_IGN)
        kill()
        signal.signal(USR1, ours)
        for n in (1, 2, 3):
            kill()
            await async_until(lambda n=n: len(seen) == n)
        signal.signal(USR1, lambda number, frame: ours(number, frame))  # that does something else as well
        kill()
        await async_until(lambda: len(seen) == 4)
        await polled()
        return seen

    assert both(scenario) == ["handled"] * 4


def test_a_wakeup_descriptor_that_is_somebody_elses_is_not_needed_and_not_taken_away(both):
    @decreed((["handled"], True), because="asyncio hears of no signal then, and takes the descriptor away in the end")
    async def scenario(loop):
        seen = []
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            loop.add_signal_handler(USR1, seen.append, "handled")
            signal.set_wakeup_fd(one.fileno())
            try:
                kill()
                await async_until(lambda: seen)
                loop.remove_signal_handler(USR1)
            finally:
                left = signal.set_wakeup_fd(-1)
            return seen, left == one.fileno()

    assert both(scenario) == (["handled"], True)


def test_two_loops_handle_a_signal_each(both):
    def scenario(loop):
        if stock(loop):
            return ["first", "second"]  # only the loop that added a handler last hears of signals
        seen = []
        second = type(loop)()
        loop.add_signal_handler(USR1, seen.append, "first")
        second.add_signal_handler(signal.SIGUSR2, seen.append, "second")
        kill()
        kill(signal.SIGUSR2)
        loop.run_until_complete(async_until(lambda: seen))
        second.run_until_complete(async_until(lambda: len(seen) == 2))
        second.close()
        return seen

    assert both(scenario) == ["first", "second"]


def test_a_signal_that_came_before_its_handler_was_removed_is_not_for_the_next_handler(both):
    @decreed(["second"], because="asyncio calls the next handler for what the removed one was to be called")
    async def scenario(loop):
        seen = []
        loop.add_signal_handler(USR1, seen.append, "first")
        kill()
        loop.remove_signal_handler(USR1)
        loop.add_signal_handler(USR1, seen.append, "second")
        kill()
        await async_until(lambda: seen)
        await polled()
        return seen

    assert both(scenario) == ["second"]


# What stays behind


def test_removing_puts_the_default_back(both):
    def scenario(loop):
        outcomes = []
        for number in (USR1, signal.SIGINT):
            loop.add_signal_handler(number, print)
            ours = signal.getsignal(number)
            outcomes.append(callable(ours) and ours is not signal.default_int_handler)
            outcomes.append(loop.remove_signal_handler(number))
            outcomes.append(signal.getsignal(number))
        return outcomes

    expected = [True, True, signal.SIG_DFL, True, True, signal.default_int_handler]
    assert both(scenario) == expected


def test_closing_removes_all_handlers(both):
    def scenario(loop):
        loop.add_signal_handler(USR1, print)
        loop.add_signal_handler(signal.SIGINT, print)
        loop.close()
        return signal.getsignal(USR1), signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)

    assert both(scenario) == (signal.SIG_DFL, signal.default_int_handler, -1)


def test_the_last_removal_gives_the_wakeup_descriptor_back(both):
    def scenario(loop):
        loop.add_signal_handler(USR1, print)
        loop.add_signal_handler(signal.SIGUSR2, print)
        loop.remove_signal_handler(USR1)
        loop.remove_signal_handler(signal.SIGUSR2)
        turn(loop)
        return signal.set_wakeup_fd(-1)

    assert both(scenario) == -1


def test_a_loop_without_handlers_leaves_the_wakeup_descriptor_alone(both):
    def scenario(loop):
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            signal.set_wakeup_fd(one.fileno())
            try:
                turn(loop)
                loop.close()
            finally:
                left = signal.set_wakeup_fd(-1)
            return left == one.fileno()

    assert both(scenario) is True


# Refusals


async def coroutine_function():
    pass


def test_bad_signal_numbers(both):
    def scenario(loop):
        numbers = ("x", None, 1.5, 0, -1, signal.NSIG + 1)
        return [outcome_of(loop.add_signal_handler, n, print) for n in numbers] + [
            outcome_of(loop.remove_signal_handler, n) for n in numbers
        ]

    kinds = [kind for kind, text in both(scenario)]
    assert kinds == (["TypeError"] * 3 + ["ValueError"] * 3) * 2


def test_signals_that_cannot_be_caught(both):
    def scenario(loop):
        refused = [outcome_of(loop.add_signal_handler, n, print) for n in (signal.SIGKILL, signal.SIGSTOP)]
        return refused, loop.remove_signal_handler(signal.SIGKILL), signal.set_wakeup_fd(-1)

    refused, removed, wakeup = both(scenario)
    assert [kind for kind, text in refused] == ["RuntimeError"] * 2
    assert all(text.endswith("cannot be caught") for kind, text in refused)
    assert (removed, wakeup) == (False, -1)


def test_coroutines_are_refused(both):
    def scenario(loop):
        coroutine = coroutine_function()
        try:
            return [outcome_of(loop.add_signal_handler, USR1, callback) for callback in (coroutine_function, coroutine)]
        finally:
            coroutine.close()

    assert both(scenario) == [("TypeError", "coroutines cannot be used with add_signal_handler()")] * 2


def test_another_thread_cannot_add_a_handler(both):
    def scenario(loop):
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(outcome_of(loop.add_signal_handler, USR1, print)))
        thread.start()
        thread.join()
        return outcomes, signal.getsignal(USR1)

    (refused,), left = both(scenario)
    assert refused[0] == "RuntimeError"
    assert "main thread" in refused[1]
    assert left == signal.SIG_DFL


def test_a_closed_loop_refuses(both):
    def scenario(loop):
        loop.close()
        return outcome_of(loop.add_signal_handler, USR1, print), loop.remove_signal_handler(USR1)

    assert both(scenario) == (("RuntimeError", "Event loop is closed"), False)


def test_a_forked_childs_signal_does_not_reach_the_parent(both):
    def scenario(loop):
        if stock(loop) and sys.version_info < (3, 12):
            return 0, "0\n"  # there a child shares the wake-up descriptor
        return run_loop_script(
            loop,
            """
            async def main():
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGUSR1, print, "parent's handler")
                child = os.fork()
                if not child:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    os._exit(0)
                print(await loop.run_in_executor(None, lambda: os.waitpid(child, 0)[1]))
                for _ in range(10):
                    await asyncio.sleep(0)

            loop.run_until_complete(main())
            loop.close()
            """,
        )

    assert both(scenario) == (0, "0\n")
