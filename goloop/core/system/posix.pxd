from libc.stdint cimport int64_t

cdef extern from "../system/native/posix.h" nogil:
    int64_t gl_monotonic_ns()
    int64_t gl_coarse_ns()                     # the same clock, 1 to 10 ms behind, for a few instructions
    int64_t gl_clock_ns(int clock)             # -1: there is no such clock
    int64_t gl_ticks()                         # grows steadily, in units of its own


cdef int fd_of(object fileobj) except -1   # asyncio's rule for what may stand for a descriptor
cdef object os_error(int error)           # the exception for an errno, of the class that the socket module would raise


cdef inline int64_t now_ns() noexcept nogil:
    """The monotonic clock, in nanoseconds."""
    return gl_monotonic_ns()


cdef inline double now_s() noexcept nogil:
    """The monotonic clock as time.monotonic() gives it, in seconds."""
    return gl_monotonic_ns() / 1e9
