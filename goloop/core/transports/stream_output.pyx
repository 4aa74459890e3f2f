# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""StreamOutput: the way out of a stream: what waits for the end of the iteration, and what the kernel did not take.

While other callbacks wait in an iteration, what is written waits for its end, with what they write. To everything else
it is in the kernel already: whatever asks for more than plain writing has it sent first (settle). HACKING.md, protocol
"outbox". What the kernel does not take is buffered, and sent when the socket has room.
"""

from asyncio import trsock as _trsock
from socket import SHUT_WR as _SHUT_WR

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno

from goloop.core.poll.pollset cimport EPOLLOUT, GL_BY_NETPOLLER, gl_write, iovec
from goloop.core.system.posix cimport os_error
from goloop.core.system.sockaddr cimport MSG_NOSIGNAL
from goloop.core.transports.base cimport enter_context, leave_context

from goloop.core.transports.stream_socket import StreamSocket as _StreamSocket


cdef extern from "sys/socket.h" nogil:
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr *msg, int flags)

cdef extern from "string.h" nogil:
    void *memset(void *where, int byte, size_t n)

cdef enum:
    IOV = 64                # buffers per sendmsg
    COLLECT_MOST = 65536    # bytes of one write that waits for the end of the iteration

cdef object _TransportSocket = _trsock.TransportSocket


cdef class StreamOutput(Transport):
    """The base of StreamTransport."""

    cdef Py_ssize_t pending(self) except -1:
        return self.size

    cdef int check_writable(self, str method) except -1:
        if self.eof:
            raise RuntimeError(f"Cannot call {method}() after write_eof()")
        if self.empty_waiter is not None:
            raise RuntimeError(f"unable to {method}; sendfile is in progress")
        return 0

    cdef bint collect(self, object data, const void *start, Py_ssize_t length) except -1:
        """Leave it to the end of the iteration. False: this cannot wait, and nothing before it does any more."""
        cdef bytes piece
        if length > COLLECT_MOST:
            self.settle()
            return False
        piece = data if type(data) is bytes else PyBytes_FromStringAndSize(<const char *>start, length)
        if not self.loop_core.outbox.add(self, self.fd, piece):
            return False
        if not self.loop_core.todo:
            self.settle()          # the last callback of an iteration gains nothing by waiting
        return True

    cdef int settle(self) except -1:
        """Send now what waits for the end of the iteration."""
        return self.loop_core.outbox.settle(self) if self.collected else 0

    cdef int not_sent(self, gl_write *w) except -1:
        """The kernel did not take all that was collected: buffer the rest, as write() would have done."""
        cdef Py_ssize_t k, skip = w.sent, size
        if self.lost:
            return 0
        if w.error and w.error != EAGAIN and w.error != EINTR:
            return self.write_failed(os_error(w.error))
        for k in range(w.pieces):
            size = w.iov[k].iov_len
            if skip < size:
                self.push(<object>w.held[k], skip)
            skip = max(0, skip - size)
        if w.error == EINTR or w.done == GL_BY_NETPOLLER:
            self.events |= EPOLLOUT     # nothing will tell that there is room, or it has told already: try again
            self.loop_core.queue(self)
        enter_context(self.context)
        try:
            self.maybe_pause()
        finally:
            leave_context(self.context)
        return 0

    cdef int push(self, object data, Py_ssize_t skip) except -1:
        """Buffer a bytes object; `skip` bytes of it were sent, and nothing else waits if that is not 0."""
        if skip:
            self.offset = skip
        if self.buffer is None:
            self.buffer = []
        self.buffer.append(data)
        self.size += PyBytes_GET_SIZE(data) - skip
        return 0

    cdef int flush(self) except -1:
        """Send what is buffered, as much as goes in one call."""
        cdef iovec iov[IOV]
        cdef msghdr msg
        cdef Py_ssize_t i, n, wanted = 0, skip = self.offset, count = min(len(self.buffer) - self.first, IOV)
        cdef object data
        memset(&msg, 0, sizeof(msg))
        for i in range(count):
            data = self.buffer[self.first + i]
            iov[i].iov_base = PyBytes_AS_STRING(data) + skip
            iov[i].iov_len = PyBytes_GET_SIZE(data) - skip
            wanted += PyBytes_GET_SIZE(data) - skip
            skip = 0
        msg.msg_iov = iov
        msg.msg_iovlen = count
        n = sendmsg(self.fd, &msg, MSG_NOSIGNAL)
        if n < 0:
            if errno == EAGAIN:
                return 0
            if errno != EINTR:
                return self.write_failed(os_error(errno))
            n = wanted = 0
        return self.sent(n, n == wanted)

    cdef int sent(self, Py_ssize_t n, bint room) except -1:
        """Account for n bytes sent. room: the socket took all it was given, so no edge will come."""
        self.advance(n)
        if self.size and room:
            self.events |= EPOLLOUT
            self.loop_core.queue(self)
        self.maybe_resume()      # may write
        if self.size == 0 and not self.lost:
            self.emptied()
        return 0

    cdef int advance(self, Py_ssize_t n) except -1:
        """Take n bytes out of the buffer."""
        cdef Py_ssize_t left
        self.size -= n
        while n:
            left = PyBytes_GET_SIZE(self.buffer[self.first]) - self.offset
            if n < left:
                self.offset += n
                break
            n -= left
            self.offset = 0
            self.buffer[self.first] = None
            self.first += 1
        if self.size == 0:
            self.buffer.clear()
            self.first = 0
        elif self.first > 256:
            del self.buffer[:self.first]
            self.first = 0
        return 0

    cdef int emptied(self) except -1:
        """All is sent: do what waited for that."""
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_result(None)
        if self.closing:
            self.lose_soon(None)
        elif self.eof:
            try:
                self.file.shutdown(_SHUT_WR)
            except OSError as exc:
                self.fail(exc, "Fatal error on socket transport")
        return 0

    cdef int write_failed(self, object exc) except -1:
        self.fail(exc, "Fatal write error on socket transport")
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_exception(exc)
        return 0

    def write_eof(self):
        """Close the write side once what is buffered has been sent; reading goes on."""
        if self.closing or self.eof:
            return
        self.take_back_conn()
        self.settle()
        if self.lost:
            return
        self.eof = True
        if self.size == 0:
            self.file.shutdown(_SHUT_WR)

    def can_write_eof(self):
        """Return True: a stream socket can be half closed."""
        return True

    # ---------------------------------------------------------------- sendfile
    def _make_empty_waiter(self):
        """A future that is done when nothing waits to be sent; until _reset_empty_waiter(), write() fails."""
        if self.empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self.take_back_conn()
        self.settle()
        self.empty_waiter = self.loop_core.create_future()
        if self.size == 0:
            self.empty_waiter.set_result(None)
        return self.empty_waiter

    def _reset_empty_waiter(self):
        self.empty_waiter = None

    def _make_writable_waiter(self):
        """A future that is done when the socket, found full, has room again or the connection is lost."""
        self.writable_waiter = self.loop_core.create_future()
        if self.lost:
            self._wake_writable()
        return self.writable_waiter

    def _wake_writable(self):
        waiter = self.writable_waiter
        self.writable_waiter = None
        if not waiter.done():
            waiter.set_result(None)

    # ---------------------------------------------------- settled first
    def close(self):
        """Close when what is buffered has been written; connection_lost(None) is called after that."""
        self.take_back_conn()
        self.settle()
        Transport.close(self)

    def get_write_buffer_size(self):
        """Return how many bytes wait to be written: those that the kernel did not take."""
        self.settle()
        return self.size

    def get_extra_info(self, name, default=None):
        """Return what is known under that name, or default; it stays known after the close."""
        if name == "socket":
            self.settle()          # the caller may write to it, or shut it down
            if type(self.extra["socket"]) is _TransportSocket and self.file is not None:
                self.extra["socket"] = _StreamSocket(self, self.file)
        return Transport.get_extra_info(self, name, default)

    def _settle(self):
        """Have everything that was written in the kernel, for a caller that goes on with the socket."""
        self.take_back_conn()
        self.settle()

    cdef int lose(self, object exc) except -1:
        try:
            Transport.lose(self, exc)
        finally:
            if self.empty_waiter is not None and not self.empty_waiter.done():
                self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
            if self.writable_waiter is not None:
                self._wake_writable()
        return 0
