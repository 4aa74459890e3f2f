# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Cond, WaitGroup and Once: how goroutines, coroutines and plain threads wait for each other's acts.

As with the locks (locks.pyx), a woken waiter was claimed first, and a waiter that is cancelled at that very moment
passes the signal on. Semantics are Go's (package sync).
"""

import asyncio
from asyncio import events as _events
from inspect import isawaitable, iscoroutinefunction
from sys import maxsize as _maxsize

from goloop.core.sched.goroutine cimport Goroutine
from goloop.core.sync.locks cimport EXCLUSIVE, SHARED, RLocker
from goloop.core.sync.orphans cimport awaiting_frames
from goloop.core.sched.scheduler cimport bubble_here, bubbles, current_g
from goloop.core.sched.waiter cimport (
    CANCELLED, COMPLETED, WaitNode, WaitQueue, Waiter, async_waiter, blocking_waiter, check_edge, check_wait,
    new_wait_node, raise_outcome, seconds_of,
)
from goloop.core.sched.bubble cimport clock_s

from goloop.core.sched.goroutine import go_then
from goloop.core.sync.locks import Mutex, RWMutex, obtain_async


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil


# --------------------------------------------------------------------------- Cond
cdef class Cond:
    """Lets the holders of a lock wait until others have changed what it protects (Go: sync.Cond).

    locker: the Mutex, RWMutex or rlocker() that protects it; None: a Mutex of its own; TypeError for anything else. It
    is an attribute, too, to be read only. `with cond:` and `async with cond:` lock it. Waiters are woken in the order
    in which they came. From any thread: wait() parks a goroutine or blocks a plain thread, `await async_wait()` is for
    coroutines on any loop.
    """

    def __cinit__(self, locker=None):
        if locker is None:
            locker = Mutex()
        if isinstance(locker, RLocker):
            self.of = (<RLocker>locker).of
            self.n = SHARED
        elif isinstance(locker, (Mutex, RWMutex)):
            self.of = locker
            self.n = EXCLUSIVE
        else:
            raise TypeError(f"a Cond's lock is a Mutex, an RWMutex or its rlocker(), got {locker!r}")
        self.locker = locker
        self.waiters = WaitQueue()
        if bubbles:
            self.bubble = bubble_here()

    def __repr__(self):
        return f"<Cond of {self.locker!r}, {self.waiters.count} waiting>"

    cdef int check_held(self) except -1:
        if bubbles:
            check_wait(self.bubble, self)
            check_wait(self.of.bubble, self.of)
        if not self.of.is_held(self.n):
            raise RuntimeError("waiting on a Cond takes its lock: lock it first, as `with cond:` does")
        return 0

    cdef int relock(self) except -1:
        """Lock it again after a wait, whatever comes; an exception from a signal handler has to wait."""
        cdef object interrupted = None
        while True:
            try:
                self.of.obtain(self.n, -1, "Cond.wait()", "await Cond.async_wait()", "cond lock", False)
                break
            except BaseException as exc:
                if current_g() is not None:
                    raise                  # the end of its greenlet
                interrupted = exc
        if interrupted is not None:
            raise interrupted
        return 0

    async def _relock(self, list frames):
        cdef object interrupted = None
        while not self.of.acquire_if_free(self.n):
            try:
                await obtain_async(self.of, self.n, -1, "Cond.async_wait()", "cond lock")
                break
            except asyncio.CancelledError as exc:
                interrupted = exc
            except GeneratorExit:
                self.of.relock_or_orphan(self.n, frames)
                raise
        if interrupted is not None:
            raise interrupted

    cdef int withdraw(self, WaitNode node) except -1:
        node.unlink()
        if not node.waiter.claim(CANCELLED) and node.waiter.outcome == COMPLETED:
            return self.signal_one()
        return 0

    cdef int signal_one(self) except -1:
        cdef WaitNode node
        while True:
            node = self.waiters.claim_first()
            if node is None or node.waiter.wake():
                return 0

    def wait(self, timeout: float | None = None) -> None:
        """Unlock, wait for signal() or broadcast(), and lock again (Go: Wait).

        The awaited condition may have changed again when it returns: see wait_for(). timeout: seconds, None for no end;
        TimeoutError when it is over, with the lock held again, as with every exception. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError if the lock is not held, and on
        the thread of a running loop outside of a goroutine: `await async_wait()` there.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter = blocking_waiter("Cond.wait()", "await Cond.async_wait()")
        cdef WaitNode node = new_wait_node(waiter, 0, None)
        waiter.gives_back_on_cancel = True
        self.check_held()
        self.waiters.join(node)  # before it is unlocked: a signal from then on counts
        waiter.on = self
        try:
            self.of.hand_on_lock(self.n)
            waiter.block("cond wait", seconds)
        except BaseException:
            self.withdraw(node)
            self.relock()
            raise
        node.unlink()
        self.relock()
        raise_outcome(waiter.outcome, "Cond.wait()")

    async def async_wait(self, timeout: float | None = None) -> None:
        """Unlock, wait in a coroutine for signal() or broadcast(), and lock again (Go: Wait).

        The awaited condition may have changed again when it returns: see async_wait_for(). timeout: seconds, None for
        no end; TimeoutError when it is over. The lock is held again with every exception, CancelledError included; only
        a coroutine that is closed in its wait may not get it. RuntimeError if the lock is not held. On any loop.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter = async_waiter("cond wait", self)
        cdef WaitNode node = new_wait_node(waiter, 0, None)
        cdef list frames = awaiting_frames()
        waiter.gives_back_on_cancel = True
        self.check_held()
        self.waiters.join(node)
        try:
            self.of.hand_on_lock(self.n)
            await waiter.suspend(seconds)
        except GeneratorExit:
            # It is thrown away, and cannot wait any more.
            self.withdraw(node)
            self.of.relock_or_orphan(self.n, frames)
            raise
        except BaseException:
            self.withdraw(node)
            await self._relock(frames)
            raise
        node.unlink()
        await self._relock(frames)
        raise_outcome(waiter.outcome, "Cond.async_wait()")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until predicate() is true, and return the true value (Python: threading.Condition.wait_for).

        predicate: a plain function without arguments, called with the lock held. timeout: seconds for all of it, None
        for no end; TimeoutError when it is over, with the lock held again, as with every exception. Parks a goroutine,
        which raises asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError if the lock is not
        held, and on the thread of a running loop outside of a goroutine: `await async_wait_for()` there.
        """
        cdef double seconds = seconds_of(timeout)
        cdef double end = clock_s() + seconds
        result = predicate()
        while not result:
            try:
                self.wait(None if seconds < 0 else end - clock_s())
            except TimeoutError:
                result = predicate()
                if not result:
                    raise
                break
            result = predicate()
        return result

    async def async_wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait in a coroutine until predicate() is true, and return the true value (asyncio: Condition.wait_for).

        predicate: a plain function without arguments, called with the lock held. timeout: seconds for all of it, None
        for no end; TimeoutError when it is over, with the lock held again, as with CancelledError. RuntimeError if the
        lock is not held. On any loop.
        """
        cdef double seconds = seconds_of(timeout)
        cdef double end = clock_s() + seconds
        result = predicate()
        while not result:
            try:
                await self.async_wait(None if seconds < 0 else end - clock_s())
            except TimeoutError:
                result = predicate()
                if not result:
                    raise
                break
            result = predicate()
        return result

    def signal(self) -> None:
        """Wake the longest waiter, if there is one (Go: Signal).

        From any thread, goroutine or coroutine, with the lock or without.
        """
        if bubbles:
            check_edge(self.bubble, self)
        self.signal_one()

    def broadcast(self) -> None:
        """Wake all waiters (Go: Broadcast).

        From any thread, goroutine or coroutine, with the lock or without.
        """
        if bubbles:
            check_edge(self.bubble, self)
        self.waiters.complete_all()

    def __enter__(self):
        self.locker.__enter__()

    def __exit__(self, *exc):
        self.locker.unlock()

    async def __aenter__(self):
        await self.locker.async_lock()

    async def __aexit__(self, *exc):
        self.locker.unlock()


# ---------------------------------------------------------------------- WaitGroup
cdef class WaitGroup:
    """Waits for a number of things to end (Go: sync.WaitGroup): go() or add() counts them, done() says that one has.

    From any thread: wait() parks a goroutine or blocks a plain thread, `await async_wait()` is for coroutines.
    """

    def __cinit__(self):
        self.waiters = WaitQueue()
        if bubbles:
            self.bubble = bubble_here()

    def __init__(self):
        pass                      # so that arguments are an error, which __cinit__() would ignore

    def __repr__(self):
        return f"<WaitGroup of {self.count}, {self.waiters.count} waiting>"

    cdef int change(self, Py_ssize_t delta) except -1:
        cdef WaitQueue gone = None
        cdef WaitNode node
        if self.waiters.first is not None:
            gone = WaitQueue.__new__(WaitQueue)  # now: no other code may run between the change and the claims
        if self.count + delta < 0:
            raise RuntimeError("negative WaitGroup counter: done() was called more often than add() said")
        if self.count or delta <= 0:
            self.count += delta
        elif self.returning:
            raise RuntimeError("WaitGroup is reused before its wait() has returned to everybody: take a new one")
        else:
            self.count = delta
        if self.count == 0 and gone is not None:
            while True:
                node = self.waiters.claim_first()
                if node is None:
                    break
                node.waiter.success = True  # counted in `returning`
                self.returning += 1
                gone.join(node)
            while gone.first is not None:
                node = gone.first
                node.unlink()
                if not node.waiter.wake():
                    self.returned(node)
        return 0

    cdef int count_more(self, Py_ssize_t delta) except -1:
        if bubbles:
            check_edge(self.bubble, self)
        return self.change(delta)

    cdef int check_place(self) except -1:
        """RuntimeError for a wait() in the wrong place."""
        if bubbles:
            if self.count:
                check_wait(self.bubble, self)
            check_edge(self.bubble, self)
        return 0

    cdef int returned(self, WaitNode node) noexcept:
        node.unlink()
        if node.waiter.success:
            node.waiter.success = False
            self.returning -= 1
        return 0

    def add(self, delta: int = 1) -> None:
        """Count delta more things to wait for (Go: Add). From any thread, goroutine or coroutine.

        delta: an int (TypeError); negative: fewer. RuntimeError when that makes the count negative, or begins a new
        round before wait() has returned to all waiters of the last one. Call it before the counted things can end:
        before go(), not in the goroutine.
        """
        if not isinstance(delta, int):
            raise TypeError(f"WaitGroup.add() takes an int, got {delta!r}")
        if not -_maxsize <= delta <= _maxsize:
            raise ValueError(f"WaitGroup.add() takes at most {_maxsize}, got {delta}")
        self.count_more(delta)

    def done(self) -> None:
        """Count one thing less: it has ended (Go: Done). From any thread, goroutine or coroutine.

        RuntimeError if there is none.
        """
        self.count_more(-1)

    def go(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Goroutine[Any]:
        """Start function(*args, **kwargs) as a goroutine that counts until it has ended, however (Go: WaitGroup.Go).

        function: a plain function or a coroutine function; TypeError for anything else. args, kwargs: its arguments.
        Returns its Goroutine. The goroutine's exception is for the callers that join it, or else reported:
        errgroup.Group collects errors. RuntimeError where add() raises it. From any thread, goroutine or coroutine: it
        does not wait.
        """
        cdef Goroutine g
        self.count_more(1)
        try:
            g = go_then(self._ended, function, args, kwargs)
        except BaseException:
            self.change(-1)
            raise
        return g

    def _ended(self, g):
        self.change(-1)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the count is zero (Go: Wait).

        timeout: seconds, None for no end; TimeoutError when it is over. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_wait()` there.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter = blocking_waiter("WaitGroup.wait()", "await WaitGroup.async_wait()")
        cdef WaitNode node = new_wait_node(waiter, 0, None)
        waiter.gives_back_on_cancel = True  # there is nothing to give back
        self.check_place()
        if self.count:
            self.waiters.join(node)
            waiter.on = self
            try:
                waiter.block("waitgroup wait", seconds)
            finally:
                self.returned(node)
            raise_outcome(waiter.outcome, "WaitGroup.wait()")

    async def async_wait(self, timeout: float | None = None) -> None:
        """Wait in a coroutine, on any loop, until the count is zero (Go: Wait).

        timeout: seconds, None for no end; TimeoutError when it is over.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter = async_waiter("waitgroup wait", self)
        cdef WaitNode node = new_wait_node(waiter, 0, None)
        waiter.gives_back_on_cancel = True
        self.check_place()
        if self.count:
            self.waiters.join(node)
            try:
                await waiter.suspend(seconds)
            finally:
                self.returned(node)
            raise_outcome(waiter.outcome, "WaitGroup.async_wait()")

    @property
    def counter(self):
        """How many things have not ended (int)."""
        return self.count


