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
        GL_TAKE
        GL_TRY
        GL_SLOW
        GL_VACANT
        GL_UNKNOWN
        GL_ON_CPU
        GL_FOR_GIL
        GL_SLEEPS
    ctypedef struct gl_watched:
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
    GONE = 0          # not on the loop
    RUNNING = 1       # holds the token: runs callbacks, looks for events, or is parked
    REGION = 2        # holds the token, inside blocking()
    TAKEN = 3         # stuck in a call or inside blocking(); the token was taken from it
    RETURNED = 4      # wants the token, to finish its callback
    IDLE = 5          # between two callbacks; waits to run others


# A thread's place at a loop. It stands in the loop's inbox to wake who runs the loop.
cdef class Seat(Pollable):
    cdef gl_node node
    cdef bint posted
    cdef Token token
    cdef State state
    cdef readonly unsigned long thread
    cdef PyThreadState *tstate
    cdef int tid, clock
    cdef PyThread_type_lock lock      # released by who ends the wait of this seat
    cdef bint waiting
    cdef bint main                    # of the main thread: signal handlers run here
    cdef int depth                    # of blocking() regions
    cdef unsigned int regions         # how many were closed by force; an older one is no region any more
    cdef PyObject *under              # the seat that this thread had before, borrowed
    cdef PyFrameObject *base          # what called into the loop; frames above it belong to callbacks
    cdef object item                  # what it runs, once TAKEN
    cdef object task                  # was current then
    cdef object trap                  # handoff's: what is armed; None: nothing
    cdef uint64_t proven              # the beat for which it was seen to compute without the GIL,
    cdef void *proven_frame           # and where: a frame, which may be gone,
    cdef int proven_at                # and its instruction
    cdef object report                # handoff's: of its slow callback, which will be told when that ends
    cdef int64_t since                # when the callback that it is or was stuck in began, 0: it was not

    cdef int bind(self) except -1


cdef class Token:
    cdef gl_watched watch
    cdef void *item                   # what is run now, borrowed from run_once(); NULL: nothing
    cdef Seat holder                  # who runs callbacks; None: nobody, or _run_once() was called by hand
    cdef bint wanted                  # the holder is to call boundary() after this callback
    cdef unsigned long owner          # the holder's thread, 0: none
    cdef unsigned long long turn      # iterations begun
    cdef Seat home                    # of the thread in run_forever()
    cdef Seat spare                   # an IDLE seat that is not home's
    cdef readonly list away           # seats that are TAKEN or RETURNED
    cdef list returned                # of these, those that are RETURNED, oldest first
    cdef list deferred                # what must not run before one of these has ended its callback
    cdef bint open                    # run_forever() is in progress, callbacks may begin
    cdef bint settling                # it is about to return: those that are away may end
    cdef readonly bint closed
    cdef bint handoff                 # may be taken from a stuck callback
    cdef bint watched                 # in the monitor's list
    cdef public double patience       # seconds that stuck callbacks have when run_forever() is to return
    cdef object failure               # what a substitute's callback raised, for home to raise
    cdef object loop                  # weak reference
    cdef PollSet pollset
    cdef readonly unsigned long long handoffs
    cdef readonly unsigned long long regions_taken

    cdef int watch_slow(self, int on) except -1
    cdef void awake(self) noexcept nogil
    cdef int listen(self, bint on) except -1
    cdef int release(self) except -1
    cdef int signals(self) except -1
    cdef bint foreign(self)
    cdef int sit(self, Seat seat) except -1
    cdef Seat choose(self)
    cdef int grant(self, Seat seat) except -1
    cdef int vacate(self) except -1
    cdef int boundary(self, Seat seat) except -1
    cdef int come_back(self, Seat seat) except -1
    cdef int ensure(self, Seat seat) except -1
    cdef int rest(self, Seat seat) except -1
    cdef int wait(self, Seat seat, double seconds) except -1
    cdef int nudge(self, Seat seat) except -1
    cdef int refresh(self) except -1
    cdef int lost(self, Seat seat) except -1
    cdef int leave(self, Seat seat) except -1
    cdef int settle(self, Seat seat, double seconds) except -1
    cdef bint apply(self, Seat seat) except -1
    cdef bint admits(self, object item) except -1
    cdef int enter_region(self, Seat seat) except -1
    cdef int leave_region(self, Seat seat) except -1
    cdef int end_region(self, Seat seat) except -1
    cdef int close(self) except -1
    cdef list stuck(self)


cdef Seat seat_here()
cdef object owner_of(object item)
cdef int64_t watch_look(uint32_t *verdicts) noexcept nogil
cdef void watch_hot() noexcept nogil
cdef void watch_forget() noexcept nogil
cdef int thread_does(int tid) noexcept nogil
cdef int64_t learn_gil(int tid) noexcept nogil
cdef int this_tid() noexcept nogil


ctypedef int (*seat_hook)(Seat seat) except -1

cdef struct Hooks:
    seat_hook disarm              # the call has returned: take the trap out
    seat_hook ended               # the callback that was reported has ended
    seat_hook abandoned           # home leaves, and others are still stuck
    seat_hook region              # the first blocking() of a run: let the monitor watch
    void (*poke)() noexcept nogil

cdef Hooks hooks                  # core.handoff's
cdef int set_hooks(Hooks given) except -1
