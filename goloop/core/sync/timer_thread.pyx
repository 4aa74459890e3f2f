# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The clock: timers and deadlines that are set from any thread, and the one thread on which they fire.

It is a thread of its own, since every loop may be stuck in a user's code, and a deadline is wanted most just then;
also a program without a loop, or whose loop has ended, has timers. An entry that fires must not wait: it closes a
channel, sends on one that has room, or starts a goroutine. Guard: the GIL. Nothing gives it up between the look at an
entry and its value in the channel, so after stop() or reset() there is none of before. Semantics are Go's
(time/sleep.go, tick.go, since Go 1.23).
"""

import weakref
from _thread import allocate_lock

from libc.math cimport floor, isinf, isnan

from goloop.core.sync.chan cimport Chan
from goloop.core.sched.waiter cimport number_of_seconds
from goloop.core.sched.goroutine cimport check_function, origin_here, origin_loop_here, stack_of, start
from goloop.core.poll.timer_heap cimport TimerHeap
from goloop.core.system.posix cimport now_s
from goloop.core.sched.bubble cimport clock_s, core_here
from goloop.core.sched.scheduler cimport bubbles

from goloop.core.sched.scheduler import report_unraisable


cdef extern from "Python.h":
    object PyContext_CopyCurrent()

cdef extern from "../system/native/sealed.h":
    int gl_seal(object type, const char *reason) except -1

cdef enum:
    BATCH = 64  # timers that fire before other threads get a chance to run

cdef double IDLE = 10.0            # seconds without an entry after which the thread ends, as a worker's does
cdef double SHORTEST = 1e-6        # seconds between two ticks; a shorter period would only keep the thread busy
cdef double LONGEST = 24 * 3600.0 * 365 * 100     # seconds; a time further away never comes

cdef TimerHeap timers = TimerHeap()
cdef object wakeup = None            # a lock that the thread sleeps in; the caller that clears `asleep` releases it
cdef bint asleep = False
cdef bint running = False          # the thread is there, or about to start
cdef bint leaving = False          # it is to end as soon as there is no entry
cdef bint tracing = False          # entries keep the stacks on which they are set
cdef object start_thread = None    # runtime.timer_thread's


cdef double time_in(object seconds) except? -1:
    """When it is that many seconds from now."""
    cdef double delay = number_of_seconds(seconds)
    if isnan(delay):
        raise ValueError("a number of seconds cannot be NaN")
    if delay > LONGEST and (not bubbles or core_here() is None):
        delay = LONGEST               # of virtual time any amount may pass
    return clock_s() + max(delay, 0)


cdef class TimerEntry:
    def __cinit__(self, *args, **kwargs):
        self.heap_index = -1

    def __repr__(self):
        return f"<{type(self).__name__} {state_of(self)}>"

    cdef int arm(self, double when) except -1:
        """Let it fire at that time, instead of any other."""
        global asleep, running
        self.disarm()
        self.when = when
        if tracing:
            self.set_at = origin_here()
        if bubbles and core_here() is not None:
            self.bubble = core_here()
            self.in_bubble = self.bubble.schedule(when, self._fire_in_bubble, (), self.bubble.worker.context)
            return 0
        timers.push(when, &self.heap_index, self)
        if not running:
            running = True
            try:
                start_thread()
            except BaseException:
                running = False
                self.disarm()
                raise
        elif asleep and self.heap_index == 0:
            asleep = False
            wakeup.release()
        return 0

    cdef bint disarm(self) except -1:
        if self.in_bubble is not None:
            self.check_edge()
            self.in_bubble.cancel()
            self.in_bubble = None
            return True
        if self.heap_index < 0:
            return False
        timers.remove(self.heap_index)
        return True

    cdef int check_edge(self) except -1:
        if self.bubble is not core_here() and not self.bubble._closed:
            raise RuntimeError("a timer that was set in a bubble is used outside of it")
        return 0

    cdef bint is_set(self) noexcept:
        return self.heap_index >= 0 or self.in_bubble is not None

    def _fire_in_bubble(self):
        self.in_bubble = None
        self.fire(self.bubble.virtual)

    cdef int fire(self, double now) except -1:
        raise SystemError("TimerEntry.fire() is abstract")


cdef class CallbackTimer(TimerEntry):
    """For context: calls a function, which must not wait, on the clock's thread."""

    def __init__(self, function):
        self.function = function

    def set(self, double when):
        """Call it at that time, in seconds on the monotonic clock, unless clear() comes before."""
        self.arm(when if bubbles and core_here() is not None else min(when, now_s() + LONGEST))

    def clear(self):
        """Do not call it; returns whether it was set."""
        return self.disarm()

    cdef int fire(self, double now) except -1:
        self.function()
        return 0


