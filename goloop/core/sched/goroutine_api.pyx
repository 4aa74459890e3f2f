# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The functions that a goroutine calls for itself: sleep, yield, end, wait for an awaitable, and mark blocking calls.

Each says which function to use instead where there is no goroutine. Guard: the GIL, as in scheduler.pyx.
"""

import asyncio
from asyncio import ensure_future, isfuture
from concurrent.futures import Future
from inspect import isawaitable

from goloop.core.sched.goroutine cimport Goroutine, goroutine_here
from goloop.core.sched.scheduler cimport G, Worker, backlog, current_g, here, take_cancellation, wake_one
from goloop.core.loop.ownership cimport LoopThread, loop_thread_here
from goloop.core.sched.waiter cimport (
    CANCELLED, COMPLETED, TIMED_OUT, Outcome, Waiter, blocking_waiter, may_block, seconds_of,
)

from goloop.core.sched.goroutine import GoExit

import time as _time

cdef extern from "../system/native/sealed.h":
    int gl_seal(object type, const char *reason) except -1


def goexit() -> None:
    """End the goroutine that calls, running its finally blocks; that is no error (Go: runtime.Goexit).

    RuntimeError outside of a goroutine.
    """
    if goroutine_here() is None:
        raise RuntimeError("goexit() ends a goroutine, and this is none")
    raise GoExit


def gosched() -> None:
    """Let other goroutines run first (Go: runtime.Gosched); in a plain thread, give up the processor.

    asyncio.CancelledError in a goroutine that was cancelled. RuntimeError on the thread of a running loop outside of a
    goroutine: use `await asyncio.sleep(0)` there.
    """
    cdef G g = current_g()
    if g is not None:
        if take_cancellation(g):
            raise asyncio.CancelledError()
        g.worker.yield_(g)
    else:
        may_block("gosched()", "await asyncio.sleep(0)")
        _time.sleep(0)


def sleep(seconds: float) -> None:
    """Park the goroutine for that many seconds (Go: time.Sleep); a plain thread sleeps.

    seconds: a number (else TypeError; ValueError for NaN); 0 or less lets others run first, as gosched() does.
    asyncio.CancelledError in a goroutine that is cancelled. RuntimeError on the thread of a running loop outside of a
    goroutine: use `await asyncio.sleep()` there.
    """
    cdef double wanted = seconds_of(seconds)
    cdef Waiter waiter
    if seconds is None:
        raise TypeError("sleep() takes a number of seconds")
    if wanted == 0:
        gosched()
        return
    if current_g() is None:
        may_block("sleep()", "await asyncio.sleep()")
        _time.sleep(wanted)
        return
    waiter = blocking_waiter("sleep()", "await asyncio.sleep()")
    waiter.block("sleep", wanted)
    if waiter.outcome == CANCELLED:
        raise asyncio.CancelledError()


cdef class Completion:
    """The done callback of a future that a goroutine waits for."""
    cdef Waiter waiter

    def __call__(self, future):
        if self.waiter.claim(COMPLETED):
            self.waiter.wake()


gl_seal(Completion, b"a Completion is made by wait()")


cdef object called(object awaitable):
    """The awaitable that wait() was given; if that is a function, its result."""
    return awaitable() if callable(awaitable) and not isawaitable(awaitable) else awaitable


cdef Outcome park_for(object future, double seconds) except *:
    """Park until a future of this worker's loop is done; how that ended."""
    cdef Completion done = Completion.__new__(Completion)
    cdef Waiter waiter = blocking_waiter("wait()", "await")
    done.waiter = waiter
    waiter.on = future
    future.add_done_callback(done)
    try:
        waiter.block("wait", seconds)
    finally:
        if waiter.outcome != COMPLETED:
            future.remove_done_callback(done)
    return waiter.outcome


