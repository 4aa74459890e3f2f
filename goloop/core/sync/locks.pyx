# cython: language_level=3, boundscheck=False, wraparound=False
"""Mutex, RWMutex and Semaphore, for goroutines, coroutines and plain threads alike.

What is given back goes straight to whoever waits longest for it, and is not free in between: nobody overtakes. It is
handed over only to a waiter that was claimed for it (sched/waiter.pyx). One that is cancelled at that very moment keeps
it, if a goroutine, whose next park raises, or passes it on. Semantics are Go's (package sync, golang.org/x/sync).
"""

from sys import exception as _exception

from goloop.core.sched.waiter cimport (
    CANCELLED, COMPLETED, Place, Places, Waiter, async_waiter, blocking_waiter, may_block, new_place, raise_outcome,
    seconds_of,
)


# --------------------------------------------------------------- standing in line
cdef class Locker:
    cdef bint take(self, Py_ssize_t n) noexcept:
        return False

    cdef bint is_held(self, Py_ssize_t n) noexcept:
        return False

    cdef Places line(self, Py_ssize_t n):
        raise SystemError("Locker.line() is abstract")

    cdef int give(self, Py_ssize_t n) except -1:
        raise SystemError("Locker.give() is abstract")

    cdef int left(self) except -1:
        return 0

    cdef int reclaim(self, Py_ssize_t n) except -1:
        if not self.take(n):
            self.bereft += 1
        return 0

    cdef bint excuses(self) except -1:
        if self.bereft == 0 or not isinstance(_exception(), GeneratorExit):
            return False
        self.bereft -= 1
        return True

    cdef int withdraw(self, Place place) except -1:
        """Leave the line without it; if it was handed over just now, pass it on."""
        place.leave()
        if place.waiter.claim(CANCELLED) or place.waiter.outcome != COMPLETED:
            return self.left()
        return self.give(place.index)

    cdef int obtain(self, Py_ssize_t n, double seconds, str method, str instead, str reason,
                    bint cancellable=True) except -1:
        """Take it, or wait until it is handed over."""
        cdef Waiter waiter
        cdef Place place
        may_block(method, instead)
        if self.take(n):
            return 0
        waiter = blocking_waiter(method, instead)
        waiter.returnable = True
        place = new_place(waiter, n, None)
        if self.take(n):                   # making the two may have let another thread run
            return 0
        self.line(n).join(place)
        try:
            waiter.block(reason, seconds, cancellable)
        except BaseException:
            self.withdraw(place)
            raise
        if waiter.outcome != COMPLETED:
            self.withdraw(place)
            raise_outcome(waiter.outcome, method)
        return 0


async def obtain_async(Locker locker, Py_ssize_t n, double seconds, str method):
    """As obtain(), in a coroutine; for one who has tried take() in vain."""
    cdef Waiter waiter = async_waiter()
    cdef Place place
    waiter.returnable = True
    place = new_place(waiter, n, None)
    if locker.take(n):
        return
    locker.line(n).join(place)
    try:
        await waiter.suspend(seconds)
    except BaseException:
        locker.withdraw(place)
        raise
    if waiter.outcome != COMPLETED:
        locker.withdraw(place)
        raise_outcome(waiter.outcome, method)


