from goloop.core.sync.locks cimport Locker
from goloop.core.sched.waiter cimport WaitNode, WaitQueue


cdef class Cond:
    cdef readonly object locker   # as it was given
    cdef Locker of                # the lock itself,
    cdef Py_ssize_t n             # and how
    cdef WaitQueue waiters
    cdef object bubble            # that it was made in, or None
    cdef object __weakref__

    cdef int check_held(self) except -1
    cdef int withdraw(self, WaitNode node) except -1
    cdef int signal_one(self) except -1
    cdef int relock(self) except -1


cdef class WaitGroup:
    cdef Py_ssize_t count
    cdef Py_ssize_t returning     # waiters that were woken, and have not returned
    cdef WaitQueue waiters
    cdef object bubble            # that it was made in, or None
    cdef object __weakref__

    cdef int change(self, Py_ssize_t delta) except -1
    cdef int count_more(self, Py_ssize_t delta) except -1  # the same, for a caller that may be out of place
    cdef int check_place(self) except -1
    cdef int returned(self, WaitNode node) noexcept


cdef class Once:
    cdef int state
    cdef object runner            # the caller that runs the function: actor()
    cdef WaitQueue waiters
    cdef object bubble            # that it was made in, or None
    cdef object __weakref__

    cdef bint begin(self) except -1
    cdef int end(self) except -1
