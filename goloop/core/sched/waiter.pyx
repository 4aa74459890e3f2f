# cython: language_level=3, boundscheck=False, wraparound=False
"""Waiter: one wait of a goroutine, a plain thread or a coroutine; and the queues that waiters stand in.

Whatever ends a wait - a value, a close, a timeout, a cancellation - claims the waiter first. Only the first
claim counts, so that a value never goes to a waiter that has given up, and a waiter that was given a value never
gives up: a timeout or a cancellation that comes later finds it claimed. Everything is guarded by the GIL, and
nothing between a look and a claim gives it up.
"""

import asyncio
from _thread import allocate_lock
from asyncio import events as _events

cimport cython
from libc.math cimport isnan

from goloop.core.system.posix cimport gl_coarse_ns
from goloop.core.sched.scheduler cimport (
    Worker, bubble_here, bubbles, current_g, here, in_goroutine, ready, take_cancellation,
)


cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long thread, object exc)
    unsigned long PyThread_get_thread_ident() nogil

# Seconds until a plain thread that waits for good looks whether anything could wake it: at first, when the last look
# found nothing and so one more decides, and at most.
cdef double FIRST_LOOK = 1.0
cdef double NEXT_LOOK = 0.1
cdef double LAST_LOOK = 10.0
cdef double LONGEST = 24 * 3600.0 * 365       # seconds; what a lock's acquire() still takes
waits.before = waits.after = &waits
waits.waiter = NULL
cdef object nothing_moves = None              # see set_nothing_moves()
cdef unsigned int forks = 0                   # how many there were between this process and the first one


cdef double number_of_seconds(object seconds) except? -2:
    """It as a double. TypeError if it is none."""
    if type(seconds) is float:
        return seconds
    try:
        return seconds
    except TypeError:
        raise TypeError(f"a number of seconds is needed, got {seconds!r}") from None


cdef double seconds_of(object timeout) except -2:
    """A timeout as seconds; -1 for None, 0 for one that is over already."""
    cdef double seconds
    if timeout is None:
        return -1
    seconds = number_of_seconds(timeout)
    if isnan(seconds):
        raise ValueError("a timeout cannot be NaN")
    if seconds > LONGEST and (not bubbles or bubble_here() is None):
        return LONGEST                # of virtual time any amount may pass
    return 0 if seconds < 0 else seconds


cdef int raise_outcome(Outcome outcome, str what) except -1:
    if outcome == TIMED_OUT:
        raise TimeoutError(f"{what}: timed out")
    if outcome == CANCELLED:
        raise asyncio.CancelledError()
    return 0


def _resolve(future):
    if not future.done():
        future.set_result(None)


