# cython: language_level=3, boundscheck=False, wraparound=False
"""LoopOwnership: which thread runs the callbacks of a loop. LoopThread: a thread's place there.

The thread in run_forever() is home and holds ownership, unless it is stuck in a blocking call: then the monitor
takes ownership (sched/handoff.pyx) and gives it to a substitute. When the call has returned, the thread waits here
until it is given ownership back, between two callbacks of the holder. HACKING.md, "Handoff", has the states of a
loop thread and the transitions between them.

Everything here is guarded by the GIL: no function gives it up between a look and a change, only wait() does. The
monitor reads the numbers in `stall` without it.
"""

import threading
import weakref
from asyncio import tasks as _tasks

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t

from goloop.core.loop.handles cimport Handle, show
from goloop.core.system.posix cimport now_ns
from goloop.core.system.trace cimport GL_TRACE_HANDBACK, gl_tracer, the_tracer, trace


cdef extern from "Python.h":
    int PyContext_Enter(object ctx) except -1
    int PyContext_Exit(object ctx) except -1
    unsigned long PyThread_get_thread_ident() nogil
    PyThreadState *PyThreadState_Get()
    PyFrameObject *PyThreadState_GetFrame(PyThreadState *tstate)
    int PyThreadState_SetAsyncExc(unsigned long thread, object exc)
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr_flag) nogil
    void PyThread_release_lock(PyThread_type_lock lock)
    int NOWAIT_LOCK

cdef extern from "../loop/native/stall.h" nogil:
    int gl_gettid()
    void gl_stall_add(gl_stall *w)
    void gl_stall_remove(gl_stall *w)
    void gl_stall_forget()
    void gl_stall_awake(gl_stall *w)
    void gl_stall_handed_off(int64_t now)
    int64_t gl_stall_look(uint32_t *verdicts)
    int gl_thread_does(int tid)
    int64_t gl_learn_gil(int tid)

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_getcpuclockid(pthread_t thread, int *clock)

cdef extern from *:
    """
    #include "../system/native/thread_local.h"
    GL_THREAD_LOCAL PyObject *gl_loop_thread;  /* of this thread, borrowed: the thread holds a reference */
    """
    PyObject *gl_loop_thread

cdef enum:
    SLICE = 50000       # us that the main thread waits before it looks for signals that came to another thread

cdef gl_tracer *tracer = the_tracer()
cdef double DRAIN_TIMEOUT = 5.0        # seconds

# The loop's current task, which moves with ownership: of any kind before 3.14. From then on it is one in Python (a task
# factory's, nest_asyncio's): the current task in C is its thread's.
cdef dict _current_tasks = _tasks._current_tasks
cdef object _enter_task = _tasks._py_enter_task
cdef object _leave_task = _tasks._py_leave_task


cdef int set_hooks(Hooks given) except -1:
    global hooks
    hooks = given
    return 0


# The one list of watched loops is in this module; sched/handoff.pyx reaches it through these.
cdef int64_t stall_look(uint32_t *verdicts) noexcept nogil:
    return gl_stall_look(verdicts)


cdef void stall_handed_off() noexcept nogil:
    gl_stall_handed_off(now_ns())


cdef int thread_does(int tid) noexcept nogil:
    return gl_thread_does(tid)


cdef int64_t learn_gil(int tid) noexcept nogil:
    return gl_learn_gil(tid)


cdef int this_tid() noexcept nogil:
    return gl_gettid()


cdef void stall_forget() noexcept nogil:
    gl_stall_forget()


cdef LoopThread loop_thread_here():
    """The loop thread of this thread, or None."""
    return <LoopThread>gl_loop_thread if gl_loop_thread != NULL else None


cdef LoopThread exchange_loop_thread(LoopThread loop_thread):
    """Make another one the loop thread of this thread; returns the one before. It stays the caller's to keep alive."""
    global gl_loop_thread
    cdef LoopThread before = loop_thread_here()
    gl_loop_thread = <PyObject *>loop_thread if loop_thread is not None else NULL
    return before


