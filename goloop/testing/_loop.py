"""BubbleLoop: the loop of a bubble, as far as it is Python: what it refuses, how it ends, what a deadlock says."""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from goloop._eventloop.loop import Loop
from goloop.core.sched import goroutine
from goloop.core.sched.bubble import BubbleCore, Choices
from goloop.core.sched.bubble import bubble as here
from goloop.errors import DeadlockError

Seed = int | str | Callable[[int], int] | None
Start = float | datetime.datetime | None

MIDNIGHT_2000 = 946684800.0  # Go synctest's start, in seconds of time.time()
_HERE = os.path.dirname(__file__) + os.sep
_refusing = False  # other loops, see _refuse_other_loops()
_ROUNDS = 100  # cancellations that a goroutine may swallow before it is left behind


def choices(seed: Seed | Choices) -> Choices:
    """Return what makes a bubble's choices: see bubble() for what a seed may be."""
    if isinstance(seed, Choices):
        return seed
    if seed is None:
        return Choices()
    if isinstance(seed, int):
        return Choices(seed)
    if callable(seed):
        return Choices(draw=seed)
    if not isinstance(seed, str):
        raise TypeError(f"a seed is an int, the text of a replay line, a function or None, got {seed!r}")
    text = seed.strip()
    if text.lstrip("-").isdigit():
        return Choices(int(text))
    planned = {}
    try:
        for part in filter(None, text.split(",")):
            number, _, choice = part.partition(":")
            planned[int(number)] = int(choice)
    except ValueError:
        raise ValueError(f'a seed is a number, or choices such as "3:1,17:2", got {seed!r}') from None
    return Choices(planned=planned)


def epoch(start: Start) -> float:
    """Return what time.time() is to show when a bubble begins."""
    if start is None:
        return MIDNIGHT_2000
    if isinstance(start, datetime.datetime):
        return start.timestamp()
    if isinstance(start, bool) or not isinstance(start, (int, float)):
        raise TypeError(f"start is a number of seconds as time.time() gives it, or a datetime, got {start!r}")
    return float(start)


def _refused(name: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f"loop.{name}() is real I/O or a thread, and so not possible in a bubble, whose time is virtual: use "
            "channels or another connection in memory"
        )

    method.__name__ = name
    method.__doc__ = "RuntimeError: a bubble has no real I/O."
    return method


def _refuse_other_loops() -> None:
    """From now on asyncio's own loops look where they are run: one that waits in a bubble would wait in real time."""
    global _refusing
    if _refusing:
        return
    _refusing = True
    base: Any = asyncio.BaseEventLoop
    base._check_running = _outside(base._check_running)
    asyncio.Runner.__init__ = _outside(asyncio.Runner.__init__)  # type: ignore[method-assign]


def _outside(method: Any) -> Any:
    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if here() not in (None, self):  # goloop's loops look themselves
            raise RuntimeError("a bubble has one loop, whose time is virtual: no other one can run in it")
        return method(self, *args, **kwargs)

    return checked