@cython.freelist(256)
cdef class Waiter:
    def __dealloc__(self):
        self.ends()

    cdef void begins(self, str reason, double timeout) noexcept:
        """It waits from now on, as those see who look at the program."""
        cdef WaitLink *link = &self.link
        self.reason = reason
        self.since = gl_coarse_ns()
        self.until = self.since / 1e9 + timeout if timeout >= 0 else 0
        if link.after == NULL:
            link.waiter = <PyObject *>self
            link.before = waits.before
            link.after = &waits
            waits.before.after = link
            waits.before = link

    cdef void ends(self) noexcept:
        cdef WaitLink *link = &self.link
        if link.after != NULL:
            link.before.after = link.after
            link.after.before = link.before
            link.before = link.after = NULL

    cdef bint waits(self) noexcept:
        if self.outcome == WAITING and self.forks != forks:
            self.outcome = CANCELLED      # the actor that waits is in the parent process
        return self.outcome == WAITING

    cdef bint claim(self, Outcome outcome) noexcept:
        if not self.waits():
            return False
        self.outcome = outcome
        return True

    cdef bint wake(self) except -1:
        cdef Worker worker
        if self.g is not None:
            if self.parked:
                self.parked = False
                ready(self.g)
        elif self.lock is not None:
            self.lock.release()
        elif self.future is not None:
            worker = here()
            if worker is not None and worker.loop is self.loop or _events._get_running_loop() is self.loop:
                _resolve(self.future)
            else:
                return self.wake_loop()
        return True

    cdef bint wake_loop(self) except -1:
        """Wake a coroutine of a loop that another thread runs."""
        try:
            self.loop.call_soon_threadsafe(_resolve, self.future)
        except RuntimeError:
            if self.loop.is_closed():     # its coroutine will not go on
                return self.resumed or self.give_up()
            raise
        except BaseException as exc:
            # asyncio's own loops are Python code there, in which a signal handler may raise. The wake-up must not
            # be lost, nor the exception.
            self.loop.call_soon_threadsafe(_resolve, self.future)
            PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), type(exc))
        return True

    cdef bint give_up(self) noexcept:
        """Take back what it was given, once: another one is to have it. Returns False."""
        self.outcome = CANCELLED
        return False

    # ------------------------------------------------- goroutines and threads
    cdef int block(self, str reason, double timeout, bint cancellable=True) except -1:
        """Wait until it is claimed; a timeout or a cancellation claims it too. See `outcome`, then leave the queues."""
        if self.g is None:
            self.begins(reason, timeout)
            try:
                return self.block_thread(timeout)
            finally:
                self.ends()
        cdef G g = self.g
        cdef Worker worker = g.worker
        if timeout >= 0:
            self.timer = worker.loop.schedule(worker.loop.now() + timeout, self._expire, (), worker.context)
        try:
            if (g.cancelling or g.expired) and cancellable and self.claim(CANCELLED):
                take_cancellation(g)
            elif self.outcome == WAITING:
                self.shielded = not cancellable
                g.waiter = self
                self.parked = True
                self.begins(reason, timeout)
                worker.park(g, reason)
        finally:
            self.ends()
            self.parked = False
            g.waiter = None
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
        return 0

    cdef int block_thread(self, double timeout) except -1:
        try:
            if timeout < 0 and nothing_moves is not None:
                self.block_for_good()
            elif not self.lock.acquire(True, timeout):
                self.claim(TIMED_OUT)
        except BaseException as exc:      # a signal handler raised it, KeyboardInterrupt for one
            if self.claim(CANCELLED) or self.gives_back_on_cancel:
                raise
            # The value has come, and must not be lost: the exception comes right after it.
            PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), type(exc))
        return 0

    cdef int block_for_good(self) except -1:
        """Wait as long as it takes; DeadlockError when nothing can end it any more."""
        cdef double seconds = FIRST_LOOK
        cdef object found = None, failure = None
        while not self.lock.acquire(True, seconds):
            failure, found = nothing_moves(found)
            if failure is not None and self.outcome == WAITING:
                raise failure
            seconds = NEXT_LOOK if found is not None else min(2 * max(seconds, FIRST_LOOK), LAST_LOOK)
        return 0

    def _expire(self):
        if self.claim(TIMED_OUT):
            self.wake()

    # ------------------------------------------------------------- coroutines
    async def suspend(self, double timeout):
        """Wait, in a coroutine, until it is claimed; as block()."""
        cdef object timer = None
        self.future = self.loop.create_future()
        if timeout >= 0:
            timer = self.loop.call_later(timeout, self._expire)
        try:
            # Both calls may run Python code, and another thread's: it may have been claimed before there was a future.
            if self.outcome == WAITING:
                self.begins(self.reason, timeout)
                await self.future
        except asyncio.CancelledError as exc:
            if self.claim(CANCELLED) or self.gives_back_on_cancel:
                raise
            # Claimed before: what it waited for is here and must not be lost. The cancellation comes at the next await.
            task = asyncio.current_task()
            task.uncancel()
            task.cancel(*exc.args)
        finally:
            self.ends()
            self.resumed = True
            self.future = None
            if timer is not None:
                timer.cancel()


cdef int check_edge(object bubble, object thing) except -1:
    """RuntimeError for the use of what was made in a bubble, outside of it. To be called while there are bubbles."""
    if bubble is not None and bubble is not bubble_here():
        raise RuntimeError(f"this {type(thing).__name__} was made in a bubble, and is used outside of it")
    return 0


