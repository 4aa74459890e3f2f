"""bubble() and run(): a piece of code in virtual time. wait() and async_wait(): until all others are at rest."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

import greenlet  # type: ignore[import-untyped]

from goloop.core.sched import goroutine
from goloop.core.sched.bubble import Choices, async_settle, settle
from goloop.core.sched.goroutine_api import wait as goloop_wait
from goloop.errors import DeadlockError
from goloop.testing._loop import BubbleLoop, Seed, Start, choices, epoch, report

_T = TypeVar("_T")
_ROUNDS = 100  # cancellations that the body may swallow after a deadlock


class bubble:
    """`with bubble() as loop:` the body runs as a goroutine in virtual time (Go: testing/synctest.Test).

    Inside, no time passes while a goroutine or a task can go on; when all wait, the clock jumps to the next timer. That
    is the time of loop.time(), asyncio.sleep(), asyncio.timeout(), call_later(), goloop.sleep(), goloop.timer, of
    goloop.context and of every timeout, and, after goloop.monkey.patch_time(), of time.time(), monotonic() and sleep().
    The loop's clock begins at 1. Goroutines that are started inside stay inside, and run on this thread.

    seed: what decides among several that are free to go first: select's cases, timers of one instant, goroutines that
    are ready. None: the first in line; an int: the same choices each time, on every Python; a str: what a replay line
    of explore() says; a function: it is called with n, and returns a number below that. The callbacks of call_soon()
    run in their order always. start: what time.time() is to show at first, in seconds or as a datetime; None: the
    beginning of the year 2000, UTC, as in Go.

    At the end tasks are cancelled, as asyncio.run() does, and goroutines are waited for, as Go does; they are cancelled
    if the body raises. An exception of a goroutine that was not received is raised then. DeadlockError when all wait
    and no timer is left: the body gets asyncio.CancelledError where it waits. RuntimeError for real I/O, for a channel
    from outside, for a wait for anything else from outside (of goloop.sync, a net.pipe()), for what was made inside and
    is used outside meanwhile, for another loop that is run inside, inside of another bubble or goroutine, or where a
    loop runs. In a plain thread.
    """

    def __init__(self, seed: Seed = None, start: Start = None) -> None:
        self._choices = choices(seed)
        self._start = epoch(start)
        self._loop: BubbleLoop | None = None
        self._root: Any = None
        self._hub: Any = None
        self._deadlock: DeadlockError | None = None
        self._fatal: BaseException | None = None
        self._failed = False

    def __enter__(self) -> BubbleLoop:
        if self._loop is not None:
            raise RuntimeError("a bubble is entered once: make another one")
        loop = self._loop = _make_loop(self._choices, self._start)
        self._root = loop.worker.adopt(greenlet.getcurrent(), "bubble")
        loop._body, loop._entered = self._root, sys._getframe(1)
        self._hub = greenlet.greenlet(self._run)
        try:
            self._hub.switch()  # until the loop switches to the new goroutine, which is this greenlet
        except BaseException:
            loop.worker.disown(self._root)
            loop._body = loop._entered = None
            loop.close()
            raise
        return loop

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: types.TracebackType | None
    ) -> bool:
        loop = self._loop
        if loop is None:
            raise RuntimeError("the bubble was not entered")
        exits = isinstance(raised, goroutine.GoExit)  # goexit() is no error
        if exits:
            raised = None
        if self._hub.dead:
            loop.worker.disown(self._root)
        else:
            self._failed = raised is not None
            loop.worker.release(self._root)
            loop.stop()
            self._hub.switch()  # until it ends
        loop._body = loop._entered = None
        failure = self._fatal or report(loop, raised, self._deadlock)
        loop.close()
        if failure is not None and failure is not raised:
            raise failure from (failure.__cause__ or (None if isinstance(raised, asyncio.CancelledError) else raised))
        return exits

    def _run(self) -> None:
        """What the hub does: run the loop until the body has ended, and then until all others have."""
        rounds = 0
        loop = self._loop
        assert loop is not None
        while not self._root.done():
            try:
                loop.run_forever()
            except DeadlockError as exc:
                self._deadlock = self._deadlock or exc
            except BaseException as exc:  # SystemExit and KeyboardInterrupt of a task
                self._fatal = exc
            else:
                continue
            if rounds == 0:
                self._root.cancel()
            else:
                for g in goroutine.goroutines_of(loop):
                    g.cancel()
                for task in asyncio.all_tasks(loop):
                    task.cancel()
            rounds += 1
            if rounds > _ROUNDS:
                raise self._fatal or self._deadlock or SystemError("a bubble has no end")
        self._deadlock = loop.end(self._failed) or self._deadlock


@overload
def run(main: Coroutine[Any, Any, _T], seed: Seed = None, start: Start = None) -> _T: ...
@overload
def run(main: Callable[[], Coroutine[Any, Any, _T]], seed: Seed = None, start: Start = None) -> _T: ...
@overload
def run(main: Callable[[], _T], seed: Seed = None, start: Start = None) -> _T: ...
def run(main: Any, seed: Seed = None, start: Start = None) -> Any:
    """Run a coroutine, or a function, in a bubble of its own, and return its result (Go: testing/synctest.Test).

    main: a coroutine, a coroutine function or a plain function without arguments; TypeError for anything else. A
    coroutine runs as a task on the bubble's loop, a function as a goroutine. seed, start: as for bubble(), which also
    says what is raised. In a plain thread, which it blocks.
    """
    return run_with(main, choices(seed), epoch(start))


def run_with(main: Any, made: Choices, begin: float) -> Any:
    """run(), for explore() and the pytest plugin. made: makes the choices. begin: what time.time() shows at first."""
    if not asyncio.iscoroutine(main) and not callable(main):
        raise TypeError(f"run() takes a coroutine or a function, got {main!r}")
    if asyncio.iscoroutine(main):
        try:
            loop = _make_loop(made, begin)
        except BaseException:
            main.close()
            raise
        return _run_coroutine(loop, main)
    if inspect.iscoroutinefunction(main):
        return _run_coroutine(_make_loop(made, begin), main())
    inside = bubble()
    inside._choices, inside._start = made, begin
    result = None
    with inside:
        result = main()
        if asyncio.iscoroutine(result):  # of a function that returns one
            return goloop_wait(result)
    return result


def _make_loop(made: Choices, begin: float) -> BubbleLoop:
    if goroutine.current() is not None:
        raise RuntimeError("a bubble cannot be inside of a bubble or of a goroutine: start it in a plain thread")
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("a bubble cannot be inside of a running loop: start it in a plain thread")
    return BubbleLoop(made, begin)


def _run_coroutine(loop: BubbleLoop, coroutine: Coroutine[Any, Any, _T]) -> _T:
    failure: BaseException | None = None
    deadlock: DeadlockError | None = None
    result: Any = None
    try:
        try:
            result = loop.run_until_complete(coroutine)
        except DeadlockError as exc:
            deadlock = exc
        except goroutine.GoExit:
            pass
        except BaseException as exc:
            failure = exc
        ended = loop.end(failure is not None or deadlock is not None)
        raised = report(loop, failure, deadlock or ended)
    finally:
        coroutine.close()
        loop.close()
    if raised is not None:
        raise raised
    return result  # type: ignore[no-any-return]


def event_loop(seed: Seed = None, start: Start = None) -> asyncio.AbstractEventLoop:
    """Return the loop of a new bubble, for asyncio.Runner(loop_factory=…) and what else makes a loop by a function.

    While a thread runs it, what it runs is in the bubble; seed, start: as for bubble(), and so are time, choices and
    what is refused. DeadlockError comes from run_until_complete(). The caller closes it, which cancels the goroutines
    that are left. From any thread.
    """
    return BubbleLoop(seed, start)


def wait() -> None:
    """Park until all others in the bubble wait for something, before any time passes (Go: synctest.Wait).

    In a goroutine of a bubble, as the body of bubble() is one; RuntimeError elsewhere, and for a second caller at the
    same time. asyncio.CancelledError when it is cancelled. A coroutine uses `await async_wait()`.
    """
    settle()


async def async_wait() -> None:
    """Wait, in a coroutine, until all others in the bubble wait for something (Go: synctest.Wait).

    On the loop of a bubble; RuntimeError elsewhere, and for a second caller at the same time. No time passes.
    """
    await async_settle()
