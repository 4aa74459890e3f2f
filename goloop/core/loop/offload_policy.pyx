# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Whether a loop's streams do their own kernel work, or have the netpoller do it.

GOLOOP_IO=inline and =offload pin that. With =auto, the default, the netpoller has it while that pays, which is where
the loop has no rest left and a processor has: as much as the loop spends in the kernel, since that is what the
netpoller takes over. With less it would be slower than the loop was, or take from its peers. Watch for that, try,
and keep to it only if it does not cost turns. Figures come in windows:

    WATCH   two windows without rest, and processors with enough      -> TRIAL
    TRIAL   the loop does more, or no less and has rest, for its price  -> HOLD
            much less, or neither for three windows                   -> WATCH, and each time wait longer for the next
    HOLD    three windows mostly at rest or dear, or ten seconds over -> WATCH

The price is the processor time a turn, of the loop's thread and the netpoller's: it may not grow by more than the turns
a second do, and is dear where it does in HOLD, as on a machine that has become busy with something else.
"""

import os

from goloop import _environment

from goloop.core.poll.pollset cimport netpoller_cpu
from goloop.core.system.posix cimport gl_clock_ns, now_ns

cdef extern from "sys/resource.h" nogil:
    enum:
        RUSAGE_THREAD
    struct timeval:
        long tv_sec
        long tv_usec
    struct rusage:
        timeval ru_stime
    int getrusage(int who, rusage *usage)

cdef extern from "time.h" nogil:
    enum:
        CLOCK_THREAD_CPUTIME_ID

cdef int64_t SECOND = 1000000000
cdef int64_t WINDOW = SECOND // 10       # a tick of /proc/stat is a tenth of it
cdef int64_t HOLD_FOR = 10 * SECOND      # things change; a look at how inline does costs three windows
cdef int64_t BACKOFF_MAX = 60 * SECOND
cdef double BUSY = 0.1                   # share of a window that a loop without rest may have slept
cdef double RESTED = 0.5                 # share from which on the netpoller is not needed
cdef double SPARE = 0.25                 # processors that must have been idle, however little the kernel has to do
cdef double GAIN = 1.05                  # turns a second that a trial must bring, if it brings no rest
cdef double LOSS = 0.9                   # with fewer there is nothing to wait for
cdef double NOISE = 1.05                 # of a price, whose measure depends on what others do to the caches
cdef double DEAR = 1.15                  # a price that is no noise
cdef uint64_t TURNS_MIN = 50             # in a window; with fewer it is not I/O that keeps the loop busy
cdef int TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


cdef double kernel_seconds():
    """Time that this thread has spent in the kernel."""
    cdef rusage used
    getrusage(RUSAGE_THREAD, &used)
    return used.ru_stime.tv_sec + used.ru_stime.tv_usec / 1e6


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


cdef class OffloadPolicy:
    """One loop's decision."""

    def __cinit__(self):
        self.start_idle = -1
        self.backoff = SECOND
        self.use(_environment.get("GOLOOP_IO"))
        self.switches = 0

    def use(self, mode):
        """Go over to a mode of GOLOOP_IO; each stream follows at its next turn."""
        mode = _environment.parse("GOLOOP_IO", mode)
        self.adaptive = mode == "auto"
        self.inline_turns = 32 if self.adaptive else 0
        self.set_state(HOLD if mode == "offload" else WATCH, now_ns())

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
        cdef double idle = -1, kernel = 0, spare = 0, in_kernel = 0
        cdef int64_t cpu
        if self.state == WATCH and now >= self.not_before and slept < BUSY and turns >= TURNS_MIN:
            idle = idle_seconds()      # costs about 30 us, so only where it may matter
            kernel = kernel_seconds()  # that of another thread, if the loop has changed it: the trial tells
            if idle >= 0 and self.start_idle >= 0:
                spare = (idle - self.start_idle) / seconds
                in_kernel = (kernel - self.start_kernel) / seconds
        cpu = gl_clock_ns(CLOCK_THREAD_CPUTIME_ID) + netpoller_cpu()
        if self.start:                 # the first window has no beginning
            self.decide(now, seconds, turns, slept, spare, in_kernel, (cpu - self.start_cpu) / 1e9)
        self.start = now
        self.start_cpu = cpu
        self.start_turns = self.turns
        self.start_slept = self.slept
        self.start_idle = idle
        self.start_kernel = kernel
        return 0

    cpdef bint decide(
        self, int64_t now, double seconds, uint64_t turns, double slept, double spare, double kernel, double cpu
    ) except -1:
        """Decide after a window of so many seconds that ended at `now` (monotonic nanoseconds); True: offload.

        turns: how often streams were run. slept: share of the window in which the loop slept. spare: processors that
        were idle, on average. kernel: share of the window that the loop's thread spent in the kernel. cpu: seconds of
        processor time that this thread and the netpoller used; not positive: unknown, the loop has changed its thread.
        """
        cdef bint busy = slept < BUSY and turns >= TURNS_MIN
        cdef double price = cpu / turns if cpu > 0 and turns > 0 else 0
        cdef double gain
        if self.state == WATCH:
            self.streak = self.streak + 1 if busy and spare >= max(SPARE, kernel) and now >= self.not_before else 0
            if self.streak >= 2:
                self.base = turns / seconds
                self.base_price = price
                self.set_state(TRIAL, now)
        elif self.state == TRIAL:
            self.streak += 1
            if self.streak > 1:        # the first window is that of the change
                self.best = max(self.best, turns / seconds)
                gain = self.best / self.base
                if gain >= (GAIN if busy else 1) and not self.is_dear(price, NOISE * gain):
                    self.backoff = SECOND
                    self.set_state(HOLD, now)
                elif self.streak > 3 or self.best < LOSS * self.base:
                    self.not_before = now + self.backoff
                    self.backoff = min(2 * self.backoff, BACKOFF_MAX)
                    self.set_state(WATCH, now)
        else:
            self.streak = self.streak + 1 if slept > RESTED or (busy and self.is_dear(price, DEAR)) else 0
            if self.streak >= 3 or now - self.since >= HOLD_FOR:
                self.set_state(WATCH, now)
        return self.on

    cdef bint is_dear(self, double price, double limit) noexcept:
        return self.base_price > 0 and price > limit * self.base_price

    cdef int set_state(self, State state, int64_t now) except -1:
        cdef bint on = state != WATCH
        self.state = state
        self.since = now
        self.streak = 0
        self.best = 0
        if on != self.on:
            self.on = on
            self.switches += 1
        return 0
