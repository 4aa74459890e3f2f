# cython: language_level=3, boundscheck=False, wraparound=False
"""Workers and how goroutines take turns on them: park and ready, the run queue, the backlog.

A worker is a thread whose main greenlet, the hub, runs a loop. The worker stands in that loop's ready queue as one
item; its run_goroutines() switches to goroutines, which switch directly to each other as they park, until there is none
left or the budget is spent, and then back to the hub. HACKING.md has the states and the transitions between them.

Everything here is guarded by the GIL: no function gives it up between reading a state and changing it.
"""

import asyncio
import sys
from asyncio.events import _get_running_loop as get_running_loop, _set_running_loop as set_running_loop
from contextvars import Context

from goloop.core.loop.ownership cimport exchange_loop_thread, loop_thread_here

from goloop.core.loop.accounts cimport OBSERVE_EVERY, FunctionTime, subject_of, timed
from goloop.core.loop.run_trace cimport function_number
from goloop.core.system.posix cimport now_ns
from goloop.core.system.trace cimport (
    GL_TRACE_GO, GL_TRACE_PARK, GL_TRACE_READY, gl_tracer, name_number, the_tracer, trace,
)

from cpython.pycapsule cimport PyCapsule_Import
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil
    ctypedef struct PyThreadState:
        PyObject *async_gen_firstiter
        PyObject *async_gen_finalizer
    PyThreadState *PyThreadState_Get()
    PyObject *PyThreadState_GetDict()

cdef extern from "../sched/native/sysmon.h" nogil:
    ctypedef int (*gl_backlog_report)() noexcept with gil
    void gl_monitor_set_look(gl_look look)
    void gl_monitor_poke()
    int gl_monitor_start(gl_backlog_report report)
    void gl_monitor_stop()
    void gl_monitor_backlog(long change)
    void gl_monitor_started()
    int gl_thread_clock()
    int64_t gl_thread_cpu(int clock)

cdef extern from *:
    """
    #include "../system/native/thread_local.h"
    GL_THREAD_LOCAL PyObject *gl_worker;  /* the Worker of this thread, borrowed: its thread holds a reference */
    """
    PyObject *gl_worker

# greenlet's C interface: a table of functions behind a capsule, by its published numbers. (Without its header, so
# that building needs nothing installed.)
ctypedef object (*greenlet_new)(object run, object parent)
ctypedef object (*greenlet_current)()
ctypedef object (*greenlet_switch)(object target, PyObject *args, PyObject *kwargs)

cdef void **_api = <void **>PyCapsule_Import("greenlet._C_API", 0)
cdef greenlet_new new_greenlet = <greenlet_new>_api[3]
cdef greenlet_current getcurrent = <greenlet_current>_api[4]
cdef greenlet_switch switch = <greenlet_switch>_api[6]

cdef extern from *:
    """
    #include <alloca.h>

    /* Switch to a greenlet for the first time, from `gap` bytes further down the stack. */
    static PyObject *gl_start(
        PyObject *(*start)(PyObject *, PyObject *, PyObject *), PyObject *greenlet, size_t gap)
    {
        *(volatile char *)alloca(gap) = 0;
        return start(greenlet, NULL, NULL);
    }
    """
    object gl_start(greenlet_switch start, object greenlet, size_t gap)

cdef enum:
    BUDGET = 61      # switches a turn: Go's schedtick, a prime, so it never beats with a program's own periods
    SPARES = 64      # runners kept for new goroutines, so that starting one makes no greenlet
    # How far below the hub runners are started. A switch copies off the stack what lies below the start of the next
    # greenlet. The hub has nothing below NEAR. A goroutine that started at NEAR and parks in a shallow function has
    # nothing below FAR, so it stays while one of FAR runs: that saves two that take turns a tenth of the instructions.
    NEAR = 1024
    FAR = 1024 + 4096

cdef str RUNNING_LOOP = "__asyncio_running_event_loop__"      # asyncio's key in the thread state's dictionary

