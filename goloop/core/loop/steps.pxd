from libc.stdint cimport int64_t


cdef void note_step(void *task) noexcept nogil      # the task takes a step now, or is made
cdef int64_t step_of(void *task) noexcept nogil     # when it took its last one, monotonic ns; 0: not known
