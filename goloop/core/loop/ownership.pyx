# cython: language_level=3, boundscheck=False, wraparound=False
"""Token: who runs the callbacks of a loop. Seat: a thread's place there.

The thread in run_forever() is home and holds the token, unless it is stuck in a blocking call: then the monitor
takes the token (sched/handoff.pyx) and gives it to a substitute. When the call has returned, the thread waits here
until it is given the token back, between two callbacks of whoever has it. HACKING.md, "Handoff", has the states of a
seat and who may change them.

Everything here is guarded by the GIL: no function gives it up between a look and a change, only wait() does. The
monitor reads the numbers in `watch` without it.
"""

import sys
import threading
import weakref
from asyncio import tasks as _tasks

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t

from goloop.core.loop.handles cimport Handle, gl_track
from goloop.core.poll.pollset cimport now_ns


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
    void gl_watch_add(gl_watched *w)
    void gl_watch_remove(gl_watched *w)
    void gl_watch_forget()
    void gl_watch_awake(gl_watched *w)
    void gl_watch_hot(int64_t now)
    int64_t gl_watch_look(uint32_t *verdicts)
    int gl_thread_does(int tid)
    int64_t gl_learn_gil(int tid)

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_getcpuclockid(pthread_t thread, int *clock)

cdef extern from *:
    """
    #include "../system/native/thread_local.h"
    GL_THREAD_LOCAL PyObject *gl_seat;  /* the Seat of this thread, borrowed: its thread holds a reference */
    """
    PyObject *gl_seat

cdef enum:
    SLICE = 50000       # us that the main thread waits before it looks for signals that came to another thread

cdef double PATIENCE = 5.0        # seconds

# From 3.14 on a thread's current task is its own. Before, it is the loop's, and moves with the token.
cdef bint TASK_OF_LOOP = sys.version_info < (3, 14)
cdef dict _current_tasks = getattr(_tasks, "_current_tasks", None) if TASK_OF_LOOP else None
cdef object _enter_task = _tasks._enter_task
cdef object _leave_task = _tasks._leave_task


cdef int set_hooks(Hooks given) except -1:
    global hooks
    hooks = given
    return 0


# The one list of watched loops is in this module; sched/handoff.pyx reaches it through these.
cdef int64_t watch_look(uint32_t *verdicts) noexcept nogil:
    return gl_watch_look(verdicts)


cdef void watch_hot() noexcept nogil:
    gl_watch_hot(now_ns())


cdef int thread_does(int tid) noexcept nogil:
    return gl_thread_does(tid)


cdef int64_t learn_gil(int tid) noexcept nogil:
    return gl_learn_gil(tid)


cdef int this_tid() noexcept nogil:
    return gl_gettid()


cdef void watch_forget() noexcept nogil:
    gl_watch_forget()


cdef Seat seat_here():
    """The seat of this thread, or None."""
    return <Seat>gl_seat if gl_seat != NULL else None


cdef class Seat(Pollable):
    def __cinit__(self, Token token):
        self.token = token
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
        global gl_seat
        self.under = gl_seat
        if self.under != NULL:                 # a loop inside of a loop's callback: the outer one stays here
            (<Seat>self.under).token.watch.mode = GL_KEEP
        self.thread = PyThread_get_thread_ident()
        self.tstate = PyThreadState_Get()
        self.tid = gl_gettid()
        if pthread_getcpuclockid(pthread_self(), &self.clock):
            self.clock = -1
        self.main = threading.main_thread().ident == self.thread
        self.base = PyThreadState_GetFrame(self.tstate)
        gl_seat = <PyObject *>self
        return 0

    def unbind(self):
        global gl_seat
        cdef PyObject *base = <PyObject *>self.base
        gl_seat = self.under
        self.tstate = NULL
        self.base = NULL
        if base != NULL:
            Py_DECREF(<object>base)
        if self.under != NULL and (<Seat>self.under).token.handoff:
            (<Seat>self.under).token.watch.mode = GL_HANDOFF

    cdef object run(self):
        # Out of the inbox: nothing but the wake-up that it was.
        self.posted = False


