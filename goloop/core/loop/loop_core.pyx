# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""LoopCore: the ready queue, the iteration, scheduling, and the doors to the poll set.

goloop._eventloop.loop.Loop puts it in front of asyncio.BaseEventLoop. One iteration is run_once(); HACKING.md says
in which order it does what, and why. All methods belong to the thread that runs the loop, except
call_soon_threadsafe(). Which thread that is, ownership.pyx knows.
"""

import asyncio
import time
from asyncio import base_events as _base_events

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR, ETIMEDOUT, errno
from libc.math cimport isnan
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from goloop.core.loop.handles cimport (
    TimerHandle, gl_track, gl_untrack, new_handle, new_timer, trace_source, track_timers,
)
from goloop.core.poll.pollset cimport (
    EPOLLIN, EPOLLOUT, READ, WRITE, Slot, conn_owner, gl_node,
)
from goloop.core.loop.ownership cimport RUNNING, LoopThread, hooks
from goloop.core.system.posix cimport fd_of, now_ns, now_s


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil
    ctypedef struct PyObject:
        pass
    ctypedef struct PyListObject:
        PyObject **ob_item
    Py_ssize_t PyList_GET_SIZE(object list)
    Py_ssize_t Py_REFCNT(object o)

cdef object _Future = asyncio.Future
cdef object _tasks = asyncio.tasks      # by its name there: tests put other classes in its place
cdef object _create_task = asyncio.BaseEventLoop.create_task
cdef object _monotonic = time.monotonic
cdef object _coroutines = asyncio.coroutines
# The public name warns from Python 3.14 on, where the private one is what asyncio itself uses.
cdef object _iscoroutinefunction = (
    getattr(_coroutines, "_iscoroutinefunction", None) or _coroutines.iscoroutinefunction
)

cdef enum:
    HARVEST = 256             # events per epoll_wait; the rest comes in the next iteration
    RING_START = 64
    THREAD_WAKES = 8          # after that many wake-ups by threads the next is expected from one as well

cdef double MAXIMUM_SLEEP = 24 * 3600.0     # seconds, as asyncio's MAXIMUM_SELECT_TIMEOUT
cdef double CLOCK_RESOLUTION = 1e-9


def _nothing():
    """A bare wake-up runs this."""


def _run_asyncio_handle(handle):
    """Run a handle of asyncio's own class, which enters its context itself."""
    if not handle._cancelled:
        handle._run()


