from cpython.object cimport PyObject

from goloop.core.poll.pollset cimport gl_node, gl_write
from goloop.core.poll.timer_heap cimport TimerHeap


# What the ready queue holds besides handles: a transport, an acceptor. The loop collects its events and
# runs it once for them; only the thread that runs the loop touches the fields.
cdef class Pollable:
    cdef unsigned int events                 # collected since the last run
    cdef bint queued                         # stands in the ready queue
    cdef bint prompt                         # run() is called as soon as events are collected, and raises nothing
    cdef unsigned int collected              # the place of what it has written in the loop's outbox, from 1; 0: nothing
    cdef bint slow                           # may take its time: goroutines, which may block their thread
    cdef object run(self)                    # lets only SystemExit and KeyboardInterrupt through
    cdef object runs(self)                   # whose time that is, a class or code; None: it keeps its own account
    cdef object loop_closed(self)            # the poll set that it owned a descriptor of is closed
    cdef int not_sent(self, gl_write *w) except -1  # the kernel did not take all that was collected
    cdef int take_back_conn(self) except -1  # the loop closes: take back from the netpoller what it has of this


cdef enum Sharing:
    OWN             # this Python's asyncio knows no handles that other threads cancel
    SHARED
    SHARED_RUNS     # its callback runs; cancel() and cancelled() wait for the end of it


# What only some handles need. No type has fields of its own, so that all share one free list.
cdef struct Annex:
    PyObject *notes         # debug mode's: where the handle was made, how it looked; a dict or NULL
    # a TimerHandle's
    Py_ssize_t heap_index   # in the timer heap; -1: not there
    double deadline         # seconds
    PyObject *heap          # the heap that `heap_index` is in; borrowed: the handle's loop has it
    void *older             # the untracked timers of a heap, for the end of the run to find them
    void *newer
    bint linked             # the collector was told to pass over it, and it is among those
    bint integral           # the time was given as an int, and is told as one
    # a SharedHandle's
    Sharing sharing         # guarded by the GIL, as is `finished`
    PyObject *finished      # an Event or NULL, if another thread waits for the end of the run
    gl_node node            # links it into the loop's inbox


cdef class Handle:
    cdef readonly object _loop
    cdef readonly object _callback
    cdef object args                # a tuple, or the only argument if `single`; None once cancelled
    cdef object context             # a Context, or the variables of one if `captured`
    cdef Annex *annex               # NULL: none is needed
    cdef readonly bint _cancelled
    cdef unsigned char single
    cdef unsigned char captured
    cdef object __weakref__

    cdef object run(self)
    cdef object run_captured(self)
    cdef object run_in(self, object context)
    cdef object real_context(self)
    cdef object call(self)
    cdef int note(self, str name, object value) except -1
    cdef object noted(self, str name)
    cdef object report(self, object exc)
    cdef int release(self) except -1


cdef class TimerHandle(Handle):
    cdef int untrack(self) except -1
    cdef int unlink_untracked(self) except -1
    cdef int leave_heap(self) except -1


# From call_soon_threadsafe().
cdef class SharedHandle(Handle):
    cdef int wait_for_the_run(self) except -1


# hide() and show(): a handle that a running loop has in its ready queue or among its timers is of no interest to the
# garbage collector: everything that it refers to is alive. It costs a collection about as much as all else in a deep
# queue. So it is untracked, until it has run or was cancelled and is still held elsewhere, or the loop stops and may be
# garbage itself. To the collector an untracked object is a reference from outside, so tracking too late could only keep
# something for too long.
cdef extern from *:
    """
    #include "../system/native/known_python.h"
    #if defined(Py_GIL_DISABLED) || !GL_PYTHON_KNOWN   /* without the GIL nothing goes by what is tracked */
    #define gl_untrack(o) ((void)(o))
    #define gl_track(o) ((void)(o))
    #else
    #define gl_untrack(o) PyObject_GC_UnTrack(o)
    static inline void gl_track(PyObject *o) {
        if (!PyObject_GC_IsTracked(o))
            PyObject_GC_Track(o);
    }
    #endif
    """
    void gl_untrack(object o)
    void gl_track(object o)


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object o)


cdef inline int hide(Handle handle) except -1:
    """Tell the collector to pass over a handle, and over its arguments if they are nothing else's."""
    gl_untrack(handle)
    if not handle.single and Py_REFCNT(handle.args) == 1:     # not the empty tuple
        gl_untrack(handle.args)
    return 0


cdef inline int show(Handle handle) except -1:
    gl_track(handle)
    if not handle.single and type(handle.args) is tuple and <tuple>handle.args:
        gl_track(handle.args)
    return 0


cdef bint is_handle(object item) noexcept
cdef Handle new_handle(object callback, object args, object loop, object context)
cdef Handle new_handle_of(object callback, PyObject **args, Py_ssize_t nargs, object loop, object context)
cdef SharedHandle new_shared_handle(object callback, object args, object loop, object context)
cdef TimerHandle new_timer(TimerHeap heap, double when, object callback, object args, object loop, object context)
cdef int track_timers(TimerHeap heap) except -1
cdef int trace_source(Handle handle) except -1
