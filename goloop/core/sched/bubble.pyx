# cython: language_level=3, boundscheck=False, wraparound=False
"""Bubbles: a loop and a worker on one thread, whose clock is virtual and whose free choices are drawn.

goloop.testing stands on it. The loop of a bubble never sleeps. Where another one would, all in the bubble are at rest,
and the clock jumps to the next timer. A bubble's goroutines never are in the backlog: they stand in its worker's run
queue before they start, so one queue has all that can go on. Everything belongs to the thread that runs the loop.
"""

from asyncio.events import _set_running_loop as set_running_loop

from cpython.object cimport PyObject
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t

from goloop.core.loop.handles cimport Handle, TimerHandle
from goloop.core.loop.ready_queue cimport push
from goloop.core.poll.pollset cimport Side
from goloop.core.sched.goroutine cimport Goroutine, adopt
from goloop.core.sched.scheduler cimport (
    DONE, RUNNING, UNSTARTED, G, Queue, bubble_here, bubbles, current_g, here, make_current,
)
from goloop.core.sched.waiter cimport (
    CANCELLED, COMPLETED, WaitNode, WaitQueue, Waiter, async_waiter, blocking_waiter, new_wait_node, raise_outcome,
)
from goloop.core.system.posix cimport now_s

import asyncio
from greenlet import getcurrent

cdef extern from *:
    """
    #include <stdint.h>
    /* splitmix64: the same on every Python and machine. */
    static inline uint64_t gl_splitmix(uint64_t *state) {
        uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
        z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
        return z ^ (z >> 31);
    }
    """
    uint64_t gl_splitmix(uint64_t *state)

cdef double START = 1.0            # the loop's time at first, in seconds: a 0 would pass for "no time" in some programs


cdef int refuse(str what) except -1:
    raise RuntimeError(
        f"{what} is real I/O, and that is not possible in a bubble, whose time is virtual: use channels or another "
        "connection in memory"
    )


cdef class Choices:
    """What is free in a bubble, decided in the same way each time.

    seed: an int; None: the first in line goes first. planned: {number of the choice: what it is}, for a replay; all
    others are the first in line. draw: a function, called as draw(n) for a number below n.
    """

    def __init__(self, seed=None, planned=None, draw=None):
        self.seeded = seed is not None
        if self.seeded:
            self.state = seed % 2**64
        self.planned = planned
        self.draw = draw
        self.taken = []

    cdef Py_ssize_t choose(self, Py_ssize_t n) noexcept:
        """A number below n; 0 is what comes first without a seed."""
        cdef Py_ssize_t chosen = 0
        if n < 2:
            return 0
        self.made += 1
        if self.seeded:
            chosen = <Py_ssize_t>(((gl_splitmix(&self.state) >> 32) * <uint64_t>n) >> 32)
        elif self.planned is not None or self.draw is not None:
            chosen = self.ask(n)
        if chosen:
            try:
                self.taken.append((self.made, chosen))
            except MemoryError as exc:
                self.failure = exc
        return chosen

    cdef Py_ssize_t ask(self, Py_ssize_t n) noexcept:
        cdef Py_ssize_t chosen = 0
        if self.failure is not None:
            return 0
        try:
            chosen = self.planned.get(self.made, 0) if self.planned is not None else self.draw(n)
            if not 0 <= chosen < n:
                chosen = 0                 # the program has changed since the plan was made
        except BaseException as exc:       # raised here, it would hit whatever goroutine just parks
            self.failure = exc
        return chosen


