from libc.stdint cimport uint32_t

from goloop.core.loop.handles cimport Pollable, TimerHandle
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.sched.waiter cimport Places


# One direction of a PollDesc. Guard: the GIL, as for all of this module.
cdef class Direction:
    cdef str what                 # the operation, for errors
    cdef bint ready               # the latch: an operation may succeed. Means something only while registered
    cdef bint held                # an operation is under way; it has the turn until end()
    cdef int streak               # operations since one last had to wait
    cdef Places turns             # operations that wait for their turn, each woken with waiter.ok; None: never any
    cdef Places waiting           # who waits for an edge; woken to look again
    cdef double deadline          # seconds on the monotonic clock; 0: none
    cdef TimerHandle timer        # of the loop it is registered with; goes off at `deadline` or before


cdef class PollDesc(Pollable):
    cdef readonly int fd          # -1 once closed
    cdef readonly bint closed
    cdef LoopCore core            # whose poll set it is registered with; None: none
    cdef Direction reading, writing
    cdef bint unpollable          # epoll refuses it: a regular file, which is always ready
    cdef bint dry                 # a short read leaves nothing behind: see short_is_dry in transports/stream.pyx
    cdef int uses                 # system calls on `fd` under way without the GIL
    cdef uint32_t epoch           # of forks, in which the state above is true
    cdef int owned                # closed with it, when no system call is under way; -1: it is somebody else's

    # an operation: begin, then (try while `ready`, else park), at last end
    cdef int begin(self, Direction side) except -1
    cdef int park(self, Direction side, double until=*) except -1
    cdef int end(self, Direction side) except -1
    cdef int check(self, Direction side) except -1
    cdef int enter(self) except -1                 # around a system call that gives up the GIL
    cdef int leave(self) except -1
    cdef int set_deadline(self, Direction side, object seconds) except -1

    cdef int take_turn(self, Direction side) except -1
    cdef int attach(self, LoopCore loop) except -1
    cdef int detach_from_loop(self) except -1
    cdef int close_owned(self) except -1
    cdef int arm(self, Direction side) except -1
    cdef int block_thread(self, Direction side, double until) except -1
    cdef int wait_for(self, Direction side, double seconds) except -1
    cdef int wake(self, Direction side) except -1
    cdef int start_over(self) except -1
    cdef double left(self, Direction side) except? -2


cdef PollDesc never_opened        # closed: what a connection has until __init__() gives it another one

cdef PollDesc new_polldesc(int fd, bint dry, str read_what, str write_what)       # owns the descriptor
cdef object closed_error()