# By what a threading.local finds the values of a thread: up to Python 3.12 the thread state's dictionary, where asyncio
# keeps the running loop as well; from 3.13 to 3.15 a key, and a sentinel whose end is the thread's.
cdef extern from *:
    """
    #include "../system/native/known_python.h"
    #if !GL_PYTHON_KNOWN
    #define LOCALS_IN_DICT 0
    static PyObject *gl_no_first, *gl_no_second;
    #define gl_local_first(tstate) (&gl_no_first)
    #define gl_local_second(tstate) (&gl_no_second)
    #elif PY_VERSION_HEX >= 0x030D0000
    #define LOCALS_IN_DICT 0
    #define gl_local_first(tstate) (&(tstate)->threading_local_key)
    #define gl_local_second(tstate) (&(tstate)->threading_local_sentinel)
    #else
    #define LOCALS_IN_DICT 1
    static PyObject *gl_no_second;
    #define gl_local_first(tstate) (&(tstate)->dict)
    #define gl_local_second(tstate) (&gl_no_second)
    #endif
    """
    bint LOCALS_IN_DICT
    bint GL_PYTHON_KNOWN
    PyObject **gl_local_first(PyThreadState *tstate)
    PyObject **gl_local_second(PyThreadState *tstate)

cdef object _get_running_loop = get_running_loop
cdef object _set_running_loop = set_running_loop
cdef object _swap_current_task = getattr(asyncio.tasks, "_swap_current_task", None)
cdef bint TASK_OF_THREAD = sys.version_info >= (3, 14)        # and not of the loop

cdef gl_tracer *tracer = the_tracer()
cdef Py_ssize_t bubbles = 0
cdef Queue backlog = Queue()
cdef list workers = []            # all that run; the first ones are preferred
cdef object start_worker = None   # runtime.workers': starts a thread with a worker, False if there may be no more
cdef int procs = 1                # gomaxprocs()
cdef bint complained = False      # the monitor has reported that no thread can be started
cdef bint own_locals = False      # new goroutines have their own threading.local values; see separate_locals()


cdef class Locals:
    def __dealloc__(self):
        Py_XDECREF(self.first)
        Py_XDECREF(self.second)


cdef class G(Pollable):
    def __cinit__(self):
        self.slow = True

    cdef int execute(self) except -1:
        raise SystemError("G.execute() is abstract")

    cdef uint64_t number(self) noexcept:
        return 0

    cdef object run(self):
        # Made ready by another thread: the loop took it out of the inbox. It shares the budget with those that came
        # along: a crowd of them must not keep the loop from its timers and descriptors.
        cdef Worker worker = self.worker
        worker.runnable.push(self)
        if worker.budget > 0:
            worker.run_goroutines()
        else:
            worker.loop.queue(worker)


cdef class Queue:
    cdef void push(self, G g) noexcept:
        if self.head is None:
            self.head = g
        else:
            self.tail.link = g
        self.tail = g
        self.count += 1

    cdef G pop(self):
        cdef G g = self.head
        if g is not None:
            self.head = g.link
            g.link = None
            if self.head is None:
                self.tail = None
            self.count -= 1
        return g


cdef G dequeue_new(Worker worker):
    """Give the oldest goroutine of the backlog to a worker. None: those that were left have been cancelled."""
    cdef G g = backlog.pop()
    while g is not None:
        gl_monitor_backlog(-1)
        if g.status == UNSTARTED:
            gl_monitor_started()
            g.status = RUNNING
            g.worker = worker
            worker.live += 1
            return g
        g = backlog.pop()
    return None


cdef class BacklogNotice(Pollable):
    def __cinit__(self):
        self.slow = True

    cdef object runs(self):
        return None

    cdef object run(self):
        self.posted = False
        self.worker.run()


