from libc.stdint cimport uint32_t

from goloop.core.net.conn cimport Conn
from goloop.core.net.polldesc cimport PollDesc


# One direction of a pipe. Guard: the GIL.
cdef class Stream:
    cdef const char *data         # what its writer has at hand: NULL while there is no writer
    cdef Py_ssize_t left          # bytes of it that are unread
    cdef bint ended               # the writing end was closed, by close_write() or with everything else
    cdef bint unread              # the reading end was closed
    cdef uint32_t epoch           # of forks, in which `data` is true
    cdef PollDesc writer, reader

    cdef int take_back(self) except -1
    cdef int check_fork(self) except -1


cdef class PipeConn(Conn):
    cdef Stream into, out

    cdef bint wait_for_data(self) except -1
    cdef int copy(self, char *room, Py_ssize_t n) except -1
    cdef int end_writing(self) except -1
