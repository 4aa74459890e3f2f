from goloop.core.sync.chan cimport Chan


# Something that is due at a time. Guard of all fields here: the GIL.
cdef class Alarm:
    cdef Py_ssize_t place         # in the clock's heap; -1: not set
    cdef double when              # seconds on the monotonic clock; kept after it has rung

    cdef int arm(self, double when) except -1
    cdef bint disarm(self) except -1      # whether it was set
    cdef int ring(self, double now) except -1


cdef class Call(Alarm):
    cdef object function


cdef class Tick(Alarm):
    cdef object chan              # a weak reference: who has dropped the channel has dropped the timer
    cdef double period            # seconds; 0: once


cdef class Start(Alarm):
    cdef object function, context, origin_loop
    cdef tuple args
    cdef dict kwargs
    cdef list origin


cdef class Timer:
    cdef readonly Chan chan
    cdef Tick alarm
    cdef object __weakref__

    cdef bint halt(self) except -1


cdef class Ticker:
    cdef readonly Chan chan
    cdef Tick alarm
    cdef object __weakref__


cdef class FuncTimer:
    cdef Start alarm
    cdef object __weakref__