cdef int check_wait(object bubble, object thing) except -1:
    """The same, and for a wait in a bubble for what was made outside of it: nothing in the bubble could end that."""
    check_edge(bubble, thing)
    if bubble is not bubble_here():
        raise RuntimeError(
            f"this {type(thing).__name__} was made outside of the bubble that has to wait for it: make it inside"
        )
    return 0


cdef int may_block(str what, str instead) except -1:
    """RuntimeError on the thread of a running loop outside of a goroutine, where waiting would stop the loop."""
    if in_goroutine():
        if bubbles:                   # in a bubble, others may go first wherever it could park
            here().maybe_yield(current_g())
    elif here() is not None or _events._get_running_loop() is not None:
        raise RuntimeError(f"{what} would block the event loop: use {instead} here, or call it in a goroutine")
    return 0


cdef Waiter blocking_waiter(str what, str instead):
    """A waiter for the caller: the goroutine that runs here, or else the thread; after may_block()."""
    cdef Waiter waiter = Waiter.__new__(Waiter)
    waiter.forks = forks
    waiter.g = current_g()
    if waiter.g is None:
        may_block(what, instead)
        waiter.thread = PyThread_get_thread_ident()
        waiter.lock = allocate_lock()
        waiter.lock.acquire()
    return waiter


cdef Waiter async_waiter(str reason, object on):
    """A waiter for the coroutine that calls."""
    cdef Waiter waiter = Waiter.__new__(Waiter)
    waiter.forks = forks
    waiter.loop = _events.get_running_loop()
    waiter.reason = reason
    waiter.on = on
    return waiter


# ------------------------------------------------------------------------ queues
@cython.freelist(256)
cdef class WaitNode:
    cdef int unlink(self) noexcept:
        """Leave the queue, if it is in one."""
        cdef WaitQueue queue = self.queue
        if queue is None:
            return 0
        if self.before is None:
            queue.first = self.after
        else:
            self.before.after = self.after
        if self.after is None:
            queue.last = self.before
        else:
            self.after.before = self.before
        self.before = self.after = None
        self.queue = None
        queue.count -= 1
        return 0


cdef WaitNode new_wait_node(Waiter waiter, Py_ssize_t index, object value):
    cdef WaitNode node = WaitNode.__new__(WaitNode)
    node.waiter = waiter
    node.index = index
    node.value = value
    return node


cdef class WaitQueue:
    """Waiters in the order in which they came."""

    cdef int join(self, WaitNode node) noexcept:
        node.queue = self
        node.before = self.last
        if self.last is None:
            self.first = node
        else:
            self.last.after = node
        self.last = node
        self.count += 1
        return 0

    cdef WaitNode claim_first(self):
        cdef WaitNode node
        while self.first is not None:
            node = self.first
            node.unlink()
            if node.waiter.claim(COMPLETED):
                node.waiter.index = node.index
                return node
        return None

    cdef bint waiting(self) noexcept:
        """Whether a waiter here still waits; those that gave up and have not left yet are taken out."""
        while self.first is not None and not self.first.waiter.waits():
            self.first.unlink()
        return self.first is not None

    cdef int complete_all(self) except -1:
        """Complete everything that waits now; an exception on the way comes when all have been woken."""
        cdef WaitQueue gone = WaitQueue.__new__(WaitQueue)
        cdef object failure = None
        cdef WaitNode node
        while True:
            node = self.claim_first()
            if node is None:
                break
            gone.join(node)
        while gone.first is not None:
            node = gone.first
            node.unlink()
            try:
                node.waiter.wake()
            except BaseException as exc:
                failure = exc
        if failure is not None:
            raise failure
        return 0


def set_nothing_moves(function):
    """Set what a thread that waits for good asks now and then: function(found) returns (exception, found).

    found: what it returned last, None at first and as long as something may move; exception: what the wait raises.
    """
    global nothing_moves
    nothing_moves = function


def after_fork_in_child():
    """In a forked child: every wait is void."""
    global forks
    forks += 1