cdef class Token:
    def __cinit__(self, loop, PollSet pollset):
        self.loop = weakref.ref(loop)
        self.pollset = pollset
        self.away = []
        self.returned = []
        self.deferred = []
        self.patience = PATIENCE
        self.watch.idle = 1

    def __dealloc__(self):
        if self.watched:
            gl_watch_remove(&self.watch)

    cdef int watch_slow(self, int on) except -1:
        """Report callbacks that are slow, or not; -1: as before, but what is slow has changed."""
        cdef double seconds
        if on > 0 or (on < 0 and self.watch.slow):
            seconds = self.loop().slow_callback_duration
            self.watch.slow = max(1, <int64_t>(min(seconds, 1e9) * 1e9))
        elif on == 0:
            self.watch.slow = 0
        return 0

    cdef void awake(self) noexcept nogil:
        """The loop is not parked any more."""
        if self.watched:
            gl_watch_awake(&self.watch)
            hooks.poke()
        else:
            self.watch.idle = 0

    cdef int listen(self, bint on) except -1:
        """Let the monitor look at this loop, or not any more."""
        if on != self.watched:
            self.watched = on
            if on:
                gl_watch_add(&self.watch)
            else:
                gl_watch_remove(&self.watch)
        return 0

    # ------------------------------------------------------------ who is next
    cdef int refresh(self) except -1:
        """Say whether the holder has something to do after its callback."""
        cdef Seat home = self.home
        cdef Seat holder = self.holder
        self.wanted = (
            len(self.returned) > 0
            or (home is not None and home is not holder and home.state == IDLE)
            or (holder is not None and (holder.report is not None or holder.depth > 0 or holder.since > 0))
            or (holder is not home and not self.open)
        )
        return 0

    cdef Seat choose(self):
        """Who gets the token when nobody has it: who has a callback to finish, then home, then the spare."""
        if self.returned and (self.open or self.settling or self.closed):
            return self.returned.pop(0)
        if self.home is not None and self.home.state == IDLE:
            return self.home
        if self.open and self.spare is not None and not self.loop()._stopping:
            return self.spare
        return None

    cdef int grant(self, Seat seat) except -1:
        """Let a seat hold the token. It is the caller's to give, or nobody's."""
        if seat is self.spare:
            self.spare = None
        seat.state = RUNNING
        self.holder = seat
        self.owner = seat.thread
        self.item = NULL
        self.watch.tid = seat.tid
        self.watch.clock = seat.clock
        self.watch.beat += 1
        self.watch.mode = GL_HANDOFF if self.handoff else GL_KEEP
        self.watch.vacant = 0
        self.watch.idle = 0
        self.refresh()
        if seat.waiting:
            seat.waiting = False
            PyThread_release_lock(seat.lock)
        return 0

    cdef int vacate(self) except -1:
        """Nobody holds the token from here on."""
        self.holder = None
        self.owner = 0
        self.item = NULL
        self.watch.beat += 1
        self.watch.idle = 1
        self.watch.vacant = self.open and not self.loop()._stopping
        return 0

    cdef int wait(self, Seat seat, double seconds) except -1:
        """Sleep until the seat is RUNNING or GONE, or so many seconds (negative: for ever) are over."""
        cdef int64_t end = now_ns() + <int64_t>(seconds * 1e9) if seconds >= 0 else -1
        cdef int64_t left
        cdef int got
        while seat.state != RUNNING and seat.state != GONE:
            left = -1
            if end >= 0:
                left = (end - now_ns()) // 1000
                if left <= 0:
                    break
            if seat.main and (left < 0 or left > SLICE):
                left = SLICE
            seat.waiting = True
            with nogil:
                got = PyThread_acquire_lock_timed(seat.lock, left, 1)
            if got == 1:
                continue                       # `waiting` is cleared by who released it
            if seat.waiting:
                seat.waiting = False
            else:
                PyThread_acquire_lock_timed(seat.lock, 0, 0)      # released after we had given up
            if seat.main:
                self.signals()
        return 0

    cdef int signals(self) except -1:
        """Run signal handlers in the main thread, which waits. What one raises is meant for the running callback."""
        cdef unsigned long owner
        try:
            PyErr_CheckSignals()
        except BaseException as exc:
            owner = self.owner
            if not owner or owner == PyThread_get_thread_ident():
                raise
            PyThreadState_SetAsyncExc(owner, type(exc))
        return 0

    cdef int nudge(self, Seat seat) except -1:
        """Make the holder look at `wanted`: it may be parked."""
        self.wanted = True
        if self.watch.idle and not seat.posted:
            seat.posted = True
            seat.node.item = <void *>seat
            Py_INCREF(seat)                    # the inbox's reference; drain() drops it
            if not self.pollset.post(&seat.node):
                Py_DECREF(seat)
                seat.posted = False
        return 0

    # --------------------------------------------------- the holder's own steps
    cdef int boundary(self, Seat seat) except -1:
        """Between two callbacks of `seat`: give the token to who needs it more, and wait to get it again.

        Afterwards the seat is RUNNING, or GONE if it is a substitute that is not needed any more.
        """
        cdef Seat next
        if self.foreign():
            return 0
        self.ensure(seat)
        if seat.depth:
            self.end_region(seat)
        if seat.report is not None:
            hooks.ended(seat)
        seat.since = 0
        while seat.state == RUNNING:
            if self.returned:
                next = self.returned.pop(0)
            elif self.home is not None and self.home is not seat and self.home.state == IDLE:
                next = self.home
            else:
                break
            if seat is not self.home and self.spare is not None:
                seat.state = GONE
                self.grant(next)
                return 0
            seat.state = IDLE
            if seat is not self.home:
                self.spare = seat
            self.grant(next)
            self.wait(seat, -1)
        if seat.state == RUNNING and seat is not self.home and not self.open:
            seat.state = GONE                  # home has left meanwhile
        if seat.state == RUNNING:
            self.refresh()
        return 0

    cdef int rest(self, Seat seat) except -1:
        """The loop is stopping, which is home's to finish: give the token there, and wait."""
        cdef Seat next
        seat.state = IDLE
        if self.spare is not None and self.spare is not seat:
            seat.state = GONE
        else:
            self.spare = seat
        next = self.choose()
        if next is None:
            self.vacate()
        elif next is not seat:
            self.grant(next)
        self.wait(seat, -1)
        return 0

    cdef int ensure(self, Seat seat) except -1:
        """Hold the token, whatever happened: the callback of `seat` has ended, and perhaps ran into no trap."""
        if seat.state == TAKEN:
            self.come_back(seat)
        return 0

    cdef int come_back(self, Seat seat) except -1:
        """The call that `seat` was stuck in has returned: wait for the token, and restore what is the callback's."""
        cdef object task
        if seat.trap is not None:
            hooks.disarm(seat)
        if seat.state != TAKEN:
            return 0
        if self.foreign():                     # a forked child: there is nobody else
            seat.state = RUNNING
            return 0
        seat.state = RETURNED
        if self.holder is None and (self.open or self.settling or self.closed):
            self.grant(seat)
        else:
            self.returned.append(seat)
            self.nudge(seat)
            self.wait(seat, -1)
        self.away.remove(seat)
        self.item = <void *>seat.item          # the thread's run_once() has a reference
        if type(seat.item) is Handle and not self.closed:
            self.pollset.mute(seat.item, False)
        task = seat.task
        if task is not None:
            seat.task = None
            _enter_task(self.loop(), task)
        self.release()
        self.refresh()
        return 0

    cdef int release(self) except -1:
        """What waited for the end of somebody's callback may try again."""
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

    cdef int lost(self, Seat seat) except -1:
        """The monitor's part of a handoff, after the trap is armed: the token is taken from `seat`."""
        cdef object task
        cdef object loop = self.loop()
        if TASK_OF_LOOP:
            task = _current_tasks.get(loop)
            if task is not None:
                _leave_task(loop, task)
                seat.task = task
        seat.item = <object>self.item if self.item != NULL else None
        if seat.since == 0:
            seat.since = max(self.watch.since, 1)
        if type(seat.item) is Handle and not self.closed:
            self.pollset.mute(seat.item, True)
        self.away.append(seat)
        self.vacate()
        return 0

    # -------------------------------------------------------- coming and going
    cdef int sit(self, Seat seat) except -1:
        """Home arrives: run_forever()."""
        seat.bind()
        self.home = seat
        self.open = True
        self.failure = None
        if self.holder is None:
            self.grant(seat)
        else:                                  # it was stuck when run_forever() returned last, and ends its callback
            seat.state = IDLE
            self.refresh()
            self.wait(seat, -1)
        return 0

    cdef bint apply(self, Seat seat) except -1:
        """A substitute arrives. Returns False if there is nothing to do for it."""
        if not self.open or self.closed:
            return False
        if self.holder is None and not self.loop()._stopping:
            self.grant(seat)
            return True
        if self.spare is not None:
            return False
        seat.state = IDLE
        self.spare = seat
        self.wait(seat, -1)
        return seat.state == RUNNING

    cdef int settle(self, Seat seat, double seconds) except -1:
        """run_forever() is about to return: let callbacks that are stuck end, for so many seconds."""
        cdef int64_t end = now_ns() + <int64_t>(seconds * 1e9)
        cdef Seat next
        self.ensure(seat)
        self.open = False
        self.settling = True
        while self.away:
            if self.returned:
                next = self.returned.pop(0)
                seat.state = IDLE
                self.grant(next)
                self.wait(seat, -1)
                continue
            if now_ns() >= end:
                break
            # Nobody holds the token now: whoever returns takes it, ends its callback, and gives it to us.
            seat.state = IDLE
            self.vacate()
            self.wait(seat, (end - now_ns()) / 1e9)
            if seat.state != RUNNING:
                if self.holder is None:
                    self.grant(seat)
                else:
                    self.wait(seat, -1)
        return 0

    cdef int leave(self, Seat seat) except -1:
        """A seat leaves the loop: home after settle(), a substitute at its end."""
        cdef Seat next
        cdef bint held = self.holder is seat
        seat.state = GONE
        if seat is self.spare:
            self.spare = None
        if seat is self.home:
            self.open = self.settling = False
            self.home = None
            self.wanted = self.holder is not None and not held
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
        seat.unbind()
        return 0

    cdef int close(self) except -1:
        """The loop is closed; who is still stuck finishes its callback without it."""
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
        cdef Seat seat
        cdef object context, other
        for seat in self.away:
            if seat.item is item or owner_of(seat.item) is item:
                for other in self.deferred:
                    if other is item:          # a watcher, once for each iteration
                        return False
                self.deferred.append(item)
                return False
        if isinstance(item, Handle) and not (<Handle>item)._cancelled:
            context = (<Handle>item)._context
            try:
                PyContext_Enter(context)
            except RuntimeError:
                gl_track(item)                 # who knows for how long
                self.deferred.append(item)
                return False
            PyContext_Exit(context)
        return True

    cdef int enter_region(self, Seat seat) except -1:
        """blocking() begins; the seat is its own thread's."""
        seat.depth += 1
        if seat.depth == 1 and seat.state == RUNNING:
            if not self.watched:
                hooks.region(seat)
            seat.state = REGION
            self.wanted = True                 # to see at the end of the callback that it was left
            self.watch.beat += 1
            self.watch.mode = GL_REGION
            hooks.poke()
        return 0

    cdef int leave_region(self, Seat seat) except -1:
        """blocking() ends: hold the token again."""
        seat.depth -= 1
        if seat.depth == 0:
            if seat.state == REGION:
                seat.state = RUNNING
                self.watch.beat += 1
                self.watch.mode = GL_HANDOFF if self.handoff else GL_KEEP
                self.refresh()
            elif seat.state == TAKEN:
                self.come_back(seat)
        return 0

    cdef int end_region(self, Seat seat) except -1:
        """A callback ended inside blocking(): there was an await, or a `with` that was never left."""
        seat.depth = 0
        seat.regions += 1
        self.watch.mode = GL_HANDOFF if self.handoff else GL_KEEP
        seat.state = RUNNING
        self.loop().call_exception_handler({
            "message": "a blocking() region was not left before the callback ended: do not await inside of it",
        })
        return 0

    cdef list stuck(self):
        """Describe who is away: (thread, item) pairs."""
        cdef Seat seat
        return [(seat.thread, seat.item) for seat in self.away]


cdef object owner_of(object item):
    """The transport that a callback belongs to, or None."""
    cdef object owner
    if isinstance(item, Handle) and (<Handle>item)._callback is not None:
        owner = getattr((<Handle>item)._callback, "__self__", None)
        if isinstance(owner, Pollable):
            return owner
    return None
