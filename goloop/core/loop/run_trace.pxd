from libc.stdint cimport uint32_t, uint64_t

from goloop.core.loop.accounts cimport Accounts, FunctionTime


# Of a task that is not done. Guard: the GIL.
cdef class Lane:
    cdef uint64_t number
    cdef FunctionTime function    # of its coroutine, in the account of its loop


cdef uint32_t function_number(FunctionTime function) except 0     # its name in the trace
cdef Lane lane_of(object task, Accounts accounts)
cdef uint64_t current_lane() except? 0                            # of the task that runs here, 0: none
cdef object wait_of(object task)                                  # what a task waits for that has just given way
cdef int end_lane(object task) except -1                          # it is done
