from goloop.core.loop.handles cimport Pollable
from goloop.core.poll.pollset cimport PollSet, gl_outbox


# All fields belong to the thread that runs the loop; what other threads see is in `box`.
cdef class Outbox:
    cdef PollSet pollset
    cdef gl_outbox *box           # NULL until the first batch; never freed
    cdef unsigned int count       # streams in the batch
    cdef unsigned int kicks       # offloaded streams that have written, and of which the netpoller was not told
    cdef bint waiting             # there is something of either
    cdef long long since          # when the batch began, monotonic nanoseconds
    cdef bint delivering          # outcomes are being told: nothing is collected

    cdef bint add(self, Pollable owner, int fd, bytes data) except -1
    cdef int begin(self) except -1
    cdef int kick(self) except -1
    cdef int tell_netpoller(self) except -1
    cdef int settle(self, Pollable owner) except -1
    cdef int deliver(self, unsigned int i) except -1
    cdef int flush(self) except -1
    cdef int flush_if_due(self) except -1
