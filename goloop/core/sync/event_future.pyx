# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Event and Future: waits for something that happens once, for goroutines, coroutines and plain threads alike.

Everything is guarded by the GIL. What may run Python code, the making of a waiter, stands before the last look.
"""

import asyncio
import types
from asyncio.log import logger as _logger

from goloop.core.sched.scheduler cimport bubble_here, bubbles
from goloop.core.sched.waiter cimport (
    WaitNode, WaitQueue, Waiter, async_waiter, blocking_waiter, check_edge, check_wait, may_block, new_wait_node,
    raise_outcome, seconds_of,
)


cdef class Happening:
    """What Event and Future have in common: it has come, or it is waited for."""

    cdef bint come
    cdef WaitQueue waiting
    cdef object bubble            # that it was made in, or None
    cdef object __weakref__

    def __cinit__(self):
        self.waiting = WaitQueue()
        if bubbles:
            self.bubble = bubble_here()

    cdef int check_place(self) except -1:
        """RuntimeError for a wait in the wrong place."""
        if self.come:
            check_edge(self.bubble, self)
        else:
            check_wait(self.bubble, self)
        return 0

    cdef int block(self, object timeout, str method, str instead) except -1:
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter
        cdef WaitNode node
        may_block(method, instead)
        if bubbles:
            self.check_place()
        if self.come:
            return 0
        waiter = blocking_waiter(method, instead)
        waiter.gives_back_on_cancel = True        # nothing is taken: it is there for the next wait
        node = new_wait_node(waiter, 0, None)
        if self.come:
            return 0
        waiter.on = self
        self.waiting.join(node)
        try:
            waiter.block(method, seconds)
        finally:
            node.unlink()
        raise_outcome(waiter.outcome, method)
        return 0

    async def _suspend(self, object timeout, str method):
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter
        cdef WaitNode node
        if bubbles:
            self.check_place()
        if self.come:
            return
        waiter = async_waiter(method, self)
        waiter.gives_back_on_cancel = True
        node = new_wait_node(waiter, 0, None)
        if self.come:
            return
        self.waiting.join(node)
        try:
            await waiter.suspend(seconds)
        finally:
            node.unlink()
        raise_outcome(waiter.outcome, method)


cdef class Event(Happening):
    """A flag that is waited for (threading.Event, asyncio.Event), for goroutines, coroutines and threads at once.

    From any thread, goroutine or coroutine: set(), clear() and is_set() do not wait.
    """

    def __init__(self):
        pass

    def __repr__(self):
        return f"<Event {'set' if self.come else 'not set'}, {self.waiting.count} waiting>"

    def is_set(self) -> bool:
        """Return whether it is set (bool). From any thread, goroutine or coroutine."""
        return self.come

    def set(self) -> None:
        """Set it: all that wait go on, also if it is cleared at once. From any thread, goroutine or coroutine."""
        if bubbles:
            check_edge(self.bubble, self)
        self.come = True
        self.waiting.complete_all()

    def clear(self) -> None:
        """Let wait() wait again. From any thread, goroutine or coroutine."""
        if bubbles:
            check_edge(self.bubble, self)
        self.come = False

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is set.

        timeout: seconds, None for no end; TimeoutError when it is over. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_wait()` there.
        """
        self.block(timeout, "Event.wait()", "await Event.async_wait()")

    async def async_wait(self, timeout: float | None = None) -> None:
        """Wait in a coroutine, on any loop, until it is set.

        timeout: seconds, None for no end; TimeoutError when it is over.
        """
        await self._suspend(timeout, "Event.async_wait()")


cdef class Future(Happening):
    """A result that comes later (concurrent.futures.Future, asyncio.Future; gevent: AsyncResult).

    From any thread: set_result() or set_exception() once; result() parks a goroutine or blocks a plain thread, `await
    future` is for coroutines on any loop. An exception that is never asked for is logged when the Future is collected.
    """

    __class_getitem__ = classmethod(types.GenericAlias)

    cdef object outcome
    cdef bint failed
    cdef bint observed
    cdef object trace             # the exception's traceback as it was set: each raise would add to it

    def __init__(self):
        pass

    def __repr__(self):
        if not self.come:
            return "<Future pending>"
        return f"<Future {'failed:' if self.failed else 'result'} {self.outcome!r}>"

    def __del__(self):
        if self.failed and not self.observed:
            _logger.error("Future exception was never retrieved", exc_info=self.outcome)

    cdef int finish(self, object outcome, bint failed) except -1:
        cdef object trace = outcome.__traceback__ if failed else None
        if bubbles:
            check_edge(self.bubble, self)
        if self.come:
            raise asyncio.InvalidStateError(f"the Future is done: {self!r}")
        self.outcome = outcome
        self.failed = failed
        self.trace = trace
        self.come = True
        self.waiting.complete_all()
        return 0

    cdef object get(self):
        if self.failed:
            self.observed = True
            raise self.outcome.with_traceback(self.trace)
        return self.outcome

    def done(self) -> bool:
        """Return whether it has its result or exception (bool). From any thread, goroutine or coroutine."""
        return self.come

    def set_result(self, result: Any) -> None:
        """Make it done with a result, any object. From any thread, goroutine or coroutine.

        result: the object. asyncio.InvalidStateError if it is done.
        """
        self.finish(result, False)

    def set_exception(self, exception: BaseException | type[BaseException]) -> None:
        """Make it done with an exception. From any thread, goroutine or coroutine.

        exception: an exception, or a class of them; TypeError for anything else, and for StopIteration, which no
        coroutine could raise. asyncio.InvalidStateError if it is done.
        """
        if isinstance(exception, type) and issubclass(exception, BaseException):
            exception = exception()
        if not isinstance(exception, BaseException):
            raise TypeError(f"set_exception() takes an exception, got {exception!r}")
        if isinstance(exception, StopIteration):
            raise TypeError("StopIteration cannot be raised by a Future")
        self.finish(exception, True)

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it is done; return the result, or raise the exception.

        timeout: seconds, None for no end; TimeoutError when it is over. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await future` there.
        """
        self.block(timeout, "Future.result()", "await future")
        return self.get()

    def exception(self) -> BaseException | None:
        """Return the exception, None if there is a result. From any thread, goroutine or coroutine.

        asyncio.InvalidStateError while it is not done. The exception counts as observed from now on, and is not logged.
        """
        if not self.come:
            raise asyncio.InvalidStateError("the Future is not done")
        self.observed = True
        return self.outcome if self.failed else None

    async def _wait(self):
        await self._suspend(None, "await future")
        return self.get()

    def __await__(self):
        """Wait in a coroutine, on any loop, until it is done; return the result, or raise the exception.

        A coroutine that is cancelled leaves the Future as it is.
        """
        return self._wait().__await__()
