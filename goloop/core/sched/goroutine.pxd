from goloop.core.sched.scheduler cimport G, Worker
from goloop.core.sched.waiter cimport WaitQueue


cdef class Goroutine(G):
    cdef readonly long long id
    cdef public object name       # for repr(); None: it has none
    cdef object function, args, kwargs, context
    cdef object outcome           # the result; the exception if `failed`
    cdef bint failed
    cdef object trace             # the exception's traceback as it came out of the goroutine
    cdef bint observed            # a caller was given the exception, or will be
    cdef bint cancelled_
    cdef object task              # the Task of a coroutine; belongs to the worker's thread
    cdef readonly object origin_loop  # the loop that it was started from, directly or by goroutines; None: no loop
    cdef WaitQueue joiners
    cdef list callbacks           # of (callback, loop or None, context)
    cdef list origin              # of (code, instruction): the stack of the go(), innermost first
    cdef object __weakref__

    cdef object get(self)
    cdef object what(self)
    cdef int wait_done(self, str what, object timeout) except -1
    cdef int check_here(self) except -1
    cdef int begin_task(self, object coroutine) except -1
    cdef int finish(self, object outcome, bint failed) except -1
    cdef int call_all(self, list callbacks) except -1
    cdef int call(self, object callback, object loop, object context) except -1
    cdef int call_when_done(self, object callback, object loop, object context) except -1


cdef list all_alive()              # every goroutine that is not done, oldest first
cdef Goroutine goroutine_here()    # that runs here, also in a coroutine; None outside of one
cdef Goroutine start(
    object function, tuple args, dict kwargs, object context, list origin, object origin_loop, object on_end=*,
)
cdef Goroutine adopt(Worker worker, object greenlet, str name)
cdef int check_function(object function, str name) except -1
cdef list origin_here()           # the stack of the caller, and the loop it belongs to, for start()
cdef object origin_loop_here()
cdef object stack_of(list origin)