class _Elsewhere:
    """An awaitable on another loop than the worker's: as much of a future as wait() needs. `_task` is that loop's
    until it is done."""

    def __init__(self, awaitable, loop):
        self._awaitable = awaitable
        self._loop = loop
        self._task = None
        self._end = Future()
        loop.call_soon_threadsafe(self._start)
        self.done = self._end.done
        self.add_done_callback = self._end.add_done_callback

    def _start(self):
        try:
            self._task = ensure_future(called(self._awaitable), loop=self._loop)
            self._task.add_done_callback(lambda task: self._end.set_result(None))
        except BaseException as exc:
            self._end.set_exception(exc)

    def remove_done_callback(self, callback):
        pass                                  # a late call finds its waiter claimed

    def cancel(self):
        try:
            self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())
        except RuntimeError:                  # closed: nothing runs it any more
            if not self._end.done():
                self._end.set_exception(asyncio.CancelledError())

    def cancelled(self):
        return self._task is None or self._task.cancelled() or not self._task.done()      # its loop has closed

    def exception(self):
        return self._task.exception()

    def result(self):
        self._end.result()
        return self._task.result()


def _close(awaitable):
    if asyncio.iscoroutine(awaitable):
        awaitable.close()


cdef int check_loop(object awaitable, object loop) except -1:
    """In debug mode: RuntimeError for a coroutine that is a method of an object of another loop."""
    coroutine = getattr(awaitable, "_coro", awaitable)       # aiohttp's session.get() has another
    frame = getattr(coroutine, "cr_frame", None)
    owner = None if frame is None else getattr(frame.f_locals.get("self"), "_loop", None)
    if owner is not loop and isinstance(owner, asyncio.AbstractEventLoop):
        _close(awaitable)
        raise RuntimeError(
            f"{awaitable!r} belongs to a different loop, {owner!r}, than the worker's, {loop!r}: use "
            "wait(..., loop=...) with the one that it belongs to"
        )
    return 0


cdef int check_runs(object loop, object awaitable) except -1:
    if not isinstance(loop, asyncio.AbstractEventLoop):
        _close(awaitable)
        raise TypeError(f"wait() takes an event loop, got {loop!r}")
    if not loop.is_running():
        _close(awaitable)
        raise RuntimeError(f"wait() needs a loop that runs, and this one does not: {loop!r}")
    return 0


cdef object future_of(object awaitable, object loop):
    """A future of this loop for what wait() was given; runs as a callback of the loop."""
    awaitable = called(awaitable)
    if not isfuture(awaitable):
        return ensure_future(awaitable, loop=loop)
    home = awaitable.get_loop()
    if home is loop or awaitable.done():
        return awaitable
    check_runs(home, awaitable)
    return _Elsewhere(awaitable, home)        # only its own loop may touch it, and that runs in another thread


cdef object start(object awaitable, G g, object loop):
    """A future for what wait() was given, which runs from now on: on `loop`, or on that of the goroutine's worker."""
    if loop is not None and loop is not g.worker.loop:
        check_runs(loop, awaitable)
        return _Elsewhere(awaitable, loop)
    home = (<Goroutine>g).origin_loop
    if g.worker.loop._debug or (home is not None and home.get_debug()):
        check_loop(awaitable, g.worker.loop)
    aside = g.worker.enter_loop()             # an eager task factory runs it up to its first await
    try:
        return future_of(awaitable, g.worker.loop)
    finally:
        g.worker.leave_loop(g, aside)


cdef Outcome cancel_and_wait(object future, Outcome how) except *:
    """Cancel a future, and park until it is done: its clean-up is part of it.

    how: what it is cancelled for, TIMED_OUT or CANCELLED. Returns that, or CANCELLED if the goroutine is cancelled
    meanwhile, which cancels the future once more.
    """
    future.cancel()
    while not future.done():
        if park_for(future, -1) == CANCELLED:
            how = CANCELLED
            future.cancel()
    return how


