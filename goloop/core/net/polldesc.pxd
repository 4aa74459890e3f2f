from libc.stdint cimport uint32_t

from goloop.core.loop.handles cimport Pollable, TimerHandle
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.net.wake_pipe cimport WakePipe
from goloop.core.sched.scheduler cimport G
from goloop.core.sched.waiter cimport WaitQueue


# One direction of a PollDesc. Guard: the GIL, as for all of this module.
cdef class Direction:
    cdef str what                 # the operation, for errors
    cdef bint ready               # the latch: an operation may succeed. Means something only while registered
    cdef bint held                # an operation is under way; it has the direction's lock until end()
    cdef int streak               # operations since one last had to wait
    cdef WaitQueue lock_queue     # operations that wait for the lock, each woken with waiter.success; None: never any
    cdef WaitQueue waiting        # waiters for an edge; woken to look again
    cdef double deadline          # seconds on the monotonic clock; 0: none
    cdef object context           # the Context whose end it is; None: it is a time alone,
    cdef object unbind            # and the function that takes leave of the Context
    cdef TimerHandle timer        # of the loop it is registered with; goes off at `deadline` or before


cdef class PollDesc(Pollable):
    cdef readonly int fd          # -1 once closed
    cdef readonly bint closed
    cdef LoopCore loop_core       # whose poll set it is registered with; None: none
    cdef Direction reading, writing
    cdef bint unpollable          # epoll refuses it: a regular file, which is always ready
    cdef bint short_read_drains   # a short read leaves nothing behind: see short_read_drains in transports/stream.pyx
    cdef int uses                 # system calls on `fd` under way without the GIL
    cdef uint32_t epoch           # of forks, in which the state above is true
    cdef object bubble            # that it was made in, or None
    cdef int owned                # closed with it, when no system call is under way; -1: another object closes it

    # an operation: begin, then (try while `ready`, else park), at last end
    cdef int begin(self, Direction side) except -1
    cdef int park(self, Direction side, double until=*) except -1
    cdef int end(self, Direction side) except -1
    cdef int check(self, Direction side) except -1
    cdef int check_edge(self) except -1
    cdef int begin_use(self) except -1  # around a system call that gives up the GIL
    cdef int end_use(self) except -1
    cdef int set_deadline(self, Direction side, object deadline) except -1

    cdef int lock_direction(self, Direction side) except -1
    cdef int register_with(self, LoopCore loop) except -1
    cdef int unregister(self) except -1
    cdef int close_owned(self) except -1
    cdef int leave_context(self, Direction side) except -1
    cdef int raise_passed(self, Direction side) except -1
    cdef int arm(self, Direction side) except -1
    cdef int park_goroutine(self, G g, Direction side, double until) except -1
    cdef int block_thread(self, Direction side, double until) except -1
    cdef int poll_with(self, WakePipe wake_pipe, Direction side, double seconds) except -1
    cdef int wait_for(self, Direction side, double seconds) except -1
    cdef int wake(self, Direction side) except -1
    cdef int after_fork_in_child(self) except -1


cdef PollDesc never_opened        # closed: what a connection has until __init__() gives it another one

cdef int outside_of_bubbles(int fd) except? -1
cdef PollDesc new_polldesc(int fd, bint short_read_drains, str read_what, str write_what)       # owns the descriptor
# Without a descriptor: the owner sets `ready`, and wakes what is waiting.
cdef PollDesc new_memory_desc(str read_what, str write_what)
cdef object closed_error()