cdef class Worker:
    """A thread's loop and hub. Made and run by the thread itself: enter(), then the loop, then exit()."""

    def __cinit__(self, LoopCore loop not None):
        self.slow = True
        self.notice = BacklogNotice()
        self.notice.worker = self
        self.loop = loop
        self.context = Context()
        self.runnable = Queue()
        self.spare = []
        self.tasks = {}
        self.budget = BUDGET
        self.until_timed = self.timed_for = OBSERVE_EVERY

    cdef object runs(self):
        return None                   # goroutines, each of which has an account

    cdef int take_thread(self) except -1:
        """Become the worker of this thread, and the current greenlet its hub."""
        global gl_worker, bubbles
        if gl_worker != NULL:
            raise SystemError("this thread has a worker")
        self.hub = getcurrent()
        self.thread = PyThread_get_thread_ident()
        gl_worker = <PyObject *>self
        if self.bubble is not None:
            bubbles += 1
        return 0

    cdef int leave_thread(self) except -1:
        """Let the spare runners end, and stop being this thread's worker; the loop does not run any more."""
        global gl_worker, bubbles
        while self.spare:
            switch(self.spare.pop(), NULL, NULL)
        gl_worker = NULL
        self.hub = None
        if self.bubble is not None:
            bubbles -= 1
        return 0

    def enter(self):
        """Become the worker of this thread, and take goroutines of the backlog."""
        self.take_thread()
        self.clock = gl_thread_clock()
        workers.append(self)

    def retire(self):
        """Take no more goroutines; those that are here go on. From any thread; twice is harmless."""
        if not self.retired:
            self.retired = True
            workers.remove(self)
            if backlog.count:
                wake_one()

    def exit(self):
        """Stop being this thread's worker, for good; the loop does not run any more."""
        if self in workers:           # its loop has failed
            self.retire()
        self.leave_thread()
        self.notice = None

    def __repr__(self):
        return f"<goroutines of worker {self.thread}: {self.live} live, {self.runnable.count} runnable>"

    def notify_self(self):
        """Let it look at the backlog."""
        self.notify()

    # ------------------------------------------------------------- scheduling
    cdef object run(self):
        self.budget = BUDGET
        self.prefer_backlog = True
        self.run_goroutines()

    cdef int run_goroutines(self) except -1:
        """Let goroutines run until none can, or the budget is spent. In the hub only."""
        cdef object target
        self.rounds += 1
        if tracer.session:
            self.until_timed = 1      # the next turn, and that asks for the one after it
        self.note_loop()
        _set_running_loop(None)
        try:
            while True:
                if self.begins() and not self.spare and self.start():
                    continue
                target = self.pick_next()
                if target is self.hub:
                    break
                switch(target, NULL, NULL)
        finally:
            _set_running_loop(self.loop)
        if self.runnable.count or self.can_start():
            self.loop.queue(self)
        elif backlog.count:
            wake_one()  # notified just before it retired or was locked
        return 0

    cdef bint can_start(self) noexcept:
        """Whether there is a goroutine to start, and it may start it."""
        return backlog.count > 0 and not self.locked and not self.retired

    cdef bint begins(self) noexcept:
        """Whether the next choice is to start a goroutine of the backlog."""
        return self.budget > 0 and self.can_start() and (self.prefer_backlog or self.runnable.head is None)

    cdef bint assign(self) except -1:
        """Begin the next goroutine of the backlog, in the runner that is switched to. False: all were cancelled."""
        cdef G g
        self.prefer_backlog = False
        g = dequeue_new(self)
        if g is not None:
            self.budget -= 1
            self.assigned = g
            make_current(self, g)
        return g is not None

    cdef bint start(self) except -1:
        """Begin the next goroutine of the backlog in a new runner. False: there is none, or no memory for a runner.

        In the hub only: a greenlet has, for good, no more recursion and stack than its starter had left.
        """
        cdef object runner
        try:
            runner = new_greenlet(self._runner, self.hub)
        except MemoryError:
            self.prefer_backlog = False  # those that run may give some back; the next turn tries again
            return False
        if not self.assign():
            return False
        gl_start(switch, runner, NEAR if self.live & 1 else FAR)
        return True

    cdef object pick_next(self):
        """Choose what runs next, make it current, and return its greenlet; the hub's when it is the loop's turn, or
        when a new runner is to be started."""
        cdef G g
        cdef object runner
        self.loop._ownership.stall.beat += 1
        if self.timed is not None:
            self.end_turn()
        if self.begins():
            if self.spare:
                runner = self.spare.pop()
                if self.assign():
                    return runner
                self.spare.append(runner)
            else:
                return self.pick_hub()
        if self.budget > 0:
            g = self.runnable.pop()
            if g is not None:
                self.budget -= 1
                make_current(self, g)
                if own_locals:
                    self.use_locals(g.locals)
                return g.greenlet
        return self.pick_hub()

    cdef object pick_hub(self):
        """Return the hub, with no goroutine current."""
        self.current = None
        if own_locals:
            self.use_locals(None)
        return self.hub

    # --------------------------------------------------------- time and traces
    cdef void begin_turn(self, G g) noexcept:
        """A goroutine goes on, and its time is taken: it stands for all turns since the last one."""
        cdef FunctionTime function = self.loop.accounts.entry(subject_of(g.runs()), "goroutine")
        if tracer.session:
            trace(tracer, GL_TRACE_GO, self.loop.number, function_number(function), <uint64_t><void *>g, g.number())
        self.timed = g
        self.timed_function = function
        self.timed_since = now_ns()

    cdef void end_turn(self) noexcept:
        """It gives way, or has ended."""
        cdef G g = self.timed
        cdef uint32_t reason = 0
        self.timed = None
        timed(self.loop.accounts, self.timed_function, now_ns() - self.timed_since, self.timed_for)
        self.until_timed = self.timed_for = 1 if tracer.session else OBSERVE_EVERY
        if tracer.session:
            if g.status == PARKED or g.status == RUNNABLE:
                reason = name_number(g.reason or "parked")
            trace(tracer, GL_TRACE_PARK, self.loop.number, reason, <uint64_t><void *>g, g.number())

    # --------------------------------------------------------- threading.local
    cdef int use_locals(self, Locals wanted) except -1:
        """Exchange what each threading.local finds the thread's values by: for a goroutine's own, or, None, for the
        thread's. What is in the thread state belongs to it, and to no Locals."""
        cdef PyThreadState *tstate = PyThreadState_Get()
        if self.locals is None:
            self.locals = self.installed = Locals.__new__(Locals)
        if wanted is None:
            wanted = self.locals
        if wanted is not self.installed:
            self.installed.first = gl_local_first(tstate)[0]
            self.installed.second = gl_local_second(tstate)[0]
            gl_local_first(tstate)[0] = wanted.first
            gl_local_second(tstate)[0] = wanted.second
            wanted.first = wanted.second = NULL
            self.installed = wanted
        return 0

    cdef int resume(self, G g) except -1:
        """Make a goroutine the current one; for a bubble's worker."""
        self.budget -= 1
        make_current(self, g)
        if own_locals:
            self.use_locals(g.locals)
        return 0

    cdef int make_locals(self, G g) except -1:
        """Give a new goroutine values of its own, and use them."""
        cdef dict own
        self.use_locals(None)
        try:
            g.locals = Locals.__new__(Locals)
            own = {} if LOCALS_IN_DICT else None
        except MemoryError:
            g.locals = None
            return 0                  # better it shares the thread's than it does not run
        if own is not None:
            Py_INCREF(own)
            (<Locals>g.locals).first = <PyObject *>own
        return self.use_locals(g.locals)

    cdef int drop_locals(self, G g) except -1:
        """Let go of an ended goroutine's values, and use the thread's."""
        cdef bint ran_loop = LOCALS_IN_DICT and g.locals is not None and RUNNING_LOOP in <dict>PyThreadState_GetDict()
        self.use_locals(None)
        if ran_loop:
            _set_running_loop(None)       # asyncio remembers an object of the other dictionary, without a reference
        g.locals = None
        return 0

    cdef int switch_to(self, object target) except -1:
        switch(target, NULL, NULL)
        return 0

    cdef int switch_away(self, object me) except -1:
        """Switch away from the current goroutine, whose state says already how it comes back."""
        cdef object target = self.pick_next()
        if target is not me:
            switch(target, NULL, NULL)
        return 0

    def _runner(self):
        """What a runner greenlet does: one goroutine after the other, each to its end."""
        cdef G g = self.assigned
        cdef object me = getcurrent()
        while g is not None:
            self.assigned = None
            try:
                if own_locals:
                    self.make_locals(g)
                g.execute()
            except BaseException as exc:          # none of the goroutine's own: no memory, for one
                report_unraisable(exc)
            self.live -= 1
            if self.timed is not None:
                self.end_turn()
            self.current = None
            self.loop._ownership.stall.beat += 1
            if self.loop._ownership.safepoint_requested:
                self.report_end()
            if self.loop_inside():
                self.set_aside()          # it has not put back the hooks
            if own_locals:
                self.drop_locals(g)
            g = None
            if self.budget > 0 and self.runnable.head is None and self.can_start():
                g = dequeue_new(self)
                if g is not None:
                    self.budget -= 1
                    make_current(self, g)
                    continue
            if len(self.spare) < SPARES:
                try:
                    self.spare.append(me)
                except MemoryError:       # raised to the hub, it would end the worker
                    break
                self.switch_away(me)
                g = self.assigned
        # The end of a greenlet is a switch to its parent, the hub.

    # ---------------------------------------------------------- park and yield
    cdef int report_end(self) except -1:
        """To the watch, that the goroutine does not keep the others waiting any more."""
        try:
            self.loop._ownership.switched()
        except BaseException as exc:
            report_unraisable(exc)
        return 0

    cdef int park(self, G g, str reason) except -1:
        """Switch away until ready(g). Only from the goroutine itself."""
        cdef tuple aside = None
        if self.loop._ownership.safepoint_requested:
            self.report_end()
        if self.loop_inside():
            aside = self.set_aside()      # first, as it can fail and run Python code
        g.reason = reason
        g.status = PARKED
        g.greenlet = getcurrent()
        try:
            self.switch_away(g.greenlet)
        finally:
            g.greenlet = None
            g.status = RUNNING
            if aside is not None:
                self.bring_back(aside)
        return 0

    cdef int yield_(self, G g) except -1:
        """Let the others run first."""
        cdef tuple aside = None
        if self.loop._ownership.safepoint_requested:
            self.report_end()
        if self.loop_inside():
            aside = self.set_aside()
        g.reason = "gosched"
        g.status = RUNNABLE
        g.greenlet = getcurrent()
        self.runnable.push(g)
        self.prefer_backlog = True
        try:
            self.switch_away(g.greenlet)
        finally:
            g.greenlet = None
            g.status = RUNNING
            if aside is not None:
                self.bring_back(aside)
        return 0

    cdef int maybe_yield(self, G g) except -1:
        """In a bubble: let the others run first, if that is what is drawn."""
        return 0

    # -------------------------------------------------------------- running loops
    # While goroutines run, no loop is the thread's running loop. A goroutine may run one, with asyncio.run() for
    # example, and a callback of that may park: then it is no longer the running loop, until the goroutine goes on.
    cdef int note_loop(self) except -1:
        """Note what the worker's loop has set for the thread."""
        cdef PyThreadState *tstate = PyThreadState_Get()
        self.loop_thread = loop_thread_here()
        if tstate.async_gen_firstiter != <PyObject *>self.firstiter and tstate.async_gen_firstiter != NULL:
            self.firstiter = <object>tstate.async_gen_firstiter
            self.finalizer = <object>tstate.async_gen_finalizer if tstate.async_gen_finalizer != NULL else None
        return 0

    cdef bint loop_inside(self) noexcept:
        """Whether the current goroutine runs a loop. That one has set hooks of its own for asynchronous generators."""
        return PyThreadState_Get().async_gen_firstiter != <PyObject *>self.firstiter

    cdef tuple set_aside(self):
        """Take back what the goroutine's loop has set for the thread; returns that."""
        loop = _get_running_loop()
        task = None
        if loop is not None:
            if TASK_OF_THREAD:
                task = _swap_current_task(loop, None)
            _set_running_loop(None)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self.firstiter, self.finalizer)
        return loop, task, hooks, exchange_loop_thread(self.loop_thread)

    cdef int bring_back(self, tuple aside) except -1:
        loop, task, hooks, loop_thread = aside
        exchange_loop_thread(loop_thread)
        sys.set_asyncgen_hooks(*hooks)
        if loop is not None:
            _set_running_loop(loop)
            if task is not None:
                _swap_current_task(loop, task)
        return 0

    cdef tuple enter_loop(self):
        """Let the current goroutine do something as a callback of the worker's loop does, outside of goroutines;
        returns what leave_loop() needs."""
        cdef tuple aside = self.set_aside() if self.loop_inside() else None
        _set_running_loop(self.loop)
        self.current = None
        return aside

    cdef int leave_loop(self, G g, tuple aside) except -1:
        self.current = g
        _set_running_loop(None)
        if aside is not None:
            self.bring_back(aside)
        return 0

    # ------------------------------------------------------- the monitor's view
    cdef bint idle(self) noexcept:
        return self.current is None and not self.notice.posted and not self.queued and not self.locked

    cdef bint in_blocking_region(self) noexcept:
        """Whether what runs here has said, with blocking(), that it may block the thread."""
        return (self.blocked if self.current is None else self.current.blocked) > 0

    cdef bint used_cpu(self) noexcept:
        """Whether the thread has used processor time since the last look. One that waits for the GIL wakes up
        at every switch interval, so that it has; one in a system call has not."""
        cdef int64_t before = self.cpu
        self.cpu = gl_thread_cpu(self.clock)
        return self.cpu != before

    cdef bint notify(self) except -1:
        """Let it look at the backlog; from any thread. False: it has ended."""
        cdef BacklogNotice notice = self.notice
        if notice is None:
            return False
        if not notice.posted:
            notice.posted = True
            notice.node.item = <void *>notice
            Py_INCREF(notice)  # the inbox's reference; drain() drops it
            if not self.loop.pollset.post(&notice.node):
                Py_DECREF(notice)
                notice.posted = False
                return False
        return True


