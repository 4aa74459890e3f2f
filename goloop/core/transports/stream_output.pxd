from goloop.core.transports.base cimport Transport


cdef class StreamOutput(Transport):
    cdef list buffer              # bytes objects that wait to be sent, oldest first; None: none ever did
    cdef Py_ssize_t first         # index of the oldest in `buffer`
    cdef Py_ssize_t offset        # of it, what was sent already
    cdef Py_ssize_t size          # bytes that wait
    cdef bint eof                 # write_eof() was called
    cdef object empty_waiter      # sendfile() waits for the buffer to empty
    cdef object writable_waiter   # sendfile() waits for room in the socket

    cdef bint collect(self, object data, const void *start, Py_ssize_t length) except -1
    cdef int settle(self) except -1
    cdef int push(self, object data, Py_ssize_t skip) except -1
    cdef int flush(self) except -1
    cdef int sent(self, Py_ssize_t n, bint room) except -1
    cdef int advance(self, Py_ssize_t n) except -1
    cdef int emptied(self) except -1
    cdef int write_failed(self, object exc) except -1
    cdef int check_writable(self, str method) except -1
