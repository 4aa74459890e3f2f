# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""LoopIteration: the ready queue, one iteration, sleeping, and the clock.

One iteration is run_once(); HACKING.md says in which order it does what, and why. All methods belong to the thread that
runs the loop. Which thread that is, ownership.pyx knows. LoopCore adds the ways in: scheduling, and the poll set.
"""

import time
from asyncio import base_events as _base_events

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF
from libc.errno cimport EINTR, ETIMEDOUT, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

from goloop.core.loop.accounts cimport (
    OBSERVE_EVERY, Accounts, FunctionTime, come_round, end_sleep, gl_histogram_add, task_of, timed,
)
from goloop.core.loop.handles cimport Handle, TimerHandle, is_handle, show, track_timers
from goloop.core.loop.ownership cimport RUNNING, LoopThread, hooks
from goloop.core.loop.ready_queue cimport pop, push
from goloop.core.loop.run_trace cimport Lane, end_lane, function_number, lane_of, wait_of
from goloop.core.poll.pollset cimport EPOLLIN, EPOLLOUT, Slot, conn_owner, gl_node
from goloop.core.system.posix cimport gl_ticks, now_ns, now_s
from goloop.core.system.trace cimport (
    GL_TRACE_AWAKE, GL_TRACE_RAN, GL_TRACE_RUN, GL_TRACE_SLEEP, gl_tracer, name_number, the_tracer, trace,
)


cdef extern from "Python.h":
    Py_ssize_t PyList_GET_SIZE(object list)
    Py_ssize_t Py_REFCNT(object o)

cdef gl_tracer *tracer = the_tracer()
cdef object _monotonic = time.monotonic

cdef enum:
    HARVEST = 256             # events per epoll_wait; the rest comes in the next iteration
    LOOK_ITERATIONS = 61      # Go's findRunnable; a prime, so it never beats with a program's periods
    THREAD_WAKES = 8          # after that many wake-ups by threads the next is expected from one as well

# Seconds of sleep without a timer or a descriptor until a loop asks whether anything can wake it, while a caller waits
# for a future: at first, when the last look found nothing and so one more decides, and at most.
cdef double FIRST_LOOK = 1.0
cdef double NEXT_LOOK = 0.1
cdef double LAST_LOOK = 10.0
cdef object nothing_moves = None      # see set_nothing_moves()

cdef int64_t LOOK_NS = 30_000           # a look costs 0.3 us, a callback as much; later than that is not noticed
cdef double MAXIMUM_SLEEP = 24 * 3600.0     # seconds, as asyncio's MAXIMUM_SELECT_TIMEOUT
cdef double CLOCK_RESOLUTION = 1e-9


cdef class LoopIteration:
    def __cinit__(self, *args, **kwargs):
        # Until BaseEventLoop.__init__() opens it: a failure before that raises, and warns of nothing more.
        self._closed = True
        self.pollset = PollSet()
        self._ownership = LoopOwnership(self, self.pollset)
        self.timers = TimerHeap()
        self.offload_policy = OffloadPolicy()
        self.outbox = Outbox(self.pollset)
        self.ready = ReadyQueue()
        self.accounts = Accounts()
        self.until_observed = self.observed_for = OBSERVE_EVERY
        self.slow = 0.1
        self._look_ns = LOOK_NS
        self.own_clock = type(self).time is _clock
        self.look_pause = FIRST_LOOK

    cdef int check_closed(self) except -1:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        return 0

    @property
    def _number(self):
        """The number of this loop in the process, from 1."""
        return self.number

    @_number.setter
    def _number(self, number):
        self.number = self.pollset.ps.loop = number

    def _check_closed(self):
        self.check_closed()

    # ------------------------------------------------------------ ready queue
    cdef int queue(self, Pollable item) except -1:
        """Run a pollable in the next iteration (once, however often it is asked for)."""
        if not item.queued:
            item.queued = True
            push(self.ready, item)
        return 0

    cdef int drain(self) except -1:
        """Move what other threads posted to the ready queue."""
        cdef gl_node *node = self.pollset.take_inbox()
        cdef object item
        while node != NULL:
            item = <object>node.item
            node = node.next
            Py_DECREF(item)         # the inbox's reference, taken in call_soon_threadsafe
            push(self.ready, item)
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

    cdef bint time_to_look(self) except -1:
        """Whether to look for events, timers and signals: if nothing else is to do, and now and then otherwise."""
        self.unlooked += 1
        if self.ready.count == 0:
            self.unlooked = 0
            return True
        if self.unlooked < LOOK_ITERATIONS and self.own_clock and not self.pollset.changed and not self.has_waited():
            return False
        self.unlooked = 0
        self.looked = now_ns()
        self.looked_ticks = gl_ticks()
        self.pollset.changed = False
        return True

    cdef int note_round(self) noexcept:
        """It looks around, or is about to sleep: account for the time since it did last."""
        come_round(self.accounts, now_ns())
        if tracer.session:
            self.until_observed = 1         # the next callback, and that asks for the one after it
        return 0

    cdef bint has_waited(self) noexcept:
        """Whether the last look was `_look_ns` ago. The clock is read after as many ticks as that took last."""
        cdef int64_t ticks = gl_ticks() - self.looked_ticks
        cdef int64_t passed
        if 0 <= ticks < self.look_ticks and self._look_ns:
            return False
        passed = now_ns() - self.looked
        if 0 < passed < self._look_ns:
            self.look_ticks = max(1, ticks) * self._look_ns // passed     # they go by faster
            return False
        if 0 < passed < 1000 * self._look_ns:
            self.look_ticks = ticks * self._look_ns // passed
        return True

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
        return self.queue(<Pollable>watcher) if isinstance(watcher, Pollable) else push(self.ready, watcher)

    cdef int wake_due(self) except -1:
        """Queue the timers that are due."""
        cdef double end, late
        cdef TimerHandle timer
        if self.timers.size:
            end = self.now() + CLOCK_RESOLUTION
            while self.timers.size and self.timers.first() < end:
                late = min(end - self.timers.first(), 1e9)
                gl_histogram_add(&self.accounts.timer_lag, <int64_t>(late * 1e9), 1)
                timer = <TimerHandle>self.timers.pop()
                timer.leave_heap()
                push(self.ready, timer)
        return 0

    cdef int sleep(self) except -1:
        """Nothing is ready: park until something may be, or the first timer is due; queue what is ready by then.

        The kind of the last wake-ups foretells the next: a loop that descriptors wake sleeps in its own poll set,
        one that threads wake sleeps on the futex, which is cheaper for them.
        """
        cdef double seconds
        cdef int64_t deadline = -1, look = 0
        cdef PollSet ps = self.pollset
        cdef Accounts accounts = self.accounts
        if self.timers.size:
            seconds = self.timers.first() - self.now()
            if seconds <= 0:
                return 0
            deadline = now_ns() + <int64_t>(min(seconds, MAXIMUM_SLEEP) * 1e9)
        elif self._awaited_runs and ps.used <= 1 and nothing_moves is not None:     # one is for signals
            deadline = look = now_ns() + <int64_t>(self.look_pause * 1e9)
        self._ownership.stall.idle = 1
        self.note_round()
        if tracer.session:
            trace(tracer, GL_TRACE_SLEEP, self.number, 0, 1 if self.thread_wakes < THREAD_WAKES else 2)
        if self.thread_wakes < THREAD_WAKES:
            self.sleep_in_pollset(deadline)
        else:
            self.sleep_on_futex(deadline)
        end_sleep(accounts, now_ns())
        if tracer.session:
            trace(tracer, GL_TRACE_AWAKE, self.number)
        self.offload_policy.slept = accounts.asleep
        if self.thread_wakes < THREAD_WAKES and not (ps.inbox_empty() and ps.completions_empty()):
            self.thread_wakes += 1
        if look:
            self.look_around(look)
        return 0

    cdef int look_around(self, int64_t due) except -1:
        """It has slept without a timer and a descriptor, up to `due` if nothing woke it: ask whether anything can."""
        cdef object failure = None
        if now_ns() < due or self.ready.count or not self.pollset.inbox_empty():
            self.look_pause = FIRST_LOOK
            self.look_found = None
            return 0
        failure, self.look_found = nothing_moves(self.look_found)
        self.look_pause = NEXT_LOOK if self.look_found is not None else (
            min(2 * max(self.look_pause, FIRST_LOOK), LAST_LOOK))
        if failure is not None:
            raise failure
        return 0

    cdef int sleep_in_pollset(self, int64_t deadline) except -1:
        cdef epoll_event events[HARVEST]
        cdef PollSet ps = self.pollset
        cdef int n
        with nogil:
            n = ps.poll(deadline, events, HARVEST)
        self._ownership.awake()
        if n < 0 and -n != EINTR:
            raise OSError(-n, "epoll_wait failed")
        self.dispatch(events, n)
        return 0

    cdef int sleep_on_futex(self, int64_t deadline) except -1:
        cdef PollSet ps = self.pollset
        cdef int n
        with nogil:
            n = ps.park(deadline)
        self._ownership.awake()
        if n != 0 and n != EINTR and n != ETIMEDOUT:
            raise OSError(n, "the netpoller could not be started")
        self.collect()
        return 0

    cdef int run_once(self) except -1:
        cdef LoopOwnership ownership = self._ownership
        cdef LoopThread loop_thread = ownership.holder
        cdef Py_ssize_t outer = self.todo     # a nested iteration, by _run_once() in a callback
        cdef bint looks
        self.pollset.check_not_foreign()
        ownership.iteration += 1
        self.drain()
        looks = self.time_to_look()
        if looks:
            if self.offload_policy.adaptive:
                self.offload_policy.tick()
            self.collect()
            self.drain_completions()
        if self.ready.count == 0 and not self._stopping:
            if ownership.safepoint_requested and loop_thread is not None:
                ownership.safepoint(loop_thread)
                if loop_thread.state != RUNNING or self.ready.count:
                    return 0  # the owner meanwhile may have left a part of an iteration
            self.sleep()
            PyErr_CheckSignals()
            self.drain()
            self.drain_completions()
        elif looks:
            self.note_round()
        if looks:
            self.wake_due()
        self.todo = self.ready.count        # their callbacks wait for the next iteration
        self.run_ready()
        if outer and ownership.holder is loop_thread:
            self.todo = min(outer, self.ready.count)
        return PyErr_CheckSignals() if looks else 0

    cdef int run_ready(self) except -1:
        """Run what the iteration has to run, then send what that has written."""
        cdef LoopThread loop_thread = self._ownership.holder
        try:
            self.run_items()
        finally:
            if self.outbox.waiting and self._ownership.holder is loop_thread:
                self.outbox.flush()
        return 0

    cdef int run_items(self) except -1:
        """Run what the iteration has to run; a thread that gets ownership in the middle of one goes on with it."""
        cdef object item
        cdef LoopOwnership ownership = self._ownership
        cdef LoopThread loop_thread = ownership.holder
        cdef unsigned long long iteration = ownership.iteration
        while self.todo > 0 and self.ready.count > 0:     # a nested iteration may have run some of them
            self.todo -= 1
            item = pop(self.ready)
            if (PyList_GET_SIZE(ownership.away) or PyList_GET_SIZE(ownership.inside)) and not ownership.admits(item):
                continue
            ownership.stall.beat += 1
            ownership.item = <void *>item
            self.until_observed -= 1
            if self.until_observed <= 0:
                self.observe(item)
            elif self._debug:
                self.run_timed(item)
            elif is_handle(item):
                (<Handle>item).run()
                if Py_REFCNT(item) > 1:
                    show(<Handle>item)
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
        if self.ready.count == 0:
            self.todo = 0
        return 0

    cdef int iterate(self) except -1:
        """One iteration, or the rest of an iteration that another thread began and was stuck in."""
        if self.todo == 0 or self.ready.count == 0:
            return self.run_once()
        self.run_ready()
        return PyErr_CheckSignals()

    cdef int observe(self, object item) except -1:
        """Run an item whose time is taken: it stands for all since the last one. While a trace is made, each is."""
        cdef FunctionTime function
        cdef int64_t start
        cdef int times = self.observed_for
        self.until_observed = self.observed_for = 1 if tracer.session else OBSERVE_EVERY
        if isinstance(item, Handle) and (<Handle>item)._cancelled:
            return self.run_item(item)
        if tracer.session:
            return self.run_traced(item, times)
        function = self.accounts.function_of(item)
        start = now_ns()
        try:
            return self.run_item(item)
        finally:
            if function is not None:
                timed(self.accounts, function, now_ns() - start, times)

    cdef int run_traced(self, object item, int times) except -1:
        cdef object task = task_of((<Handle>item)._callback) if isinstance(item, Handle) else None
        cdef object _coro = None      # a reference: the task may let go of its own as it ends
        cdef Lane lane = None
        cdef FunctionTime function
        cdef int64_t start, end
        cdef uint64_t number = 0
        cdef uint32_t name
        if task is None:
            function = self.accounts.function_of(item)
        else:
            lane = lane_of(task, self.accounts)
            function = lane.function
            number = lane.number
            _coro = <object>lane.coro
        name = name_number("goroutines") if function is None else function_number(function)
        start = now_ns()
        tracer.emit(start, GL_TRACE_RUN, self.number, name, <uint64_t><void *>item, number)
        try:
            return self.run_item(item)
        finally:
            end = now_ns()
            name = 0
            if function is not None:
                timed(self.accounts, function, end - start, times)
            if lane is not None:
                name = wait_of(lane, task)
                if name:
                    number = 0
                else:
                    end_lane(task)
            tracer.emit(end, GL_TRACE_RAN, self.number, name, <uint64_t><void *>item, number)

    cdef int run_item(self, object item) except -1:
        if self._debug:
            return self.run_timed(item)
        if isinstance(item, Pollable):
            (<Pollable>item).queued = False
            (<Pollable>item).run()
        else:
            show(<Handle>item)
            (<Handle>item).run()
        return 0

    cdef int run_timed(self, object item) except -1:
        """Run in debug mode: say what runs, and report it when it took too long."""
        cdef int64_t start
        cdef double took
        if isinstance(item, Handle):
            show(<Handle>item)
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
        self.pollset.changed = True           # by hand: each looks
        self.run_once()

    def _begin_nested(self):
        """The callback that runs now is about to run the loop: what belongs to the callback waits."""
        self._ownership.nest()

    def _end_nested(self):
        self._ownership.unnest()

    def _is_nested(self):
        """Return whether a callback runs the loop."""
        return bool(self._ownership.inside)

    def _run_until_stopped(self):
        """Run iterations until stop(); run_forever() prepares and cleans up around it."""
        cdef LoopOwnership ownership = self._ownership
        cdef LoopThread loop_thread = LoopThread(ownership)
        cdef object failure, item
        try:
            ownership.attach_home(loop_thread)
            self.todo = 0
            self.pollset.changed = True       # the first iteration looks
            self.gc_untracks_handles = True
            self.accounts.marked = now_ns()
            while True:
                self.iterate()
                if self._stopping and self.todo == 0:
                    break
        finally:
            self.gc_untracks_handles = False
            self.accounts.marked = 0
            track_timers(self.timers)
            try:
                if ownership.away or ownership.holder is not loop_thread:
                    ownership.wait_for_stuck(loop_thread, ownership.drain_timeout)
                    if ownership.away:
                        hooks.abandoned(loop_thread)
            finally:
                ownership.detach(loop_thread)
                self.todo = 0         # the rest of an iteration that an exception has ended waits for the next run
                self.drain()
                for item in self._ready:
                    if isinstance(item, Handle):
                        show(<Handle>item)
        if ownership.failure is not None:
            failure = ownership.failure
            ownership.failure = None
            raise failure

    def _drive(self):
        """Run iterations for a home thread that is stuck, until it is back: a substitute's part."""
        cdef LoopOwnership ownership = self._ownership
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
            push(self.ready, item)

    def stop(self):
        """Let run_forever() return after the current iteration (asyncio: stop)."""
        self._stopping = True

    @property
    def _ready(self):
        """The callbacks that wait to run: a copy, oldest first."""
        return self.ready.items()

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
        self._ownership.report_slow(-1)

    # ------------------------------------------------------------------ clock
    # Tests put clocks of their own in the place of loop.time, or override it in a subclass. Being a property, it
    # sees that, and the loop reads the clock without a call through Python as long as there is none.
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


cdef object _clock = LoopIteration.time


def set_nothing_moves(function):
    """Set what a loop asks that could sleep for ever; as waiter.set_nothing_moves()."""
    global nothing_moves
    nothing_moves = function
