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
    cdef object loop_closed(self)            # the poll set that it owned a descriptor of is closed
    cdef int not_sent(self, gl_write *w) except -1  # the kernel did not take all that was collected
    cdef int take_back_conn(self) except -1  # the loop closes: take back from the netpoller what it has of this


cdef enum Sharing:      # whether other threads may cancel a handle: call_soon_threadsafe() from Python 3.14 on
    OWN
    SHARED
    SHARED_RUNS         # its callback runs; cancel() and cancelled() wait for the end of it


cdef class Handle:
    cdef gl_node node             # links the handle into an inbox; a timer into the list of untracked ones
    cdef Py_ssize_t heap_index    # in the timer heap; -1: not there
    cdef double deadline          # seconds, for a timer
    cdef bint linked              # a timer: the collector was told to pass over it, and it is in the list of those
    cdef bint integral            # the time was given as an int, and is told as one
    cdef TimerHeap heap           # the heap that `heap_index` is in
    cdef readonly object _loop
    cdef readonly object _callback
    cdef readonly object _args
    cdef readonly object _context
    cdef public object _source_traceback
    cdef public object _repr
    cdef readonly bint _cancelled
    cdef Sharing sharing            # guarded by the GIL, as is `finished`
    cdef object finished            # an Event, if another thread waits for the end of the run
    cdef object __weakref__

    cdef object run(self)
    cdef object run_shared(self)
    cdef object report(self, object exc)
    cdef int wait_for_the_run(self) except -1
    cdef int share(self) except -1


cdef class TimerHandle(Handle):
    cdef int untrack(self) except -1
    cdef int unlink_untracked(self) except -1


# A handle that a running loop has in its ready queue or among its timers is of no interest to the garbage collector:
# everything that it refers to is alive. It costs a collection about as much as all else in a deep queue. So it is
# untracked, until it has run or was cancelled and somebody else holds it, or the loop stops and may be garbage itself.
# To the collector an untracked object is a reference from outside, so tracking too late could only keep something for
# too long.
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


cdef Handle new_handle(object callback, object args, object loop, object context)
cdef TimerHandle new_timer(double when, object callback, object args, object loop, object context)
cdef int track_timers(TimerHeap heap) except -1
cdef int trace_source(Handle handle) except -1
