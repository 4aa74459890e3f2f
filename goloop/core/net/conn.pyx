# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Conn: a stream connection with blocking-style reads and writes, for goroutines and plain threads (Go: net.Conn).

Reads and writes try first and wait on the connection's PollDesc; the system calls keep the GIL, as they never wait. A
read takes what a line or a frame needs and perhaps more, and keeps the rest for the next one, so that nothing is
lost when a deadline or a cancellation ends it half-way. TLSConn (tls_conn.pyx) replaces the two ends.
"""

import socket as _socket
from asyncio import IncompleteReadError

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport malloc
from libc.string cimport memchr, memcpy

from goloop.core.net.net_handle cimport DuplexHandle, count_received, count_written
from goloop.core.net.polldesc cimport Direction, PollDesc, closed_error, never_opened, new_polldesc, outside_of_bubbles
from goloop.core.system.posix cimport os_error
from goloop.core.system.sockaddr cimport MSG_NOSIGNAL, format_go, sockaddr_of


cdef extern from *:
    """
    #include <sys/socket.h>
    """
    int SHUT_WR
    ssize_t recv(int fd, void *data, size_t n, int flags) nogil
    ssize_t send(int fd, const void *data, size_t n, int flags) nogil
    int shutdown(int fd, int how) nogil

cdef enum:
    CHUNK = 65536          # bytes taken at a time for lines and frames, Go's bufio takes 4 KiB
    LARGEST = 262144       # bytes per system call: they keep the GIL

cdef char *scratch = <char *>malloc(LARGEST)      # between a recv and its copy no other thread gets the GIL
if scratch == NULL:
    raise MemoryError


cdef class Conn(DuplexHandle):
    """A stream connection with blocking-style reads and writes (Go: net.Conn), for goroutines and plain threads.

    Made by goloop.net's dial(), by a Listener, or by Conn(sock). sock: a connected stream socket, which the Conn takes
    over; TypeError for anything else. From any thread: reads and writes park a goroutine, which raises
    asyncio.CancelledError when it is cancelled, or block a plain thread. Several may call at once, and take turns. On
    the thread of a running loop outside of a goroutine they raise RuntimeError: asyncio's streams are the way there.
    The other methods do not wait, and may be called there, too.

    A read or write raises TimeoutError when its deadline passes, ClosedError when the connection is closed, also during
    the call, and any other OSError of the system, such as ConnectionResetError. All three are OSErrors. `with` closes
    the connection; iterating over it reads lines.
    """

    def __cinit__(self):
        self.buffer = self.remote = b""

    def __init__(self, sock not None):
        if self.desc is not never_opened:
            raise RuntimeError("a Conn is made once")
        if not isinstance(sock, _socket.socket) or sock.type != _socket.SOCK_STREAM:
            raise TypeError(f"a connected stream socket is needed, got {sock!r}")
        sock.setblocking(False)
        short_read_drains = sock.family != _socket.AF_UNIX
        fd = outside_of_bubbles(sock.detach())
        self.desc = new_polldesc(fd, short_read_drains, "Conn.read()", "Conn.write()")
        self.remote = sockaddr_of(self.desc.fd, True)

    cdef int abandon(self) except -1:
        self.desc.close()         # no goodbye
        return 0

    cdef str ends(self):
        return f"{self.local_addr} -> {self.remote_addr}"

    # ------------------------------------------------------------ the two ends
    cdef int prepare(self) except -1:
        return 0

    cdef int say_goodbye(self) except -1:
        return 0

    cdef bytes receive(self, Py_ssize_t most):
        return self.recv_some(most)

    cdef bytes recv_some(self, Py_ssize_t most):
        cdef Py_ssize_t n = Conn.receive_into(self, scratch, min(most, LARGEST))
        return PyBytes_FromStringAndSize(scratch, n)

    cdef Py_ssize_t receive_into(self, char *room, Py_ssize_t most) except -1:
        cdef PollDesc desc = self.desc
        cdef Direction side = desc.reading
        cdef Py_ssize_t n
        while True:
            if side.ready:
                side.ready = False
                n = recv(desc.fd, room, most, 0)
                if n >= 0:
                    count_received(n)
                    # After a short read of TCP there is nothing, and what comes has an edge; the end is there for good.
                    side.ready = n == most or n == 0 or not desc.short_read_drains
                    return n
                if errno != EAGAIN:
                    side.ready = True
                    if errno != EINTR:
                        raise os_error(errno)
                    continue
            desc.park(side)

    cdef int send_all(self, const char *data, Py_ssize_t length, Py_ssize_t *sent) except -1:
        cdef PollDesc desc = self.desc
        cdef Direction side = desc.writing
        cdef Py_ssize_t n
        while sent[0] < length:
            if side.ready:
                n = send(desc.fd, data + sent[0], min(length - sent[0], LARGEST), MSG_NOSIGNAL)
                if n >= 0:
                    count_written(n)
                    sent[0] += n
                    continue
                if errno == EAGAIN:
                    side.ready = False
                elif errno != EINTR:
                    raise os_error(errno)
                else:
                    continue
            desc.park(side)
        return 0

    # --------------------------------------------------------------- the buffer
    cdef Py_ssize_t available(self) noexcept:
        return PyBytes_GET_SIZE(self.buffer) - self.at

    cdef bytes consume(self, Py_ssize_t n):
        cdef bytes data
        if self.at == 0 and n == PyBytes_GET_SIZE(self.buffer):
            data = self.buffer
            self.buffer = b""
            return data
        data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.buffer) + self.at, n)
        self.at += n
        if self.at == PyBytes_GET_SIZE(self.buffer):
            self.buffer = b""
            self.at = 0
        return data

    cdef Py_ssize_t fill(self, Py_ssize_t most) except -1:
        """Receive more into the buffer; 0 at the end of the stream."""
        cdef bytes more = self.receive(most)
        if self.available():
            more = self.buffer[self.at:] + more
        self.buffer, self.at = more, 0
        return PyBytes_GET_SIZE(more)

    # ------------------------------------------------------------------ reading
    def read(self, Py_ssize_t n=65536) -> bytes:
        """Return the bytes that are there, waiting for the first one; b"" at the end of the stream (Go: Read).

        n: the most bytes to return, 64 KiB unless given; ValueError for a negative number. Raises TimeoutError when the
        deadline passes, ClosedError when the connection is closed, also during the call, or another OSError of the
        system. Parks a goroutine, blocks a plain thread; RuntimeError on the thread of a running loop outside of a
        goroutine.
        """
        cdef Direction side = self.desc.reading
        if n < 0:
            raise ValueError(f"read() takes the most bytes to return, got {n}")
        self.prepare()
        self.desc.begin(side)
        try:
            if n == 0:
                return b""
            return self.consume(min(n, self.available())) if self.available() else self.receive(n)
        finally:
            self.desc.end(side)

    def readinto(self, buffer: Buffer) -> int:
        """Read into a buffer the bytes that are there, waiting for the first one (Go: Read).

        buffer: a writable bytes-like object; TypeError for anything else. Returns the number of bytes, 0 at the end of
        the stream. Raises TimeoutError when the deadline passes, ClosedError when the connection is closed, also during
        the call, or another OSError of the system. Parks a goroutine, blocks a plain thread; RuntimeError on the thread
        of a running loop outside of a goroutine.
        """
        cdef Direction side = self.desc.reading
        cdef Py_buffer view
        cdef Py_ssize_t n
        self.prepare()
        try:
            PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        except BufferError:
            raise TypeError(f"readinto() needs a writable buffer, got {type(buffer).__name__!r}") from None
        try:
            self.desc.begin(side)
            try:
                if view.len == 0:
                    return 0
                n = min(view.len, self.available())
                if n == 0:
                    return self.receive_into(<char *>view.buf, view.len)
                memcpy(view.buf, PyBytes_AS_STRING(self.buffer) + self.at, n)
                self.consume(n)
                return n
            finally:
                self.desc.end(side)
        finally:
            PyBuffer_Release(&view)

    def read_exactly(self, Py_ssize_t n) -> bytes:
        """Return exactly n bytes (Go: io.ReadFull).

        n: a number of bytes; ValueError if negative. asyncio.IncompleteReadError, which is an EOFError, if the stream
        ends before; its `partial` has the bytes that there were. A deadline or a cancellation takes nothing: the bytes
        are there for the next read. Raises TimeoutError when the deadline passes, ClosedError when the connection is
        closed, also during the call, or another OSError of the system. Parks a goroutine, blocks a plain thread;
        RuntimeError on the thread of a running loop outside of a goroutine.
        """
        cdef Direction side = self.desc.reading
        cdef Py_ssize_t have
        if n < 0:
            raise ValueError(f"read_exactly() takes a number of bytes, got {n}")
        self.prepare()
        self.desc.begin(side)
        try:
            have = self.available()
            if n - have >= CHUNK:
                return self.receive_exactly(n)
            if have < n:
                self.fill_to(n)
            return self.consume(n)
        finally:
            self.desc.end(side)

    cdef int fill_to(self, Py_ssize_t n) except -1:
        """Fill the buffer until it has n bytes; IncompleteReadError with what there is if the stream ends before."""
        cdef Py_ssize_t have = self.available()
        while have < n:
            if self.fill(CHUNK) == have:
                raise IncompleteReadError(self.consume(have), n)
            have = self.available()
        return 0

    cdef bytes receive_exactly(self, Py_ssize_t n):
        """n bytes, more than the buffer has, received where they will stay; an error leaves what there was buffered."""
        cdef Py_ssize_t have = self.available(), got
        cdef bytes whole = PyBytes_FromStringAndSize(NULL, n)
        memcpy(PyBytes_AS_STRING(whole), PyBytes_AS_STRING(self.buffer) + self.at, have)
        self.buffer, self.at = b"", 0
        try:
            while have < n:
                got = self.receive_into(PyBytes_AS_STRING(whole) + have, n - have)
                if got == 0:
                    raise IncompleteReadError(PyBytes_FromStringAndSize(PyBytes_AS_STRING(whole), have), n)
                have += got
        except IncompleteReadError:
            raise
        except BaseException:
            self.buffer = PyBytes_FromStringAndSize(PyBytes_AS_STRING(whole), have)
            raise
        return whole

    def readline(self, Py_ssize_t limit=65536) -> bytes:
        """Return the next line with its b"\\n"; at the end of the stream the rest, which may be b"" (Go: ReadBytes).

        limit: the most bytes of a line with its end, at least 1; ValueError for a longer line, which is left to be read
        otherwise. A deadline or a cancellation takes nothing. Raises TimeoutError when the deadline passes, ClosedError
        when the connection is closed, also during the call, or another OSError of the system. Parks a goroutine, blocks
        a plain thread; RuntimeError on the thread of a running loop outside of a goroutine.
        """
        cdef Direction side = self.desc.reading
        cdef Py_ssize_t have, searched = 0
        cdef const char *start
        cdef const char *found
        if limit < 1:
            raise ValueError(f"a line's limit is at least 1 byte, got {limit}")
        self.prepare()
        self.desc.begin(side)
        try:
            while True:
                have = self.available()
                start = PyBytes_AS_STRING(self.buffer) + self.at
                found = <const char *>memchr(start + searched, b"\n", min(have, limit) - searched)
                if found != NULL:
                    return self.consume(found - start + 1)
                if have >= limit:
                    raise ValueError(f"a line is longer than {limit} bytes")
                searched = have
                if self.fill(CHUNK) == have:
                    return self.consume(have)
        finally:
            self.desc.end(side)

    def __iter__(self):
        """Iterate over the lines."""
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    # ------------------------------------------------------------------ writing
    def write(self, data: Buffer) -> int:
        """Send all of the data, waiting while the peer is slow (Go: Write); writes of several goroutines do not mix.

        data: a bytes-like object. Returns the number of bytes. Raises TimeoutError when the deadline passes,
        ClosedError when the connection is closed, also during the call, or another OSError of the system; an exception
        that ends a write half-way has the number of sent bytes in its `bytes_written`. Parks a goroutine, blocks a
        plain thread; RuntimeError on the thread of a running loop outside of a goroutine.
        """
        cdef Direction side = self.desc.writing
        cdef Py_buffer view
        cdef Py_ssize_t sent = 0
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.prepare()
            self.desc.begin(side)
            try:
                self.send_all(<const char *>view.buf, view.len, &sent)
            finally:
                self.desc.end(side)
        except BaseException as exc:
            exc.bytes_written = sent
            raise
        finally:
            PyBuffer_Release(&view)
        return sent

    def close_write(self) -> None:
        """Send the end of the stream after the written bytes; reading goes on (Go: TCPConn.CloseWrite).

        Raises ClosedError on a closed connection, another OSError if the peer is gone. From any thread, goroutine or
        coroutine: it does not wait.
        """
        if self.desc.closed:
            raise closed_error()
        if shutdown(self.desc.fd, SHUT_WR) < 0:
            raise os_error(errno)

    # -------------------------------------------------------------------- rest
    def close(self) -> None:
        """Close the connection; reads and writes under way raise ClosedError (Go: Close). Twice is harmless.

        From any thread, goroutine or coroutine: it does not wait. Written bytes are still sent.
        """
        if not self.desc.closed:
            try:
                self.say_goodbye()
            finally:
                self.desc.close()

    @property
    def remote_addr(self):
        """The peer's address (str), also when the connection is closed; "" for none (Go: RemoteAddr)."""
        return format_go(self.remote)


cdef Conn new_conn(int fd, bytes remote, bint short_read_drains):
    cdef Conn conn = Conn.__new__(Conn)
    conn.desc = new_polldesc(outside_of_bubbles(fd), short_read_drains, "Conn.read()", "Conn.write()")
    conn.remote = remote
    return conn
