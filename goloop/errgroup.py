"""Go's golang.org/x/sync/errgroup: goroutines that work on parts of one task, and the first error of any of them.

A goroutine's error stays with it, unobserved, until a caller waits for the group: an error that is not waited for is
reported as any goroutine's exception is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from goloop import context
from goloop.core.net.polldesc import may_wait
from goloop.core.sched.goroutine import Goroutine, failure, go_then
from goloop.core.sync.cond_waitgroup_once import WaitGroup
from goloop.core.sync.locks import Semaphore
from goloop.errors import Canceled

__all__ = ["Group", "with_context"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Group:
    """A group of goroutines (Go: errgroup.Group). From any thread, goroutine or coroutine.

    go() starts one, wait() waits for all and raises the first exception that any of them raised. With a context, see
    with_context(), that first exception cancels it. Without one, the others are not told.

    `with group:` in a goroutine or a plain thread and `async with group:` in a coroutine wait at the end, as wait()
    does. An exception of the body, or one that interrupts this wait (a cancellation, a timeout around it, Ctrl-C), ends
    the goroutines first, as in asyncio.TaskGroup: the context is cancelled with it as the cause, each goroutine is
    cancelled and waited for, and the exception goes on. Their own exceptions are in errors(), or else reported. Without
    such an exception no goroutine is cancelled, as in Go and unlike asyncio.TaskGroup.
    """

    def __init__(self) -> None:
        self._running = WaitGroup()
        self._limit: Semaphore | None = None  # set_limit(): as many as may run
        self._members: dict[Goroutine[Any], None] = {}  # that run, oldest first; each leaves in its own thread
        self._failed: list[Goroutine[Any]] = []  # in the order in which they ended; appended to in their threads
        self._cancel: context.CancelCauseFunc | None = None
        self._aborting = False  # a `with` is left by an exception: goroutines that start now are cancelled

    def __repr__(self) -> str:
        limit = "" if self._limit is None else f" of at most {self._limit.size}"
        return f"<Group: {self._running.counter} running{limit}, {len(self._failed)} failed>"

    # ------------------------------------------------------------------ starting
    @overload
    def go(
        self, function: Callable[_P, Coroutine[Any, Any, _T]], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Goroutine[_T]: ...
    @overload
    def go(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine[_T]: ...
    def go(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Goroutine[Any]:
        """Start function(*args, **kwargs) as a goroutine of the group, and return it (Go: Group.Go).

        function: a plain function or a coroutine function; TypeError for anything else. args, kwargs: its arguments.
        With a limit it waits until fewer run, which parks a goroutine or blocks a plain thread; RuntimeError on the
        thread of a running loop outside of a goroutine: `await async_go()` there.
        """
        limit = self._limit
        if limit is not None:
            limit.acquire()
        return self._start(limit, function, args, kwargs)

    @overload
    async def async_go(
        self, function: Callable[_P, Coroutine[Any, Any, _T]], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Goroutine[_T]: ...
    @overload
    async def async_go(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine[_T]: ...
    async def async_go(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Goroutine[Any]:
        """Start function(*args, **kwargs) as a goroutine of the group, in a coroutine, and return it (Go: Group.Go).

        function: a plain function or a coroutine function; TypeError for anything else. args, kwargs: its arguments.
        With a limit the coroutine waits until fewer run. On any loop.
        """
        limit = self._limit
        if limit is not None:
            await limit.async_acquire()
        return self._start(limit, function, args, kwargs)

    def try_go(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> bool:
        """Start function(*args, **kwargs) as a goroutine of the group unless that takes waiting (Go: TryGo).

        function: a plain function or a coroutine function; TypeError for anything else. args, kwargs: its arguments.
        Returns whether it was started: False while as many run as set_limit() allows. From any thread, goroutine or
        coroutine.
        """
        limit = self._limit
        if limit is not None and not limit.try_acquire():
            return False
        self._start(limit, function, args, kwargs)
        return True

    def set_limit(self, n: int | None) -> None:
        """Let at most n goroutines of the group run at a time (Go: SetLimit). From any thread, goroutine or coroutine.

        n: an int of at least 1 (else TypeError, ValueError); None: any number. RuntimeError while some run.
        """
        if self._running.counter:
            raise RuntimeError(f"the limit of a Group is set before its goroutines start: {self._running.counter} run")
        if n is not None and not isinstance(n, int):
            raise TypeError(f"set_limit() takes an int or None, got {n!r}")
        if n is not None and not 1 <= n <= sys.maxsize:
            raise ValueError(f"set_limit() takes at least 1, or None for any number, got {n}")
        self._limit = None if n is None else Semaphore(n)

    def _start(
        self, limit: Semaphore | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Goroutine[Any]:
        counted = False
        try:
            self._running.add(1)
            counted = True
            g = go_then(lambda g: self._ended(g, limit), function, args, kwargs)
        except BaseException:
            if counted:
                self._running.done()
            if limit is not None:
                limit.release()
            raise
        self._members[g] = None
        if g.done():
            self._members.pop(g, None)  # it has ended before it was a member
        if self._aborting:  # after it is a member: _abort() says so first, and looks for members then
            g.cancel()
        return g

    def _ended(self, g: Goroutine[Any], limit: Semaphore | None) -> None:
        self._members.pop(g, None)
        try:
            if failure(g) is not None:
                self._failed.append(g)
                if self._cancel is not None:
                    self._cancel(_error(self._failed[0]))
        finally:
            if limit is not None:
                limit.release()
            self._running.done()

    # ------------------------------------------------------------------- waiting
    def wait(self, timeout: float | None = None) -> None:
        """Wait until all goroutines of the group have ended (Go: Wait), then raise the first exception, if any.

        It is the exception that the goroutine raised; for a cancelled goroutine, Canceled. errors() has the others. The
        group's context is cancelled in any case. timeout: seconds, None for no end; TimeoutError when it is over, and
        they go on. Parks a goroutine, which raises asyncio.CancelledError when it is cancelled; blocks a plain thread.
        RuntimeError on the thread of a running loop outside of a goroutine: `await async_wait()` there.
        """
        self._running.wait(timeout)
        self._finish()

    async def async_wait(self, timeout: float | None = None) -> None:
        """Wait in a coroutine until all goroutines of the group have ended (Go: Wait), then raise the first exception.

        It is the exception that the goroutine raised; for a cancelled goroutine, Canceled. errors() has the others. The
        group's context is cancelled in any case. timeout: seconds, None for no end; TimeoutError when it is over, and
        they go on. On any loop.
        """
        await self._running.async_wait(timeout)
        self._finish()

    def __enter__(self) -> Self:
        may_wait("with Group", "async with")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        late: BaseException | None = None
        try:
            if exc is not None:
                self._abort(exc)
            while True:
                try:
                    self._running.wait()
                    break
                except BaseException as why:
                    if not self._interrupted(why, exc or late):
                        raise
                    late = late or why
            if late is not None:
                raise late
        finally:
            self._aborting = False
            del exc, late  # their tracebacks refer to this frame
        if kind is None:
            self._finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        late: BaseException | None = None
        try:
            if exc is not None:
                self._abort(exc)
            while not isinstance(exc, GeneratorExit):  # a coroutine that is thrown away cannot wait any more
                try:
                    await self._running.async_wait()
                    break
                except BaseException as why:
                    if not self._interrupted(why, exc or late):
                        raise
                    late = late or why
            if late is not None:
                raise late
        finally:
            self._aborting = False
            del exc, late
        if kind is None:
            self._finish()

    def _interrupted(self, why: BaseException, before: BaseException | None) -> bool:
        """The wait at the end of a `with` was interrupted: end the goroutines. Returns whether to go on waiting.

        before: the exception that ends them already. Another cancellation is for them, too; a second Ctrl-C leaves.
        """
        self._abort(why)
        if isinstance(why, GeneratorExit):
            return False
        return before is None or isinstance(why, asyncio.CancelledError)

    def _abort(self, cause: BaseException) -> None:
        self._aborting = True
        if self._cancel is not None:
            self._cancel(cause)
        for g in list(self._members):
            g.cancel()

    def errors(self) -> tuple[BaseException, ...]:
        """Return the exceptions of the goroutines that have failed so far (tuple), in the order of their ends.

        For a cancelled goroutine it is Canceled. They count as observed from now on, and are not reported. From any
        thread, goroutine or coroutine.
        """
        return tuple(_error(g) for g in self._observe())

    def _observe(self) -> list[Goroutine[Any]]:
        failed = list(self._failed)
        for g in failed:
            if not g.cancelled():
                g.exception()
        return failed

    def _finish(self) -> None:
        failed = self._observe()
        error = _error(failed[0]) if failed else None
        if self._cancel is not None:
            self._cancel(error)
        try:
            if error is not None:
                raise error
        finally:
            del error, failed  # its traceback refers to this frame


def _error(g: Goroutine[Any]) -> BaseException:
    """The exception that a goroutine that failed counts with: a cancelled one must not look as if the waiter were."""
    error = failure(g)
    assert error is not None
    if not g.cancelled():
        return error
    canceled = Canceled(f"a goroutine of the group was cancelled: {g!r}")
    canceled.__cause__ = error
    return canceled


def with_context(parent: context.Context) -> tuple[Group, context.Context]:
    """Return a group and a context made from parent (Go: errgroup.WithContext).

    From any thread, goroutine or coroutine. parent: a Context (else TypeError). The context is cancelled when one of
    the group's goroutines raises, with that exception as its cause, and when wait() returns.
    """
    ctx, cancel = context.with_cancel_cause(parent)
    group = Group()
    group._cancel = cancel
    return group, ctx
