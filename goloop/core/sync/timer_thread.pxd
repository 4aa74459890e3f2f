from goloop.core.loop.handles cimport TimerHandle
from goloop.core.sched.bubble cimport BubbleCore
from goloop.core.sync.chan cimport Chan


# Something that is due at a time. Guard of all fields here: the GIL.
cdef class TimerEntry:
    cdef Py_ssize_t heap_index    # in the clock's heap; -1: not set
    cdef double when              # seconds on the monotonic clock; kept after it has fired
    cdef TimerHandle in_bubble    # what fires it in a bubble, whose loop keeps the time there; None: not set there
    cdef BubbleCore bubble        # where `in_bubble` is
    cdef list set_at              # where it was set, as origin_here() has it; None: that is not traced

    cdef bint is_set(self) noexcept
    cdef int check_edge(self) except -1
    cdef int arm(self, double when) except -1
    cdef bint disarm(self) except -1      # whether it was set
    cdef int fire(self, double now) except -1


cdef class CallbackTimer(TimerEntry):
    cdef object function


cdef class ChannelTimer(TimerEntry):
    cdef object chan              # a weak reference: with the channel the timer is dropped
    cdef double period            # seconds; 0: once


cdef class GoroutineTimer(TimerEntry):
    cdef object function, context, origin_loop
    cdef tuple args
    cdef dict kwargs
    cdef list origin


cdef class Timer:
    cdef readonly Chan chan
    cdef ChannelTimer entry
    cdef object __weakref__

    cdef bint halt(self) except -1


cdef class Ticker:
    cdef readonly Chan chan
    cdef ChannelTimer entry
    cdef object __weakref__


cdef class FuncTimer:
    cdef GoroutineTimer entry
    cdef object __weakref__
