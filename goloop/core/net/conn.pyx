# cython: language_level=3, boundscheck=False, wraparound=False
"""Conn: a stream connection with blocking-style reads and writes, for goroutines and plain threads (Go: net.Conn).

Reads and writes try first and wait on the connection's PollDesc; the system calls keep the GIL, as they never wait. A
read takes what a line or a frame needs and perhaps more, and keeps the rest for the next one, so that nothing is
lost when a deadline or a cancellation ends it half-way. TLSConn (tls_conn.pyx) replaces the two ends.
"""

import socket as _socket
import warnings
from asyncio import IncompleteReadError

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport malloc
from libc.string cimport memchr, memcpy

from goloop.core.net.polldesc cimport Direction, PollDesc, closed_error, never_opened, new_polldesc
from goloop.core.system.posix cimport os_error


cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <net/if.h>
    #include <netinet/in.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    """
    int AF_UNIX
    int AF_INET
    int AF_INET6
    int MSG_NOSIGNAL
    int SHUT_WR
    enum:
        INET6_ADDRSTRLEN
        IF_NAMESIZE
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    struct in_addr:
        pass
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr
        unsigned int sin6_scope_id
    const char *inet_ntop(int family, const void *address, char *text, socklen_t room) nogil
    unsigned short ntohs(unsigned short n) nogil
    bint IN6_IS_ADDR_V4MAPPED(in6_addr *address) nogil
    char *if_indextoname(unsigned int index, char *name) nogil
    int getsockname(int fd, sockaddr *address, socklen_t *length) nogil
    int getpeername(int fd, sockaddr *address, socklen_t *length) nogil
    ssize_t recv(int fd, void *data, size_t n, int flags) nogil
    ssize_t send(int fd, const void *data, size_t n, int flags) nogil
    int shutdown(int fd, int how) nogil

cdef enum:
    CHUNK = 65536          # bytes taken at a time for lines and frames, Go's bufio takes 4 KiB
    LARGEST = 262144       # bytes per system call: they keep the GIL
    PATH_AT = 2            # offsetof(struct sockaddr_un, sun_path)

cdef char *scratch = <char *>malloc(LARGEST)      # between a recv and its copy nobody else gets the GIL
if scratch == NULL:
    raise MemoryError


cdef bytes sockaddr_of(int fd, bint peer):
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    cdef int failed
    if peer:
        failed = getpeername(fd, <sockaddr *>&address, &length)
    else:
        failed = getsockname(fd, <sockaddr *>&address, &length)
    return b"" if failed else PyBytes_FromStringAndSize(<char *>&address, length)


cdef str format_sockaddr(bytes raw):
    """An address as Go writes it: 127.0.0.1:80, [::1]:80, a path, @name for an abstract one; "" for none."""
    cdef char text[64]
    cdef char zone[IF_NAMESIZE]
    cdef const sockaddr_in *inet = <const sockaddr_in *><char *>raw
    cdef const sockaddr_in6 *inet6 = <const sockaddr_in6 *><char *>raw
    cdef int family = (<const sockaddr *><char *>raw).sa_family if len(raw) >= PATH_AT else -1
    if family == AF_INET:
        inet_ntop(AF_INET, &inet.sin_addr, text, sizeof(text))
        return f"{(<bytes>text).decode()}:{ntohs(inet.sin_port)}"
    if family == AF_INET6:
        if IN6_IS_ADDR_V4MAPPED(<in6_addr *>&inet6.sin6_addr):
            inet_ntop(AF_INET, &inet6.sin6_addr.s6_addr[12], text, sizeof(text))
            return f"{(<bytes>text).decode()}:{ntohs(inet6.sin6_port)}"
        inet_ntop(AF_INET6, &inet6.sin6_addr, text, sizeof(text))
        if inet6.sin6_scope_id and if_indextoname(inet6.sin6_scope_id, zone) != NULL:
            return f"[{(<bytes>text).decode()}%{(<bytes>zone).decode()}]:{ntohs(inet6.sin6_port)}"
        return f"[{(<bytes>text).decode()}]:{ntohs(inet6.sin6_port)}"
    if family == AF_UNIX and len(raw) > PATH_AT:
        if raw[PATH_AT] == 0:
            return "@" + raw[PATH_AT + 1:].decode(errors="surrogateescape")
        return raw[PATH_AT:].split(b"\0", 1)[0].decode(errors="surrogateescape")
    return ""


