"""Go's golang.org/x/sync/singleflight: callers that want the same at the same time share one call."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from goloop._local import actor
from goloop.core.net.polldesc import may_wait
from goloop.core.sync.event_future import Future

_T = TypeVar("_T")

__all__ = ["Group"]


class _Call(Future[Any]):
    """A call under way. by: the goroutine, task or thread that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.by = actor() or threading.get_ident()

    def end(self, exc: BaseException, key: Hashable) -> None:
        if not isinstance(exc, Exception):
            # It was cancelled, say: that was meant for the caller that makes it, and not for all.
            told = RuntimeError(f"the call for {key!r} was ended by {exc!r}")
            told.__cause__ = exc
            exc = told
        self.set_exception(exc)
        self.exception()  # its caller has it in any case


class Group:
    """Calls by key, one at a time for each key (Go: singleflight.Group).

    A caller of do() or async_do() whose key has a call under way waits for that one, and gets its result or exception,
    instead of calling itself. Goroutines, plain threads and coroutines of any loops share calls. From any thread,
    goroutine or coroutine.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call] = {}  # changed by single operations, which are atomic

    def __repr__(self) -> str:
        return f"<Group: {len(self._calls)} calls under way>"

    def _join(self, key: Hashable) -> tuple[_Call, bool]:
        """The call for a key, and whether the caller is to make it."""
        mine = _Call()
        call = self._calls.setdefault(key, mine)
        if call is not mine and call.by == mine.by:
            raise RuntimeError(f"the call for {key!r} waits for itself")
        return call, call is mine

    def _leave(self, key: Hashable, call: _Call) -> None:
        if self._calls.get(key) is call:  # no forget() was there
            self._calls.pop(key, None)

    def do(self, key: Hashable, function: Callable[[], _T]) -> _T:
        """Return function(), or what the call of another one for the same key comes to (Go: Do).

        key: a hashable object. function: a plain function without arguments; TypeError unless callable. Its exception
        is raised in all callers; if the call is ended by another BaseException, such as a cancellation, the others
        raise RuntimeError. RuntimeError also from within the call, for the same key. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_do()` there.
        """
        may_wait("Group.do()", "await Group.async_do()")
        _check(function)
        call, mine = self._join(key)
        if not mine:
            shared: _T = call.result()
            return shared
        try:
            value = function()
        except BaseException as exc:
            self._leave(key, call)
            call.end(exc, key)
            raise
        self._leave(key, call)
        call.set_result(value)
        return value

    async def async_do(self, key: Hashable, function: Callable[[], Awaitable[_T]]) -> _T:
        """Return what function() gives to await, or what the call of another one for the same key comes to (Go: Do).

        key: a hashable object. function: a coroutine function without arguments; TypeError unless callable. Its
        exception is raised in all callers; if the call is ended by another BaseException, such as a cancellation, the
        others raise RuntimeError. RuntimeError also from within the call, for the same key. For coroutines on any loop.
        """
        _check(function)
        call, mine = self._join(key)
        if not mine:
            shared: _T = await call
            return shared
        try:
            value = await function()
        except BaseException as exc:
            self._leave(key, call)
            call.end(exc, key)
            raise
        self._leave(key, call)
        call.set_result(value)
        return value

    def forget(self, key: Hashable) -> None:
        """Let the next caller for a key call anew, though a call is under way (Go: Forget).

        key: a hashable object. Those that wait for that call still get what it comes to. From any thread, goroutine or
        coroutine.
        """
        self._calls.pop(key, None)


def _check(function: Callable[[], Any]) -> None:
    if not callable(function):
        raise TypeError(f"a function is needed, got {function!r}")
