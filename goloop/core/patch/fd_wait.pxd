cdef bint wait_fd(int fd, bint write, double until) except -1     # until: on the clock of now_s(); 0: for ever
cdef bint wait_after_eagain(int fd, bint write, double until) except -1
