# Guard: the GIL. close() is for the thread that sleeps, release() for any.
cdef class PipeLock:
    cdef int fd                 # to be polled; -1 once it is put away
    cdef int writing
    cdef bint hears             # it is the wake-up descriptor

    cdef int hear_signals(self) except -1
    cdef int close(self) except -1
    cdef void put_away(self) noexcept