cdef Worker here():
    return <Worker>gl_worker if gl_worker != NULL else None


cdef bint in_goroutine() noexcept:
    return gl_worker != NULL and (<Worker>gl_worker).current is not None


cdef G current_g():
    return (<Worker>gl_worker).current if gl_worker != NULL else None


cdef bint take_cancellation(G g) noexcept:
    if not g.cancelling and g.expired == 0:
        return False
    g.cancelling = False
    g.expired = 0
    g.cancellations_taken += 1
    return True


cdef object bubble_here():
    return (<Worker>gl_worker).bubble if gl_worker != NULL else None


cdef int ready(G g) except -1:
    cdef Worker worker = g.worker
    g.status = RUNNABLE
    if tracer.session:
        trace(tracer, GL_TRACE_READY, 0, 0, <uint64_t><void *>g)
    if <PyObject *>worker == gl_worker:
        worker.runnable.push(g)
        if worker.current is None:
            worker.loop.queue(worker)
        return 0
    g.node.item = <void *>g
    Py_INCREF(g)                      # the inbox's reference; drain() drops it
    if not worker.loop.pollset.post(&g.node):
        Py_DECREF(g)                  # its worker has ended, and goroutine.abandon() says so to its waiters
    return 0


cdef int enqueue_new(G g) except -1:
    cdef Worker worker = here()
    if tracer.session:
        trace(tracer, GL_TRACE_READY, 0, 0, <uint64_t><void *>g)
    if worker is not None and worker.bubble is not None:
        g.worker = worker             # a bubble's goroutines stay in it: they never are in the backlog
        worker.runnable.push(g)
        if worker.current is None:
            worker.loop.queue(worker)
        else:
            worker.maybe_yield(worker.current)
        return 0
    g.queued_at = now_ns()
    backlog.push(g)
    gl_monitor_backlog(1)
    if worker is None or worker.locked or worker.retired or worker.in_blocking_region():
        wake_one()
    elif worker.current is None:
        worker.loop.queue(worker)
    return 0


