# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Handle and TimerHandle: what the loop runs.

They answer asyncio's classes as their __class__, which is how isinstance(h, asyncio.Handle) holds for a
type that cannot have asyncio.Handle as its base. Allocation goes through free lists. A Handle is kept small: with many
callbacks that wait, memory is what they cost.
"""

import contextvars
import sys
import threading
from asyncio import events as _events
from asyncio import format_helpers as _format_helpers
from asyncio import tasks as _tasks

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.mem cimport PyObject_Free, PyObject_Malloc
from libc.string cimport memset

from goloop.core.loop.steps cimport note_step


cdef extern from "Python.h":
    int PyContext_Enter(object ctx) except -1
    int PyContext_Exit(object ctx) except -1
    object PyContext_CopyCurrent()
    object PyObject_CallOneArg(object callable, object arg)
    object PyObject_Vectorcall(object callable, PyObject **args, size_t nargs, PyObject *names)
    ctypedef struct PyTupleObject:
        PyObject **ob_item
    Py_ssize_t PyTuple_GET_SIZE(object t)


cdef extern from "../loop/native/context_vars.h":
    PyObject *gl_vars_now()
    PyObject **gl_vars_slot(object context)
    object gl_context_with(object vars)
    bint gl_context_is_ours(object context, Py_ssize_t references)
    void gl_context_spare(object context)
    void gl_vars_find(object one, object other, object empty)

# What the wake-up of a task by a future is, since a task is one of C's.
cdef extern from *:
    """
    static void *gl_task_type;

    static inline PyObject *gl_woken_task(PyObject *callback) {
        PyObject *self;
        if (Py_TYPE(callback) != &PyCFunction_Type)
            return NULL;
        self = PyCFunction_GET_SELF(callback);
        return self != NULL && (void *)Py_TYPE(self) == gl_task_type ? self : NULL;
    }
    """
    void *gl_task_type
    PyObject *gl_woken_task(PyObject *callback)

cdef object _CTask = getattr(_tasks, "_CTask", None)
gl_task_type = <void *>_CTask

cdef object _AsyncioHandle = _events.Handle
cdef object _AsyncioTimerHandle = _events.TimerHandle
# From Python 3.14 on: what call_soon_threadsafe() returns there.
cdef object _AsyncioThreadSafeHandle = getattr(_events, "_ThreadSafeHandle", None)
cdef bint SHARING = _AsyncioThreadSafeHandle is not None
cdef object _getframe = sys._getframe
cdef object _extract_stack = _format_helpers.extract_stack

cdef int find_vars() except -1:
    cdef object var = contextvars.ContextVar("goloop.probe")
    cdef object one = contextvars.Context()
    one.run(var.set, 1)
    gl_vars_find(one, one.copy(), contextvars.Context())
    return 0


find_vars()

# Live handles. Written under the GIL; on a free-threaded build the count is approximate.
cdef Py_ssize_t live = 0


def live_handles():
    """How many Handle and TimerHandle objects exist in this process."""
    return live


cdef class Pollable:
    cdef object run(self):
        raise SystemError("Pollable.run() is abstract")

    cdef object runs(self):
        return type(self)

    cdef object loop_closed(self):
        return None

    cdef int not_sent(self, gl_write *w) except -1:
        raise SystemError("Pollable.not_sent() is abstract")

    cdef int take_back_conn(self) except -1:
        return 0


cdef Annex *new_annex() except NULL:
    cdef Annex *annex = <Annex *>PyObject_Malloc(sizeof(Annex))
    if annex == NULL:
        raise MemoryError
    memset(annex, 0, sizeof(Annex))
    annex.heap_index = -1
    return annex


cdef int free_annex(Annex *annex) except -1:
    Py_XDECREF(annex.notes)
    Py_XDECREF(annex.finished)
    PyObject_Free(annex)
    return 0


@cython.freelist(512)
cdef class Handle:
    """A callback scheduled to run, as asyncio.Handle. Use it on the loop's own thread."""

    def __cinit__(self):
        global live
        live += 1

    def __dealloc__(self):
        global live
        live -= 1
        if self.annex != NULL:
            free_annex(self.annex)

    @property
    def __class__(self):
        return _AsyncioHandle

    @property
    def _args(self):
        if self.single:
            return (self.args,)
        show(self)
        return self.args

    @property
    def _source_traceback(self):
        return self.noted("source")

    @_source_traceback.setter
    def _source_traceback(self, stack):
        self.note("source", stack)

    @property
    def _repr(self):
        return self.noted("repr")

    @_repr.setter
    def _repr(self, text):
        self.note("repr", text)

    cdef object noted(self, str name):
        if self.annex == NULL or self.annex.notes == NULL:
            return None
        return (<dict>self.annex.notes).get(name)

    cdef int note(self, str name, object value) except -1:
        cdef dict notes
        if self.annex == NULL:
            self.annex = new_annex()
        if self.annex.notes == NULL:
            notes = {}
            Py_INCREF(notes)          # the annex's, until free_annex()
            self.annex.notes = <PyObject *>notes
        (<dict>self.annex.notes)[name] = value
        return 0

    cdef object call(self):
        cdef object args = self.args
        if self.single:
            return PyObject_CallOneArg(self._callback, args)
        return PyObject_Vectorcall(self._callback, (<PyTupleObject *>args).ob_item, PyTuple_GET_SIZE(args), NULL)

    cdef object real_context(self):
        """The Context to run in, as an object that stays."""
        if self.captured:
            self.context = gl_context_with(self.context)
            self.captured = False
        return self.context

    @property
    def _context(self):
        return self.real_context()

    cdef object run(self):
        if self._cancelled:
            return None
        return self.run_captured() if self.captured else self.run_in(self.context)

    cdef object run_captured(self):
        """Run in a spare Context, which stays the handle's only if something else has a reference to it then."""
        cdef object context = self.real_context()
        try:
            self.run_in(context)
        finally:
            if gl_context_is_ours(context, 2):
                self.context = <object>gl_vars_slot(context)[0]
                self.captured = True
                gl_context_spare(context)

    cdef object run_in(self, object context):
        cdef PyObject *task
        try:
            PyContext_Enter(context)
            try:
                task = gl_woken_task(<PyObject *>self._callback)
                if task != NULL:
                    note_step(task)
                self.call()
            finally:
                PyContext_Exit(context)
        except (SystemExit, KeyboardInterrupt):
            show(self)
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

    cdef int release(self) except -1:
        """It was cancelled: leave what it is in."""
        return 0

    def cancel(self):
        """Cancel the callback; it and its arguments are released at once."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._loop.get_debug():
            self.note("repr", repr(self))     # keeps the callback and the arguments readable
        self._callback = None
        self.args = None
        self.single = False
        self.release()

    def cancelled(self):
        """Return True if the handle was cancelled."""
        return self._cancelled

    def get_context(self):
        """Return the contextvars.Context in which the callback runs."""
        return self.real_context()

    def _repr_info(self):
        return _AsyncioHandle._repr_info(self)

    def __repr__(self):
        return _AsyncioHandle.__repr__(self)


cdef class SharedHandle(Handle):
    """A Handle from call_soon_threadsafe(), which can be cancelled from any thread.

    From Python 3.14 on, cancel() and cancelled() wait for a callback that is just running: after a cancel() it does not
    run, or has run.
    """

    def __cinit__(self):
        self.annex = new_annex()
        self.annex.sharing = SHARED if SHARING else OWN

    @property
    def __class__(self):
        return _AsyncioThreadSafeHandle if SHARING else _AsyncioHandle

    cdef object run(self):
        cdef Annex *annex = self.annex
        if annex.sharing == OWN or self._cancelled:
            return Handle.run(self)
        annex.sharing = SHARED_RUNS
        try:
            Handle.run(self)
        finally:
            annex.sharing = SHARED
            if annex.finished != NULL:
                (<object>annex.finished).set()

    cdef int wait_for_the_run(self) except -1:
        """Wait until the run of the callback is over, except on the thread that runs the loop.

        That one is inside the callback itself, or has taken the loop over from a thread that is: then the callback
        waits for the loop, and waiting for the callback would never end.
        """
        cdef object event
        if self.annex.sharing != SHARED_RUNS or self._loop._on_own_thread():
            return 0
        event = threading.Event()
        if self.annex.finished == NULL:
            Py_INCREF(event)          # the annex's, until free_annex()
            self.annex.finished = <PyObject *>event
        if self.annex.sharing == SHARED_RUNS:
            (<object>self.annex.finished).wait()
        return 0

    def cancel(self):
        """Cancel the callback; it and its arguments are released at once."""
        self.wait_for_the_run()
        Handle.cancel(self)

    def cancelled(self):
        """Return True if the handle was cancelled."""
        self.wait_for_the_run()
        return self._cancelled


cdef class TimerHandle(Handle):
    """A callback scheduled for a time, as asyncio.TimerHandle."""

    def __cinit__(self):
        self.annex = new_annex()

    # The heap's references keep the untracked timers alive.
    cdef int untrack(self) except -1:
        """The loop runs, and has this among its timers: tell the collector to pass over it."""
        cdef TimerHeap heap = <TimerHeap>self.annex.heap
        cdef void *first = heap.untracked
        hide(self)
        self.annex.older = first
        self.annex.newer = NULL
        if first != NULL:
            (<TimerHandle>first).annex.newer = <void *>self
        heap.untracked = <void *>self
        self.annex.linked = True
        return 0

    cdef int unlink_untracked(self) except -1:
        """Take this out of the untracked timers, if it is among them: it leaves the heap."""
        cdef Annex *annex = self.annex
        if not annex.linked:
            return 0
        annex.linked = False
        if annex.newer == NULL:
            (<TimerHeap>annex.heap).untracked = annex.older
        else:
            (<TimerHandle>annex.newer).annex.older = annex.older
        if annex.older != NULL:
            (<TimerHandle>annex.older).annex.newer = annex.newer
        return 0

    cdef int leave_heap(self) except -1:
        """The heap has let go of it: it is due."""
        self.unlink_untracked()
        self.annex.heap = NULL
        return 0

    cdef int release(self) except -1:
        if self.annex.heap_index >= 0:
            self.unlink_untracked()
            show(self)
            (<TimerHeap>self.annex.heap).remove(self.annex.heap_index)
        self.annex.heap = NULL
        return 0

    @property
    def __class__(self):
        return _AsyncioTimerHandle

    def when(self):
        """Return the scheduled time, in seconds on the loop's clock: as call_at() was given it, float or int."""
        return int(self.annex.deadline) if self.annex.integral else self.annex.deadline

    @property
    def _when(self):
        return self.when()

    @property
    def _scheduled(self):
        return self.annex.heap_index >= 0

    def _repr_info(self):
        return _AsyncioTimerHandle._repr_info(self)

    def __hash__(self):
        return hash(self.annex.deadline)

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


