from libc.stdint cimport int64_t, uint32_t, uint64_t

from goloop.core.system.posix cimport now_ns


cdef extern from "../loop/native/histogram.h" nogil:
    enum:
        GL_BUCKETS
    ctypedef struct gl_histogram:
        uint64_t[28] counts
        int64_t total
        int64_t longest
    void gl_histogram_add(gl_histogram *h, int64_t ns, uint64_t times)


cdef enum:
    # Of so many callbacks one is timed; a prime, so it never beats with what a program does in turns. The two looks at
    # the clock and the search for the function cost as much as a short callback: so below a hundredth of it.
    OBSERVE_EVERY = 251


cdef object task_of(object callback)      # whose next step this is; None: it is another callback


cdef object code_of(object coro)          # of a coroutine, or its class
cdef object subject_of(object callback)   # what names it: its code, or a class


# The time of one function, of those that were timed. Guard: the GIL, as for all here.
cdef class FunctionTime:
    cdef object subject           # the code or class: alive, so that its address stays its own
    cdef readonly str name, kind, file
    cdef readonly int line
    cdef readonly uint64_t calls, samples
    cdef readonly int64_t total, longest      # ns
    cdef uint32_t trace_name      # its number in a trace,
    cdef uint32_t trace_session   # and in which


cdef class Accounts:
    cdef gl_histogram lag, timer_lag, callback_time
    cdef int64_t marked           # since when it runs callbacks without a look at the poll set, ns; 0: it does not run
    cdef int64_t busy, asleep     # ns
    cdef uint64_t sleeps
    cdef uint64_t received, written, accepts
    cdef dict functions           # address of the code or class -> FunctionTime

    cdef dict read(self, bint idle)
    cdef FunctionTime function_of(self, object item)
    cdef FunctionTime entry(self, object subject, str kind)


# Functions and not methods, so that they can be inline in other modules.
cdef inline void come_round(Accounts accounts, int64_t now) noexcept:
    """The loop looks at its poll set, or is about to sleep."""
    cdef int64_t took
    if accounts.marked:
        took = now - accounts.marked
        gl_histogram_add(&accounts.lag, took, 1)
        accounts.busy += took
    accounts.marked = now


cdef inline void end_sleep(Accounts accounts, int64_t now) noexcept:
    """The sleep that began with come_round() has ended."""
    accounts.asleep += now - accounts.marked
    accounts.sleeps += 1
    accounts.marked = now


cdef inline void timed(Accounts accounts, FunctionTime function, int64_t ns, uint64_t times) noexcept:
    """A callback has taken so long, and stands for so many."""
    gl_histogram_add(&accounts.callback_time, ns, times)
    function.calls += times
    function.samples += 1
    function.total += ns * <int64_t>times
    if ns > function.longest:
        function.longest = ns
