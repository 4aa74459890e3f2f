from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from goloop.core.loop.handles cimport TimerHandle
from goloop.core.sched.scheduler cimport G


cdef enum Outcome:
    WAITING = 0
    COMPLETED = 1     # it was given what it waited for
    TIMED_OUT = 2
    CANCELLED = 3


# The list of all waits, for those who look at the program: a ring of these. Guard: the GIL.
cdef struct WaitLink:
    WaitLink *before
    WaitLink *after
    PyObject *waiter              # borrowed: it leaves the ring before it goes


# One wait of one actor. claim() decides, once, how it ends; the claimer calls wake(). Guard: the GIL.
cdef class Waiter:
    cdef Outcome outcome
    cdef unsigned int forks         # of the process that it waits in
    cdef bint parked                # the goroutine has switched away, or is just about to
    cdef bint resumed               # a coroutine that has ended its wait: from then on, what it was given is its own
    cdef bint gives_back_on_cancel  # what comes at the moment of a cancellation is given back: the latter wins
    cdef bint success               # the three are the claimer's to fill in, between claim() and wake()
    cdef Py_ssize_t index
    cdef object value
    cdef G g                      # the actor that waits: a goroutine,
    cdef object lock              # a plain thread, in acquire() of this lock,
    cdef object loop              # or a coroutine on this loop, awaiting `future`
    cdef object future
    cdef TimerHandle timer
    cdef bint shielded              # a cancellation does not end it
    # Of no use to the wait itself, but to those who look at the program:
    cdef WaitLink link              # from the moment that it waits to the end of that; after == NULL: not in the ring
    cdef str reason                 # "chan receive"
    cdef object on                  # what it waits for: a lock, a goroutine, the cases of a select; None: nothing
    cdef int64_t since              # when it began, monotonic nanoseconds as of the kernel's last tick
    cdef double until               # when its timeout ends it, monotonic seconds; 0: never
    cdef unsigned long thread       # a plain thread's ident
    cdef object task                # a coroutine's task; None: it is not known

    cdef void begins(self, str reason, double timeout) noexcept   # it stands in the ring from now on, to ends()
    cdef void ends(self) noexcept
    cdef bint waits(self) noexcept                # it can still be claimed
    cdef bint claim(self, Outcome outcome) noexcept
    cdef bint wake(self) except -1                # False: the actor is gone
    cdef bint wake_loop(self) except -1
    cdef bint give_up(self) noexcept
    cdef int block_thread(self, double timeout) except -1
    cdef int block_for_good(self) except -1
    cdef int block(self, str reason, double timeout, bint cancellable=*) except -1


# A node in a wait queue; a select has one in each queue. Doubly linked, so that a waiter that gives up leaves at once.
cdef class WaitNode:
    cdef WaitNode before, after
    cdef WaitQueue queue          # None: in no queue
    cdef Waiter waiter
    cdef Py_ssize_t index         # which case of a select
    cdef object value             # what is to be sent

    cdef int unlink(self) noexcept


cdef class WaitQueue:
    cdef WaitNode first, last
    cdef Py_ssize_t count

    cdef int join(self, WaitNode node) noexcept
    cdef WaitNode claim_first(self)  # take out and claim the oldest that still waits; None: there is none
    cdef bint waiting(self) noexcept
    cdef int complete_all(self) except -1


cdef WaitLink waits                    # of the ring; its own `waiter` is NULL

cdef WaitNode new_wait_node(Waiter waiter, Py_ssize_t index, object value)
# The edge of a bubble. `bubble`: the one that the thing was made in, None: none.
cdef int check_edge(object bubble, object thing) except -1
cdef int check_wait(object bubble, object thing) except -1
cdef int may_block(str what, str instead) except -1
cdef Waiter blocking_waiter(str what, str instead)
cdef Waiter async_waiter(str reason, object on)       # as Waiter has them
cdef double number_of_seconds(object seconds) except? -2
cdef double seconds_of(object timeout) except -2     # None: -1
cdef int raise_outcome(Outcome outcome, str what) except -1