cdef class ChannelTimer(TimerEntry):
    """Sends the time on a channel, once or again and again."""

    cdef int fire(self, double now) except -1:
        cdef Chan chan = self.chan()
        if chan is None or chan.closed:
            return 0
        if self.period > 0:
            self.arm(self.when + self.period * (1 + floor((now - self.when) / self.period)))
        chan.send_now(now)  # False: the one before is still there
        return 0

    def _dropped(self, reference):
        self.chan = None
        if self.in_bubble is None:
            self.disarm()
        elif self.bubble is core_here():   # else its bubble is over, or lets it fire for nothing
            self.in_bubble.cancel()


cdef ChannelTimer new_channel_timer(Chan chan, double period):
    cdef ChannelTimer entry = ChannelTimer.__new__(ChannelTimer)
    entry.period = period
    entry.chan = weakref.ref(chan, entry._dropped)
    return entry


cdef class GoroutineTimer(TimerEntry):
    """Starts a goroutine, as if the maker of this timer called go() only then."""

    def __init__(self, function, args, kwargs):
        check_function(function, "after_func")
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = PyContext_CopyCurrent()
        self.origin = origin_here()
        self.origin_loop = origin_loop_here()

    def start(self):
        """Start it now; also for context.after_func()."""
        start(self.function, self.args, self.kwargs, self.context.copy(), self.origin, self.origin_loop)

    cdef int fire(self, double now) except -1:
        self.start()
        return 0


# -------------------------------------------------------------------- the thread
cdef int fire_due() except -1:
    """Let fire what is due."""
    cdef TimerEntry entry
    cdef double moment = now_s()
    cdef int fired = 0
    while timers.size and timers.first() <= moment:
        entry = timers.pop()
        try:
            entry.fire(moment)
        except BaseException as exc:
            report_unraisable(exc)
        fired += 1
        if fired % BATCH == 0:
            with nogil:
                pass
    return 0


def run():
    """The clock's thread runs this."""
    global asleep, running, leaving
    cdef double delay
    while True:
        fire_due()
        with nogil:  # timers that follow each other closely leave no other pause
            pass
        if timers.size:
            delay = min(max(timers.first() - now_s(), 0), 3600.0)
        else:
            delay = IDLE
            if leaving:
                running = leaving = False
                return
        leaving = False
        asleep = True
        if not wakeup.acquire(True, delay):
            asleep = False
            if timers.size == 0:
                running = False
                return


# ----------------------------------------------------------- for runtime.timer_thread
def set_starter(starter):
    """Say how the thread is started that does run()."""
    global start_thread
    start_thread = starter


def pending():
    """Return how many timers are set."""
    return timers.size


def entries():
    """Return what is set, for goloop.testing."""
    return list(timers.items)


def timers_set():
    """Return [(entry, due in seconds of the monotonic clock, function or None)] of what is set, for goloop.debug."""
    cdef TimerEntry entry
    return [(entry, entry.when, function_of(entry)) for entry in list(timers.items)]


cdef object function_of(TimerEntry entry):
    if isinstance(entry, CallbackTimer):
        return (<CallbackTimer>entry).function
    return (<GoroutineTimer>entry).function if isinstance(entry, GoroutineTimer) else None


def trace(bint on):
    """Let entries keep the stacks on which they are set, or not. For goloop.testing."""
    global tracing
    tracing = on


def origin_of(TimerEntry entry not None):
    """Return the stack on which an entry was set, outermost frame first; None if that is not known."""
    return None if entry.set_at is None else stack_of(entry.set_at)


def drop():
    """Drop all timers, and let the thread end unless new ones come. Returns whether it still runs."""
    global asleep, leaving
    timers.clear()
    if running:
        leaving = True
        if asleep:
            asleep = False
            wakeup.release()
    return running


def after_fork_in_child():
    """In a forked child: neither the thread is here, nor are the timers its."""
    global asleep, running, leaving, wakeup
    asleep = running = leaving = False
    wakeup = allocate_lock()
    wakeup.acquire()
    timers.clear()


after_fork_in_child()


# ------------------------------------------------------------------ goloop.timer
cdef class Timer:
    """Sends the time on its channel once, after a while (Go: time.NewTimer).

    seconds: from now, a number (else TypeError; ValueError for NaN); 0 or less: at once. chan: the channel, a Chan, to
    be read only; it gets the time as time.monotonic() gives it, in seconds. A timer need not be stopped: when nothing
    refers to it any more, nor to its channel, it is collected. From any thread, goroutine or coroutine; the clock's own
    thread fires it.
    """

    def __cinit__(self, *args, **kwargs):
        self.chan = Chan(1)
        self.entry = new_channel_timer(self.chan, 0)

    def __init__(self, seconds):
        cdef double when = time_in(seconds)
        if self.entry.when != 0:
            raise RuntimeError("a Timer is set again with reset()")
        self.entry.arm(when)

    def __repr__(self):
        return f"<Timer {state_of(self.entry)}>"

    cdef bint halt(self) except -1:
        cdef bint active = self.entry.disarm()
        if self.chan.count:
            self.chan.receive_now()
            active = True
        return active

    def stop(self) -> bool:
        """Stop it (Go: Timer.Stop): nothing comes from the channel any more. From any thread.

        Returns False if it had fired and the time was received, or it was stopped. The channel stays open.
        """
        return self.halt()

    def reset(self, seconds: float) -> bool:
        """Let it fire that many seconds from now instead (Go: Timer.Reset); only then comes something from the channel.

        seconds: a number (else TypeError; ValueError for NaN); 0 or less: at once. Returns False if it had fired and
        the time was received, or it was stopped. From any thread.
        """
        cdef double when = time_in(seconds)
        cdef bint active = self.halt()
        self.entry.arm(when)
        return active