# -------------------------------------------------------------------------- Mutex
cdef class Mutex(Locker):
    """A lock that one at a time holds (Go: sync.Mutex), handed over in the order in which it was asked for.

    From any thread: `with mutex:` and lock() park a goroutine or block a plain thread, `async with mutex:` and
    `await async_lock()` are for coroutines on any loop. It belongs to nobody: one may lock it and another unlock it.
    Locking it twice waits for ever.
    """

    def __cinit__(self):
        self.waiters = Places()

    def __repr__(self):
        return f"<Mutex {'locked' if self.locked_ else 'unlocked'}, {self.waiters.count} waiting>"

    cdef bint take(self, Py_ssize_t n) noexcept:
        if self.locked_:
            return False
        self.locked_ = True
        return True

    cdef bint is_held(self, Py_ssize_t n) noexcept:
        return self.locked_

    cdef Places line(self, Py_ssize_t n):
        return self.waiters

    cdef int give(self, Py_ssize_t n) except -1:
        cdef Place place
        while True:
            place = self.waiters.claim_first()
            if place is None:
                self.locked_ = False
                return 0
            if place.waiter.wake():
                return 0

    def lock(self, timeout=None):
        """Lock it, waiting for that.

        timeout: seconds; TimeoutError when it is over. RuntimeError on the thread of a running loop outside of a
        goroutine: `await async_lock()` there.
        """
        self.obtain(EXCLUSIVE, seconds_of(timeout), "Mutex.lock()", "await Mutex.async_lock()", "mutex lock")

    async def async_lock(self, timeout=None):
        """As lock(), for coroutines."""
        cdef double seconds = seconds_of(timeout)
        if not self.take(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, seconds, "Mutex.async_lock()")

    def try_lock(self):
        """Lock it if it is free; returns whether it did. From anywhere."""
        return self.take(EXCLUSIVE)

    def unlock(self):
        """Unlock it: it goes to whoever waits longest. RuntimeError if it is not locked. From anywhere."""
        if self.excuses():
            return
        if not self.locked_:
            raise RuntimeError("unlock of an unlocked Mutex: lock() it first, and unlock it once")
        self.give(EXCLUSIVE)

    @property
    def locked(self):
        """Whether somebody holds it (bool)."""
        return self.locked_

    def __enter__(self):
        self.obtain(EXCLUSIVE, -1, "with Mutex", "async with", "mutex lock")

    def __exit__(self, *exc):
        self.unlock()

    async def __aenter__(self):
        if not self.take(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, -1, "async with Mutex")

    async def __aexit__(self, *exc):
        self.unlock()


