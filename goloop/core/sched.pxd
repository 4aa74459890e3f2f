from goloop.core.handles cimport Pollable
from goloop.core.loop cimport LoopCore
from goloop.core.netpoll cimport gl_node


cdef enum Status:
    UNSTARTED = 0     # in the backlog, on no worker
    RUNNABLE = 1      # in its worker's run queue, or on the way there through the worker's inbox
    RUNNING = 2       # its greenlet runs, or, for a coroutine, its task exists
    PARKED = 3        # its greenlet has switched away; `waiter` says what for
    DONE = 4


# The scheduling half of a goroutine; goroutine.Goroutine is the rest. It stands in one queue at most.
cdef class G(Pollable):
    cdef gl_node node             # links it into its worker's inbox; posted once for each park
    cdef G link                   # the next in the queue it stands in
    cdef Worker worker            # where it was started, for good; None before
    cdef object greenlet          # what parked, and is switched to: the runner, or a greenlet started inside of it
    cdef object waiter            # the Waiter it is parked on; None: not parked, or not to be cancelled
    cdef Status status
    cdef str reason               # why it is parked
    cdef bint cancelling          # CancelledError is to be raised at its next park

    cdef int execute(self) except -1      # run the body to its end, in the current greenlet; raises nothing


# First in, first out, linked through G.link. Guard: the GIL, as for all of this module.
cdef class Queue:
    cdef G head
    cdef G tail
    cdef Py_ssize_t count

    cdef void push(self, G g) noexcept
    cdef G pop(self)


cdef class Worker(Pollable):
    cdef gl_node node             # links it into its own inbox, which is how another thread kicks it
    cdef bint kicked              # stands there
    cdef readonly LoopCore loop
    cdef object hub               # the greenlet that runs the loop
    cdef G current                # the goroutine that runs; None: the hub does
    cdef Queue runnable
    cdef int budget               # switches left until the loop gets its turn
    cdef list spare               # runner greenlets that wait for a goroutine
    cdef G assigned               # what the runner that is switched to begins with; None: it is to end
    cdef readonly Py_ssize_t live      # goroutines started here and not done
    cdef readonly unsigned long long turns
    cdef int blocked              # depth of blocking() regions
    cdef readonly bint retired             # takes no more from the backlog
    cdef int locked               # depth of lock_os_thread()
    cdef readonly unsigned long thread
    cdef long long cpu            # the thread's processor time when the monitor looked last, in ns
    cdef int clock                # clockid of that
    cdef readonly dict tasks      # the goroutines that are coroutines, by task

    cdef int turn(self) except -1
    cdef object following(self)
    cdef int leave(self) except -1
    cdef int park(self, G g, str reason) except -1
    cdef int yield_(self, G g) except -1
    cdef bint idle(self) noexcept
    cdef bint computes(self) noexcept
    cdef int kick(self) except -1


cdef Queue backlog                # goroutines that no worker has started
cdef Worker here()                # the worker of this thread, or None
cdef G current_g()                # the goroutine that runs here, or None
cdef int ready(G g) except -1     # let a parked goroutine go on; any thread, once for each park
cdef int submit(G g) except -1    # put a new goroutine into the backlog and see that a worker looks there
cdef int wake_one() except -1