cdef class Ticker:
    """Sends the time on its channel again and again (Go: time.NewTicker), until stop(); also a context manager.

    seconds: from one tick to the next, a microsecond at least; TypeError unless a number, ValueError unless positive.
    While one tick is unreceived the others are dropped; those that come are at multiples of the period after the start.
    chan: the channel, a Chan, to be read only; it gets the time as time.monotonic() gives it, in seconds. When nothing
    refers to the ticker any more, nor to its channel, it is collected. From any thread, goroutine or coroutine; the
    clock's own thread fires it.
    """

    def __cinit__(self, *args, **kwargs):
        self.chan = Chan(1)
        self.entry = new_channel_timer(self.chan, 0)

    def __init__(self, seconds):
        cdef double period = period_of(seconds)
        if self.entry.when != 0:
            raise RuntimeError("a Ticker is set again with reset()")
        self.entry.period = period
        self.entry.arm(clock_s() + period)

    def __repr__(self):
        return f"<Ticker every {self.entry.period:g} s, {'running' if self.entry.is_set() else 'stopped'}>"

    def stop(self) -> None:
        """Stop it (Go: Ticker.Stop): nothing comes from the channel any more, which stays open. From any thread."""
        self.entry.disarm()
        if self.chan.count:
            self.chan.receive_now()

    def reset(self, seconds: float) -> None:
        """Tick every that many seconds from now on (Go: Ticker.Reset), also if it was stopped. From any thread.

        seconds: from one tick to the next; TypeError unless a number, ValueError unless positive.
        """
        cdef double period = period_of(seconds)
        self.stop()
        self.entry.period = period
        self.entry.arm(clock_s() + period)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


cdef class FuncTimer:
    """Calls a function in a goroutine of its own, after a while; made by after_func() (Go: time.AfterFunc).

    From any thread, goroutine or coroutine.
    """

    def __repr__(self):
        return f"<FuncTimer of {self.entry.function!r}, {state_of(self.entry)}>"

    def stop(self) -> bool:
        """Do not call the function (Go: Timer.Stop). From any thread.

        Returns False if it was called, or stopped before; the goroutine may still run then.
        """
        return self.entry.disarm()

    def reset(self, seconds: float) -> bool:
        """Call the function that many seconds from now instead, or again (Go: Timer.Reset). From any thread.

        seconds: a number (else TypeError; ValueError for NaN); 0 or less: at once. Returns False if the function was
        called, or the timer stopped before.
        """
        cdef double when = time_in(seconds)
        cdef bint active = self.entry.disarm()
        self.entry.arm(when)
        return active


gl_seal(FuncTimer, b"a FuncTimer is made by after_func()")


cdef str state_of(TimerEntry entry):
    return f"due in {max(entry.when - clock_s(), 0):.3g} s" if entry.is_set() else "not set"


cdef double period_of(object seconds) except -1:
    cdef double period = number_of_seconds(seconds)
    if not period > 0 or isinf(period):
        raise ValueError(f"a Ticker's period is a positive number of seconds, got {seconds!r}")
    return max(SHORTEST, min(period, LONGEST))


def after(seconds: float) -> Chan[float]:
    """Return a channel that gets the time once, that many seconds from now (Go: time.After). From any thread.

    seconds: a number (else TypeError; ValueError for NaN); 0 or less: at once. The time is as time.monotonic() gives
    it, in seconds. It is for `select`; as with a Timer, a channel that nothing refers to any more is collected.
    """
    cdef double when = time_in(seconds)
    cdef Chan chan = Chan(1)
    new_channel_timer(chan, 0).arm(when)
    return chan


def after_func(seconds: float, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> FuncTimer:
    """Call function(*args, **kwargs) in a goroutine of its own that many seconds from now (Go: time.AfterFunc).

    seconds: a number (else TypeError; ValueError for NaN); 0 or less: at once. function: a plain function or a
    coroutine function; TypeError for anything else. args, kwargs: its arguments. It runs in a copy of the caller's
    contextvars context, as with go(). Returns a FuncTimer, which need not be kept. From any thread.
    """
    cdef double when = time_in(seconds)
    cdef FuncTimer timer = FuncTimer.__new__(FuncTimer)
    timer.entry = GoroutineTimer(function, args, kwargs)
    timer.entry.arm(when)
    return timer