cdef class LoopThread(Pollable):
    def __cinit__(self, LoopOwnership ownership not None):
        self.ownership = ownership
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError
        PyThread_acquire_lock_timed(self.lock, 0, 0)

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_release_lock(self.lock)
            PyThread_free_lock(self.lock)

    cdef int bind(self) except -1:
        """Take this thread; what called into here is no part of a callback."""
        global gl_loop_thread
        self.under = gl_loop_thread
        if self.under != NULL:                 # a loop inside of a loop's callback: the outer one stays here
            (<LoopThread>self.under).ownership.stall.mode = GL_KEEP
        self.ident = PyThread_get_thread_ident()
        self.tstate = PyThreadState_Get()
        self.tid = gl_gettid()
        if pthread_getcpuclockid(pthread_self(), &self.clock):
            self.clock = -1
        self.main = threading.main_thread().ident == self.ident
        self.base = PyThreadState_GetFrame(self.tstate)
        gl_loop_thread = <PyObject *>self
        return 0

    def unbind(self):
        global gl_loop_thread
        cdef PyObject *base = <PyObject *>self.base
        gl_loop_thread = self.under
        self.tstate = NULL
        self.base = NULL
        if base != NULL:
            Py_DECREF(<object>base)
        if self.under != NULL and (<LoopThread>self.under).ownership.handoff:
            (<LoopThread>self.under).ownership.stall.mode = GL_HANDOFF

    cdef object run(self):
        # Out of the inbox: nothing but the wake-up that it was.
        self.posted = False


