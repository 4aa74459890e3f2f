"""Go's sync and golang.org/x/sync/semaphore, and gevent's Event, AsyncResult and local: for goroutines, coroutines and
plain threads alike.

The colour is in the name, as with channels: lock() parks a goroutine or blocks a plain thread, `await async_lock()` is
for coroutines. The queue for all of them is goloop.Chan: closed when there is nothing more to come, of a capacity that
makes senders wait; Chan(sys.maxsize) never does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

from goloop._local import Local
from goloop._shared import AtomicInt, Map, Pool
from goloop.core.sync.cond_waitgroup_once import Cond, Once, WaitGroup
from goloop.core.sync.event_future import Event, Future
from goloop.core.sync.locks import Mutex, RLocker, RWMutex, Semaphore

_T = TypeVar("_T")

__all__ = [
    "AtomicInt",
    "Cond",
    "Event",
    "Future",
    "Local",
    "Map",
    "Mutex",
    "Once",
    "Pool",
    "RLocker",
    "RWMutex",
    "Semaphore",
    "WaitGroup",
    "async_once_func",
    "async_once_value",
    "once_func",
    "once_value",
]


class _Outcome(Generic[_T]):
    """The result or the exception of the one call. Written by the call; read after the Once is done."""

    def __init__(self, what: object) -> None:
        self._what = what
        self._value: list[_T] = []
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    def returned(self, value: _T) -> None:
        self._value.append(value)

    def raised(self, error: BaseException) -> None:
        self._error = error
        self._traceback = error.__traceback__  # every raise adds to it: each caller starts with this one

    def get(self) -> _T:
        if self._value:
            return self._value[0]
        if isinstance(self._error, Exception):
            raise self._error.with_traceback(self._traceback)
        # It was cancelled, say: that was meant for the caller that ran it, and not for all.
        raise RuntimeError(f"the only call of {self._what!r} was ended by {self._error!r}") from self._error


def once_value(function: Callable[[], _T]) -> Callable[[], _T]:
    """Return a function that calls function() at its first call, and always returns the same value (Go: OnceValue).

    function: a plain function without arguments; TypeError for anything else. Its exception is raised again at each
    call, too; a call that was ended by another BaseException, such as a cancellation, lets later callers raise
    RuntimeError. From any thread, goroutine or plain thread alike; other callers wait while it runs, which raises
    RuntimeError on the thread of a running loop outside of a goroutine: use async_once_value() there.
    """
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"once_value() takes a plain function: use async_once_value() for {function!r}")
    if not callable(function):
        raise TypeError(f"once_value() takes a function, got {function!r}")
    once = Once()
    outcome: _Outcome[_T] = _Outcome(function)

    def run() -> None:
        try:
            outcome.returned(function())
        except BaseException as exc:
            outcome.raised(exc)
            if not isinstance(exc, Exception):
                raise

    @functools.wraps(function)
    def call() -> _T:
        once.do(run)
        return outcome.get()

    return call


def async_once_value(function: Callable[[], Awaitable[_T]]) -> Callable[[], Coroutine[Any, Any, _T]]:
    """Return a coroutine function that awaits function() once, and always returns the same value (Go: OnceValue).

    function: a coroutine function without arguments; TypeError unless callable. Its exception is raised again at each
    call, too; a call that was ended by another BaseException, such as a cancellation, lets later callers raise
    RuntimeError. For coroutines on any loop; other callers wait while it runs.
    """
    if not callable(function):
        raise TypeError(f"async_once_value() takes a coroutine function, got {function!r}")
    once = Once()
    outcome: _Outcome[_T] = _Outcome(function)

    async def run() -> None:
        try:
            outcome.returned(await function())
        except BaseException as exc:
            outcome.raised(exc)
            if not isinstance(exc, Exception):
                raise

    @functools.wraps(function)
    async def call() -> _T:
        await once.async_do(run)
        return outcome.get()

    return call


def once_func(function: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls function() at its first call only, and returns nothing (Go: OnceFunc).

    function: a plain function without arguments; TypeError for anything else. Its exception is raised again at each
    call, too; a call that was ended by another BaseException, such as a cancellation, lets later callers raise
    RuntimeError. From any thread, goroutine or plain thread alike; other callers wait while it runs, which raises
    RuntimeError on the thread of a running loop outside of a goroutine: use async_once_func() there.
    """
    value = once_value(function)

    @functools.wraps(function)
    def call() -> None:
        value()

    return call


def async_once_func(function: Callable[[], Awaitable[object]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a coroutine function that awaits function() at its first call only, and returns nothing (Go: OnceFunc).

    function: a coroutine function without arguments; TypeError unless callable. Its exception is raised again at each
    call, too; a call that was ended by another BaseException, such as a cancellation, lets later callers raise
    RuntimeError. For coroutines on any loop; other callers wait while it runs.
    """
    value = async_once_value(function)

    @functools.wraps(function)
    async def call() -> None:
        await value()

    return call