cdef class Conn:
    """A connection: reads and writes park a goroutine or block a plain thread; several may call at once, and
    take turns. RuntimeError on the thread of a running loop, where asyncio's streams are the way.

    Made by goloop.net's dial(), by a Listener, or of a connected stream socket, which it takes over. A deadline that
    passes raises TimeoutError, close() makes everything under way raise ClosedError; both are OSErrors. `with`
    closes it.
    """

    def __cinit__(self, *args, **kwargs):
        self.desc = never_opened
        self.buffer = self.remote = b""

    def __init__(self, sock not None):
        if self.desc is not never_opened:
            raise RuntimeError("a Conn is made once")
        if not isinstance(sock, _socket.socket) or sock.type != _socket.SOCK_STREAM:
            raise TypeError(f"a connected stream socket is needed, got {sock!r}")
        sock.setblocking(False)
        self.desc = new_polldesc(sock.detach(), sock.family != _socket.AF_UNIX, "Conn.read()", "Conn.write()")
        self.remote = sockaddr_of(self.desc.fd, True)

    def __del__(self):
        if not self.desc.closed:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:
                self.desc.close()

    def __repr__(self):
        if self.desc.closed:
            return f"<{type(self).__name__} closed>"
        return f"<{type(self).__name__} fd={self.desc.fd} {self.local_addr} -> {self.remote_addr}>"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

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
    def read(self, Py_ssize_t n=65536):
        """Return what there is, at most n bytes, waiting until there is something; b"" at the end of the stream."""
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

    def readinto(self, buffer):
        """As read(), into a writable buffer. Returns the number of bytes, 0 at the end of the stream."""
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

    def read_exactly(self, Py_ssize_t n):
        """Return exactly n bytes (Go: io.ReadFull).

        asyncio.IncompleteReadError, which is an EOFError, if the stream ends before; its `partial` has what there
        was. A deadline or a cancellation takes nothing: the bytes are there for the next read.
        """
        cdef Direction side = self.desc.reading
        cdef Py_ssize_t have, got
        cdef bytes whole
        if n < 0:
            raise ValueError(f"read_exactly() takes a number of bytes, got {n}")
        self.prepare()
        self.desc.begin(side)
        try:
            while True:
                have = self.available()
                if have >= n:
                    return self.consume(n)
                if n - have >= CHUNK:
                    break
                got = self.fill(CHUNK)
                if got == have:
                    raise IncompleteReadError(self.consume(have), n)
            whole = PyBytes_FromStringAndSize(NULL, n)
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
        finally:
            self.desc.end(side)

    def readline(self, Py_ssize_t limit=65536):
        """Return the next line with its b"\\n"; at the end of the stream what is left, which may be b"".

        limit: the most bytes of a line with its end; ValueError for a longer one, which is left to be read otherwise.
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
    def write(self, data):
        """Send all of a bytes-like object, waiting while the peer is slow; writes of several goroutines do not mix.

        Returns the number of bytes. An exception that ends it half-way has it in its `bytes_written`.
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

    def close_write(self):
        """Send the end of the stream after what was written; reading goes on (Go: CloseWrite)."""
        if self.desc.closed:
            raise closed_error()
        if shutdown(self.desc.fd, SHUT_WR) < 0:
            raise os_error(errno)

    # -------------------------------------------------------------------- rest
    def close(self):
        """Close it; reads and writes under way raise ClosedError. Twice is harmless. From anywhere, also in a
        coroutine: it does not wait. What was written is still sent."""
        if not self.desc.closed:
            try:
                self.say_goodbye()
            finally:
                self.desc.close()

    @property
    def closed(self):
        """Whether close() was called."""
        return self.desc.closed

    def set_deadline(self, deadline):
        """End all reads and writes, under way and to come.

        deadline: a number of seconds from now, after which they raise TimeoutError (0: at once); a
        goloop.context.Context, with whose end they raise its error; None: no end. It stays until it is set again; set
        it before each read for a timeout of each. ValueError for a negative number, and for a time of the clock.
        """
        self.desc.set_deadline(self.desc.reading, deadline)
        self.desc.set_deadline(self.desc.writing, deadline)

    def set_read_deadline(self, deadline):
        """As set_deadline(), for reads."""
        self.desc.set_deadline(self.desc.reading, deadline)

    def set_write_deadline(self, deadline):
        """As set_deadline(), for writes."""
        self.desc.set_deadline(self.desc.writing, deadline)

    def fileno(self):
        """The descriptor, which stays the connection's; -1 once closed."""
        return self.desc.fd

    @property
    def local_addr(self):
        """This end's address, "127.0.0.1:8080" or a path; "" for none."""
        return format_sockaddr(sockaddr_of(self.desc.fd, False)) if not self.desc.closed else ""

    @property
    def remote_addr(self):
        """The peer's address, also when the connection is closed."""
        return format_sockaddr(self.remote)

    def setsockopt(self, *args):
        """As socket.socket.setsockopt()."""
        return with_socket(self.desc, "setsockopt", args)

    def getsockopt(self, *args):
        """As socket.socket.getsockopt()."""
        return with_socket(self.desc, "getsockopt", args)


cdef Conn new_conn(int fd, bytes remote, bint short_read_drains):
    cdef Conn conn = Conn.__new__(Conn)
    conn.desc = new_polldesc(fd, short_read_drains, "Conn.read()", "Conn.write()")
    conn.remote = remote
    return conn


cdef object with_socket(PollDesc desc, str method, tuple args):
    """Call a method of a socket object for the descriptor."""
    desc.begin_use()
    try:
        sock = _socket.socket(fileno=desc.fd)
        try:
            return getattr(sock, method)(*args)
        finally:
            sock.detach()
    finally:
        desc.end_use()
