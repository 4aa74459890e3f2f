cdef bint wait_fd(int fd, bint write, double until) except -1     # until: on now_ns()'s clock in s; 0: for ever
cdef bint wait_after_eagain(int fd, bint write, double until) except -1
cdef double now() noexcept
