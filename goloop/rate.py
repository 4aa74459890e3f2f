"""Go's golang.org/x/time/rate: how often something may happen, for goroutines, coroutines and plain threads alike."""

from __future__ import annotations

import asyncio
import math
import sys
import threading

from goloop.chan import async_select, recv, select
from goloop.context import Context
from goloop.core.net.polldesc import may_wait
from goloop.core.sched.bubble import monotonic
from goloop.core.sched.goroutine_api import sleep
from goloop.errors import DeadlineExceeded

__all__ = ["Limiter", "Reservation"]


def _check_limit(limit: float) -> float:
    if isinstance(limit, str) or not hasattr(limit, "__float__"):
        raise TypeError(f"a limit is a number of events a second, got {limit!r}")
    if not float(limit) >= 0:
        raise ValueError(f"a limit is a number of events a second, at least 0, got {limit!r}")
    return float(limit)


def _check_count(n: int, what: str, least: int) -> int:
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{what} is an int, got {n!r}")
    if not least <= n <= sys.maxsize:
        raise ValueError(f"{what} is at least {least}, got {n}")
    return n


class Limiter:
    """Lets events happen at a rate, and some at once (Go: rate.Limiter): a bucket of tokens that fills all the time.

    limit: events a second, at least 0; math.inf: no limit; TypeError or ValueError for anything else. burst: how many
    tokens there are at most, and at the beginning: as many events may happen at once; an int of at least 0. allow()
    takes a token if there is one, wait() and async_wait() wait for one, reserve() tells how long that takes. Waiters
    are served in the order in which they came. From any thread, goroutine or coroutine.
    """

    def __init__(self, limit: float, burst: int = 1) -> None:
        self._limit = _check_limit(limit)
        self._burst = _check_count(burst, "a burst", 0)
        self._lock = threading.Lock()  # nothing waits under it; guards what follows
        self._tokens = float(burst)  # negative: promised
        self._last = monotonic()  # when that was true
        self._last_event = -math.inf  # the time of the last event, which may be in the future

    def __repr__(self) -> str:
        return f"<Limiter {self._limit:g} a second, burst {self._burst}, {self.tokens():.3g} tokens>"

    @property
    def limit(self) -> float:
        """Events a second (float; Go: Limit). From any thread, goroutine or coroutine."""
        return self._limit

    @property
    def burst(self) -> int:
        """How many events may happen at once (int; Go: Burst). From any thread, goroutine or coroutine."""
        return self._burst

    def set_limit(self, limit: float) -> None:
        """Change the rate (Go: SetLimit). From any thread, goroutine or coroutine.

        limit: events a second, at least 0; math.inf: no limit; TypeError or ValueError for anything else. Waits under
        way are as long as they were.
        """
        limit = _check_limit(limit)
        with self._lock:
            self._advance(monotonic())
            self._limit = limit

    def set_burst(self, burst: int) -> None:
        """Change how many events may happen at once (Go: SetBurst). From any thread, goroutine or coroutine.

        burst: an int of at least 0; TypeError or ValueError for anything else.
        """
        burst = _check_count(burst, "a burst", 0)
        with self._lock:
            self._advance(monotonic())
            self._burst = burst

    def tokens(self) -> float:
        """Return how many tokens there are now (Go: Tokens); negative: as many are promised. From any thread."""
        with self._lock:
            self._advance(monotonic())
            return self._tokens

    def _advance(self, now: float) -> None:
        """Let tokens come in. With the lock."""
        elapsed = max(now - self._last, 0.0)
        self._last = now
        if self._limit != math.inf:
            self._tokens = min(self._tokens + elapsed * self._limit, float(self._burst))

    def _take(self, n: int, longest: float) -> tuple[bool, float]:
        """Take n tokens unless that means waiting for longer than that many seconds: whether, and until when."""
        now = monotonic()
        with self._lock:
            self._advance(now)
            if self._limit == math.inf:
                return True, now
            left = self._tokens - n
            delay = max(-left / self._limit, 0.0) if self._limit else 0.0 if left >= 0 else math.inf
            if n > self._burst or delay > longest or delay == math.inf:
                return False, now
            self._tokens = left
            self._last_event = now + delay
            return True, now + delay

    def _give_back(self, n: int, when: float) -> None:
        """What was reserved for a time to come does not happen. Later reservations count on a part of it."""
        now = monotonic()
        with self._lock:
            if self._limit == math.inf or when < now:
                return
            restored = n - (self._last_event - when) * self._limit
            if restored <= 0:
                return
            self._advance(now)
            self._tokens = min(self._tokens + restored, float(self._burst))
            if when == self._last_event and self._limit:
                self._last_event = max(now, when - n / self._limit)

    def allow(self, n: int = 1) -> bool:
        """Return whether n events may happen now, and take their tokens if so (Go: Allow, AllowN).

        n: an int of at least 0; TypeError or ValueError for anything else. From any thread, goroutine or coroutine: it
        does not wait.
        """
        return self._take(_check_count(n, "n", 0), 0.0)[0]

    def reserve(self, n: int = 1) -> Reservation:
        """Take the tokens of n events, also of those to come, and return when they may happen (Go: Reserve, ReserveN).

        n: an int of at least 0; TypeError or ValueError for anything else. Returns a Reservation. From any thread,
        goroutine or coroutine: it does not wait.
        """
        ok, when = self._take(_check_count(n, "n", 0), math.inf)
        return Reservation(self, n, ok, when)

    def _reserve_for(self, n: int, timeout: float | None, ctx: Context | None) -> Reservation:
        """For a wait that long; its error at once if it would take longer."""
        _check_count(n, "n", 0)
        if timeout is not None and (isinstance(timeout, str) or not hasattr(timeout, "__float__")):
            raise TypeError(f"wait(): a timeout is a number of seconds or None, got {timeout!r}")
        if ctx is not None and not isinstance(ctx, Context):
            raise TypeError(f"wait(): ctx is a goloop.context.Context, got {ctx!r}")
        longest = math.inf if timeout is None else max(float(timeout), 0.0)
        if math.isnan(longest):
            raise ValueError("wait(): a timeout cannot be NaN")
        if ctx is not None:
            err = ctx.err()
            if err is not None:
                raise err
            deadline = ctx.deadline()
            if deadline is not None and deadline - monotonic() < longest:
                longest = deadline - monotonic()
                timeout = None
        ok, when = self._take(n, longest)
        if ok:
            return Reservation(self, n, ok, when)
        if n > self._burst:
            raise ValueError(f"wait(): {n} events at once are more than the burst of {self._burst}")
        if timeout is not None:
            raise TimeoutError("wait(): the events would come after the timeout")
        if longest < math.inf:
            raise DeadlineExceeded("wait(): the events would come after the context's deadline")
        raise ValueError("wait(): with a limit of 0, no token comes any more")

    def wait(self, n: int = 1, timeout: float | None = None, *, ctx: Context | None = None) -> None:
        """Wait until n events may happen (Go: Wait, WaitN).

        n: an int of at least 0; TypeError or ValueError for anything else, and for more than the burst. timeout:
        seconds, None for no end; TimeoutError, at once, if it would take longer. ctx: a Context whose end ends the
        wait, by its error; DeadlineExceeded, at once, if it would take longer than its deadline; None: no context. A
        wait that is ended gives its tokens back. Parks a goroutine, which raises asyncio.CancelledError when it is
        cancelled; blocks a plain thread. RuntimeError on the thread of a running loop outside of a goroutine: `await
        async_wait()` there.
        """
        may_wait("Limiter.wait()", "await Limiter.async_wait()")
        reservation = self._reserve_for(n, timeout, ctx)
        delay = reservation.delay()
        if delay <= 0:
            return
        try:
            if ctx is None:
                sleep(delay)
            else:
                select(recv(ctx.done()), timeout=delay)
        except TimeoutError:
            return
        except BaseException:
            reservation.cancel()
            raise
        self._ended(reservation, ctx)

    async def async_wait(self, n: int = 1, timeout: float | None = None, *, ctx: Context | None = None) -> None:
        """Wait in a coroutine until n events may happen (Go: Wait, WaitN).

        n: an int of at least 0; TypeError or ValueError for anything else, and for more than the burst. timeout:
        seconds, None for no end; TimeoutError, at once, if it would take longer. ctx: a Context whose end ends the
        wait, by its error; DeadlineExceeded, at once, if it would take longer than its deadline; None: no context. A
        wait that is ended gives its tokens back. On any loop.
        """
        reservation = self._reserve_for(n, timeout, ctx)
        delay = reservation.delay()
        if delay <= 0:
            return
        try:
            if ctx is None:
                await asyncio.sleep(delay)
            else:
                await async_select(recv(ctx.done()), timeout=delay)
        except TimeoutError:
            return
        except BaseException:
            reservation.cancel()
            raise
        self._ended(reservation, ctx)

    def _ended(self, reservation: Reservation, ctx: Context | None) -> None:
        err = None if ctx is None else ctx.err()
        if err is not None:
            reservation.cancel()
            raise err


class Reservation:
    """Tokens that were taken for events that may happen a while from now; made by reserve() (Go: rate.Reservation).

    From any thread, goroutine or coroutine.
    """

    __slots__ = ("_limiter", "_n", "_ok", "_when")

    def __init__(self, limiter: Limiter, n: int, ok: bool, when: float) -> None:
        self._limiter = limiter
        self._n = n
        self._ok = ok
        self._when = when

    def __repr__(self) -> str:
        return f"<Reservation of {self._n}, in {self.delay():.3g} s>" if self._ok else "<Reservation of none>"

    @property
    def ok(self) -> bool:
        """Whether there are tokens (bool); False: never, as they are more than the burst (Go: OK)."""
        return self._ok

    def delay(self) -> float:
        """Return the seconds until the events may happen (Go: Delay), math.inf for never. From any thread."""
        return max(self._when - monotonic(), 0.0) if self._ok else math.inf

    def cancel(self) -> None:
        """Give back what others do not count on, as the events do not happen (Go: Cancel). From any thread."""
        if self._ok:
            self._ok = False
            self._limiter._give_back(self._n, self._when)