# --------------------------------------------------------------------------- Once
cdef enum:
    NEW = 0
    RUNNING = 1
    DONE = 2


cdef object actor():
    """The goroutine, the coroutine's task, or else the thread that runs here."""
    cdef object who = current_g()
    if who is None:
        loop = _events._get_running_loop()
        if loop is not None:
            who = asyncio.current_task(loop)
    return PyThread_get_thread_ident() if who is None else who


cdef class Once:
    """Runs a function exactly once (Go: sync.Once); callers that come while it runs wait for its end.

    A function that raises has run, and is not run again; its caller gets the exception. From any thread: do() parks a
    goroutine or blocks a plain thread while it waits, `await async_do()` is for coroutines on any loop. once_func() and
    once_value() keep the outcome for every caller.
    """

    def __cinit__(self):
        self.waiters = WaitQueue()
        if bubbles:
            self.bubble = bubble_here()

    def __init__(self):
        pass                      # so that arguments are an error, which __cinit__() would ignore

    def __repr__(self):
        state = "new" if self.state == NEW else "running" if self.state == RUNNING else "done"
        return f"<Once {state}, {self.waiters.count} waiting>"

    cdef bint begin(self) except -1:
        """Whether the caller is to run the function. False: it runs already."""
        cdef object me = actor()
        if bubbles:
            check_edge(self.bubble, self)
        if self.state == NEW:
            self.state = RUNNING
            self.runner = me
            return True
        if self.state == RUNNING and (self.runner is me or type(me) is int and self.runner == me):
            raise RuntimeError("the function of a Once asks for that Once: it would wait for itself")
        return False

    cdef int end(self) except -1:
        self.state = DONE
        self.runner = None
        return self.waiters.complete_all()

    def do(self, function: Callable[[], object], timeout: float | None = None) -> None:
        """Call function() unless some function was called before; return when that call has ended (Go: Do).

        function: a plain function without arguments; TypeError for anything else. timeout: seconds to wait for another
        caller's call, None for no end; TimeoutError when it is over. The exception of a call is for its own caller.
        Parks a goroutine, blocks a plain thread. RuntimeError when the function itself gets here, and, until it is
        done, on the thread of a running loop outside of a goroutine: `await async_do()` there.
        """
        cdef double seconds
        cdef Waiter waiter
        cdef WaitNode node
        if self.state == DONE:
            return
        seconds = seconds_of(timeout)
        if iscoroutinefunction(function):
            raise TypeError(f"Once.do() takes a plain function: use await Once.async_do() for {function!r}")
        if not callable(function):
            raise TypeError(f"Once.do() takes a function, got {function!r}")
        waiter = blocking_waiter("Once.do()", "await Once.async_do()")
        waiter.gives_back_on_cancel = True  # there is nothing to give back
        node = new_wait_node(waiter, 0, None)
        if self.begin():
            try:
                function()
            finally:
                self.end()
        elif self.state != DONE:
            if bubbles:
                check_wait(self.bubble, self)
            self.waiters.join(node)
            waiter.on = self
            try:
                waiter.block("once", seconds)
            finally:
                node.unlink()
            raise_outcome(waiter.outcome, "Once.do()")

    async def async_do(self, function: Callable[[], Awaitable[object] | object], timeout: float | None = None) -> None:
        """Call function() in a coroutine unless a function was called before; wait for the end of that call (Go: Do).

        On any loop. function: a coroutine function or a plain one, without arguments; its result is awaited if it can
        be. TypeError for anything else. timeout: seconds to wait for another caller's call, None for no end;
        TimeoutError when it is over. The exception of a call is for its own caller. RuntimeError when the function
        itself gets here.
        """
        cdef double seconds
        cdef Waiter waiter
        cdef WaitNode node
        if self.state == DONE:
            return
        seconds = seconds_of(timeout)
        if not callable(function):
            raise TypeError(f"Once.async_do() takes a function, got {function!r}")
        waiter = async_waiter("once", self)
        waiter.gives_back_on_cancel = True
        node = new_wait_node(waiter, 0, None)
        if self.begin():
            try:
                result = function()
                if isawaitable(result):
                    await result
            finally:
                self.end()
        elif self.state != DONE:
            if bubbles:
                check_wait(self.bubble, self)
            self.waiters.join(node)
            try:
                await waiter.suspend(seconds)
            finally:
                node.unlink()
            raise_outcome(waiter.outcome, "Once.async_do()")

    @property
    def done(self):
        """Whether the function has ended (bool)."""
        return self.state == DONE