# ------------------------------------------------------------------------ RWMutex
cdef class RWMutex(Locker):
    """A lock held by any number of readers or by one writer (Go: sync.RWMutex).

    lock() and `with` are the writer's; rlock() and `with rw.rlocker():` the readers'. A writer that waits keeps new
    readers out, and when a writer is done all the readers that wait come in before the next writer does: nobody
    starves. So a reader must not lock it a second time, nor a reader ask to be the writer. From any thread, as Mutex.
    """

    def __cinit__(self):
        self.to_read = Places()
        self.to_write = Places()

    def __repr__(self):
        state = "locked" if self.writing else f"{self.readers_} reading"
        return f"<RWMutex {state}, {self.to_read.count} waiting to read, {self.to_write.count} to write>"

    cdef bint take(self, Py_ssize_t n) noexcept:
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
        return True

    cdef bint is_held(self, Py_ssize_t n) noexcept:
        return self.readers_ > 0 if n == SHARED else self.writing

    cdef Places line(self, Py_ssize_t n):
        return self.to_read if n == SHARED else self.to_write

    cdef int give(self, Py_ssize_t n) except -1:
        if n == SHARED:
            self.readers_ -= 1
            return 0 if self.readers_ else self.hand_on(False)
        self.writing = False
        return self.hand_on(True)

    cdef int left(self) except -1:
        # A writer that gave up may have been all that kept the readers out.
        if not self.writing and not self.to_write.waiting():
            self.admit_readers()
        return 0

    cdef int hand_on(self, bint readers_first) except -1:
        """It is free: see who is next."""
        if not (readers_first and self.admit_readers()) and not self.admit_writer():
            self.admit_readers()
        return 0

    cdef bint admit_writer(self) except -1:
        cdef Place place
        while not self.writing and not self.readers_:
            place = self.to_write.claim_first()
            if place is None:
                return False
            self.writing = True
            if place.waiter.wake():
                return True
            self.writing = False
        return True

    cdef bint admit_readers(self) except -1:
        """Let those in who wait to read; False: nobody came in. No writer holds it."""
        cdef Places admitted
        cdef Place place
        if not self.to_read.waiting():
            return self.readers_ > 0 or self.writing
        admitted = Places.__new__(Places)
        if self.writing:                   # making the list may have let another thread run
            return True
        while True:
            place = self.to_read.claim_first()
            if place is None:
                break
            self.readers_ += 1
            admitted.join(place)
        while admitted.first is not None:
            place = admitted.first
            place.leave()
            if not place.waiter.wake():
                self.give(SHARED)          # nobody is there any more
        return self.readers_ > 0 or self.writing

    def lock(self, timeout=None):
        """Lock it for writing, waiting for that.

        timeout: seconds; TimeoutError when it is over. RuntimeError on the thread of a running loop outside of a
        goroutine: `await async_lock()` there.
        """
        self.obtain(EXCLUSIVE, seconds_of(timeout), "RWMutex.lock()", "await RWMutex.async_lock()", "rwmutex lock")

    async def async_lock(self, timeout=None):
        """As lock(), for coroutines."""
        cdef double seconds = seconds_of(timeout)
        if not self.take(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, seconds, "RWMutex.async_lock()")

    def try_lock(self):
        """Lock it for writing if it is free; returns whether it did. From anywhere."""
        return self.take(EXCLUSIVE)

    def unlock(self):
        """Unlock it after lock(). RuntimeError if no writer holds it. From anywhere."""
        if self.excuses():
            return
        if not self.writing:
            raise RuntimeError("unlock of an RWMutex that is not locked for writing: lock() goes with unlock(), "
                               "rlock() with runlock()")
        self.give(EXCLUSIVE)

    def rlock(self, timeout=None):
        """Lock it for reading; otherwise as lock()."""
        self.obtain(SHARED, seconds_of(timeout), "RWMutex.rlock()", "await RWMutex.async_rlock()", "rwmutex rlock")

    async def async_rlock(self, timeout=None):
        """As rlock(), for coroutines."""
        cdef double seconds = seconds_of(timeout)
        if not self.take(SHARED):
            await obtain_async(self, SHARED, seconds, "RWMutex.async_rlock()")

    def try_rlock(self):
        """Lock it for reading if no writer holds it or waits for it; returns whether it did. From anywhere."""
        return self.take(SHARED)

    def runlock(self):
        """Unlock it after rlock(). RuntimeError if nobody reads. From anywhere."""
        if self.excuses():
            return
        if not self.readers_:
            raise RuntimeError("runlock of an RWMutex that nobody holds for reading: rlock() goes with runlock(), "
                               "lock() with unlock()")
        self.give(SHARED)

    @property
    def locked(self):
        """Whether a writer holds it (bool)."""
        return self.writing

    @property
    def readers(self):
        """How many readers hold it (int)."""
        return self.readers_

    def rlocker(self):
        """Return the readers' side as a lock of its own, for `with`, `async with` and Cond (Go: RLocker)."""
        cdef RLocker locker = RLocker.__new__(RLocker)
        locker.of = self
        return locker

    def __enter__(self):
        self.obtain(EXCLUSIVE, -1, "with RWMutex", "async with", "rwmutex lock")

    def __exit__(self, *exc):
        self.unlock()

    async def __aenter__(self):
        if not self.take(EXCLUSIVE):
            await obtain_async(self, EXCLUSIVE, -1, "async with RWMutex")

    async def __aexit__(self, *exc):
        self.unlock()


cdef class RLocker:
    """The readers' side of an RWMutex; made by RWMutex.rlocker()."""

    def __init__(self, *args, **kwargs):
        raise TypeError("an RLocker is made by RWMutex.rlocker()")

    def __repr__(self):
        return f"<RLocker of {self.of!r}>"

    def lock(self, timeout=None):
        """RWMutex.rlock()"""
        self.of.rlock(timeout)

    async def async_lock(self, timeout=None):
        """RWMutex.async_rlock()"""
        await self.of.async_rlock(timeout)

    def try_lock(self):
        """RWMutex.try_rlock()"""
        return self.of.take(SHARED)

    def unlock(self):
        """RWMutex.runlock()"""
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
        if not self.of.take(SHARED):
            await obtain_async(self.of, SHARED, -1, "async with RLocker")

    async def __aexit__(self, *exc):
        self.of.runlock()


