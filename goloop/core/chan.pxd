from goloop.core.waiter cimport Places, Waiter


# Guard: the GIL. Receivers wait only while the buffer is empty, senders only while it is full and the channel open.
cdef class Chan:
    cdef readonly Py_ssize_t cap      # how many values it holds; 0: a send waits for its receiver
    cdef readonly bint closed
    cdef list ring                    # the buffer: `count` values from `head` on
    cdef Py_ssize_t head
    cdef Py_ssize_t count
    cdef Places receivers
    cdef Places senders
    cdef object __weakref__

    cdef bint put(self, object value) except -1
    cdef object take(self)
    cdef object received(self, Waiter waiter)
    cdef int sent(self, Waiter waiter) except -1


cdef class Case:
    cdef Chan chan
    cdef bint sends
    cdef object value

    cdef bint ready(self)
    cdef object perform(self, Py_ssize_t index)
