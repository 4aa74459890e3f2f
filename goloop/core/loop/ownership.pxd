from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from goloop.core.loop.handles cimport Pollable
from goloop.core.poll.pollset cimport PollSet, gl_node


cdef extern from "../loop/native/stall.h" nogil:
    enum:
        GL_KEEP
        GL_HANDOFF
        GL_REGION
        GL_NOTHING
        GL_RETAKE
        GL_PROBE
        GL_SLOW
        GL_VACANT
        GL_RETAKE_IF_WAITED_FOR
        GL_UNKNOWN
        GL_ON_CPU
        GL_FOR_GIL
        GL_SLEEPS
    ctypedef struct gl_stall:
        uint64_t beat
        uint32_t idle
        uint32_t vacant
        uint32_t mode
        int tid
        int clock
        int64_t slow
        int64_t due
        uint64_t seen
        int64_t since
        int64_t retry
        uint32_t verdict
        int64_t cpu


cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    ctypedef struct PyFrameObject:
        pass
    ctypedef void *PyThread_type_lock


cdef enum State:
    GONE = 0                      # not on the loop
    RUNNING = 1                   # holds ownership: runs callbacks, looks for events, or is parked
    REGION = 2                    # holds ownership, inside blocking()
    RETAKEN = 3                   # stuck in a call or inside blocking(); ownership was taken from it
    RETURNED = 4                  # wants ownership, to finish its callback
    IDLE = 5                      # between two callbacks; waits to run others


# A thread's place at a loop. It stands in the loop's inbox to wake the holder of ownership.
cdef class LoopThread(Pollable):
    cdef gl_node node
    cdef bint posted
    cdef LoopOwnership ownership
    cdef State state
    cdef readonly unsigned long ident
    cdef PyThreadState *tstate
    cdef int tid, clock
    cdef PyThread_type_lock lock  # released by the thread that ends the wait of this loop thread
    cdef bint waiting
    cdef bint main                # of the main thread: signal handlers run here
    cdef int depth                # of blocking() regions
    cdef unsigned int regions     # how many were closed by force; an older one is no region any more
    cdef PyObject *under          # the loop thread that this thread had before, borrowed
    cdef PyFrameObject *base      # what called into the loop; frames above it belong to callbacks
    cdef object item              # what it runs, once RETAKEN
    cdef object task              # was current then
    cdef object trap              # handoff's: what is armed; None: nothing
    cdef uint64_t proven          # the beat for which it was seen to compute without the GIL,
    cdef void *proven_frame       # and where: a frame, which may be gone,
    cdef int proven_at            # and its instruction
    cdef object report            # handoff's: of its slow callback, which will be told when that ends
    cdef int64_t since            # when the callback that it is or was stuck in began, 0: it was not

    cdef int bind(self) except -1


cdef class LoopOwnership:
    cdef gl_stall stall
    cdef void *item                    # what is run now, borrowed from run_once(); NULL: nothing
    cdef LoopThread holder             # runs callbacks; None: no loop thread does, or _run_once() was called by hand
    cdef bint safepoint_requested      # the holder is to call safepoint() after this callback
    cdef unsigned long owner_ident     # the holder's thread, 0: none
    cdef unsigned long long iteration  # iterations begun
    cdef LoopThread home               # of the thread in run_forever()
    cdef LoopThread spare              # an IDLE loop thread that is not home's
    cdef readonly list away            # loop threads that are RETAKEN or RETURNED
    cdef list inside                   # what run_once() runs whose callback runs the loop once more, outermost first
    cdef list returned                 # of these, those that are RETURNED, oldest first
    cdef list deferred                 # what must not run before one of these or those has ended its callback
    cdef bint open                     # run_forever() is in progress, callbacks may begin
    cdef bint settling                 # it is about to return: those that are away may end
    cdef readonly bint closed
    cdef bint handoff                 # may be taken from a stuck callback
    cdef bint is_monitored            # in the monitor's list
    cdef bint worker                  # of a worker's loop: many goroutines run in one of its callbacks
    cdef public double drain_timeout  # seconds that stuck callbacks have when run_forever() is to return
    cdef object failure               # what a substitute's callback raised, for home to raise
    cdef object loop                  # weak reference
    cdef PollSet pollset
    cdef readonly unsigned long long handoffs
    cdef readonly unsigned long long regions_retaken

    cdef int report_slow(self, int on) except -1
    cdef int switched(self) except -1
    cdef void awake(self) noexcept nogil
    cdef int set_monitored(self, bint on) except -1
    cdef int requeue_deferred(self) except -1
    cdef int signals(self) except -1
    cdef bint foreign(self)
    cdef int attach_home(self, LoopThread loop_thread) except -1
    cdef LoopThread choose(self)
    cdef int grant(self, LoopThread loop_thread) except -1
    cdef int vacate(self) except -1
    cdef int safepoint(self, LoopThread loop_thread) except -1
    cdef int end_callback(self, LoopThread loop_thread) except -1
    cdef LoopThread choose_before(self, LoopThread loop_thread)
    cdef int reacquire(self, LoopThread loop_thread) except -1
    cdef int reacquire_if_retaken(self, LoopThread loop_thread) except -1
    cdef int yield_to_home(self, LoopThread loop_thread) except -1
    cdef int wait(self, LoopThread loop_thread, double seconds) except -1
    cdef int request_safepoint(self, LoopThread loop_thread) except -1
    cdef int refresh(self) except -1
    cdef int on_retaken(self, LoopThread loop_thread) except -1
    cdef int detach(self, LoopThread loop_thread) except -1
    cdef int wait_for_stuck(self, LoopThread loop_thread, double seconds) except -1
    cdef bint attach_substitute(self, LoopThread loop_thread) except -1
    cdef bint admits(self, object item) except -1
    cdef int nest(self) except -1
    cdef int unnest(self) except -1
    cdef int enter_region(self, LoopThread loop_thread) except -1
    cdef int leave_region(self, LoopThread loop_thread) except -1
    cdef int end_region(self, LoopThread loop_thread) except -1
    cdef int close(self) except -1
    cdef list stuck_callbacks(self)


cdef LoopThread loop_thread_here()
cdef LoopThread exchange_loop_thread(LoopThread loop_thread)
cdef object transport_of(object item)
cdef int64_t stall_look(uint32_t *verdicts) noexcept nogil
cdef void stall_handed_off() noexcept nogil
cdef void stall_forget() noexcept nogil
cdef int thread_does(int tid) noexcept nogil
cdef int64_t learn_gil(int tid) noexcept nogil
cdef int this_tid() noexcept nogil


ctypedef int (*loop_thread_hook)(LoopThread loop_thread) except -1

cdef struct Hooks:
    loop_thread_hook disarm       # the call has returned: take the trap out
    loop_thread_hook ended        # the callback that was reported has ended
    loop_thread_hook abandoned    # home leaves, and others are still stuck
    loop_thread_hook region       # the first blocking() of a run: let the monitor watch
    int (*slow)() except -1       # a loop's threshold for slow callbacks has changed
    void (*poke)() noexcept nogil

cdef Hooks hooks                  # core.handoff's
cdef int set_hooks(Hooks given) except -1
