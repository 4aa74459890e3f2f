from libc.stdint cimport uint64_t

from goloop.core.loop.handles cimport TimerHandle
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.sched.scheduler cimport G, Worker
from goloop.core.sched.waiter cimport WaitNode, WaitQueue


# Decides what is free: which of several goes first. Guard of all here: the thread that runs the bubble.
cdef class Choices:
    cdef bint seeded
    cdef uint64_t state           # of the generator, if it is seeded
    cdef dict planned             # choice by number; None: none is planned
    cdef object draw              # draw(n) returns one; None: there is no such function
    cdef readonly long long made  # how many were made
    cdef readonly list taken      # (number, choice) of those that were not the first in line
    cdef readonly object failure  # what draw() has raised: from then on the first in line is chosen

    cdef Py_ssize_t choose(self, Py_ssize_t n) noexcept
    cdef Py_ssize_t ask(self, Py_ssize_t n) noexcept


cdef class BubbleWorker(Worker):
    cdef Choices choices
    cdef G chosen                 # drawn to be started next; the hub makes a runner for it

    cdef G take(self)


cdef class BubbleCore(LoopCore):
    cdef readonly BubbleWorker worker
    cdef readonly Choices choices
    cdef double virtual           # the time, in seconds
    cdef double epoch             # what time.time() shows at the loop's time 0
    cdef list failed              # the worker's
    cdef WaitQueue settling       # waiters for the rest of all others
    cdef bint draining            # to stop as soon as all are at rest and no goroutine is left

    cdef TimerHandle take_timer(self)
    cdef int put_back(self, double when, TimerHandle timer) except -1


cdef BubbleCore core_here()       # of the bubble that this thread runs, or None
cdef double clock_s() noexcept    # the monotonic clock of the caller, in seconds: the bubble's, or the process's
cdef WaitNode claim_drawn(WaitQueue queue)   # WaitQueue.claim_first() where no order is promised
cdef int refuse(str what) except -1    # RuntimeError: it is real I/O
