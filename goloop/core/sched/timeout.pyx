# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""timeout: ends the body of a `with` block when its time is over (asyncio.timeout, for goroutines as well).

In a goroutine it cancels what the goroutine is parked on, or its next park, and turns the CancelledError that comes
out of the block into a TimeoutError. `G.cancels` tells its own cancellation from those of others. In a coroutine
asyncio's own timeout does the work. Guard of all fields: the GIL.
"""

import asyncio
from asyncio import CancelledError
from asyncio import events as _events

from libc.math cimport isnan

from goloop.core.loop.handles cimport TimerHandle
from goloop.core.sched.scheduler cimport G, current_g, here
from goloop.core.sched.waiter cimport CANCELLED, Waiter, number_of_seconds


cdef enum State:
    CREATED = 0
    ACTIVE = 1
    EXPIRING = 2      # the time is over, and the block has not ended
    EXPIRED = 3
    FINISHED = 4      # the block ended before

_STATES = ("created", "active", "expiring", "expired", "finished")


cdef object checked(object seconds, str what):
    """It, if it is None or a number of seconds."""
    if seconds is not None and isnan(number_of_seconds(seconds)):
        raise ValueError(f"{what} cannot be NaN")
    return seconds


cdef class timeout:
    """`with timeout(5):` ends its block with TimeoutError when it takes longer (asyncio.timeout).

    seconds: how long the block may take, from its beginning; None: no end, until reschedule() sets one; TypeError for
    anything but a number, ValueError for NaN. What the goroutine is parked on when the time is over, whatever it is, is
    cancelled, or its next park is; the CancelledError becomes a TimeoutError at the end of the block. A block that
    neither parks nor yields once its time is over ends as usual. Timeouts nest: each one ends its own block alone.
    Another cancellation goes on as CancelledError. One object is for one block; `with … as t` gives it.

    In a plain goroutine `with`, in a coroutine on any loop `async with`, which is asyncio.timeout(). RuntimeError
    for `with` in a coroutine, and in a plain thread, where nothing can be interrupted.
    """

    cdef State state
    cdef object seconds
    cdef object deadline          # seconds on the loop's clock; None: no end
    cdef G g                      # the goroutine that is inside
    cdef TimerHandle timer
    cdef Py_ssize_t cancels       # of the goroutine, when it came in
    cdef bint pending             # the goroutine was not parked when the time was over: its next park is to raise,
    cdef unsigned int taken       # unless one has since, that is, this number of the goroutine's has changed
    cdef object inner             # an asyncio.Timeout, in a coroutine

    def __init__(self, seconds):
        self.seconds = checked(seconds, "a timeout")

    def __repr__(self):
        if self.inner is not None:
            return f"<timeout {self.inner!r}>"
        when = "" if self.state != ACTIVE else f" when={self.deadline}"
        return f"<timeout [{_STATES[self.state]}]{when}>"

    def when(self) -> float | None:
        """Return the time at which it ends its block (asyncio.Timeout.when), None for never. From any thread.

        It is in seconds of time.monotonic(), in a coroutine of its loop's time(). None before the block begins, too.
        """
        return self.deadline if self.inner is None else self.inner.when()

    def expired(self) -> bool:
        """Return whether the time was over before the block ended (asyncio.Timeout.expired). From any thread."""
        if self.inner is not None:
            return self.inner.expired()
        return self.state == EXPIRING or self.state == EXPIRED

    def reschedule(self, when: float | None) -> None:
        """Let it end its block at another time (asyncio.Timeout.reschedule).

        when: in seconds of time.monotonic(), in a coroutine of its loop's time(); one that has passed: as soon as
        possible; None: never; TypeError for anything but a number, ValueError for NaN. RuntimeError before the block
        begins, when it has ended, and when its time is over. From any thread or goroutine while a goroutine is inside;
        with a coroutine inside, on its loop's thread.
        """
        checked(when, "a time")
        if self.inner is not None:
            self.inner.reschedule(when)
            return
        if self.state == CREATED:
            raise RuntimeError("the timeout has not been entered")
        if self.state != ACTIVE:
            raise RuntimeError(f"cannot change the time of a timeout that is {_STATES[self.state]}")
        self.deadline = when
        if here() is self.g.worker:
            self._arm()
        else:
            self.g.worker.loop.call_soon_threadsafe(self._arm)

    # ------------------------------------------------------------- goroutines
    def _arm(self):
        """Set the timer to the deadline; on the worker's thread."""
        if self.state != ACTIVE:
            return
        self.disarm()
        if self.deadline is not None:
            self.timer = self.g.worker.loop.schedule(self.deadline, self._expire, (), self.g.worker.context)

    cdef int disarm(self) except -1:
        cdef TimerHandle timer = self.timer
        self.timer = None
        if timer is not None:
            timer.cancel()
        return 0

    def _expire(self):
        cdef G g = self.g
        cdef Waiter waiter
        self.timer = None
        if self.state != ACTIVE:
            return
        self.state = EXPIRING
        g.cancels += 1
        waiter = g.waiter
        if waiter is not None and not waiter.shielded and waiter.claim(CANCELLED):
            waiter.wake()
        elif waiter is None or waiter.outcome != CANCELLED:   # else it is about to raise for another reason
            self.pending = True
            self.taken = g.cancellations_taken
            g.expired += 1

    def __enter__(self):
        cdef G g = current_g()
        if self.state != CREATED or self.inner is not None:
            raise RuntimeError("the timeout has been entered before: each block needs one of its own")
        if g is None:
            if here() is not None or _events._get_running_loop() is not None:
                raise RuntimeError("a coroutine uses `async with timeout(…)`; `with` is for goroutines")
            raise RuntimeError(
                "timeout() ends what parks, and a plain thread does not: run this with go(), or give each call a "
                "timeout"
            )
        if self.seconds is not None:
            self.deadline = g.worker.loop.now() + self.seconds
        self.g = g
        self.cancels = g.cancels
        self.state = ACTIVE
        try:
            self._arm()
        except BaseException:
            self.state = FINISHED
            raise
        return self

    def __exit__(self, kind, exc, traceback):
        cdef G g = self.g
        if g is None or self.state == EXPIRED or self.state == FINISHED:
            raise RuntimeError("the timeout is not entered")
        self.disarm()
        if self.state == ACTIVE:
            self.state = FINISHED
            return
        self.state = EXPIRED
        g.cancels -= 1
        if self.pending and self.taken == g.cancellations_taken:
            g.expired -= 1
        if kind is not None and issubclass(kind, CancelledError) and g.cancels <= self.cancels and current_g() is g:
            raise TimeoutError("timeout: the time is over") from exc

    # ------------------------------------------------------------- coroutines
    async def __aenter__(self):
        if self.state != CREATED or self.inner is not None:
            raise RuntimeError("the timeout has been entered before: each block needs one of its own")
        inner = asyncio.timeout(self.seconds)
        await inner.__aenter__()
        self.inner = inner
        return self

    async def __aexit__(self, kind, exc, traceback):
        if self.inner is None:
            raise RuntimeError("the timeout is not entered")
        await self.inner.__aexit__(kind, exc, traceback)
