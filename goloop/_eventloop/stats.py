"""The numbers of one loop, as dataclasses: what loop.stats() returns, and goloop.debug.stats() is made of."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import weakref
from typing import Any

from goloop.core.loop.accounts import BOUNDS


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often something took how long. Made by stats(); it does not change, and may be read in any thread.

    bounds: the upper bounds of the buckets in seconds, ascending, each twice the one before. counts: how many were in
    each bucket, one more than there are bounds: the last one is for all that took longer. total: the sum in seconds.
    longest: the longest one in seconds, which differences between two histograms cannot tell: there it is that of the
    later one.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    longest: float

    @property
    def count(self) -> int:
        """How many there were, an int."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean in seconds; 0.0 if there were none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, q: float) -> float:
        """Return the seconds that a share q of all took at most: the upper bound of the bucket that this falls in.

        q: from 0 to 1, ValueError beyond: 0.99 for the 99th percentile. 0.0 if there were none. Never more than
        longest. From any thread.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile is between 0 and 1, got {q!r}")
        wanted = q * self.count
        seen = 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return min(bound, self.longest)
        return 0.0

    def __sub__(self, earlier: Histogram) -> Histogram:
        """Return what has come since an earlier histogram of the same loop."""
        if not isinstance(earlier, Histogram):
            return NotImplemented
        counts = tuple(now - before for now, before in zip(self.counts, earlier.counts, strict=True))
        return Histogram(self.bounds, counts, self.total - earlier.total, self.longest)


@dataclasses.dataclass(frozen=True)
class FunctionTime:
    """How much of a loop's time one function took. Made by stats(); it may be read in any thread.

    The figures are samples: of every 251 callbacks one is timed, and stands for all of them; so is one of every 251
    turns of goroutines. While a trace runs all are timed. A function that is called seldom may be missing, or count for
    too much: `samples` says on how much an estimate stands.

    name: the qualified name of the function, or that of a protocol's or transport's class. kind: "coroutine" for what
    a task runs, "callback", "goroutine", or "transport" for the events of a connection, which its protocol gets. file,
    line: where it is defined; "" and 0 for compiled code. calls: how often it ran, estimated: for a coroutine, how many
    steps its tasks made. seconds: how long, estimated, with everything that it called and waited for while the loop
    waited; all functions together have at most what the loop was busy for. longest: the longest run that was timed, in
    seconds. samples: how many were.
    """

    name: str
    kind: str
    file: str
    line: int
    calls: int
    seconds: float
    longest: float
    samples: int


@dataclasses.dataclass(frozen=True)
class LoopStats:
    """The numbers of one loop, counted since it was made. Made by stats(); it may be read in any thread.

    number: of the loop in this process, from 1. thread: the name of the thread that runs it, None while none does.
    worker: whether it is a worker's, which runs goroutines. iterations: how many it has made. callbacks: how many
    callbacks it has begun, with the turns of goroutines and of connections. ready: callbacks that wait to run. timers:
    timers that are pending. descriptors: what its poll set watches. sleeps: how often it found nothing to do. busy:
    seconds in which it ran callbacks, asleep: in which it had nothing to do, up to now. behind: for how many seconds it
    has not looked at timers and descriptors, 0.0 while it has nothing to do: a loop that is stuck falls behind. lag:
    histogram of how long it was from one look at timers and descriptors to the next: what became ready meanwhile waited
    for as long, at most. timer_lag: histogram of how late timers ran. callback_time: histogram of how long callbacks
    took, of every 251 callbacks one, which counts for 251. received, written: bytes that its transports have taken from
    the kernel, and that programs have given them. accepts: connections that its servers have accepted. handoffs: how
    often another thread took it over from one that was stuck in a blocking call; away: threads that are stuck so now.
    offloaded: connections for which the netpoller receives and sends, now; offloads: how often one was given to it;
    io_switches: how often the loop began with that, or ceased to. functions: where its time went, the most first.
    """

    number: int
    thread: str | None
    worker: bool
    iterations: int
    callbacks: int
    ready: int
    timers: int
    descriptors: int
    sleeps: int
    busy: float
    asleep: float
    behind: float
    lag: Histogram
    timer_lag: Histogram
    callback_time: Histogram
    received: int
    written: int
    accepts: int
    handoffs: int
    away: int
    offloaded: int
    offloads: int
    io_switches: int
    functions: tuple[FunctionTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a dict of what JSON knows. From any thread."""
        return dataclasses.asdict(self)


# The loops of this process that have not been closed, by number. Guard: the GIL; an operation on a dict is one step.
_loops: dict[int, weakref.ref[Any]] = {}
_numbers = itertools.count(1)


def add_loop(loop: Any) -> int:
    """A loop was made; returns its number. Any thread."""
    number = next(_numbers)
    _loops[number] = weakref.ref(loop, lambda _: _loops.pop(number, None))
    return number


def remove_loop(number: int) -> None:
    """A loop was closed. Any thread."""
    _loops.pop(number, None)


def all_loops() -> list[Any]:
    """Return the loops of this process that have not been closed, the oldest first. From any thread."""
    found = [reference() for _, reference in sorted(_loops.items())]
    return [loop for loop in found if loop is not None and not loop._is_foreign()]


def thread_names() -> dict[int, str]:
    """Return the names of Python's threads by ident. From any thread."""
    return {thread.ident: thread.name for thread in threading.enumerate() if thread.ident is not None}


def _functions(timed: list[tuple[Any, ...]], busy: float) -> tuple[FunctionTime, ...]:
    """Make the entries of functions; all estimates together are at most the time that was measured."""
    found = [FunctionTime(*each) for each in timed]
    estimated = sum(function.seconds for function in found)
    if estimated > busy:
        found = [dataclasses.replace(f, seconds=f.seconds * busy / estimated) for f in found]
    return tuple(sorted(found, key=lambda f: f.seconds, reverse=True))


def of_loop(loop: Any, threads: dict[int, str]) -> LoopStats:
    """Return the numbers of a loop. threads: thread_names(). From any thread."""
    account = loop._account()
    for name in ("lag", "timer_lag", "callback_time"):
        account[name] = Histogram(BOUNDS, *account[name])
    account["functions"] = _functions(account["functions"], account["busy"])
    del account["parks"]
    ident = loop._thread_id
    thread = None if ident is None else threads.get(ident, str(ident))
    return LoopStats(number=loop._number, thread=thread, **account)
