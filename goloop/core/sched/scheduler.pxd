from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from goloop.core.loop.accounts cimport FunctionTime
from goloop.core.loop.handles cimport Pollable
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.loop.ownership cimport LoopThread
from goloop.core.poll.pollset cimport gl_node


cdef extern from "../sched/native/sysmon.h" nogil:
    ctypedef int64_t (*gl_look)() noexcept nogil


cdef enum Status:
    UNSTARTED = 0     # in the backlog, on no worker
    RUNNABLE = 1      # in its worker's run queue, or on the way there through the worker's inbox
    RUNNING = 2       # its greenlet runs, or, for a coroutine, its task exists
    PARKED = 3        # its greenlet has switched away; `waiter` says what for
    DONE = 4


# The values of every threading.local for a thread or goroutine, while they are not in use: they are moved to the thread
# state and back. Guard: the worker's thread.
cdef class Locals:
    cdef PyObject *first          # owned; NULL: none yet, or in use
    cdef PyObject *second


# The scheduling half of a goroutine; goroutine.Goroutine is the rest. It stands in one queue at most.
cdef class G(Pollable):
    cdef gl_node node             # links it into its worker's inbox; posted once for each park
    cdef G link                   # the next in the queue it stands in
    cdef Worker worker            # where it was started, for good; None before
    cdef object greenlet          # what parked, and is switched to: the runner, or a greenlet started inside of it
    cdef object waiter            # the Waiter it is parked on; None: not parked, or not to be cancelled
    cdef Status status
    cdef str reason               # why it is parked
    cdef int64_t queued_at        # when it entered the backlog, monotonic nanoseconds
    cdef bint cancelling          # cancel() was called: CancelledError is to be raised at its next park
    cdef Py_ssize_t expired       # so is it for each timeout() whose time was over while the goroutine ran
    cdef unsigned int cancellations_taken  # counts the times that one of the two was taken
    cdef Py_ssize_t cancels       # of cancel(), and of each timeout() whose time is over, until its block ends
    cdef int blocked              # depth of blocking() regions
    cdef int locks                # of lock_os_thread() that it holds
    cdef Locals locals            # its values of every threading.local; None: it uses the thread's

    cdef uint64_t number(self) noexcept   # of the goroutine
    cdef int execute(self) except -1      # run the body to its end, in the current greenlet; raises nothing


# First in, first out, linked through G.link. Guard: the GIL, as for all of this module.
cdef class Queue:
    cdef G head
    cdef G tail
    cdef Py_ssize_t count

    cdef void push(self, G g) noexcept
    cdef G pop(self)


# What another thread posts to a worker, to have it look at the backlog. Its own item, and not the worker: that may
# stand in the ready queue as well, and running from there must not pass for having left the inbox.
cdef class BacklogNotice(Pollable):
    cdef gl_node node
    cdef Worker worker
    cdef bint posted              # in the inbox, or taken out and not run yet


cdef class Worker(Pollable):
    cdef BacklogNotice notice
    cdef readonly LoopCore loop
    cdef object context           # an empty one, for the timers of parked goroutines
    cdef object hub               # the greenlet that runs the loop
    cdef G current                # the goroutine that runs; None: the hub does
    cdef Queue runnable
    cdef int budget               # switches left until the loop gets its turn; only the worker's own turn renews it
    # The next choice is for the backlog: at the start of a turn, or goroutines that keep each other busy would starve
    # it, and for one that yields to all others.
    cdef bint prefer_backlog
    cdef list spare               # runner greenlets that wait for a goroutine
    cdef G assigned               # what the runner that is switched to begins with; None: it is to end
    cdef readonly Py_ssize_t live      # goroutines started here and not done
    cdef readonly unsigned long long rounds
    cdef int blocked              # depth of blocking() regions of what its loop runs outside of goroutines
    cdef readonly bint retired    # takes no more from the backlog
    # Of every so many turns one is timed, and while a trace is made each is. `timed` is that one's, until it ends.
    cdef int until_timed, timed_for
    cdef G timed
    cdef FunctionTime timed_function
    cdef int64_t timed_since
    cdef int locked               # lock_os_thread()s that its goroutines hold
    cdef readonly unsigned long thread
    cdef long long cpu            # the thread's processor time when the monitor looked last, in ns
    cdef int clock                # clockid of that
    cdef readonly dict tasks      # the goroutines that are coroutines, by task
    cdef Locals locals            # the thread's own values of every threading.local; None: not asked for yet
    cdef Locals installed         # whose values are in use
    cdef object firstiter         # what its loop has set for the thread: hooks for asynchronous generators,
    cdef object finalizer
    cdef LoopThread loop_thread        # and the loop thread
    cdef readonly object bubble        # of a bubble (sched/bubble.pyx): its loop. None: in the world outside
    cdef list failed              # of a bubble: its goroutines whose exceptions had no receiver as they ended

    cdef int take_thread(self) except -1
    cdef void begin_turn(self, G g) noexcept
    cdef void end_turn(self) noexcept
    cdef int leave_thread(self) except -1
    cdef int run_goroutines(self) except -1
    cdef bint can_start(self) noexcept
    cdef bint begins(self) noexcept
    cdef bint assign(self) except -1
    cdef bint start(self) except -1
    cdef object pick_next(self)
    cdef object pick_hub(self)
    cdef int use_locals(self, Locals wanted) except -1
    cdef int resume(self, G g) except -1
    cdef int make_locals(self, G g) except -1
    cdef int drop_locals(self, G g) except -1
    cdef int switch_to(self, object target) except -1
    cdef int switch_away(self, object me) except -1
    cdef int report_end(self) except -1
    cdef int park(self, G g, str reason) except -1
    cdef int yield_(self, G g) except -1
    cdef int maybe_yield(self, G g) except -1
    cdef int note_loop(self) except -1
    cdef bint loop_inside(self) noexcept
    cdef tuple set_aside(self)
    cdef int bring_back(self, tuple aside) except -1
    cdef tuple enter_loop(self)
    cdef int leave_loop(self, G g, tuple aside) except -1
    cdef bint idle(self) noexcept
    cdef bint in_blocking_region(self) noexcept
    cdef bint used_cpu(self) noexcept
    cdef bint notify(self) except -1


cdef inline void make_current(Worker worker, G g) noexcept:
    """A goroutine is about to go on."""
    worker.current = g
    worker.until_timed -= 1
    if worker.until_timed <= 0:
        worker.begin_turn(g)


# Bubbles whose loops run now, in the whole process. While it is 0, nothing need ask for a bubble's clock, its choices
# or its edge, and one look at this is all that a bubble costs. Guard: the GIL.
cdef Py_ssize_t bubbles
cdef object bubble_here()             # the loop of the bubble that this thread runs; None: it runs none

cdef Queue backlog                # goroutines that no worker has started
cdef Worker here()                # the worker of this thread, or None
cdef G current_g()                    # the goroutine that runs here, or None
cdef bint in_goroutine() noexcept     # whether there is one
cdef bint take_cancellation(G g) noexcept  # whether CancelledError is to be raised at its next park: once
cdef int ready(G g) except -1     # let a parked goroutine go on; any thread, once for each park
# Put a new goroutine into the backlog and see that a worker looks there. An exception: there is no worker, and none
# could be started.
cdef int enqueue_new(G g) except -1
cdef int wake_one() except -1
cdef void monitor_look(gl_look look) noexcept nogil
cdef void monitor_poke() noexcept nogil
