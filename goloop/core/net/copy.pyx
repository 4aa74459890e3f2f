# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""copy(): from one connection to another until the end (Go: io.Copy), by splice(2) where both are sockets.

The turn to read of the one and the turn to write of the other are held for all of it, so nothing mixes with it. What
was received and could not be written is not lost: it goes back to the buffer of its connection.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, EINVAL, ENOSYS, EOPNOTSUPP, EPIPE, errno

from goloop.core.net.conn cimport Conn
from goloop.core.net.pipe_conn cimport PipeConn
from goloop.core.net.net_handle cimport count_received, count_written
from goloop.core.net.polldesc cimport Direction, PollDesc
from goloop.core.net.tls_conn cimport TLSConn
from goloop.core.system.posix cimport os_error


cdef extern from *:
    """
    #include <fcntl.h>
    #include <unistd.h>
    /* Linux: what glibc declares for _GNU_SOURCE only, which Python's headers set before. */
    static ssize_t gl_splice(int from, int to, size_t n) {
        return splice(from, NULL, to, NULL, n, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    }
    """
    ssize_t gl_splice(int source, int target, size_t n) nogil
    int pipe2(int *ends, int flags) nogil
    int O_CLOEXEC
    int O_NONBLOCK
    ssize_t c_read "read"(int fd, void *data, size_t n) nogil
    int c_close "close"(int fd) nogil

cdef enum:
    CHUNK = 65536          # bytes at a time without splice
    PIPE = 65536           # bytes that a pipe takes, unless it is changed


cdef class Tube:
    """A pipe of the kernel between two sockets."""

    cdef int source, target       # what is read from and written to
    cdef Py_ssize_t filled

    def __cinit__(self):
        cdef int ends[2]
        self.source = self.target = -1
        if pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0:
            raise os_error(errno)
        self.source, self.target = ends[0], ends[1]

    def __dealloc__(self):
        if self.source >= 0:
            c_close(self.source)
            c_close(self.target)

    cdef Py_ssize_t fill(self, PollDesc desc) except -2:
        """Move in what the socket has, waiting for it; 0 at its end, -1 where the kernel cannot."""
        cdef Direction side = desc.reading
        cdef ssize_t n
        while True:
            if side.ready:
                side.ready = False
                n = gl_splice(desc.fd, self.target, PIPE)
                if n >= 0:
                    side.ready = True     # a short one says nothing: the pipe counts its own pages
                    self.filled += n
                    count_received(n)
                    return n
                if errno != EAGAIN:
                    side.ready = True
                    if errno in (EINVAL, ENOSYS, EOPNOTSUPP):
                        return -1
                    if errno != EINTR:
                        raise os_error(errno)
                    continue
            desc.park(side)

    cdef bint drain(self, PollDesc desc, Py_ssize_t *moved) except -1:
        """Move all of it out, counting in `moved`; False where the kernel cannot."""
        cdef Direction side = desc.writing
        cdef ssize_t n
        while self.filled:
            if side.ready:
                n = gl_splice(self.source, desc.fd, self.filled)
                if n > 0:
                    self.filled -= n
                    count_written(n)
                    moved[0] += n
                    continue
                if n < 0 and errno in (EINVAL, ENOSYS, EOPNOTSUPP):
                    return False
                if n < 0 and errno == EINTR:
                    continue
                if n == 0 or errno != EAGAIN:
                    raise os_error(errno if n < 0 else EPIPE)
                side.ready = False
            desc.park(side)
        return True

    cdef bytes rest(self):
        """What is left in it."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, self.filled)
        cdef Py_ssize_t have = 0
        cdef ssize_t n
        while have < self.filled:
            n = c_read(self.source, PyBytes_AS_STRING(data) + have, self.filled - have)
            if n <= 0:
                raise os_error(errno)
            have += n
        self.filled = 0
        return data


cdef bint is_socket(Conn conn) noexcept:
    return not isinstance(conn, TLSConn) and not isinstance(conn, PipeConn)


cdef int put_back(Conn conn, bytes data) except -1:
    """Received, and to be received again. With the turn to read."""
    conn.buffer = data + conn.buffer[conn.at:]
    conn.at = 0
    return 0


cdef int copy_buffered(Conn target, Conn source, Py_ssize_t *copied) except -1:
    cdef bytes data = source.consume(source.available())
    cdef Py_ssize_t sent = 0
    try:
        target.send_all(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &sent)
    except BaseException:
        put_back(source, data[sent:])
        raise
    finally:
        copied[0] += sent
    return 0


cdef bint splice_all(Conn target, Conn source, Py_ssize_t *copied) except -1:
    """Copy to the end. False where the kernel cannot: the rest is to be copied."""
    cdef Tube tube
    cdef Py_ssize_t n
    try:
        tube = Tube()
    except OSError:
        return False                  # too many open files
    while True:
        n = tube.fill(source.desc)
        if n <= 0:
            return n == 0
        try:
            if not tube.drain(target.desc, copied):
                return False
        finally:
            if tube.filled:
                put_back(source, tube.rest())


def copy(Conn target not None, Conn source not None) -> int:
    """Copy from one connection to another until the first one's end of the stream (Go: io.Copy).

    target: the Conn to write to. source: the Conn to read from; TypeError for anything else. Between two sockets the
    kernel moves the bytes (splice); TLS and pipe() take any Conn on the other side. Returns the number of bytes. The
    end of the stream is not passed on: call target.close_write() for that. Raises what reads of the source and writes
    to the target raise; the exception has the number of bytes that were written in its `bytes_written`, and what was
    received and not written is there for the source's next read. Parks a goroutine, which raises asyncio.CancelledError
    when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop outside of a goroutine,
    and for a connection that is to be copied to itself.
    """
    cdef Py_ssize_t copied = 0
    if target is source:
        raise RuntimeError("a connection cannot be copied to itself: echo by reading and writing")
    try:
        source.prepare()
        target.prepare()
        source.desc.begin(source.desc.reading)
        try:
            target.desc.begin(target.desc.writing)
            try:
                copy_all(target, source, &copied)
            finally:
                target.desc.end(target.desc.writing)
        finally:
            source.desc.end(source.desc.reading)
    except BaseException as exc:
        exc.bytes_written = copied
        raise
    return copied


cdef int copy_all(Conn target, Conn source, Py_ssize_t *copied) except -1:
    if source.available():
        copy_buffered(target, source, copied)
    if is_socket(target) and is_socket(source) and splice_all(target, source, copied):
        return 0
    while source.available() or source.fill(CHUNK):
        copy_buffered(target, source, copied)
    return 0