# ----------------------------------------------------------------------- the worker
cdef class BubbleWorker(Worker):
    """A bubble's worker, which starts the goroutines of its bubble and no others."""

    def __cinit__(self, LoopCore loop not None):
        self.failed = []
        self.choices = Choices()

    cdef bint can_start(self) noexcept:
        return False                       # of the backlog, in which nothing of a bubble's ever is

    cdef bint assign(self) except -1:
        cdef G g = self.chosen
        self.chosen = None
        if g is None or g.status != UNSTARTED:
            return False
        g.status = RUNNING
        self.live += 1
        self.budget -= 1
        self.assigned = g
        make_current(self, g)
        return True

    cdef int run_goroutines(self) except -1:
        cdef object target
        self.rounds += 1
        self.note_loop()
        set_running_loop(None)
        try:
            while True:
                if self.chosen is not None:
                    if not self.start() and self.chosen is not None:
                        raise MemoryError("there is no memory for a goroutine")
                    continue
                target = self.pick_next()
                if target is not self.hub:
                    self.switch_to(target)
                elif self.chosen is None:
                    break
        finally:
            set_running_loop(self.loop)
        if self.runnable.count:
            self.loop.queue(self)
        return 0

    cdef G take(self):
        """Take out one of those that can go on."""
        cdef Queue queue = self.runnable
        cdef G before, g
        cdef Py_ssize_t i = self.choices.choose(queue.count)
        if i == 0:
            return queue.pop()
        before = queue.head
        for _ in range(i - 1):
            before = before.link
        g = before.link
        before.link = g.link
        g.link = None
        if before.link is None:
            queue.tail = before
        queue.count -= 1
        return g

    cdef object pick_next(self):
        cdef G g
        cdef object runner
        self.loop._ownership.stall.beat += 1
        if self.budget <= 0 or (self.loop.ready.count and self.runnable.count and self.choices.choose(2)):
            return self.pick_hub()
        while self.runnable.count:
            g = self.take()
            if g.status == UNSTARTED:
                self.chosen = g
                if not self.spare:
                    break
                runner = self.spare.pop()
                self.assign()
                return runner
            if g.status != DONE:           # it was cancelled before its start
                self.resume(g)
                return g.greenlet
        return self.pick_hub()

    cdef int maybe_yield(self, G g) except -1:
        if (self.runnable.count or self.loop.ready.count) and self.choices.choose(2):
            self.yield_(g)
        return 0

    def adopt(self, greenlet, name):
        """Make what a greenlet runs a goroutine of the bubble, and let it go on. Returns its Goroutine."""
        cdef Goroutine g = adopt(self, greenlet, name)
        self.loop.queue(self)
        return g

    def disown(self, Goroutine g not None):
        """What adopt() made a goroutine goes on as a plain thread's code: the loop does not run any more."""
        if not g.done():
            self.live -= 1
            g.finish(None, False)

    def release(self, Goroutine g not None):
        """What adopt() made a goroutine, and runs now, is none any more."""
        if self.current is not g or getcurrent() is self.hub:
            raise RuntimeError("a bubble has to be left where it was entered")
        self.live -= 1
        self.current = None
        g.finish(None, False)


# ------------------------------------------------------------------------- the loop
cdef class BubbleCore(LoopCore):
    """The loop of a bubble: it jumps to the next timer instead of sleeping, and watches no descriptor.

    choices: a Choices. epoch: what time.time() is to show at the start, in seconds. goloop.testing makes it, and offers
    `_deadlock()`, which returns what is raised when nothing can happen any more.
    """

    def __cinit__(self, *args, **kwargs):
        self.settling = WaitQueue.__new__(WaitQueue)
        self.worker = BubbleWorker(self)
        self.worker.bubble = self
        self.failed = self.worker.failed
        self.virtual = START
        self._look_ns = 0                  # when it looks for timers is not the real clock's to say
        self._set_up(Choices(), 0)

    def _set_up(self, Choices choices not None, double epoch):
        """Set what decides, and what time.time() shows now."""
        self.choices = choices
        if self.worker is not None:
            self.worker.choices = choices
        self.epoch = epoch - self.virtual

    # ---------------------------------------------------------------- time
    def time(self):
        """Return the bubble's time in seconds (asyncio: time). From any thread."""
        return self.virtual

    cdef double now(self) except? -1:
        return self.virtual

    def _wall_clock(self):
        """What time.time() shows in the bubble."""
        return self.epoch + self.virtual

    def _wall_clock_ns(self):
        return round(self.epoch * 1e9) + round(self.virtual * 1e9)

    def _advance(self, double seconds):
        """Let time pass while the caller keeps all others waiting, as a call that blocks does."""
        self.virtual += seconds

    cdef int sleep(self) except -1:
        """All are at rest: go on to the next thing that happens."""
        cdef double next = self.timers.first() if self.timers.size else INFINITY
        if next <= self.virtual:
            return 0
        if self.settling.waiting():
            return self.settling.complete_all()
        if self.draining and (self.worker is None or self.worker.live == 0):
            self._stopping = True
        elif next < INFINITY:
            self.virtual = next
        else:
            raise self._deadlock()
        return 0

    cdef int wake_due(self) except -1:
        """Queue the timers that are due. Of one instant, the order is drawn, and whether others run in between."""
        cdef double when
        cdef list together
        cdef TimerHandle timer
        while self.timers.size and self.timers.first() <= self.virtual:
            when = self.timers.first()
            together = [self.take_timer()]
            while self.timers.size and self.timers.first() == when:
                together.append(self.take_timer())
            while len(together) > 1:
                push(self.ready, together.pop(self.choices.choose(len(together))))
                if self.choices.choose(2):
                    for timer in together:
                        self.put_back(when, timer)
                    return 0
            push(self.ready, together[0])
        return 0

    cdef TimerHandle take_timer(self):
        cdef TimerHandle timer = <TimerHandle>self.timers.pop()
        timer.leave_heap()
        return timer

    cdef int put_back(self, double when, TimerHandle timer) except -1:
        timer.annex.heap = <PyObject *>self.timers
        self.timers.push(when, &timer.annex.heap_index, timer)
        if self.gc_untracks_handles:
            timer.untrack()
        return 0

    # -------------------------------------------------- what is not in a bubble
    cdef int collect(self) except -1:
        return 0

    cdef int forget_watchers(self, int fd) except -1:
        return refuse("watching a descriptor")

    cdef Handle add_watcher(self, object fileobj, Side side, object callback, object args):
        refuse("watching a descriptor")

    cdef bint remove_watcher(self, object fileobj, Side side) except -1:
        return False

    # ---------------------------------------------------------------- life
    def _take_thread(self):
        """The thread begins to run the loop: the bubble's goroutines run here, too."""
        if here() is not None:
            raise RuntimeError("a bubble cannot be inside of a bubble or of a goroutine: start it in a plain thread")
        if self.worker is None:
            raise RuntimeError("the bubble's loop is closed")
        self.worker.take_thread()

    def _leave_thread(self):
        """The thread has run the loop, for now."""
        if self.worker is not None and here() is self.worker:
            self.worker.leave_thread()

    def _forget(self):
        """The loop is closed: it does not keep its worker and its goroutines, which keep it."""
        cdef BubbleWorker worker = self.worker
        self.worker = None
        self.failed = []
        if worker is not None:
            worker.notice = None
            worker.firstiter = worker.finalizer = None

    def _has_goroutines(self):
        return self.worker is not None and (self.worker.live > 0 or self.worker.runnable.count > 0)

    def _goroutine_tasks(self):
        """Return the tasks that are goroutines."""
        return {} if self.worker is None else self.worker.tasks

    def _drain(self, bint on):
        """Let the loop stop as soon as all are at rest and no goroutine is left; or not."""
        self.draining = on

    def _failures(self):
        """Return the goroutines of the bubble whose exceptions were not received, in the order of their ends."""
        cdef Goroutine g
        return [g for g in self.failed if not g.observed]


