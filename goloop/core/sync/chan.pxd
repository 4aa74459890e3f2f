from goloop.core.sched.waiter cimport WaitQueue, Waiter


# Guard: the GIL. Receivers wait only while nothing is available, senders only while the buffer is full.
cdef class Chan:
    cdef readonly Py_ssize_t cap      # how many values it holds; 0: a send waits for its receiver
    cdef readonly bint closed
    cdef list ring                    # `count` values from `head` on, oldest first; grown by doubling
    cdef Py_ssize_t head
    cdef Py_ssize_t count
    cdef Py_ssize_t owed              # of these, for receivers that were claimed and are not back; the rest can be had
    cdef WaitQueue receivers
    cdef WaitQueue senders
    cdef object bubble                # the one it was made in; None: outside; Ellipsis: it may be used anywhere
    cdef object __weakref__

    cdef int check_edge(self) except -1
    cdef int append(self, object value) except -1
    cdef int grow(self) except -1
    cdef object pop(self)
    cdef bint send_now(self, object value) except -1
    cdef object receive_now(self)
    cdef int hand_over(self, Waiter waiter, object value) except -1
    cdef int offer(self) except -1
    cdef object received(self, Waiter waiter)
    cdef int give_back(self, Waiter waiter) except -1
    cdef int sent(self, Waiter waiter) except -1


cdef class Case:
    cdef Chan chan
    cdef readonly bint sends
    cdef object value

    cdef bint ready(self)
    cdef object perform(self, Py_ssize_t index)