cdef class LoopOwnership:
    def __cinit__(self, loop, PollSet pollset not None):
        self.loop = weakref.ref(loop)
        self.pollset = pollset
        self.away = []
        self.inside = []
        self.returned = []
        self.deferred = []
        self.drain_timeout = DRAIN_TIMEOUT
        self.stall.idle = 1

    def __dealloc__(self):
        if self.is_monitored:
            gl_stall_remove(&self.stall)

    cdef int report_slow(self, int on) except -1:
        """Report callbacks that are slow, or not; -1: as before, but what is slow has changed."""
        cdef double seconds
        if on > 0 or (on < 0 and self.stall.slow):
            seconds = self.loop().slow_callback_duration
            self.stall.slow = max(1, <int64_t>(min(seconds, 1e9) * 1e9))
        elif on == 0:
            self.stall.slow = 0
        if hooks.slow != NULL:
            hooks.slow()
        return 0

    cdef int switched(self) except -1:
        """A goroutine gives way to others in its worker's iteration: with that, a stall that was reported has ended."""
        cdef LoopThread loop_thread = self.holder
        if loop_thread is not None and loop_thread.report is not None:
            hooks.ended(loop_thread)
            loop_thread.since = 0
            self.refresh()
        return 0

    cdef void awake(self) noexcept nogil:
        """The loop is not parked any more."""
        if self.is_monitored:
            gl_stall_awake(&self.stall)
            hooks.poke()
        else:
            self.stall.idle = 0

    cdef int set_monitored(self, bint on) except -1:
        """Let the monitor look at this loop, or not any more."""
        if on != self.is_monitored:
            self.is_monitored = on
            if on:
                gl_stall_add(&self.stall)
            else:
                gl_stall_remove(&self.stall)
        return 0

    # ------------------------------------------------------------ next holder
    cdef int refresh(self) except -1:
        """Say whether the holder has something to do after its callback."""
        cdef LoopThread home = self.home
        cdef LoopThread holder = self.holder
        self.safepoint_requested = (
            len(self.returned) > 0
            or (home is not None and home is not holder and home.state == IDLE)
            or (holder is not None and (holder.report is not None or holder.depth > 0 or holder.since > 0))
            or (holder is not home and not self.open)
        )
        return 0

    cdef LoopThread choose(self):
        """The next holder when there is none: a loop thread with a callback to finish, then home, then the spare."""
        if self.returned and (self.open or self.settling or self.closed):
            return self.returned.pop(0)
        if self.home is not None and self.home.state == IDLE:
            return self.home
        if self.open and self.spare is not None and not self.loop()._stopping:
            return self.spare
        return None

    cdef int grant(self, LoopThread loop_thread) except -1:
        """Let a loop thread hold ownership. The caller holds it, or no loop thread does."""
        if loop_thread is self.spare:
            self.spare = None
        loop_thread.state = RUNNING
        self.holder = loop_thread
        self.owner_ident = loop_thread.ident
        self.item = NULL
        self.stall.tid = loop_thread.tid
        self.stall.clock = loop_thread.clock
        self.stall.beat += 1
        self.stall.mode = GL_HANDOFF if self.handoff else GL_KEEP
        self.stall.vacant = 0
        self.stall.idle = 0
        self.refresh()
        if loop_thread.waiting:
            loop_thread.waiting = False
            PyThread_release_lock(loop_thread.lock)
        return 0

    cdef int vacate(self) except -1:
        """No loop thread holds ownership from here on."""
        self.holder = None
        self.owner_ident = 0
        self.item = NULL
        self.stall.beat += 1
        self.stall.idle = 1
        self.stall.vacant = self.open and not self.loop()._stopping
        return 0

    cdef int wait(self, LoopThread loop_thread, double seconds) except -1:
        """Sleep until the loop thread is RUNNING or GONE, or so many seconds (negative: for ever) are over."""
        cdef int64_t end = now_ns() + <int64_t>(seconds * 1e9) if seconds >= 0 else -1
        cdef int64_t left
        cdef int got
        while loop_thread.state != RUNNING and loop_thread.state != GONE:
            left = -1
            if end >= 0:
                left = (end - now_ns()) // 1000
                if left <= 0:
                    break
            if loop_thread.main and (left < 0 or left > SLICE):
                left = SLICE
            loop_thread.waiting = True
            with nogil:
                got = PyThread_acquire_lock_timed(loop_thread.lock, left, 1)
            if got == 1:
                continue                       # `waiting` is cleared by the thread that released it
            if loop_thread.waiting:
                loop_thread.waiting = False
            else:
                PyThread_acquire_lock_timed(loop_thread.lock, 0, 0)  # released after we had given up
            if loop_thread.main:
                self.signals()
        return 0

    cdef int signals(self) except -1:
        """Run signal handlers in the main thread, which waits. What one raises is meant for the running callback."""
        cdef unsigned long owner_ident
        try:
            PyErr_CheckSignals()
        except BaseException as exc:
            owner_ident = self.owner_ident
            if not owner_ident or owner_ident == PyThread_get_thread_ident():
                raise
            PyThreadState_SetAsyncExc(owner_ident, type(exc))
        return 0

    cdef int request_safepoint(self, LoopThread loop_thread) except -1:
        """Make the holder look at `safepoint_requested`: it may be parked."""
        self.safepoint_requested = True
        if self.stall.idle and not loop_thread.posted:
            loop_thread.posted = True
            loop_thread.node.item = <void *>loop_thread
            Py_INCREF(loop_thread)  # the inbox's reference; drain() drops it
            if not self.pollset.post(&loop_thread.node):
                Py_DECREF(loop_thread)
                loop_thread.posted = False
        return 0

    # --------------------------------------------------- the holder's own steps
    cdef int safepoint(self, LoopThread loop_thread) except -1:
        """Between two callbacks of `loop_thread`: give ownership to a loop thread that needs it more, and wait for it.

        Afterwards the loop thread is RUNNING, or GONE if it is a substitute that is not needed any more.
        """
        cdef LoopThread next
        if self.foreign():
            return 0
        self.end_callback(loop_thread)
        while loop_thread.state == RUNNING:
            next = self.choose_before(loop_thread)
            if next is None:
                break
            if loop_thread is not self.home and self.spare is not None:
                loop_thread.state = GONE
                self.grant(next)
                return 0
            loop_thread.state = IDLE
            if loop_thread is not self.home:
                self.spare = loop_thread
            self.grant(next)
            self.wait(loop_thread, -1)
        if loop_thread.state == RUNNING and loop_thread is not self.home and not self.open:
            loop_thread.state = GONE  # home has left meanwhile
        if loop_thread.state == RUNNING:
            self.refresh()
        return 0

    cdef int end_callback(self, LoopThread loop_thread) except -1:
        """The callback of `loop_thread` has ended: hold ownership again, and end its region and its report."""
        self.reacquire_if_retaken(loop_thread)
        if loop_thread.depth:
            self.end_region(loop_thread)
        if loop_thread.report is not None:
            hooks.ended(loop_thread)
        loop_thread.since = 0
        return 0

    cdef LoopThread choose_before(self, LoopThread loop_thread):
        """The loop thread that needs ownership more than its holder, between two callbacks of that; None: none."""
        if self.returned:
            return self.returned.pop(0)
        if self.home is not None and self.home is not loop_thread and self.home.state == IDLE:
            return self.home
        return None

    cdef int yield_to_home(self, LoopThread loop_thread) except -1:
        """The loop is stopping, which is home's to finish: give ownership there, and wait."""
        cdef LoopThread next
        loop_thread.state = IDLE
        if self.spare is not None and self.spare is not loop_thread:
            loop_thread.state = GONE
        else:
            self.spare = loop_thread
        next = self.choose()
        if next is None:
            self.vacate()
        elif next is not loop_thread:
            self.grant(next)
        self.wait(loop_thread, -1)
        return 0

    cdef int reacquire_if_retaken(self, LoopThread loop_thread) except -1:
        """Hold ownership, whatever happened: the callback of `loop_thread` has ended, and perhaps ran into no trap."""
        if loop_thread.state == RETAKEN:
            self.reacquire(loop_thread)
        return 0

    cdef int reacquire(self, LoopThread loop_thread) except -1:
        """The call that blocked `loop_thread` has returned: wait for ownership, and restore what is the callback's."""
        cdef object task
        if loop_thread.trap is not None:
            hooks.disarm(loop_thread)
        if loop_thread.state != RETAKEN:
            return 0
        if self.foreign():                     # a forked child: there is no other thread
            loop_thread.state = RUNNING
            return 0
        loop_thread.state = RETURNED
        if self.holder is None and (self.open or self.settling or self.closed):
            self.grant(loop_thread)
        else:
            self.returned.append(loop_thread)
            self.request_safepoint(loop_thread)
            self.wait(loop_thread, -1)
        self.away.remove(loop_thread)
        self.item = <void *>loop_thread.item  # the thread's run_once() has a reference
        if type(loop_thread.item) is Handle and not self.closed:
            self.pollset.set_disabled(loop_thread.item, False)
        task = loop_thread.task
        if task is not None:
            loop_thread.task = None
            _enter_task(self.loop(), task)
        self.requeue_deferred()
        self.refresh()
        if tracer.session and self.pollset.ps != NULL:
            trace(tracer, GL_TRACE_HANDBACK, self.pollset.ps.loop)
        return 0

    cdef int requeue_deferred(self) except -1:
        """Items that waited for the end of a stuck callback may try again."""
        cdef object loop
        if self.deferred:
            loop = self.loop()
            items = self.deferred
            self.deferred = []
            if not self.closed:
                loop._requeue(items)
        return 0

    cdef bint foreign(self):
        return not self.closed and self.pollset.foreign()

    cdef int on_retaken(self, LoopThread loop_thread) except -1:
        """The monitor's part of a handoff, after the trap is armed: ownership is taken from `loop_thread`."""
        cdef object task
        cdef object loop = self.loop()
        task = _current_tasks.get(loop)
        if task is not None:
            _leave_task(loop, task)
            loop_thread.task = task
        loop_thread.item = <object>self.item if self.item != NULL else None
        if loop_thread.since == 0:
            loop_thread.since = max(self.stall.since, 1)
        if type(loop_thread.item) is Handle and not self.closed:
            self.pollset.set_disabled(loop_thread.item, True)
        self.away.append(loop_thread)
        self.vacate()
        return 0

    # -------------------------------------------------------- coming and going
    cdef int attach_home(self, LoopThread loop_thread) except -1:
        """Home arrives: run_forever()."""
        loop_thread.bind()
        self.home = loop_thread
        self.open = True
        self.failure = None
        if self.holder is None:
            self.grant(loop_thread)
        else:                                  # it was stuck when run_forever() returned last, and ends its callback
            loop_thread.state = IDLE
            self.refresh()
            self.wait(loop_thread, -1)
        return 0

    cdef bint attach_substitute(self, LoopThread loop_thread) except -1:
        """A substitute arrives. Returns False if there is nothing to do for it."""
        if not self.open or self.closed:
            return False
        if self.holder is None and not self.loop()._stopping:
            self.grant(loop_thread)
            return True
        if self.spare is not None:
            return False
        loop_thread.state = IDLE
        self.spare = loop_thread
        self.wait(loop_thread, -1)
        return loop_thread.state == RUNNING

    cdef int wait_for_stuck(self, LoopThread loop_thread, double seconds) except -1:
        """run_forever() is about to return: let callbacks that are stuck end, for so many seconds."""
        cdef int64_t end = now_ns() + <int64_t>(seconds * 1e9)
        cdef LoopThread next
        self.reacquire_if_retaken(loop_thread)
        self.open = False
        self.settling = True
        while self.away:
            if self.returned:
                next = self.returned.pop(0)
                loop_thread.state = IDLE
                self.grant(next)
                self.wait(loop_thread, -1)
                continue
            if now_ns() >= end:
                break
            # No loop thread holds ownership now: one that returns takes it, ends its callback, and gives it to us.
            loop_thread.state = IDLE
            self.vacate()
            self.wait(loop_thread, (end - now_ns()) / 1e9)
            if loop_thread.state != RUNNING:
                if self.holder is None:
                    self.grant(loop_thread)
                else:
                    self.wait(loop_thread, -1)
        return 0

    cdef int detach(self, LoopThread loop_thread) except -1:
        """A loop thread leaves the loop: home after wait_for_stuck(), a substitute at its end."""
        cdef LoopThread next
        cdef bint held = self.holder is loop_thread
        loop_thread.state = GONE
        if loop_thread is self.spare:
            self.spare = None
        if loop_thread is self.home:
            self.open = self.settling = False
            self.home = None
            self.safepoint_requested = self.holder is not None and not held
            if self.spare is not None:
                next = self.spare
                self.spare = None
                next.state = GONE
                if next.waiting:
                    next.waiting = False
                    PyThread_release_lock(next.lock)
        if held:
            self.vacate()
            next = self.choose()
            if next is not None:
                self.grant(next)
        loop_thread.unbind()
        return 0

    cdef int close(self) except -1:
        """The loop is closed; a thread that is still stuck finishes its callback without it."""
        self.closed = True
        self.deferred = []
        if self.holder is None and self.returned:
            self.grant(self.returned.pop(0))
        return 0

    # ------------------------------------------------------- what may run when
    cdef bint admits(self, object item) except -1:
        """Whether an item may run while others are in the middle of their callbacks; if not, it is deferred.

        Not the item that is stuck itself (a level-triggered watcher, a transport that got more), nor a callback
        of a transport that is, nor one whose context is entered elsewhere.
        """
        cdef LoopThread loop_thread
        cdef object context, other, begun
        cdef list all_begun = list(self.inside)
        for loop_thread in self.away:
            all_begun.append(loop_thread.item)
        for begun in all_begun:
            if begun is item or transport_of(begun) is item:
                for other in self.deferred:
                    if other is item:          # a watcher, once for each iteration
                        return False
                self.deferred.append(item)
                return False
        if isinstance(item, Handle) and not (<Handle>item)._cancelled and not (<Handle>item).captured:
            context = (<Handle>item).context
            try:
                PyContext_Enter(context)
            except RuntimeError:
                show(<Handle>item)             # for how long is not known
                self.deferred.append(item)
                return False
            PyContext_Exit(context)
        return True

    cdef int nest(self) except -1:
        """The callback that home runs is about to run the loop; what belongs to the callback waits until unnest()."""
        cdef object item = <object>self.item if self.item != NULL else None
        if self.holder is not self.home:
            raise RuntimeError("a callback that runs in a substitute thread cannot run the event loop")
        if type(item) is Handle:
            self.pollset.set_disabled(item, True)
        self.inside.append(item)
        return 0

    cdef int unnest(self) except -1:
        cdef object item = self.inside.pop()
        self.item = <void *>item if item is not None else NULL       # the run_once() outside has a reference
        if type(item) is Handle and not self.closed:
            self.pollset.set_disabled(item, False)
        return self.requeue_deferred()

    cdef int enter_region(self, LoopThread loop_thread) except -1:
        """blocking() begins; the loop thread is its own thread's."""
        loop_thread.depth += 1
        if loop_thread.depth == 1 and loop_thread.state == RUNNING:
            if not self.is_monitored:
                hooks.region(loop_thread)
            loop_thread.state = REGION
            self.pollset.send_collected()
            self.safepoint_requested = True  # to see at the end of the callback that it was left
            self.stall.beat += 1
            self.stall.mode = GL_REGION
            hooks.poke()
        return 0

    cdef int leave_region(self, LoopThread loop_thread) except -1:
        """blocking() ends: hold ownership again."""
        loop_thread.depth -= 1
        if loop_thread.depth == 0:
            if loop_thread.state == REGION:
                loop_thread.state = RUNNING
                self.stall.beat += 1
                self.stall.mode = GL_HANDOFF if self.handoff else GL_KEEP
                self.refresh()
            elif loop_thread.state == RETAKEN:
                self.reacquire(loop_thread)
        return 0

    cdef int end_region(self, LoopThread loop_thread) except -1:
        """A callback ended inside blocking(): there was an await, or a `with` that was never left."""
        loop_thread.depth = 0
        loop_thread.regions += 1
        self.stall.mode = GL_HANDOFF if self.handoff else GL_KEEP
        loop_thread.state = RUNNING
        self.loop().call_exception_handler({
            "message": "a blocking() region was not left before the callback ended: do not await inside of it",
        })
        return 0

    cdef list stuck_callbacks(self):
        """Describe the loop threads that are away: (thread, item) pairs."""
        cdef LoopThread loop_thread
        return [(loop_thread.ident, loop_thread.item) for loop_thread in self.away]


cdef object transport_of(object item):
    """The transport that a callback belongs to, or None."""
    cdef object owner
    if isinstance(item, Handle) and (<Handle>item)._callback is not None:
        owner = getattr((<Handle>item)._callback, "__self__", None)
        if isinstance(owner, Pollable):
            return owner
    return None