cdef bint is_handle(object item) noexcept:
    """Whether an item of the ready queue is a handle; it is a Pollable otherwise."""
    return type(item) is Handle or type(item) is TimerHandle or type(item) is SharedHandle


cdef inline int fill(Handle handle, object callback, object args, object loop, object context) except -1:
    cdef PyObject *vars
    handle._callback = callback
    handle.args = args
    handle._loop = loop
    if context is not None:
        handle.context = context
        return 0
    vars = gl_vars_now()
    if vars != NULL:
        handle.context = <object>vars
        handle.captured = True
    else:
        handle.context = PyContext_CopyCurrent()
    return 0


cdef Handle new_handle(object callback, object args, object loop, object context):
    cdef Handle handle = Handle.__new__(Handle)
    fill(handle, callback, args, loop, context)
    return handle


cdef Handle new_handle_of(object callback, PyObject **args, Py_ssize_t nargs, object loop, object context):
    """As new_handle(), of arguments in an array; one argument needs no tuple."""
    cdef Handle handle = Handle.__new__(Handle)
    if nargs == 1:
        handle.single = True
        fill(handle, callback, <object>args[0], loop, context)
    else:
        fill(handle, callback, tuple_of(args, nargs), loop, context)
    return handle


cdef object tuple_of(PyObject **items, Py_ssize_t n):
    cdef object made = PyTuple_New(n)
    cdef Py_ssize_t i
    for i in range(n):
        Py_INCREF(<object>items[i])
        PyTuple_SET_ITEM(made, i, <object>items[i])
    return made


cdef SharedHandle new_shared_handle(object callback, object args, object loop, object context):
    cdef SharedHandle handle = SharedHandle.__new__(SharedHandle)
    fill(handle, callback, args, loop, context)
    return handle


cdef TimerHandle new_timer(TimerHeap heap, double when, object callback, object args, object loop, object context):
    """A timer for this heap, which is the loop's."""
    cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
    fill(handle, callback, args, loop, context)
    handle.annex.heap = <PyObject *>heap
    handle.annex.deadline = when
    return handle


cdef int track_timers(TimerHeap heap) except -1:
    """The loop stops: show its timers to the collector again."""
    cdef TimerHandle timer
    while heap.untracked != NULL:
        timer = <TimerHandle>heap.untracked
        timer.unlink_untracked()
        show(timer)
    return 0


cdef int trace_source(Handle handle) except -1:
    """Remember the caller's stack (debug mode). Compiled code has no frames, so the top is the user's."""
    try:
        handle._source_traceback = _extract_stack(_getframe())
    except ValueError:
        handle._source_traceback = []     # no Python frame at all: a goroutine whose function is compiled
    return 0
