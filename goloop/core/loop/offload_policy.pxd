from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef enum State:
    WATCH       # inline; look whether the netpoller could help
    TRIAL       # offloaded, to see whether it does
    HOLD        # offloaded


# All fields belong to the thread that runs the loop.
cdef class OffloadPolicy:
    cdef bint on                  # streams in steady state are given to the netpoller; else they are taken back
    cdef bint adaptive            # GOLOOP_IO=auto: count and decide; else `on` is for ever
    cdef int inline_turns         # turns that a stream stays inline after it was taken back
    cdef Py_ssize_t offloaded     # streams given away now
    cdef Py_ssize_t offloads      # how often one was
    cdef Py_ssize_t switches      # how often `on` changed
    cdef uint64_t turns           # of streams; they count
    cdef uint32_t iterations      # of the loop
    cdef int64_t slept            # nanoseconds, of the loop

    # the window that is measured now, and what the last ones were like
    cdef State state
    cdef int64_t start             # monotonic nanoseconds
    cdef uint64_t start_turns
    cdef int64_t start_slept
    cdef double start_idle         # idle seconds of the processors this process may use, since boot; negative: not read
    cdef double start_kernel       # seconds that the loop's thread had spent in the kernel
    cdef int64_t start_cpu         # ns of processor time of the loop's thread and the netpoller
    cdef int streak                # windows in a row that speak for a change
    cdef double base               # turns a second before the trial
    cdef double best               # and in it
    cdef double base_price         # seconds of processor time a turn before the trial; 0: unknown
    cdef int64_t since             # of the state
    cdef int64_t not_before        # of the next trial
    cdef int64_t backoff           # until the one after that, should it fail

    cdef int tick(self) except -1
    cdef int judge(self, int64_t now) except -1
    cpdef bint decide(
        self, int64_t now, double seconds, uint64_t turns, double slept, double spare, double kernel, double cpu
    ) except -1
    cdef bint is_dear(self, double price, double limit) noexcept
    cdef int set_state(self, State state, int64_t now) except -1
