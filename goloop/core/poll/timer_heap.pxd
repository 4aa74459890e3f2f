from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t


cdef struct Key:
    double when                   # seconds on the loop's clock
    uint64_t order                # equal deadlines fire in the order in which they were set
    Py_ssize_t *index             # where the entry's owner keeps its index; -1: not in the heap


cdef class TimerHeap:
    cdef Key *keys        # a binary heap
    cdef list items       # the timer of each key, in the same places
    cdef Py_ssize_t size
    cdef Py_ssize_t room
    cdef uint64_t order
    cdef void *untracked  # the TimerHandle that the collector was last told to pass over; its `node` goes on from it

    cdef int push(self, double when, Py_ssize_t *index, object item) except -1
    cdef object pop(self)
    cdef int remove(self, Py_ssize_t place) except -1
    cdef double first(self) noexcept
    cdef int clear(self) except -1
    cdef Py_ssize_t up(self, Py_ssize_t at) noexcept
    cdef Py_ssize_t down(self, Py_ssize_t at) noexcept
    cdef bint before(self, const Key *a, const Key *b) noexcept
    cdef void put(self, Py_ssize_t at, Key key, PyObject *item) noexcept
    cdef int shrink(self) noexcept
