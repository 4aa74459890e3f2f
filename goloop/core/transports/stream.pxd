from libc.stdint cimport uint32_t

from goloop.core.poll.pollset cimport gl_conn
from goloop.core.transports.stream_output cimport StreamOutput


cdef class StreamTransport(StreamOutput):
    cdef bint buffered            # the protocol is a BufferedProtocol
    cdef bint readable            # a read may find something: the edge was seen, and not read dry
    cdef int bulk                 # bytes that the next read may well bring, if that is much; 0: little
    cdef bint short_read_drains   # a read that fills less than its buffer has left nothing behind
    cdef bint tcp                 # over TCP. Only then can a close tell the peer that we leave something unread
    cdef bint ended               # EOF was received

    cdef gl_conn *conn            # stands for the socket while offloaded, and after that while bytes are left in it
    cdef uint32_t conn_generation
    cdef bint offloaded           # the netpoller has the socket
    cdef int inline_turns_left    # turns until it may be offloaded again

    cdef int offload(self) except -1
    cdef int take_back(self) except -1
    cdef int drop_conn(self) except -1
    cdef int pin_inline(self, bint on) except -1
    cdef Py_ssize_t receive_offloaded(self, char *room, Py_ssize_t length) except -2
    cdef int read(self) except -1
    cdef Py_ssize_t receive(self, char *room, Py_ssize_t length) except -2
    cdef int read_bytes(self) except -1
    cdef object receive_bytes(self)
    cdef object receive_bulk(self)
    cdef int read_buffered(self) except -1
    cdef bint counted             # among the users of the socket object: see keep_open()

    cdef bint polling(self)
    cdef int set_nodelay(self, int proto) except -1
    cdef int keep_open(self, object sock) except -1
    cdef int got_eof(self) except -1
    cdef int send_or_buffer(self, object data, const char *start, Py_ssize_t length) except -1
    cdef bint write_offloaded(self, const void *data, Py_ssize_t length) except -1
    cdef int follow_policy(self) except -1
    cdef bint put_all(self, list pieces) except -1
    cdef int kick(self) except -1
