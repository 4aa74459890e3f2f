"""Many calls at a time, each in a goroutine: map() and its kin, first(), join_all().

The calls of one map() are a Group. Each sends what it came to on an unbuffered channel, so a call is not over
before its result was taken, and a limit bounds the results that wait as well. The one that takes them starts the next.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast, overload

from goloop.core.net.polldesc import may_wait
from goloop.core.sched.goroutine import GoExit, Goroutine, failure, on_end
from goloop.core.sched.goroutine_api import wait
from goloop.core.sync.chan import Chan
from goloop.core.sync.cond_waitgroup_once import WaitGroup
from goloop.errgroup import Group, _error
from goloop.errors import ChannelClosed

_T = TypeVar("_T")
_R = TypeVar("_R")

__all__ = [
    "async_first",
    "async_join_all",
    "async_map",
    "async_map_unordered",
    "first",
    "join_all",
    "map",
    "map_unordered",
]

_Outcome = tuple[int, BaseException | None, Any]  # which call, what it raised, what it returned


class _Calls(Generic[_R]):
    """The calls of one map(), at most `limit` of them at a time; None: all."""

    def __init__(self, calls: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]], limit: int | None) -> None:
        self.results: Chan[_Outcome] = Chan()
        self._calls = enumerate(calls)
        self._limit = sys.maxsize if limit is None else limit
        self._group = Group()
        self._running = 0  # started, and its outcome was not taken

    def go_on(self) -> bool:
        """Start what the limit allows. False when all outcomes were taken."""
        while self._running < self._limit:
            call = next(self._calls, None)
            if call is None:
                break
            index, (function, args) = call
            work = self._async_work if inspect.iscoroutinefunction(function) else self._work
            self._group.go(work, index, function, args)
            self._running += 1
        return self._running > 0

    def take(self, outcome: _Outcome) -> tuple[int, _R]:
        """The number of a call and its result, or the exception that it raised."""
        self._running -= 1
        index, error, value = outcome
        try:
            if error is not None:
                raise error
            return index, value
        finally:
            del error, outcome  # its traceback refers to this frame

    def _work(self, index: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        outcome: _Outcome
        try:
            value = function(*args)
            outcome = (index, None, wait(value) if inspect.iscoroutine(value) else value)
        except BaseException as exc:
            outcome = (index, _to_tell(exc), None)
        try:
            self.results.send(outcome)
        except ChannelClosed:
            pass  # the taker has left

    async def _async_work(self, index: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        outcome: _Outcome
        try:
            outcome = (index, None, await function(*args))
        except BaseException as exc:
            outcome = (index, _to_tell(exc), None)
        try:
            await self.results.async_send(outcome)
        except ChannelClosed:
            pass

    # ------------------------------------------------------------------ the end
    def cancel(self, cause: BaseException) -> None:
        """Do not wait for what runs."""
        self.results.close()
        self._group._abort(cause)

    def end(self, cause: BaseException | None) -> None:
        """Wait until all have ended; with a cause, cancel them before."""
        if cause is not None:
            self.results.close()
        self._group.__exit__(None if cause is None else type(cause), cause, None)

    async def async_end(self, cause: BaseException | None) -> None:
        if cause is not None:
            self.results.close()
        await self._group.__aexit__(None if cause is None else type(cause), cause, None)


def _to_tell(exc: BaseException) -> BaseException:
    """What the taker is to raise: it must not look as if the taker itself were cancelled, or ended."""
    if not isinstance(exc, (asyncio.CancelledError, GoExit)):
        return exc
    told = RuntimeError(f"the call was ended by {type(exc).__name__}")
    told.__cause__ = exc
    return told


def _checked(
    name: str, function: Callable[[_T], Any], items: Iterable[_T], limit: int | None
) -> Iterable[tuple[Callable[..., Any], tuple[_T]]]:
    if not callable(function):
        raise TypeError(f"{name}() takes a function, got {function!r}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise TypeError(f"{name}() takes a limit that is an int or None, got {limit!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"{name}() takes a limit of at least 1, or None for any number, got {limit}")
    return ((function, (item,)) for item in items)


def _each(calls: _Calls[_R]) -> Generator[tuple[int, _R], None, None]:
    try:
        while calls.go_on():
            yield calls.take(calls.results.recv())
    except GeneratorExit as exc:
        calls.cancel(exc)  # perhaps in the collector, which must not wait
        raise
    except BaseException as exc:
        calls.end(exc)
        raise
    calls.end(None)


async def _async_each(calls: _Calls[_R]) -> AsyncIterator[tuple[int, _R]]:
    try:
        while calls.go_on():
            yield calls.take(await calls.results.async_recv())
    except GeneratorExit as exc:
        calls.cancel(exc)
        raise
    except BaseException as exc:
        await calls.async_end(exc)
        raise
    await calls.async_end(None)


# ----------------------------------------------------------------------------- map
@overload
def map(function: Callable[[_T], Awaitable[_R]], items: Iterable[_T], *, limit: int | None = None) -> list[_R]: ...
@overload
def map(function: Callable[[_T], _R], items: Iterable[_T], *, limit: int | None = None) -> list[_R]: ...
def map(function: Callable[[Any], Any], items: Iterable[Any], *, limit: int | None = None) -> list[Any]:
    """Call function(item) for each item, each in a goroutine of its own, and return the results in order (gevent: map).

    function: a plain function or a coroutine function; TypeError for anything else. items: an iterable, which is read
    as far as calls start. limit: how many run at a time, an int of at least 1 (else TypeError, ValueError); None: all.
    Returns a list. The first exception of a call, or of items, cancels the calls under way, waits for their end, and
    is raised; what others raise after it is dropped. Parks a goroutine, which raises asyncio.CancelledError when it is
    cancelled, and the calls with it; blocks a plain thread. RuntimeError on the thread of a running loop outside of a
    goroutine: `await async_map()` there.
    """
    may_wait("map()", "await async_map()")
    return _in_order(dict(_each(_Calls(_checked("map", function, items, limit), limit))))


@overload
async def async_map(
    function: Callable[[_T], Awaitable[_R]], items: Iterable[_T], *, limit: int | None = None
) -> list[_R]: ...
@overload
async def async_map(function: Callable[[_T], _R], items: Iterable[_T], *, limit: int | None = None) -> list[_R]: ...
async def async_map(function: Callable[[Any], Any], items: Iterable[Any], *, limit: int | None = None) -> list[Any]:
    """Call function(item) for each item, in goroutines, and return the results in order (gevent: map), in a coroutine.

    function: a plain function or a coroutine function; TypeError for anything else. items: an iterable, which is read
    as far as calls start. limit: how many run at a time, an int of at least 1 (else TypeError, ValueError); None: all.
    Returns a list. The first exception of a call, or of items, or a cancellation, cancels the calls under way, waits
    for their end, and is raised; what others raise after it is dropped. On any loop.
    """
    calls: _Calls[Any] = _Calls(_checked("async_map", function, items, limit), limit)
    return _in_order({index: value async for index, value in _async_each(calls)})


def _in_order(results: dict[int, Any]) -> list[Any]:
    return [results[i] for i in range(len(results))]


@overload
def map_unordered(
    function: Callable[[_T], Awaitable[_R]], items: Iterable[_T], *, limit: int | None = None
) -> Iterator[_R]: ...
@overload
def map_unordered(function: Callable[[_T], _R], items: Iterable[_T], *, limit: int | None = None) -> Iterator[_R]: ...
def map_unordered(function: Callable[[Any], Any], items: Iterable[Any], *, limit: int | None = None) -> Iterator[Any]:
    """Iterate over the results of function(item) for each item, in the order of their ends (gevent: imap_unordered).

    function: a plain function or a coroutine function; TypeError for anything else. items: an iterable; it may be
    endless if there is a limit. limit: how many calls there are at a time whose results were not taken, an int of at
    least 1 (else TypeError, ValueError); None: all. Each call runs in a goroutine of its own; they start with the first
    result that is asked for. The first exception of a call, or of items, cancels the calls under way, waits for their
    end, and is raised; an iteration that is left early only cancels them. Parks a goroutine and blocks a plain thread
    that asks for the next result; RuntimeError on the thread of a running loop outside of a goroutine: `async for … in
    async_map_unordered()` there.
    """
    may_wait("map_unordered()", "async_map_unordered()")
    return _values(_Calls(_checked("map_unordered", function, items, limit), limit))


def _values(calls: _Calls[_R]) -> Iterator[_R]:
    results = _each(calls)
    try:
        for _, value in results:
            yield value
    finally:
        results.close()


@overload
def async_map_unordered(
    function: Callable[[_T], Awaitable[_R]], items: Iterable[_T], *, limit: int | None = None
) -> AsyncIterator[_R]: ...
@overload
def async_map_unordered(
    function: Callable[[_T], _R], items: Iterable[_T], *, limit: int | None = None
) -> AsyncIterator[_R]: ...
def async_map_unordered(
    function: Callable[[Any], Any], items: Iterable[Any], *, limit: int | None = None
) -> AsyncIterator[Any]:
    """Iterate, by `async for`, over the results of function(item) for each item, in the order of their ends.

    function: a plain function or a coroutine function; TypeError for anything else. items: an iterable; it may be
    endless if there is a limit. limit: how many calls there are at a time whose results were not taken, an int of at
    least 1 (else TypeError, ValueError); None: all. Each call runs in a goroutine of its own. The first exception of a
    call, or of items, or a cancellation, cancels the calls under way, waits for their end, and is raised; an iteration
    that is left early only cancels them. For coroutines on any loop.
    """
    return _async_values(_Calls(_checked("async_map_unordered", function, items, limit), limit))


async def _async_values(calls: _Calls[_R]) -> AsyncIterator[_R]:
    results = cast("Any", _async_each(calls))
    try:
        async for _, value in results:
            yield value
    finally:
        await results.aclose()


# --------------------------------------------------------------------------- first
def _racers(name: str, functions: Iterable[Callable[[], Any]]) -> list[tuple[Callable[..., Any], tuple[()]]]:
    racers = list(functions)
    for function in racers:
        if not callable(function):
            raise TypeError(f"{name}() takes functions without arguments, got {function!r}")
    if not racers:
        raise ValueError(f"{name}() needs at least one function")
    return [(function, ()) for function in racers]


class _Won(Exception):
    """Ends the others."""


@overload
def first(functions: Iterable[Callable[[], Awaitable[_R]]]) -> _R: ...
@overload
def first(functions: Iterable[Callable[[], _R]]) -> _R: ...
def first(functions: Iterable[Callable[[], Any]]) -> Any:
    """Call all functions, each in a goroutine of its own, and return the result of the first that returns.

    functions: an iterable of plain functions or coroutine functions without arguments; TypeError for anything else,
    ValueError for none. The others are cancelled, and have ended when this returns. Raises an ExceptionGroup with the
    exceptions of all, in the order of their ends, if none returns. Parks a goroutine, which raises
    asyncio.CancelledError when it is cancelled, and the calls with it; blocks a plain thread. RuntimeError on the
    thread of a running loop outside of a goroutine: `await async_first()` there.
    """
    may_wait("first()", "await async_first()")
    calls: _Calls[Any] = _Calls(_racers("first", functions), None)
    race = _Race()
    try:
        while calls.go_on():
            race.note(calls, calls.results.recv())
    except _Won as won:
        calls.end(won)
        return race.value
    except BaseException as exc:
        calls.end(exc)
        raise
    calls.end(None)
    raise race.lost()


@overload
async def async_first(functions: Iterable[Callable[[], Awaitable[_R]]]) -> _R: ...
@overload
async def async_first(functions: Iterable[Callable[[], _R]]) -> _R: ...
async def async_first(functions: Iterable[Callable[[], Any]]) -> Any:
    """Call all functions, each in a goroutine of its own, and return the result of the first that returns.

    functions: an iterable of plain functions or coroutine functions without arguments; TypeError for anything else,
    ValueError for none. The others are cancelled, and have ended when this returns. Raises an ExceptionGroup with the
    exceptions of all, in the order of their ends, if none returns. For coroutines on any loop; a cancellation cancels
    the calls, too.
    """
    calls: _Calls[Any] = _Calls(_racers("async_first", functions), None)
    race = _Race()
    try:
        while calls.go_on():
            race.note(calls, await calls.results.async_recv())
    except _Won as won:
        await calls.async_end(won)
        return race.value
    except BaseException as exc:
        await calls.async_end(exc)
        raise
    await calls.async_end(None)
    raise race.lost()


class _Race:
    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.value: Any = None

    def note(self, calls: _Calls[Any], outcome: _Outcome) -> None:
        try:
            _, self.value = calls.take(outcome)
        except BaseException as exc:
            self.errors.append(exc)
        else:
            raise _Won

    def lost(self) -> BaseException:
        return BaseExceptionGroup(f"none of {len(self.errors)} functions returned", self.errors)


# ------------------------------------------------------------------------ join_all
def _count(name: str, goroutines: Iterable[Goroutine[Any]]) -> tuple[list[Goroutine[Any]], WaitGroup]:
    waited = list(goroutines)
    for g in waited:
        if not isinstance(g, Goroutine):
            raise TypeError(f"{name}() takes goroutines, got {g!r}")
    running = WaitGroup()
    running.add(len(waited))
    for g in waited:
        on_end(g, lambda _: running.done())
    return waited, running


def _raise_first(goroutines: list[Goroutine[Any]]) -> None:
    failed = [g for g in goroutines if failure(g) is not None]
    for g in failed:
        if not g.cancelled():
            g.exception()  # observed
    if failed:
        raise _error(failed[0])


def join_all(goroutines: Iterable[Goroutine[Any]], timeout: float | None = None) -> None:
    """Wait until all have ended, then raise the exception of the first of them that has one (gevent: joinall).

    goroutines: an iterable of Goroutines; TypeError for anything else. timeout: seconds for all of it, None for no end;
    TimeoutError when it is over, and they go on. A cancelled goroutine counts with Canceled. The exceptions of all
    count as observed. Parks a goroutine, which raises asyncio.CancelledError when it is cancelled itself; blocks a
    plain thread. RuntimeError on the thread of a running loop outside of a goroutine: `await async_join_all()` there.
    """
    may_wait("join_all()", "await async_join_all()")
    waited, running = _count("join_all", goroutines)
    running.wait(timeout)
    _raise_first(waited)


async def async_join_all(goroutines: Iterable[Goroutine[Any]], timeout: float | None = None) -> None:
    """Wait in a coroutine until all have ended, then raise the exception of the first of them that has one.

    goroutines: an iterable of Goroutines; TypeError for anything else. timeout: seconds for all of it, None for no end;
    TimeoutError when it is over, and they go on. A cancelled goroutine counts with Canceled. The exceptions of all
    count as observed. Unlike `await goroutine`, a cancellation does not cancel them. On any loop.
    """
    waited, running = _count("async_join_all", goroutines)
    await running.async_wait(timeout)
    _raise_first(waited)
