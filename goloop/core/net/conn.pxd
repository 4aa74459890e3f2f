from goloop.core.net.net_handle cimport DuplexHandle


# A connection over a stream socket. The read buffer is guarded by the turn to read (polldesc.pyx), the rest by the GIL.
cdef class Conn(DuplexHandle):
    cdef bytes buffer             # received and not yet given out: from `at` on
    cdef Py_ssize_t at
    cdef bytes remote             # sockaddr of the peer

    # at least one byte, waiting for it; none at the end. With the turn to read
    cdef bytes receive(self, Py_ssize_t most)
    cdef Py_ssize_t receive_into(self, char *room, Py_ssize_t most) except -1
    # all of it, counting in `sent` what is gone. With the turn to write
    cdef int send_all(self, const char *data, Py_ssize_t length, Py_ssize_t *sent) except -1
    cdef int prepare(self) except -1               # before every read and write, without a turn
    cdef int say_goodbye(self) except -1           # before the close, without waiting

    cdef Py_ssize_t available(self) noexcept
    cdef bytes consume(self, Py_ssize_t n)
    cdef int fill_to(self, Py_ssize_t n) except -1
    cdef bytes receive_exactly(self, Py_ssize_t n)
    cdef bytes recv_some(self, Py_ssize_t most)
    cdef Py_ssize_t fill(self, Py_ssize_t most) except -1


# Of a connected, non-blocking socket, which the Conn owns from now on.
cdef Conn new_conn(int fd, bytes remote, bint short_read_drains)
