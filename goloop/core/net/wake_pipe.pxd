# Guard: the GIL. close() is for the thread that sleeps, release() for any.
cdef class WakePipe:
    cdef int fd                 # to be polled; -1 once it is put away
    cdef int writing
    cdef bint is_wakeup_fd        # it is the wake-up descriptor

    cdef int become_wakeup_fd(self) except -1
    cdef int close(self) except -1
    cdef void put_away(self) noexcept