cdef class LoopCore:
    def __cinit__(self, *args, **kwargs):
        # Until BaseEventLoop.__init__() opens it: a failure before that raises, and warns of nothing more.
        self._closed = True
        self.pollset = PollSet()
        self.ownership = LoopOwnership(self, self.pollset)
        self.timers = TimerHeap()
        self.offload_policy = OffloadPolicy()
        self.outbox = Outbox(self.pollset)
        self.ring = [None] * RING_START
        self.capacity = RING_START
        self.slow = 0.1
        self.own_clock = type(self).time is _clock

    def __dealloc__(self):
        free(self.read_buffer)

    # ------------------------------------------------------------ ready queue
    cdef int enqueue(self, object item) except -1:
        cdef PyObject **cell
        while self.count == self.capacity:
            self.grow()
        # The ring's cells hold None until filled; None is left behind by the runner.
        cell = &(<PyListObject *>self.ring).ob_item[(self.head + self.count) & (self.capacity - 1)]
        Py_INCREF(item)
        Py_DECREF(<object>cell[0])
        cell[0] = <PyObject *>item
        self.count += 1
        return 0

    cdef int grow(self) except -1:
        cdef Py_ssize_t i, at, before = self.capacity
        cdef list fresh = [None] * (2 * before)
        cdef PyObject **old
        cdef PyObject **new
        if self.capacity != before:
            return 0      # the allocation ran the collector, a finalizer called call_soon, and that grew the ring
        old = (<PyListObject *>self.ring).ob_item
        new = (<PyListObject *>fresh).ob_item
        for i in range(self.count):
            at = (self.head + i) & (before - 1)
            new[i], old[at] = old[at], new[i]
        self.ring = fresh
        self.head = 0
        self.capacity = 2 * before
        return 0

    cdef int queue(self, Pollable item) except -1:
        """Run a pollable in the next iteration (once, however often it is asked for)."""
        if not item.queued:
            item.queued = True
            self.enqueue(item)
        return 0

    cdef int drain(self) except -1:
        """Move what other threads posted to the ready queue."""
        cdef gl_node *node = self.pollset.take_inbox()
        cdef object item
        while node != NULL:
            item = <object>node.item
            node = node.next
            Py_DECREF(item)         # the inbox's reference, taken in call_soon_threadsafe
            self.enqueue(item)
        return 0

    cdef int drain_completions(self) except -1:
        """Queue the streams for which the netpoller has received, as if a harvest had found them."""
        cdef gl_node *node = self.pollset.take_completions()
        cdef gl_node *following
        cdef void *owner
        while node != NULL:
            following = node.next
            owner = conn_owner(node)      # no reference is held: the poll set's table of owners has one
            if owner != NULL:
                (<Pollable>owner).events |= EPOLLIN
                self.queue(<Pollable>owner)
            node = following
        return 0

    # -------------------------------------------------------------- iteration
    cdef int collect(self) except -1:
        """Look at the poll set without waiting, and queue what is ready."""
        cdef epoll_event events[HARVEST]
        cdef int n = self.pollset.harvest(events, HARVEST)
        if n < 0:
            if errno == EINTR:
                return 0
            raise OSError(errno, "epoll_wait failed")
        return self.dispatch(events, n)

    cdef int dispatch(self, epoll_event *events, int n) except -1:
        """Queue what the events are for."""
        cdef PollSet ps = self.pollset
        cdef Pollable owner
        cdef Slot *slot
        cdef unsigned int mask
        cdef int i, index
        for i in range(n):
            slot = ps.event_slot(events[i].data.u64)
            if slot == NULL:
                continue
            self.thread_wakes = 0
            index = <int>(slot - ps.slots)
            mask = events[i].events
            if mask & ~<unsigned int>EPOLLOUT and ps.readers[index] is not None:
                self.queue_watcher(ps.readers[index])
            if mask & ~<unsigned int>EPOLLIN and ps.writers[index] is not None:
                self.queue_watcher(ps.writers[index])
            if ps.owners[index] is not None:
                owner = <Pollable>ps.owners[index]
                owner.events |= mask
                if owner.prompt:
                    owner.run()
                else:
                    self.queue(owner)
        return 0

    cdef int queue_watcher(self, object watcher) except -1:
        return self.queue(<Pollable>watcher) if isinstance(watcher, Pollable) else self.enqueue(watcher)

    cdef int wake_due(self) except -1:
        """Queue the timers that are due."""
        cdef double end
        cdef TimerHandle timer
        if self.timers.size:
            end = self.now() + CLOCK_RESOLUTION
            while self.timers.size and self.timers.first() < end:
                timer = <TimerHandle>self.timers.pop()
                timer.unlink_untracked()
                timer.heap = None
                self.enqueue(timer)
        return 0

    cdef int sleep(self) except -1:
        """Nothing is ready: park until something may be, or the first timer is due; queue what is ready by then.

        The kind of the last wake-ups foretells the next: a loop that descriptors wake sleeps in its own poll set,
        one that threads wake sleeps on the futex, which is cheaper for them.
        """
        cdef double seconds
        cdef int64_t deadline = -1, start = 0
        cdef PollSet ps = self.pollset
        if self.timers.size:
            seconds = self.timers.first() - self.now()
            if seconds <= 0:
                return 0
            deadline = now_ns() + <int64_t>(min(seconds, MAXIMUM_SLEEP) * 1e9)
        self.ownership.stall.idle = 1
        if self.offload_policy.adaptive:
            start = now_ns()
        if self.thread_wakes < THREAD_WAKES:
            self.sleep_in_pollset(deadline)
        else:
            self.sleep_on_futex(deadline)
        if start:
            self.offload_policy.slept += now_ns() - start
        if self.thread_wakes < THREAD_WAKES and not (ps.inbox_empty() and ps.completions_empty()):
            self.thread_wakes += 1
        return 0

    cdef int sleep_in_pollset(self, int64_t deadline) except -1:
        cdef epoll_event events[HARVEST]
        cdef PollSet ps = self.pollset
        cdef int n
        with nogil:
            n = ps.poll(deadline, events, HARVEST)
        self.ownership.awake()
        if n < 0 and -n != EINTR:
            raise OSError(-n, "epoll_wait failed")
        self.dispatch(events, n)
        return 0

    cdef int sleep_on_futex(self, int64_t deadline) except -1:
        cdef PollSet ps = self.pollset
        cdef int n
        with nogil:
            n = ps.park(deadline)
        self.ownership.awake()
        if n != 0 and n != EINTR and n != ETIMEDOUT:
            raise OSError(n, "the netpoller could not be started")
        self.collect()
        return 0

    cdef int run_once(self) except -1:
        cdef LoopOwnership ownership = self.ownership
        cdef LoopThread loop_thread = ownership.holder
        cdef Py_ssize_t outer = self.todo     # a nested iteration, by _run_once() in a callback
        self.pollset.check_not_foreign()
        ownership.iteration += 1
        if self.offload_policy.adaptive:
            self.offload_policy.tick()
        self.drain()
        self.collect()
        self.drain_completions()
        if self.count == 0 and not self._stopping:
            if ownership.safepoint_requested and loop_thread is not None:
                ownership.safepoint(loop_thread)
                if loop_thread.state != RUNNING or self.count:
                    return 0  # the owner meanwhile may have left a part of an iteration
            self.sleep()
            PyErr_CheckSignals()
            self.drain()
            self.drain_completions()
        self.wake_due()
        self.todo = self.count        # their callbacks wait for the next iteration
        self.run_ready()
        if outer and ownership.holder is loop_thread:
            self.todo = min(outer, self.count)
        return PyErr_CheckSignals()

    cdef int run_ready(self) except -1:
        """Run what the iteration has to run, then send what that has written."""
        cdef LoopThread loop_thread = self.ownership.holder
        try:
            self.run_items()
        finally:
            if self.outbox.waiting and self.ownership.holder is loop_thread:
                self.outbox.flush()
        return 0

    cdef int run_items(self) except -1:
        """Run what the iteration has to run; a thread that gets ownership in the middle of one goes on with it."""
        cdef object item
        cdef PyObject **cell
        cdef LoopOwnership ownership = self.ownership
        cdef LoopThread loop_thread = ownership.holder
        cdef unsigned long long iteration = ownership.iteration
        while self.todo > 0 and self.count > 0:     # a nested iteration may have run some of them
            self.todo -= 1
            cell = &(<PyListObject *>self.ring).ob_item[self.head]
            item = <object>cell[0]
            Py_DECREF(item)                 # the ring's reference, now ours
            Py_INCREF(None)
            cell[0] = <PyObject *>None
            self.head = (self.head + 1) & (self.capacity - 1)
            self.count -= 1
            if (PyList_GET_SIZE(ownership.away) or PyList_GET_SIZE(ownership.inside)) and not ownership.admits(item):
                continue
            ownership.stall.beat += 1
            ownership.item = <void *>item
            if self._debug:
                self.run_timed(item)
            elif type(item) is Handle or type(item) is TimerHandle:
                (<Handle>item).run()
                if Py_REFCNT(item) > 1:
                    gl_track(item)
            else:
                (<Pollable>item).queued = False
                (<Pollable>item).run()
            ownership.item = NULL
            if loop_thread is not None and (ownership.safepoint_requested or ownership.holder is not loop_thread):
                ownership.safepoint(loop_thread)
                if loop_thread.state != RUNNING or ownership.iteration != iteration:
                    break             # others ran iterations meanwhile, and this one is over
            if self.outbox.waiting:
                self.outbox.flush_if_due()
        item = None
        if self.count == 0:
            self.todo = 0
        return 0

    cdef int iterate(self) except -1:
        """One iteration, or the rest of an iteration that another thread began and was stuck in."""
        if self.todo == 0 or self.count == 0:
            return self.run_once()
        self.run_ready()
        return PyErr_CheckSignals()

    cdef int run_timed(self, object item) except -1:
        """Run in debug mode: say what runs, and report it when it took too long."""
        cdef int64_t start
        cdef double took
        if isinstance(item, Handle):
            gl_track(item)
            if (<Handle>item)._cancelled:
                return 0
        start = now_ns()
        try:
            self._current_handle = item
            if isinstance(item, Pollable):
                (<Pollable>item).queued = False
                (<Pollable>item).run()
            else:
                (<Handle>item).run()
            took = (now_ns() - start) / 1e9
            if took >= self.slow and not (isinstance(item, Pollable) and (<Pollable>item).slow):
                what = _base_events._format_handle(item) if isinstance(item, Handle) else repr(item)
                _base_events.logger.warning("Executing %s took %.3f seconds", what, took)
        finally:
            self._current_handle = None
        return 0

    def _run_once(self):
        """Run one iteration, as asyncio's method of that name."""
        self.check_closed()
        self.run_once()

    def _begin_nested(self):
        """The callback that runs now is about to run the loop: what belongs to the callback waits."""
        self.ownership.nest()

    def _end_nested(self):
        self.ownership.unnest()

    def _is_nested(self):
        """Return whether a callback runs the loop."""
        return bool(self.ownership.inside)

    def _run_until_stopped(self):
        """Run iterations until stop(); run_forever() prepares and cleans up around it."""
        cdef LoopOwnership ownership = self.ownership
        cdef LoopThread loop_thread = LoopThread(ownership)
        cdef object failure, item
        try:
            ownership.attach_home(loop_thread)
            self.todo = 0
            self.gc_untracks_handles = True
            while True:
                self.iterate()
                if self._stopping and self.todo == 0:
                    break
        finally:
            self.gc_untracks_handles = False
            track_timers(self.timers)
            try:
                if ownership.away or ownership.holder is not loop_thread:
                    ownership.wait_for_stuck(loop_thread, ownership.drain_timeout)
                    if ownership.away:
                        hooks.abandoned(loop_thread)
            finally:
                ownership.detach(loop_thread)
                self.drain()
                for item in self._ready:
                    gl_track(item)
        if ownership.failure is not None:
            failure = ownership.failure
            ownership.failure = None
            raise failure

    def _drive(self):
        """Run iterations for a home thread that is stuck, until it is back: a substitute's part."""
        cdef LoopOwnership ownership = self.ownership
        cdef LoopThread loop_thread = LoopThread(ownership)
        loop_thread.bind()
        try:
            if ownership.attach_substitute(loop_thread):
                while loop_thread.state == RUNNING and ownership.open:
                    if self._stopping and self.todo == 0:
                        ownership.yield_to_home(loop_thread)
                    else:
                        self.iterate()
        except BaseException as exc:      # SystemExit, KeyboardInterrupt: what run_forever() raises
            ownership.failure = exc
            self._stopping = True
        finally:
            ownership.reacquire_if_retaken(loop_thread)
            ownership.detach(loop_thread)

    def _requeue(self, list items):
        for item in items:
            self.enqueue(item)

    def stop(self):
        """Let run_forever() return after the current iteration (asyncio: stop)."""
        self._stopping = True

    @property
    def _ready(self):
        """The callbacks that wait to run: a copy, oldest first."""
        cdef Py_ssize_t i
        return [self.ring[(self.head + i) & (self.capacity - 1)] for i in range(self.count)]

    @_ready.setter
    def _ready(self, value):
        if value:
            raise AttributeError("the ready queue cannot be replaced")

    @property
    def _scheduled(self):
        """The timers that are pending: a copy, in no order."""
        return list(self.timers.items)

    @_scheduled.setter
    def _scheduled(self, value):
        if value:
            raise AttributeError("the timers cannot be replaced")

    @property
    def slow_callback_duration(self):
        """The seconds from which on a callback is slow: reported in debug mode, and by the watch."""
        return self.slow

    @slow_callback_duration.setter
    def slow_callback_duration(self, seconds):
        self.slow = seconds
        self.ownership.report_slow(-1)

    # ------------------------------------------------------------------ clock
    # Tests put clocks of their own in the place of loop.time, or override it in a subclass. Being a property, it
    # sees that, and the loop reads the clock without a call through Python as long as nobody did.
    cdef double now(self) except? -1:
        return now_s() if self.own_clock else self.time()

    @property
    def time(self):
        """Call it for the loop's time: the monotonic clock, in seconds."""
        return _monotonic if self.clock is None else self.clock

    @time.setter
    def time(self, clock):
        self.clock = clock
        self.own_clock = False

    @time.deleter
    def time(self):
        self.clock = None
        self.own_clock = type(self).time is _clock

    # ----------------------------------------------------------------- checks
    # A new future asks for get_debug(), whatever is done for a connection for the others.
    def get_debug(self):
        """Return True in debug mode (asyncio: get_debug). From any thread."""
        return self._debug

    def is_closed(self):
        """Return True once the loop has been closed (asyncio: is_closed). From any thread."""
        return self._closed

    def is_running(self):
        """Return True while a thread runs the loop (asyncio: is_running). From any thread."""
        return self._thread_id is not None

    cdef int check_closed(self) except -1:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        return 0

    def _check_closed(self):
        self.check_closed()

    cdef int check_thread(self) except -1:
        if self.ownership.owner_ident and self.ownership.owner_ident != PyThread_get_thread_ident():
            raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one")
        return 0

    def _on_own_thread(self):
        """Return whether the calling thread runs the loop."""
        return self.ownership.owner_ident == PyThread_get_thread_ident()

    cdef int check_callback(self, object callback, str method) except -1:
        if self._debug and (_coroutines.iscoroutine(callback) or _iscoroutinefunction(callback)):
            raise TypeError(f"coroutines cannot be used with {method}()")
        if not callable(callback):
            raise TypeError(f"a callable object was expected by {method}(), got {callback!r}")
        return 0

    # ------------------------------------------------------------- scheduling
    cdef Handle soon(self, object callback, object args, object context):
        cdef Handle handle
        self.check_closed()
        handle = new_handle(callback, args, self, context)
        if self.gc_untracks_handles:
            gl_untrack(handle)
        if not self.pollset.inbox_empty():
            self.drain()      # a callback that another thread posted before this call also runs before it
        self.enqueue(handle)
        return handle

    def call_soon(self, callback, *args, context=None):
        """Run callback(*args) in the next iteration (asyncio: call_soon), in the order of the calls.

        context: the contextvars.Context to run in; None: a copy of the current one. Returns a Handle. TypeError unless
        the callback is a plain function. From another thread, use call_soon_threadsafe().
        """
        cdef Handle handle
        if self._debug:
            self.check_closed()
            self.check_thread()
        if self._debug or not callable(callback):
            self.check_callback(callback, "call_soon")
        handle = self.soon(callback, args, context)
        if self._debug:
            trace_source(handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        """Run callback(*args) in the next iteration, and wake the loop. From any thread.

        context: the contextvars.Context to run in; None: a copy of the current one. Returns a Handle. RuntimeError once
        the loop is closed; a callback that was accepted before is never lost while the loop runs on.
        """
        cdef Handle handle
        self.check_closed()
        if self._debug or not callable(callback):
            self.check_callback(callback, "call_soon_threadsafe")
        if self.ownership.owner_ident == PyThread_get_thread_ident():
            handle = self.soon(callback, args, context)
            handle.share()
            if self._debug:
                trace_source(handle)
            return handle
        handle = new_handle(callback, args, self, context)
        handle.share()
        if self._debug:
            trace_source(handle)
        if self.gc_untracks_handles:
            gl_untrack(handle)
        handle.node.item = <void *>handle
        Py_INCREF(handle)         # the inbox's reference; drain() drops it
        if not self.pollset.post(&handle.node):
            Py_DECREF(handle)
            raise RuntimeError("Event loop is closed")
        return handle

    def call_later(self, delay, callback, *args, context=None):
        """Run callback(*args) after delay seconds (int or float). Returns a TimerHandle. context: the
        contextvars.Context to run in; None: a copy of the current one. In the loop's thread."""
        if delay is None:
            raise TypeError("delay must not be None")
        return self.schedule(self.now() + delay, callback, args, context)

    def call_at(self, when, callback, *args, context=None):
        """Run callback(*args) at the time `when`, in seconds on the loop's clock. Returns a TimerHandle. context: the
        contextvars.Context to run in; None: a copy of the current one. In the loop's thread."""
        if when is None:
            raise TypeError("when cannot be None")
        cdef TimerHandle handle = self.schedule(when, callback, args, context)
        handle.integral = type(when) is int
        return handle

    cdef TimerHandle schedule(self, double when, object callback, object args, object context):
        cdef TimerHandle timer
        self.check_closed()
        if self._debug:
            self.check_thread()
        if self._debug or not callable(callback):
            self.check_callback(callback, "call_at")
        if isnan(when):
            raise ValueError("a timer's time cannot be NaN")
        timer = new_timer(when, callback, args, self, context)
        if self._debug:
            trace_source(timer)
        timer.heap = self.timers
        self.timers.push(when, &timer.heap_index, timer)
        if self.gc_untracks_handles:
            timer.untrack()
        return timer

    def create_future(self):
        """Return a new asyncio.Future attached to this loop (asyncio: create_future). In the loop's thread."""
        return _Future(loop=self)

    def create_task(self, coro, **kwargs):
        """Run coro, a coroutine, as an asyncio.Task, and return that (asyncio: create_task). In the loop's thread.

        kwargs: the task's name, context and, from Python 3.12 on, eager_start. A task factory gets them as
        BaseEventLoop.create_task() of the running Python hands them on. RuntimeError once the loop is closed.
        """
        if self._task_factory is not None:
            return _create_task(self, coro, **kwargs)
        self.check_closed()
        # In debug mode a task keeps the stack of its making. Compiled code has no frame in it to take out.
        return _tasks.Task(coro, loop=self, **kwargs) if kwargs else _tasks.Task(coro, loop=self)

    def _write_to_self(self):
        """Make the loop run an iteration, from any thread."""
        if not self._closed:
            self.call_soon_threadsafe(_nothing)

    # ---------------------------------------------------------------- polling
    cdef char *scratch(self) except NULL:
        if self.read_buffer == NULL:
            self.read_buffer = <char *>malloc(READ_SIZE)
            if self.read_buffer == NULL:
                raise MemoryError
        return self.read_buffer

    cdef int forget_watchers(self, int fd) except -1:
        """Whatever watched a descriptor that gets an owner is a leftover of a closed file."""
        self.check_closed()
        if self.pollset.find(fd) >= 0:
            self.remove_watcher(fd, READ)
            self.remove_watcher(fd, WRITE)
        return 0

    cdef int own(self, int fd, Pollable owner) except -1:
        """Give a descriptor to a transport, which says with pollset.resume() from when on it is watched."""
        self.forget_watchers(fd)
        return self.pollset.own(fd, owner)

    cdef int attach(self, int fd, Pollable owner) except -1:
        """Give a descriptor to an owner, and watch it."""
        self.forget_watchers(fd)
        return self.pollset.attach(fd, owner)

    cdef int detach(self, int fd, Pollable owner) except -1:
        return 0 if self._closed else self.pollset.detach(fd, owner)

    cdef Handle add_watcher(self, object fileobj, Side side, object callback, object args):
        cdef int fd = fd_of(fileobj)
        cdef Handle handle
        cdef object before
        self.check_closed()
        handle = new_handle(callback, args, self, None)
        if self._debug:
            trace_source(handle)
        before = self.pollset.add_watcher(fd, side, handle, None if isinstance(fileobj, int) else fileobj)
        if before is not None:
            before.cancel()
        return handle

    cdef bint remove_watcher(self, object fileobj, Side side) except -1:
        cdef int fd
        cdef object before
        if self._closed:
            return False
        try:
            fd = fd_of(fileobj)
        except ValueError:
            fd = self.pollset.fd_of(fileobj)
            if fd < 0:
                raise
        before = self.pollset.remove_watcher(fd, side)
        if before is None:
            return False
        before.cancel()
        return True

    def _ensure_fd_no_transport(self, fd):
        """RuntimeError if an open transport owns the descriptor."""
        cdef object owner
        cdef int fileno
        if isinstance(fd, int):
            fileno = fd if -1 <= fd <= 0x7fffffff else -1
        else:
            try:
                fileno = int(fd.fileno())
            except (AttributeError, TypeError, ValueError):
                raise ValueError(f"Invalid file object: {fd!r}") from None
        owner = None if self._closed else self.pollset.owner_of(fileno)
        if owner is not None and not owner.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {owner!r}")

    def _add_reader(self, fd, callback, *args):
        return self.add_watcher(fd, READ, callback, args)

    def _remove_reader(self, fd):
        return self.remove_watcher(fd, READ)

    def _add_writer(self, fd, callback, *args):
        return self.add_watcher(fd, WRITE, callback, args)

    def _remove_writer(self, fd):
        return self.remove_watcher(fd, WRITE)

    def add_reader(self, fd, callback, *args):
        """Call callback(*args) once an iteration while fd is readable; replaces the callback before. fd: an int or an
        object with fileno(); RuntimeError for the descriptor of an open transport. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        if not callable(callback):
            self.check_callback(callback, "add_reader")
        self.add_watcher(fd, READ, callback, args)

    def remove_reader(self, fd):
        """Stop watching fd for readability. Returns whether there was a callback to remove. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        return self.remove_watcher(fd, READ)

    def add_writer(self, fd, callback, *args):
        """Call callback(*args) once an iteration while fd is writable; replaces the callback before. fd: an int or an
        object with fileno(); RuntimeError for the descriptor of an open transport. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        if not callable(callback):
            self.check_callback(callback, "add_writer")
        self.add_watcher(fd, WRITE, callback, args)

    def remove_writer(self, fd):
        """Stop watching fd for writability. Returns whether there was a callback to remove. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        return self.remove_watcher(fd, WRITE)

    # ------------------------------------------------------------------ close
    def _shutdown_core(self):
        """Release everything native; close() calls it once, on a loop that does not run."""
        cdef gl_node *node
        cdef PollSet ps = self.pollset
        cdef list ring = self.ring
        cdef list owners = ps.owners
        cdef object item
        for item in list(ps.owners):
            if item is not None:
                (<Pollable>item).take_back_conn()
        node = ps.shut()
        self.ownership.close()
        while node != NULL:
            item = <object>node.item
            node = node.next
            Py_DECREF(item)
            item = None
        self.ring = [None] * RING_START
        self.head = 0
        self.count = 0
        self.capacity = RING_START
        ring.clear()
        self.timers.clear()
        for item in owners:
            if item is not None:
                (<Pollable>item).loop_closed()

    def _add_callback(self, handle):
        """Run a handle in the next iteration, as often as it is added; asyncio.Handle objects do as well."""
        if isinstance(handle, Handle):
            self.enqueue(handle)
        elif not handle._cancelled:
            self.soon(_run_asyncio_handle, (handle,), None)

    def _add_callback_signalsafe(self, handle):
        self._add_callback(handle)

    def _is_foreign(self):
        """True in a forked child for a loop that the parent made."""
        return not self._closed and self.pollset.foreign()

    def _check_not_foreign(self):
        self.pollset.check_not_foreign()

    def _use_io(self, mode):
        """Go over to a mode of GOLOOP_IO; each stream follows at its next turn."""
        self.offload_policy.use(mode)

    def _stats(self):
        """Counters of this loop: ready callbacks, pending timers, watched descriptors, parks; connections for which
        the netpoller receives and sends, how often one was given to it, how often this loop began or ceased to.
        """
        return {"ready": self.count, "timers": self.timers.size, "descriptors": len(self.pollset),
                "parks": self.pollset.parks, "handoffs": self.ownership.handoffs, "away": len(self.ownership.away),
                "offloaded": self.offload_policy.offloaded, "offloads": self.offload_policy.offloads,
                "io_switches": self.offload_policy.switches}


cdef object _clock = LoopCore.time
