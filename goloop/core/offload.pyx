# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Whether a loop's streams do their own kernel work, or have the netpoller do it.

GOLOOP_IO=inline and =offload pin that. With =auto, the default, the netpoller has it while that pays, which is where
the loop has no rest left and a processor has: watch for that, try, and keep to it only if more turns a second come out
of it. Figures come in windows:

    WATCH   two windows without rest, and a processor with some       -> TRIAL
    TRIAL   the loop now has rest, or does more                       -> HOLD
            neither                                                   -> WATCH, and each time wait longer for the next
    HOLD    three windows mostly at rest, or ten seconds are over     -> WATCH
"""

import os

from goloop.core.netpoll cimport now_ns

cdef tuple MODES = ("inline", "offload", "auto")
cdef str DEFAULT = "auto"

cdef int64_t SECOND = 1000000000
cdef int64_t WINDOW = SECOND // 10       # a tick of /proc/stat is a tenth of it
cdef int64_t HOLD_FOR = 10 * SECOND      # things change; a look at how inline does costs three windows
cdef int64_t BACKOFF_MAX = 60 * SECOND
cdef double BUSY = 0.1                   # share of a window that a loop without rest may have slept
cdef double RESTED = 0.5                 # share from which on the netpoller is not needed
cdef double SPARE = 0.25                 # processors that must have been idle: what the netpoller may need
cdef double GAIN = 1.05                  # turns a second that a trial must bring
cdef uint64_t TURNS_MIN = 50             # in a window; with fewer it is not I/O that keeps the loop busy
cdef int TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


cdef double idle_seconds() except? -1:
    """Idle time of the processors that this process may use, summed up since boot; -1: fewer than two, or unknown."""
    try:
        usable = os.sched_getaffinity(0)
        if len(usable) < 2:
            return -1
        ticks = 0
        with open("/proc/stat", "rb") as file:
            for line in file:
                if not line.startswith(b"cpu"):
                    break
                name, *figures = line.split()
                if name != b"cpu" and int(name[3:]) in usable:
                    ticks += int(figures[3]) + int(figures[4])     # idle, iowait
    except (OSError, ValueError, IndexError):
        return -1
    return ticks / <double>TICKS_A_SECOND


cdef class IoSwitch:
    """One loop's decision."""

    def __cinit__(self):
        self.start_idle = -1
        self.backoff = SECOND
        self.use(os.environ.get("GOLOOP_IO", DEFAULT))
        self.switches = 0

    def use(self, mode):
        """Go over to a mode of GOLOOP_IO; each stream follows at its next turn."""
        if mode not in MODES:
            raise ValueError(f"GOLOOP_IO must be one of {', '.join(MODES)}, not {mode!r}")
        self.adaptive = mode == "auto"
        self.rest = 32 if self.adaptive else 0
        self.enter(HOLD if mode == "offload" else WATCH, now_ns())

    cdef int tick(self) except -1:
        """An iteration is over."""
        cdef int64_t now
        self.iterations += 1
        if self.iterations % 16 == 0:
            now = now_ns()
            if now - self.start >= WINDOW:
                self.judge(now)
        return 0

    cdef int judge(self, int64_t now) except -1:
        """A window is over: say what it was like."""
        cdef double seconds = (now - self.start) / 1e9
        cdef double slept = (self.slept - self.start_slept) / 1e9 / seconds
        cdef uint64_t turns = self.turns - self.start_turns
        cdef double idle = -1, spare = 0
        if self.state == WATCH and now >= self.not_before and slept < BUSY and turns >= TURNS_MIN:
            idle = idle_seconds()      # costs about 30 us, so only where it may matter
            if idle >= 0 and self.start_idle >= 0:
                spare = (idle - self.start_idle) / seconds
        if self.start:                 # the first window has no beginning
            self.decide(now, seconds, turns, slept, spare)
        self.start = now
        self.start_turns = self.turns
        self.start_slept = self.slept
        self.start_idle = idle
        return 0

    cpdef bint decide(self, int64_t now, double seconds, uint64_t turns, double slept, double spare) except -1:
        """Decide after a window of so many seconds that ended at `now` (monotonic nanoseconds); True: offload.

        turns: how often streams were run. slept: share of the window in which the loop slept. spare: processors that
        were idle, on average.
        """
        cdef bint busy = slept < BUSY and turns >= TURNS_MIN
        if self.state == WATCH:
            self.streak = self.streak + 1 if busy and spare >= SPARE and now >= self.not_before else 0
            if self.streak >= 2:
                self.base = turns / seconds
                self.enter(TRIAL, now)
        elif self.state == TRIAL:
            self.streak += 1
            if self.streak > 1:        # the first window is that of the change
                self.best = max(self.best, turns / seconds)
                if not busy or self.best >= GAIN * self.base:
                    self.backoff = SECOND
                    self.enter(HOLD, now)
                elif self.streak > 3:
                    self.not_before = now + self.backoff
                    self.backoff = min(2 * self.backoff, BACKOFF_MAX)
                    self.enter(WATCH, now)
        else:
            self.streak = self.streak + 1 if slept > RESTED else 0
            if self.streak >= 3 or now - self.since >= HOLD_FOR:
                self.enter(WATCH, now)
        return self.on

    cdef int enter(self, State state, int64_t now) except -1:
        cdef bint on = state != WATCH
        self.state = state
        self.since = now
        self.streak = 0
        self.best = 0
        if on != self.on:
            self.on = on
            self.switches += 1
        return 0