cdef BubbleCore core_here():
    return <BubbleCore>bubble_here() if bubbles else None


cdef double clock_s() noexcept:
    cdef BubbleCore core
    if bubbles:
        core = core_here()
        if core is not None:
            return core.virtual
    return now_s()


def monotonic():
    """Return the caller's time, as loop.time() and time.monotonic() do: that of its bubble, or the process's."""
    return clock_s()


def bubble():
    """Return the loop of the bubble that calls, None outside."""
    return bubble_here()


def refuse_in_bubble(what):
    """RuntimeError in a bubble: it is real I/O."""
    if bubbles and bubble_here() is not None:
        refuse(what)


cdef WaitNode claim_drawn(WaitQueue queue):
    """WaitQueue.claim_first() where no order is promised: in a bubble the first one is drawn."""
    cdef BubbleCore core = core_here()
    cdef WaitNode node = queue.first
    cdef list waiting
    if core is None:
        return queue.claim_first()
    waiting = []
    while node is not None:
        if node.waiter.waits():
            waiting.append(node)
        node = node.after
    if not waiting:
        return None
    node = waiting[core.choices.choose(len(waiting))]
    node.unlink()
    node.waiter.claim(COMPLETED)
    node.waiter.index = node.index
    return node


cdef BubbleCore settle_here():
    cdef BubbleCore core = core_here()
    if core is None:
        raise RuntimeError("wait() waits for the others in a bubble, and this is none: see goloop.testing.bubble()")
    if core.settling.waiting():
        raise RuntimeError("wait() is called by two at once, and each would wait for the other to be at rest")
    return core


def settle():
    """goloop.testing.wait()."""
    cdef BubbleCore core = settle_here()
    cdef Waiter waiter
    cdef WaitNode node
    if current_g() is None:
        raise RuntimeError("wait() would block the event loop: use await async_wait() here, or call it in a goroutine")
    waiter = blocking_waiter("wait()", "await async_wait()")
    node = new_wait_node(waiter, 0, None)
    core.settling.join(node)
    try:
        waiter.block("bubble wait", -1)
    finally:
        node.unlink()
    if waiter.outcome == CANCELLED:
        raise asyncio.CancelledError()


async def async_settle():
    """goloop.testing.async_wait()."""
    cdef BubbleCore core = settle_here()
    cdef Waiter waiter = async_waiter("bubble wait", None)
    cdef WaitNode node = new_wait_node(waiter, 0, None)
    core.settling.join(node)
    try:
        await waiter.suspend(-1)
    finally:
        node.unlink()
    raise_outcome(waiter.outcome, "wait()")
