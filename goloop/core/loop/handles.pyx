# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Handle and TimerHandle: what the loop runs.

They answer asyncio's classes as their __class__, which is how isinstance(h, asyncio.Handle) holds for a
type that cannot have asyncio.Handle as its base. Allocation goes through a free list; a TimerHandle has
no fields of its own, so that it shares the list with Handle.
"""

import sys
import threading
from asyncio import events as _events
from asyncio import format_helpers as _format_helpers

cimport cython
from cpython.object cimport PyObject


cdef extern from "Python.h":
    int PyContext_Enter(object ctx) except -1
    int PyContext_Exit(object ctx) except -1
    object PyContext_CopyCurrent()
    object PyObject_Vectorcall(object callable, PyObject **args, size_t nargs, PyObject *names)
    ctypedef struct PyTupleObject:
        PyObject **ob_item
    Py_ssize_t PyTuple_GET_SIZE(object t)


cdef object _AsyncioHandle = _events.Handle
cdef object _AsyncioTimerHandle = _events.TimerHandle
# From Python 3.14 on: what call_soon_threadsafe() returns there.
cdef object _AsyncioThreadSafeHandle = getattr(_events, "_ThreadSafeHandle", None)
cdef bint SHARING = _AsyncioThreadSafeHandle is not None
cdef object _getframe = sys._getframe
cdef object _extract_stack = _format_helpers.extract_stack

# Live handles. Written under the GIL; on a free-threaded build the count is approximate.
cdef Py_ssize_t live = 0


def live_handles():
    """How many Handle and TimerHandle objects exist in this process."""
    return live


cdef class Pollable:
    cdef object run(self):
        raise SystemError("Pollable.run() is abstract")

    cdef object loop_closed(self):
        return None

    cdef int not_sent(self, gl_write *w) except -1:
        raise SystemError("Pollable.not_sent() is abstract")

    cdef int take_back_conn(self) except -1:
        return 0


@cython.freelist(512)
cdef class Handle:
    """A callback scheduled to run, as asyncio.Handle. Use it on the loop's own thread.

    One from call_soon_threadsafe() can be cancelled from any thread. From Python 3.14 on, cancel() and
    cancelled() wait there for a callback that is just running: after a cancel() it does not run, or has run.
    """

    def __cinit__(self):
        global live
        live += 1
        self.heap_index = -1

    def __dealloc__(self):
        global live
        live -= 1

    @property
    def __class__(self):
        return _AsyncioHandle if self.sharing == OWN else _AsyncioThreadSafeHandle

    cdef int share(self) except -1:
        """Let other threads cancel this handle, if the running Python's asyncio knows such handles."""
        if SHARING:
            self.sharing = SHARED
        return 0

    cdef object run_shared(self):
        self.sharing = SHARED_RUNS
        try:
            self.run()
        finally:
            self.sharing = SHARED
            if self.finished is not None:
                self.finished.set()

    cdef int wait_for_the_run(self) except -1:
        """Wait until the run of the callback is over, except on the thread that runs the loop.

        That one is inside the callback itself, or has taken the loop over from a thread that is: then the callback
        waits for the loop, and waiting for the callback would never end.
        """
        cdef object event
        if self._loop._on_own_thread():
            return 0
        event = threading.Event()
        if self.finished is None:
            self.finished = event
        if self.sharing == SHARED_RUNS:
            self.finished.wait()
        return 0

    cdef object run(self):
        cdef object callback = self._callback, args = self._args, context = self._context
        if self._cancelled:
            return None
        if self.sharing == SHARED:
            return self.run_shared()
        try:
            PyContext_Enter(context)
            try:
                PyObject_Vectorcall(callback, (<PyTupleObject *>args).ob_item, PyTuple_GET_SIZE(args), NULL)
            finally:
                PyContext_Exit(context)
        except (SystemExit, KeyboardInterrupt):
            gl_track(self)
            raise
        except BaseException as exc:
            self.report(exc)
        return None

    cdef object report(self, object exc):
        cdef object info
        callback = _format_helpers._format_callback_source(self._callback, self._args)
        info = {"message": f"Exception in callback {callback}", "exception": exc, "handle": self}
        if self._source_traceback:
            info["source_traceback"] = self._source_traceback
        self._loop.call_exception_handler(info)
        return None

    def _run(self):
        self.run()

    def cancel(self):
        """Cancel the callback; it and its arguments are released at once."""
        if self.sharing == SHARED_RUNS:
            self.wait_for_the_run()
        if self._cancelled:
            return
        self._cancelled = True
        if self._loop.get_debug():
            self._repr = repr(self)     # keeps the callback and the arguments readable
        self._callback = None
        self._args = None
        if self.heap_index >= 0:
            (<TimerHandle>self).unlink_untracked()
            gl_track(self)
            self.heap.remove(self.heap_index)
        self.heap = None

    def cancelled(self):
        """Return True if the handle was cancelled."""
        if self.sharing == SHARED_RUNS:
            self.wait_for_the_run()
        return self._cancelled

    def get_context(self):
        """Return the contextvars.Context in which the callback runs."""
        return self._context

    def _repr_info(self):
        return _AsyncioHandle._repr_info(self)

    def __repr__(self):
        return _AsyncioHandle.__repr__(self)