cdef int wake_one() except -1:
    """See that some worker will look at the backlog. If that one turns out to be stuck, the monitor finds out."""
    cdef Worker worker
    cdef Worker chosen = None
    while backlog.head is not None and backlog.head.status != UNSTARTED:       # cancelled: no worker is needed for them
        backlog.pop()
        gl_monitor_backlog(-1)
    if backlog.count == 0:
        return 0
    for worker in workers:
        if worker.locked or worker.in_blocking_region():
            continue
        if not worker.idle():
            return 0                  # it looks when its goroutine parks
        if chosen is None:
            chosen = worker
    if chosen is not None and chosen.notify():
        return 0
    try:
        start_worker()
    except Exception:                 # and no other: a signal's handler may want the process to end
        if not workers:
            raise
        # Otherwise it waits for one of those, as with GOLOOP_MAXTHREADS of them, or until the monitor can start one.
    return 0


cdef int backlog_stalled() noexcept with gil:
    """The monitor's report that no worker has started a goroutine for a tick, though the backlog is not empty. Returns
    whether that was changed."""
    global complained
    cdef Worker worker
    cdef Worker chosen = None
    cdef int computing = 0
    if backlog.count == 0:
        return 0
    for worker in workers:
        if worker.idle():
            if chosen is None:
                chosen = worker
        elif worker.used_cpu():
            computing += 1
    if computing >= procs:
        return 0
    try:
        if (chosen is None or not chosen.notify()) and not start_worker():
            return 0
        complained = False
    except BaseException as exc:      # no thread could be started; the next tick tries again, and says nothing
        if not complained:
            complained = True
            report_unraisable(exc)
        return 0
    return 1