def wait(
    awaitable: Awaitable[Any] | Callable[[], Awaitable[Any]],
    timeout: float | None = None,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Any:
    """Park the goroutine until an awaitable is done; return the result, or raise its exception.

    awaitable: a coroutine, which runs on the loop of the goroutine's worker; a future of any loop that runs; or a
    function without arguments that returns an awaitable, as in `wait(lambda: asyncio.gather(f(), g()))`. No loop is
    running in a goroutine; in that function the worker's loop is, so it must not wait itself. A Goroutine may be
    waited for as well.
    timeout: seconds; when it is over the awaitable is cancelled and TimeoutError raised, as asyncio.wait_for()
    does. Cancelling the goroutine cancels the awaitable, too, but for a Goroutine. loop: run it on this loop, which
    another thread runs, and to which a queue, a lock or a session that it uses belongs; None: the worker's. In debug
    mode, RuntimeError for an object of another loop. RuntimeError outside of a plain goroutine; a coroutine simply
    awaits.
    """
    cdef G g = current_g()
    cdef Outcome how = COMPLETED
    cdef double seconds
    try:
        seconds = seconds_of(timeout)
    except BaseException:
        _close(awaitable)
        raise
    if isinstance(awaitable, Goroutine):
        return awaitable.result(timeout)
    if g is None:
        _close(awaitable)
        raise RuntimeError(
            "wait() parks a goroutine, and this is none: await it in a coroutine, or start what calls wait() with "
            "go(). Plain code called by a coroutine cannot wait; call it with `await go(f, ...)`"
        )
    future = start(awaitable, g, loop)
    if not future.done():
        how = park_for(future, seconds)
    if how == COMPLETED:
        return future.result()
    if cancel_and_wait(future, how) == TIMED_OUT:
        if future.cancelled():
            raise TimeoutError("wait: timed out")
        return future.result()
    if not future.cancelled() and future.exception() is not None:
        raise asyncio.CancelledError() from future.exception()
    raise asyncio.CancelledError()


cdef class blocking:
    """`with blocking():` marks a call that may block the thread, so that nothing waits behind it (Go: entersyscall).

    In a goroutine: those that have not started go to another worker at once, without waiting for the monitor to see
    that this one is stuck. In a coroutine or a callback: another thread may take the loop over and run other callbacks
    meanwhile; leaving waits until no other callback runs. Inside, the loop is not yours: call nothing of it but
    call_soon_threadsafe(), and do not await. In a thread without a loop it does nothing. Nests. RuntimeError if another
    thread leaves it than entered it.
    """

    cdef object inside           # the goroutine or the worker that is inside
    cdef LoopThread loop_thread  # or the loop thread
    cdef unsigned int regions
    cdef int depth            # how often this object is entered

    def __init__(self):
        pass                  # so that arguments are an error

    def __enter__(self):
        cdef Worker worker = here()
        cdef G g
        cdef LoopThread loop_thread
        self.depth += 1
        if worker is not None:
            g = worker.current
            if g is not None:
                g.blocked += 1
            else:
                worker.blocked += 1
            self.inside = worker if g is None else g
            if backlog.count:
                wake_one()
        else:
            loop_thread = loop_thread_here()
            if loop_thread is not None:
                self.loop_thread = loop_thread
                self.regions = loop_thread.regions
                loop_thread.ownership.enter_region(loop_thread)
        return self

    def __exit__(self, *exc):
        cdef LoopThread loop_thread = self.loop_thread
        if self.depth == 0:
            raise RuntimeError("blocking() is not entered")
        self.depth -= 1
        if isinstance(self.inside, G):
            (<G>self.inside).blocked -= 1
        elif self.inside is not None:
            (<Worker>self.inside).blocked -= 1
        elif loop_thread is not None and self.regions == loop_thread.regions:
            if loop_thread is not loop_thread_here():
                raise RuntimeError("a blocking() region must be left by the thread that entered it")
            loop_thread.ownership.leave_region(loop_thread)


class lock_os_thread:
    """Keep other goroutines from starting on this goroutine's thread until it ends or unlock() (Go: LockOSThread).

    A goroutine never changes its thread; this makes the thread its own, but for those that run there already. Also a
    context manager, which unlocks at the end. RuntimeError outside of a goroutine, and in a coroutine.
    """

    def __init__(self):
        cdef G g = current_g()
        if g is None:
            raise RuntimeError("lock_os_thread() locks a goroutine's thread, and this is no goroutine")
        self._g = g
        g.locks += 1
        g.worker.locked += 1
        if backlog.count:
            wake_one()

    def unlock(self) -> None:
        """Let others start here again (Go: runtime.UnlockOSThread); once for each lock. From any thread."""
        cdef G g = self._g
        if g is not None:
            self._g = None
            if g.locks:                   # not ended, which unlocks
                g.locks -= 1
                g.worker.locked -= 1

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.unlock()