cdef class TimerHandle(Handle):
    """A callback scheduled for a time, as asyncio.TimerHandle."""

    # The untracked timers of a heap are a list, for the end of the run to find them: `node.next` is the next timer,
    # `node.item` the one before. The heap's references keep them alive.
    cdef int untrack(self) except -1:
        """The loop runs, and has this among its timers: tell the collector to pass over it."""
        cdef void *first = self.heap.untracked
        gl_untrack(self)
        self.node.next = <gl_node *>first
        self.node.item = NULL
        if first != NULL:
            (<TimerHandle>first).node.item = <void *>self
        self.heap.untracked = <void *>self
        self.linked = True
        return 0

    cdef int unlink_untracked(self) except -1:
        """Take this out of the list of untracked timers, if it is in it: it leaves the heap."""
        if not self.linked:
            return 0
        self.linked = False
        if self.node.item == NULL:
            self.heap.untracked = <void *>self.node.next
        else:
            (<TimerHandle>self.node.item).node.next = self.node.next
        if self.node.next != NULL:
            (<TimerHandle><void *>self.node.next).node.item = self.node.item
        return 0

    @property
    def __class__(self):
        return _AsyncioTimerHandle

    def when(self):
        """Return the scheduled time, in seconds on the loop's clock: as call_at() was given it, float or int."""
        return int(self.deadline) if self.integral else self.deadline

    @property
    def _when(self):
        return self.when()

    @property
    def _scheduled(self):
        return self.heap_index >= 0

    def _repr_info(self):
        return _AsyncioTimerHandle._repr_info(self)

    def __hash__(self):
        return hash(self.deadline)

    def __lt__(self, other):
        return _AsyncioTimerHandle.__lt__(self, other)

    def __le__(self, other):
        return _AsyncioTimerHandle.__le__(self, other)

    def __gt__(self, other):
        return _AsyncioTimerHandle.__gt__(self, other)

    def __ge__(self, other):
        return _AsyncioTimerHandle.__ge__(self, other)

    def __eq__(self, other):
        return _AsyncioTimerHandle.__eq__(self, other)


cdef inline int fill(Handle handle, object callback, object args, object loop, object context) except -1:
    handle._callback = callback
    handle._args = args
    handle._loop = loop
    handle._context = PyContext_CopyCurrent() if context is None else context
    return 0


cdef Handle new_handle(object callback, object args, object loop, object context):
    cdef Handle handle = Handle.__new__(Handle)
    fill(handle, callback, args, loop, context)
    return handle


cdef TimerHandle new_timer(double when, object callback, object args, object loop, object context):
    cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
    fill(handle, callback, args, loop, context)
    handle.deadline = when
    return handle


cdef int track_timers(TimerHeap heap) except -1:
    """The loop stops: show its timers to the collector again."""
    cdef TimerHandle timer
    while heap.untracked != NULL:
        timer = <TimerHandle>heap.untracked
        timer.unlink_untracked()
        gl_track(timer)
    return 0


cdef int trace_source(Handle handle) except -1:
    """Remember the caller's stack (debug mode). Compiled code has no frames, so the top is the user's."""
    try:
        handle._source_traceback = _extract_stack(_getframe())
    except ValueError:
        handle._source_traceback = []     # no Python frame at all: a goroutine whose function is compiled
    return 0