def report_unraisable(exc):
    """Tell threading.excepthook of an exception that has no caller to go to."""
    import threading
    if not sys.is_finalizing():
        # Without a thread: the monitor's would get a dummy object that stays.
        threading.excepthook(threading.ExceptHookArgs((type(exc), exc, exc.__traceback__, None)))


# ---------------------------------------------------------------- for runtime
def set_starter(starter):
    """Say how a worker's thread is started: a function without arguments, which returns False if there may be no
    more of them."""
    global start_worker
    start_worker = starter


def all_workers():
    """Return the workers that take goroutines."""
    return list(workers)


def set_procs(int n):
    """Set how many workers may compute at once; returns the number before."""
    global procs
    before, procs = procs, n
    return before


def get_procs():
    return procs


def separate_locals():
    """Give every goroutine that starts from now on its own values in each threading.local.

    SystemError on a Python with which this was not checked.
    """
    global own_locals
    if not GL_PYTHON_KNOWN:
        raise SystemError("goloop does not know the threading.local of this Python")
    own_locals = True


def backlog_size():
    """Return how many goroutines no worker has started."""
    return backlog.count


def backlog_age():
    """Return for how many seconds the oldest goroutine that no worker has started has waited; 0.0: there is none."""
    cdef G g = backlog.head
    while g is not None and g.status != UNSTARTED:        # cancelled, and not taken out yet
        g = g.link
    return 0.0 if g is None else (now_ns() - g.queued_at) / 1e9


def start_monitor():
    """Start the monitor thread, unless it runs."""
    cdef int error
    with nogil:
        error = gl_monitor_start(backlog_stalled)
    if error:
        raise OSError(error, "the monitor thread could not be started")


cdef void monitor_look(gl_look look) noexcept nogil:
    """Give the monitor something else to look at, too."""
    gl_monitor_set_look(look)


cdef void monitor_poke() noexcept nogil:
    gl_monitor_poke()


def stop_monitor():
    """Stop the monitor thread and wait for its end."""
    with nogil:
        gl_monitor_stop()


def after_fork_in_child():
    """In a forked child: there is no worker any more, and nothing to start.

    The goroutine that forked goes on as what a plain thread runs; its worker only brings it to its end.
    """
    global gl_worker, bubbles
    cdef Worker worker = here()
    workers.clear()
    bubbles = 0
    if worker is not None:
        worker.bubble = None
        gl_worker = NULL
        worker.retired = True
        worker.current = None
        worker.budget = 0
        while worker.runnable.count:
            worker.runnable.pop()
    while backlog.count:
        gl_monitor_backlog(-1)
        backlog.pop()


def this_worker():
    """Return the worker of this thread, or None."""
    return here()
