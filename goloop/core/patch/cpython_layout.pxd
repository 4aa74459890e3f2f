from libc.stdint cimport int64_t

cdef int64_t swap_timeout(object sock, int64_t ns) except? -2