# ---------------------------------------------------------------------- Semaphore
cdef class Semaphore(Locker):
    """A number of places to be held, any number at a time (Go: golang.org/x/sync/semaphore.Weighted).

    size: how many there are, at least 1. They are given in the order in which they were asked for: while one waits
    for many, those who want few wait behind. `with` and `async with` hold one. From any thread, as Mutex.
    """

    def __cinit__(self, size):
        if not isinstance(size, int):
            raise TypeError(f"a semaphore's size is an int, got {size!r}")
        if size < 1:
            raise ValueError(f"a semaphore's size is at least 1, got {size}")
        self.size = size
        self.waiters = Places()

    def __repr__(self):
        return f"<Semaphore {self.used} of {self.size} held, {self.waiters.count} waiting>"

    cdef bint take(self, Py_ssize_t n) noexcept:
        if self.size - self.used < n or self.waiters.waiting():
            return False
        self.used += n
        return True

    cdef Places line(self, Py_ssize_t n):
        return self.waiters

    cdef int give(self, Py_ssize_t n) except -1:
        self.used -= n
        return self.left()

    cdef int left(self) except -1:
        """Give what is free to those at the head of the line."""
        cdef Place place
        while self.waiters.waiting() and self.waiters.first.index <= self.size - self.used:
            place = self.waiters.claim_first()
            self.used += place.index
            if not place.waiter.wake():
                self.used -= place.index
        return 0

    cdef Py_ssize_t weight(self, object n) except -1:
        if not isinstance(n, int):
            raise TypeError(f"the number of places is an int, got {n!r}")
        if n < 0:
            raise ValueError(f"the number of places cannot be negative, got {n}")
        if n > self.size:
            raise ValueError(f"there are {self.size} places, never {n}")
        return n

    def acquire(self, n=1, timeout=None):
        """Hold n places, waiting until they are free.

        n: 0 to size (ValueError, since waiting for more would never end). timeout: seconds; TimeoutError when it is
        over, and none is held. RuntimeError on the thread of a running loop outside of a goroutine: `await
        async_acquire()` there.
        """
        self.obtain(self.weight(n), seconds_of(timeout), "Semaphore.acquire()", "await Semaphore.async_acquire()",
                    "semaphore acquire")

    async def async_acquire(self, n=1, timeout=None):
        """As acquire(), for coroutines."""
        cdef Py_ssize_t weight = self.weight(n)
        cdef double seconds = seconds_of(timeout)
        if not self.take(weight):
            await obtain_async(self, weight, seconds, "Semaphore.async_acquire()")

    def try_acquire(self, n=1):
        """Hold n places if they are free and nobody waits; returns whether it does. From anywhere."""
        return self.take(self.weight(n))

    def release(self, n=1):
        """Give n places back. RuntimeError if fewer are held. From anywhere."""
        cdef Py_ssize_t weight = self.weight(n)
        if weight > self.used:
            raise RuntimeError(f"release of {weight} places of a Semaphore of which {self.used} are held")
        self.give(weight)

    @property
    def locked(self):
        """Whether acquire(1) would have to wait (bool)."""
        return self.used >= self.size or self.waiters.waiting()

    @property
    def held(self):
        """How many places are held (int)."""
        return self.used

    def __enter__(self):
        self.obtain(1, -1, "with Semaphore", "async with", "semaphore acquire")

    def __exit__(self, *exc):
        self.release(1)

    async def __aenter__(self):
        if not self.take(1):
            await obtain_async(self, 1, -1, "async with Semaphore")

    async def __aexit__(self, *exc):
        self.release(1)