class BubbleLoop(BubbleCore, Loop):
    """An asyncio event loop whose clock is virtual; bubble() and run() make one, and event_loop() returns one.

    It does what asyncio's loops do, but for I/O, executors, signals and other threads, which raise RuntimeError. The
    goroutines that are started while it runs, run on its thread. All methods belong to the thread that runs the loop.
    """

    _is_bubble = True
    _body: Any = None  # of `with bubble()`: its goroutine,
    _entered: Any = None  # and the frame that has the block

    def __init__(self, seed: Seed | Choices = None, start: Start = None) -> None:
        _refuse_other_loops()
        made = choices(seed)
        begin = epoch(start)
        monkey = sys.modules.get("goloop.monkey")
        if monkey is not None and monkey.is_patched("time"):
            monkey._time.patch_clocks()
        super().__init__(handoff=False, watch=False)
        self._set_up(made, begin)

    # ---------------------------------------------------------------- running
    def run_forever(self) -> None:
        """Run until stop() is called (asyncio: run_forever); DeadlockError when nothing can happen any more.

        In a plain thread. RuntimeError in a goroutine, or where a loop runs already.
        """
        self._check_closed()
        self._take_thread()
        try:
            self._run_forever_setup()
            try:
                self._run_until_stopped()
            finally:
                self._run_forever_cleanup()
        finally:
            self._leave_thread()

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """As call_soon() (asyncio: call_soon_threadsafe). RuntimeError in another thread than the one that runs it."""
        if self._thread_id not in (None, threading.get_ident()):
            raise RuntimeError(
                "call_soon_threadsafe() from another thread crosses the edge of a bubble, whose time is virtual"
            )
        return super().call_soon_threadsafe(callback, *args, context=context)

    def close(self) -> None:
        """Close the loop (asyncio: close). Twice is harmless. Its goroutines are cancelled, and get to their ends."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self._closed:
            return
        self.end_goroutines(True)
        super().close()
        self._forget()

    # ---------------------------------------------------------------- the end
    def end_tasks(self) -> DeadlockError | None:
        """Cancel the tasks that are no goroutines, and wait for their ends, as asyncio.run() does."""
        own = self._goroutine_tasks()
        left = [task for task in asyncio.all_tasks(self) if task not in own]
        if not left:
            return None
        for task in left:
            task.cancel()
        try:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        except DeadlockError as exc:
            return exc
        for task in left:
            if not task.cancelled() and task.exception() is not None:
                self.call_exception_handler(
                    {
                        "message": "unhandled exception during the end of a bubble",
                        "exception": task.exception(),
                        "task": task,
                    }
                )
        return None

    def end_goroutines(self, cancel: bool) -> DeadlockError | None:
        """Wait for the ends of all goroutines, or cancel them; those that are deadlocked are cancelled anyway."""
        deadlock = None
        rounds = 0
        self._drain(True)
        try:
            while self._has_goroutines():
                if cancel:
                    for g in goroutine.goroutines_of(self):
                        g.cancel()
                try:
                    self.run_forever()
                except DeadlockError as exc:
                    deadlock = deadlock or exc
                    cancel = True
                    rounds += 1
                if rounds > _ROUNDS:
                    goroutine.abandon(self.worker)
                    break
        finally:
            self._drain(False)
        return deadlock

    def end(self, failed: bool) -> DeadlockError | None:
        """Bring all to its end: tasks are cancelled, and goroutines, too, if the bubble's body has failed."""
        stuck = self.end_tasks()
        deadlock = self.end_goroutines(failed or stuck is not None) or stuck
        if self._asyncgens:  # type: ignore[attr-defined]
            self.run_until_complete(self.shutdown_asyncgens())
        return deadlock

    # ---------------------------------------------------------------- a deadlock
    def _deadlock(self) -> DeadlockError:
        lines = [f"all in the bubble wait for ever, at {self.time():.6g} s of its time, and no timer is left"]
        for title, stack in self._who_waits():
            lines.append(f"\n{title}")
            lines += [f"    {line}" for text in stack for line in text.rstrip().splitlines()]
        return DeadlockError("\n".join(lines))

    def _who_waits(self) -> Iterator[tuple[str, list[str]]]:
        for g in goroutine.goroutines_of(self):
            stack = self._within(g.stack()) if g is self._body else g.stack()
            made = [frame for frame in g.spawn_stack if not frame.filename.startswith(_HERE)]
            where = f", started at {made[-1].filename}:{made[-1].lineno} in {made[-1].name}" if made else ""
            yield f"{g!r}{where}", traceback.format_list(stack)
        own = self._goroutine_tasks()
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            if task not in own:
                yield repr(task), traceback.format_list(_awaits(task.get_coro()))

    def _within(self, stack: traceback.StackSummary) -> traceback.StackSummary:
        """Return the body's part of its thread's stack."""
        outside = self._entered and self._entered.f_back
        while outside is not None:
            del stack[0]
            outside = outside.f_back
        while stack and stack[0].filename.startswith(_HERE):
            del stack[0]
        return stack


_REFUSED = """
    add_reader add_signal_handler add_writer connect_accepted_socket connect_read_pipe connect_write_pipe
    create_connection create_datagram_endpoint create_server create_unix_connection create_unix_server getaddrinfo
    getnameinfo run_in_executor sendfile sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom
    sock_recvfrom_into sock_sendall sock_sendfile sock_sendto subprocess_exec subprocess_shell
"""
for _name in _REFUSED.split():
    setattr(BubbleLoop, _name, _refused(_name))


def _awaits(coroutine: Any) -> traceback.StackSummary:
    """Return the stack of a coroutine that waits, down to what it waits in."""
    frames = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        frames.append((frame, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return traceback.StackSummary.extract(iter(frames), lookup_lines=False)


def report(loop: BubbleLoop, failure: BaseException | None, deadlock: DeadlockError | None) -> BaseException | None:
    """Return what a bubble that has ended is to raise: the body's exception, a deadlock, that of a goroutine.

    The exceptions of goroutines that were not received go with it: one of them may be the reason.
    """
    alone = []
    for g in loop._failures():
        exception = g.exception()
        if exception is not None and exception is not failure:
            alone.append((g, exception))
    if loop.choices.failure is not None:
        return loop.choices.failure
    raised: BaseException | None = deadlock or failure
    if raised is None and alone:
        g, raised = alone.pop(0)
        raised.add_note(f"Raised in {g!r} of the bubble, whose exception nobody received")
    elif deadlock is not None and alone:
        deadlock.__cause__ = alone[0][1]
    for g, exception in alone:
        text = "".join(traceback.format_exception(exception)).rstrip()
        assert raised is not None
        raised.add_note(f"{g!r} of the bubble had failed, and nobody received its exception:\n{text}")
    return raised
