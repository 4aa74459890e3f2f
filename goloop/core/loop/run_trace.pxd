from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from goloop.core.loop.accounts cimport Accounts, FunctionTime


# Of a task that is not done. Guard: the GIL.
cdef class Lane:
    cdef uint64_t number
    cdef FunctionTime function    # of its coroutine, in the account of its loop
    cdef PyObject *coro           # borrowed: the task has it until it is done


cdef uint32_t function_number(FunctionTime function) except 0     # its name in the trace
cdef Lane lane_of(object task, Accounts accounts)
cdef uint64_t current_lane() except? 0                            # of the task that runs here, 0: none
cdef uint32_t wait_of(Lane lane, object task) except? 0           # what a task waits for that gives way; 0: it is done
cdef int end_lane(object task) except -1                          # it is done
