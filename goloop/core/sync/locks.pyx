# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Mutex, RWMutex and Semaphore, for goroutines, coroutines and plain threads alike.

A lock that is given back goes straight to the longest waiter, and is not free in between: no caller overtakes. It is
handed over only to a waiter that was claimed for it (sched/waiter.pyx). A waiter that is cancelled at that very moment
keeps it, if it is a goroutine, whose next park raises, or passes it on. Semantics are Go's (sync, golang.org/x/sync).
"""

import asyncio
from asyncio import events as _events
from sys import maxsize as _maxsize

from cpython.weakref cimport PyWeakref_NewRef

from goloop.core.sched.goroutine cimport Goroutine
from goloop.core.sched.scheduler cimport current_g
from goloop.core.sched.waiter cimport (
    CANCELLED, COMPLETED, WaitNode, WaitQueue, Waiter, async_waiter, blocking_waiter, check_edge, check_wait, may_block,
    new_wait_node, raise_outcome, seconds_of,
)
from goloop.core.sched.scheduler cimport bubble_here, bubbles
from goloop.core.sync.orphans cimport consume, with_orphan

cdef extern from "../system/native/sealed.h":
    int gl_seal(object type, const char *reason) except -1

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

cdef object _current_task = asyncio.current_task


# --------------------------------------------------------------- standing in line
cdef class Locker:
    def __cinit__(self):
        if bubbles:
            self.bubble = bubble_here()

    cdef bint take_if_free(self, Py_ssize_t n) except -1:
        if bubbles:
            check_edge(self.bubble, self)
        return self.acquire_if_free(n)

    cdef void held_here(self) noexcept:
        """The caller has it now."""
        cdef Goroutine g = <Goroutine>current_g()
        cdef object loop, task
        self.holder_g = 0
        self.holder_thread = 0
        if g is not None:
            self.holder_g = g.id
            return
        self.holder_thread = PyThread_get_thread_ident()
        self.holder_task = None
        try:
            loop = _events._get_running_loop()
            task = None if loop is None else _current_task(loop)
            self.holder_task = None if task is None else PyWeakref_NewRef(task, None)
        except Exception:                 # no memory, or a task of a foreign kind: it is not known then
            pass

    cdef void held_by(self, Waiter waiter) noexcept:
        """It was handed over to a waiter."""
        self.holder_g = (<Goroutine>waiter.g).id if waiter.g is not None else 0
        self.holder_thread = waiter.thread
        try:
            self.holder_task = None if waiter.task is None else PyWeakref_NewRef(waiter.task, None)
        except Exception:
            self.holder_task = None

    cdef bint acquire_if_free(self, Py_ssize_t n) noexcept:
        return False

    cdef bint is_held(self, Py_ssize_t n) noexcept:
        return False

    cdef WaitQueue queue_for(self, Py_ssize_t n):
        raise SystemError("Locker.queue_for() is abstract")

    cdef int hand_on_lock(self, Py_ssize_t n) except -1:
        raise SystemError("Locker.hand_on_lock() is abstract")

    cdef int waiter_left(self) except -1:
        return 0

    cdef int relock_or_orphan(self, Py_ssize_t n, list frames) except -1:
        if not self.acquire_if_free(n):
            self.orphans = with_orphan(self.orphans, frames)
        return 0

    cdef bint consume_orphaned_unlock(self) except -1:
        if bubbles:
            check_edge(self.bubble, self)
        if self.orphans is None or not consume(self.orphans):
            return False
        if not self.orphans:
            self.orphans = None
        return True

    cdef int withdraw(self, WaitNode node) except -1:
        """Leave the line without it; if it was handed over just now, pass it on."""
        node.unlink()
        if node.waiter.claim(CANCELLED) or node.waiter.outcome != COMPLETED:
            return self.waiter_left()
        return self.hand_on_lock(node.index)

    cdef int obtain(self, Py_ssize_t n, double seconds, str method, str instead, str reason,
                    bint cancellable=True) except -1:
        """Take it, or wait until it is handed over."""
        cdef Waiter waiter
        cdef WaitNode node
        may_block(method, instead)
        if self.take_if_free(n):
            return 0
        if bubbles:
            check_wait(self.bubble, self)
        waiter = blocking_waiter(method, instead)
        waiter.gives_back_on_cancel = True
        node = new_wait_node(waiter, n, None)
        if self.acquire_if_free(n):  # making the two may have let another thread run
            return 0
        waiter.on = self
        self.queue_for(n).join(node)
        try:
            waiter.block(reason, seconds, cancellable)
        except BaseException:
            self.withdraw(node)
            raise
        if waiter.outcome != COMPLETED:
            self.withdraw(node)
            raise_outcome(waiter.outcome, method)
        return 0


async def obtain_async(Locker locker not None, Py_ssize_t n, double seconds, str method, str reason):
    """As obtain(), in a coroutine; for a caller that has tried take_if_free() in vain."""
    cdef Waiter waiter = async_waiter(reason, locker)
    waiter.task = _current_task(waiter.loop)
    cdef WaitNode node
    if bubbles:
        check_wait(locker.bubble, locker)
    waiter.gives_back_on_cancel = True
    node = new_wait_node(waiter, n, None)
    if locker.acquire_if_free(n):
        return
    locker.queue_for(n).join(node)
    try:
        await waiter.suspend(seconds)
    except BaseException:
        locker.withdraw(node)
        raise
    if waiter.outcome != COMPLETED:
        locker.withdraw(node)
        raise_outcome(waiter.outcome, method)


# -------------------------------------------------------------------------- Mutex
cdef class Mutex(Locker):
    """A lock with one holder at a time (Go: sync.Mutex), handed over in the order in which it was asked for.

    From any thread: `with mutex:` and lock() park a goroutine or block a plain thread, `async with mutex:` and `await
    async_lock()` are for coroutines on any loop. The lock has no owner: one goroutine may lock it and another
    unlock it. A holder that locks it again waits for ever.
    """

    def __cinit__(self):
        self.waiters = WaitQueue()

    def __init__(self):
        pass                      # so that arguments are an error, which __cinit__() would ignore

    def __repr__(self):
        return f"<Mutex {'locked' if self.locked_ else 'unlocked'}, {self.waiters.count} waiting>"

    cdef bint acquire_if_free(self, Py_ssize_t n) noexcept:
        if self.locked_:
            return False
        self.locked_ = True
        self.held_here()
        return True

    cdef bint is_held(self, Py_ssize_t n) noexcept:
        return self.locked_

    cdef WaitQueue queue_for(self, Py_ssize_t n):
        return self.waiters

    cdef int hand_on_lock(self, Py_ssize_t n) except -1:
        cdef WaitNode node
        while True:
            node = self.waiters.claim_first()
            if node is None:
                self.locked_ = False
                return 0
            self.held_by(node.waiter)
            if node.waiter.wake():
                return 0

    def lock(self, timeout: float | None = None) -> None:
        """Lock it, waiting until it is handed over (Go: Mutex.Lock).

        timeout: seconds, None for no end; TimeoutError when it is over. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_lock()` there.
        """
        self.obtain(EXCLUSIVE, seconds_of(timeout), "Mutex.lock()", "await Mutex.async_lock()", "mutex lock")

    async def async_lock(self, timeout: float | None = None) -> None:
        """Lock it, waiting in a coroutine on any loop until it is handed over (Go: Mutex.Lock).

        timeout: seconds, None for no end; TimeoutError when it is over. A coroutine that is cancelled does not hold it.
        """
        cdef double seconds = seconds_of(timeout)
        if not self.take_if_free(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, seconds, "Mutex.async_lock()", "mutex lock")

    def try_lock(self) -> bool:
        """Lock it if it is free (Go: TryLock); returns whether it did. From any thread, goroutine or coroutine."""
        return self.take_if_free(EXCLUSIVE)

    def unlock(self) -> None:
        """Unlock it: the longest waiter gets it (Go: Mutex.Unlock). From any thread, goroutine or coroutine.

        RuntimeError if it is not locked.
        """
        if self.consume_orphaned_unlock():
            return
        if not self.locked_:
            raise RuntimeError("unlock of an unlocked Mutex: lock() it first, and unlock it once")
        self.hand_on_lock(EXCLUSIVE)

    @property
    def locked(self):
        """Whether the lock is held (bool)."""
        return self.locked_

    def __enter__(self):
        self.obtain(EXCLUSIVE, -1, "with Mutex", "async with", "mutex lock")

    def __exit__(self, *exc):
        self.unlock()

    async def __aenter__(self):
        if not self.take_if_free(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, -1, "async with Mutex", "mutex lock")

    async def __aexit__(self, *exc):
        self.unlock()


# ------------------------------------------------------------------------ RWMutex
cdef class RWMutex(Locker):
    """A lock held by any number of readers or by one writer (Go: sync.RWMutex).

    lock() and `with` are the writer's; rlock() and `with rw.rlocker():` the readers'. A writer that waits keeps new
    readers out, and when a writer is done all the readers that wait come in before the next writer does: none
    starves. So a reader must not lock it a second time, nor a reader ask to be the writer. From any thread: `with` and
    lock() park a goroutine or block a plain thread, `async with` and `await async_lock()` are for coroutines on any
    loop.
    """

    def __cinit__(self):
        self.to_read = WaitQueue()
        self.to_write = WaitQueue()

    def __init__(self):
        pass                      # so that arguments are an error, which __cinit__() would ignore

    def __repr__(self):
        state = "locked" if self.writing else f"{self.readers_} reading"
        return f"<RWMutex {state}, {self.to_read.count} waiting to read, {self.to_write.count} to write>"

    cdef bint acquire_if_free(self, Py_ssize_t n) noexcept:
        if self.writing:
            return False
        if n == SHARED:
            if self.to_write.waiting():
                return False
            self.readers_ += 1
        else:
            if self.readers_:
                return False
            self.writing = True
            self.held_here()
        return True

    cdef bint is_held(self, Py_ssize_t n) noexcept:
        return self.readers_ > 0 if n == SHARED else self.writing

    cdef WaitQueue queue_for(self, Py_ssize_t n):
        return self.to_read if n == SHARED else self.to_write

    cdef int hand_on_lock(self, Py_ssize_t n) except -1:
        if n == SHARED:
            self.readers_ -= 1
            return 0 if self.readers_ else self.hand_on(False)
        self.writing = False
        return self.hand_on(True)

    cdef int waiter_left(self) except -1:
        # A writer that gave up may have been all that kept the readers out.
        if not self.writing and not self.to_write.waiting():
            self.admit_readers()
        return 0

    cdef int hand_on(self, bint readers_first) except -1:
        """It is free: find the next holder."""
        if not (readers_first and self.admit_readers()) and not self.admit_writer():
            self.admit_readers()
        return 0

    cdef bint admit_writer(self) except -1:
        cdef WaitNode node
        while not self.writing and not self.readers_:
            node = self.to_write.claim_first()
            if node is None:
                return False
            self.writing = True
            self.held_by(node.waiter)
            if node.waiter.wake():
                return True
            self.writing = False
        return True

    cdef bint admit_readers(self) except -1:
        """Let the waiting readers in; False: none came in. No writer holds it."""
        cdef WaitQueue admitted
        cdef WaitNode node
        if not self.to_read.waiting():
            return self.readers_ > 0 or self.writing
        admitted = WaitQueue.__new__(WaitQueue)
        if self.writing:                   # making the list may have let another thread run
            return True
        while True:
            node = self.to_read.claim_first()
            if node is None:
                break
            self.readers_ += 1
            admitted.join(node)
        while admitted.first is not None:
            node = admitted.first
            node.unlink()
            if not node.waiter.wake():
                self.hand_on_lock(SHARED)  # the reader is gone
        return self.readers_ > 0 or self.writing

    def lock(self, timeout: float | None = None) -> None:
        """Lock it for writing, waiting until no reader and no writer holds it (Go: RWMutex.Lock).

        timeout: seconds, None for no end; TimeoutError when it is over. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_lock()` there.
        """
        self.obtain(EXCLUSIVE, seconds_of(timeout), "RWMutex.lock()", "await RWMutex.async_lock()", "rwmutex lock")

    async def async_lock(self, timeout: float | None = None) -> None:
        """Lock it for writing, waiting in a coroutine until no reader and no writer holds it (Go: RWMutex.Lock).

        timeout: seconds, None for no end; TimeoutError when it is over. On any loop. A coroutine that is cancelled does
        not hold it.
        """
        cdef double seconds = seconds_of(timeout)
        if not self.take_if_free(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, seconds, "RWMutex.async_lock()", "rwmutex lock")

    def try_lock(self) -> bool:
        """Lock it for writing if it is free (Go: TryLock); returns whether it did.

        From any thread, goroutine or coroutine.
        """
        return self.take_if_free(EXCLUSIVE)

    def unlock(self) -> None:
        """Unlock it after lock() (Go: RWMutex.Unlock). From any thread, goroutine or coroutine.

        RuntimeError if no writer holds it.
        """
        if self.consume_orphaned_unlock():
            return
        if not self.writing:
            raise RuntimeError("unlock of an RWMutex that is not locked for writing: lock() goes with unlock(), "
                               "rlock() with runlock()")
        self.hand_on_lock(EXCLUSIVE)

    def rlock(self, timeout: float | None = None) -> None:
        """Lock it for reading, waiting while a writer holds it or waits for it (Go: RWMutex.RLock).

        timeout: seconds, None for no end; TimeoutError when it is over. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_rlock()` there.
        """
        self.obtain(SHARED, seconds_of(timeout), "RWMutex.rlock()", "await RWMutex.async_rlock()", "rwmutex rlock")

    async def async_rlock(self, timeout: float | None = None) -> None:
        """Lock it for reading, waiting in a coroutine while a writer holds it or waits for it (Go: RWMutex.RLock).

        timeout: seconds, None for no end; TimeoutError when it is over. On any loop. A coroutine that is cancelled does
        not hold it.
        """
        cdef double seconds = seconds_of(timeout)
        if not self.take_if_free(SHARED):
            await obtain_async(self, SHARED, seconds, "RWMutex.async_rlock()", "rwmutex rlock")

    def try_rlock(self) -> bool:
        """Lock it for reading if no writer holds it or waits for it (Go: TryRLock); returns whether it did.

        From any thread, goroutine or coroutine.
        """
        return self.take_if_free(SHARED)

    def runlock(self) -> None:
        """Unlock it after rlock() (Go: RWMutex.RUnlock). From any thread, goroutine or coroutine.

        RuntimeError if no reader holds it.
        """
        if self.consume_orphaned_unlock():
            return
        if not self.readers_:
            raise RuntimeError("runlock of an RWMutex that is not held for reading: rlock() goes with runlock(), "
                               "lock() with unlock()")
        self.hand_on_lock(SHARED)

    @property
    def locked(self):
        """Whether a writer holds it (bool)."""
        return self.writing

    @property
    def readers(self):
        """How many readers hold it (int)."""
        return self.readers_

    def rlocker(self) -> RLocker:
        """Return the readers' side as a lock of its own, for `with`, `async with` and Cond (Go: RLocker).

        From any thread, goroutine or coroutine.
        """
        cdef RLocker locker = RLocker.__new__(RLocker)
        locker.of = self
        return locker

    def __enter__(self):
        self.obtain(EXCLUSIVE, -1, "with RWMutex", "async with", "rwmutex lock")

    def __exit__(self, *exc):
        self.unlock()

    async def __aenter__(self):
        if not self.take_if_free(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, -1, "async with RWMutex", "rwmutex lock")

    async def __aexit__(self, *exc):
        self.unlock()


cdef class RLocker:
    """The readers' side of an RWMutex as a lock of its own; made by RWMutex.rlocker() (Go: RWMutex.RLocker).

    From any thread: `with` and lock() park a goroutine or block a plain thread, `async with` and `await async_lock()`
    are for coroutines on any loop.
    """

    def __repr__(self):
        return f"<RLocker of {self.of!r}>"

    def lock(self, timeout: float | None = None) -> None:
        """Lock the RWMutex for reading, waiting while a writer holds it or waits for it (Go: RWMutex.RLock).

        timeout: seconds, None for no end; TimeoutError when it is over. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_lock()` there.
        """
        self.of.rlock(timeout)

    async def async_lock(self, timeout: float | None = None) -> None:
        """Lock the RWMutex for reading, waiting in a coroutine while a writer holds it or waits for it (Go: RLock).

        timeout: seconds, None for no end; TimeoutError when it is over. On any loop. A coroutine that is cancelled does
        not hold it.
        """
        await self.of.async_rlock(timeout)

    def try_lock(self) -> bool:
        """Lock the RWMutex for reading if no writer holds it or waits for it (Go: TryRLock).

        Returns whether it did. From any thread, goroutine or coroutine.
        """
        return self.of.take_if_free(SHARED)

    def unlock(self) -> None:
        """Unlock the RWMutex after lock() (Go: RWMutex.RUnlock). From any thread, goroutine or coroutine.

        RuntimeError if no reader holds it.
        """
        self.of.runlock()

    @property
    def locked(self):
        """Whether a reader holds it (bool)."""
        return self.of.readers_ > 0

    def __enter__(self):
        self.of.obtain(SHARED, -1, "with RLocker", "async with", "rwmutex rlock")

    def __exit__(self, *exc):
        self.of.runlock()

    async def __aenter__(self):
        if not self.of.take_if_free(SHARED):
            await obtain_async(self.of, SHARED, -1, "async with RLocker", "rwmutex rlock")

    async def __aexit__(self, *exc):
        self.of.runlock()


gl_seal(RLocker, b"an RLocker is made by RWMutex.rlocker()")


# ---------------------------------------------------------------------- Semaphore
cdef class Semaphore(Locker):
    """A number of permits to be held, any number at a time (Go: golang.org/x/sync/semaphore.Weighted).

    size: how many there are, an int of at least 1 (else TypeError, ValueError); also an attribute, to be read only.
    They are given in the order in which they were asked for: while a waiter waits for many, those that want few wait
    behind. `with` and `async with` hold one. From any thread: `with` and acquire() park a goroutine or block a plain
    thread, `async with` and `await async_acquire()` are for coroutines on any loop.
    """

    def __cinit__(self, size):
        if not isinstance(size, int):
            raise TypeError(f"a semaphore's size is an int, got {size!r}")
        if not 1 <= size <= _maxsize:
            raise ValueError(f"a semaphore's size is at least 1, and at most {_maxsize}, got {size}")
        self.size = size
        self.waiters = WaitQueue()

    def __repr__(self):
        return f"<Semaphore {self.used} of {self.size} held, {self.waiters.count} waiting>"

    cdef bint acquire_if_free(self, Py_ssize_t n) noexcept:
        if self.size - self.used < n or self.waiters.waiting():
            return False
        self.used += n
        return True

    cdef WaitQueue queue_for(self, Py_ssize_t n):
        return self.waiters

    cdef int hand_on_lock(self, Py_ssize_t n) except -1:
        self.used -= n
        return self.waiter_left()

    cdef int waiter_left(self) except -1:
        """Give what is free to those at the head of the line."""
        cdef WaitNode node
        while self.waiters.waiting() and self.waiters.first.index <= self.size - self.used:
            node = self.waiters.claim_first()
            self.used += node.index
            if not node.waiter.wake():
                self.used -= node.index
        return 0

    cdef Py_ssize_t weight(self, object n) except -1:
        if not isinstance(n, int):
            raise TypeError(f"the number of permits is an int, got {n!r}")
        if n < 0:
            raise ValueError(f"the number of permits cannot be negative, got {n}")
        if n > self.size:
            raise ValueError(f"there are {self.size} permits, never {n}")
        return n

    def acquire(self, n: int = 1, timeout: float | None = None) -> None:
        """Hold n permits, waiting until they are free (Go: Acquire).

        n: 0 to size (ValueError, since waiting for more would never end). timeout: seconds, None for no end;
        TimeoutError when it is over, and none is held. Parks a goroutine, which raises asyncio.CancelledError when it
        is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop outside of a goroutine: `await
        async_acquire()` there.
        """
        self.obtain(self.weight(n), seconds_of(timeout), "Semaphore.acquire()", "await Semaphore.async_acquire()",
                    "semaphore acquire")

    async def async_acquire(self, n: int = 1, timeout: float | None = None) -> None:
        """Hold n permits, waiting in a coroutine on any loop until they are free (Go: Acquire).

        n: 0 to size (ValueError, since waiting for more would never end). timeout: seconds, None for no end;
        TimeoutError when it is over, and none is held. A coroutine that is cancelled holds none.
        """
        cdef Py_ssize_t weight = self.weight(n)
        cdef double seconds = seconds_of(timeout)
        if not self.take_if_free(weight):
            await obtain_async(self, weight, seconds, "Semaphore.async_acquire()", "semaphore acquire")

    def try_acquire(self, n: int = 1) -> bool:
        """Hold n permits if they are free and there is no waiter (Go: TryAcquire). From any thread.

        n: 0 to size (ValueError). Returns whether they are held now.
        """
        return self.take_if_free(self.weight(n))

    def release(self, n: int = 1) -> None:
        """Give n permits back (Go: Release). From any thread, goroutine or coroutine.

        n: 0 to size (ValueError). RuntimeError if fewer are held.
        """
        cdef Py_ssize_t weight = self.weight(n)
        if bubbles:
            check_edge(self.bubble, self)
        if weight > self.used:
            raise RuntimeError(f"release of {weight} permits of a Semaphore of which {self.used} are held")
        self.hand_on_lock(weight)

    @property
    def locked(self):
        """Whether acquire(1) would have to wait (bool)."""
        return self.used >= self.size or self.waiters.waiting()

    @property
    def held(self):
        """How many permits are held (int)."""
        return self.used

    def __enter__(self):
        self.obtain(1, -1, "with Semaphore", "async with", "semaphore acquire")

    def __exit__(self, *exc):
        self.release(1)

    async def __aenter__(self):
        if not self.take_if_free(1):
            await obtain_async(self, 1, -1, "async with Semaphore", "semaphore acquire")

    async def __aexit__(self, *exc):
        self.release(1)
