# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""pipe(): two ends of a connection inside of the process, without a descriptor and without a buffer (Go: net.Pipe).

A Stream is one of the two directions. Its writer leaves its data where it is and parks; readers copy from there, and
the last one wakes the writer. Each end waits on a PollDesc that no descriptor belongs to, so turns, deadlines, closing
and plain threads are as for any other connection. Guard: the GIL, given up nowhere between a look and its change.
"""

import errno as _errno

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

from goloop.core.net.conn cimport Conn
from goloop.core.net.polldesc cimport Direction, PollDesc, closed_error, new_memory_desc
from goloop.core.poll.pollset cimport fork_epoch
from goloop.core.sched.scheduler cimport bubbles


cdef extern from "../system/native/sealed.h":
    int gl_seal(object type, const char *reason) except -1


cdef class Stream:
    cdef int take_back(self) except -1:
        """The writer's data is its own again."""
        self.data = NULL
        self.left = 0
        return 0

    cdef int check_fork(self) except -1:
        if self.epoch != fork_epoch():
            self.epoch = fork_epoch()
            self.take_back()          # the writer is in the parent
        return 0


cdef int look_again(PollDesc desc, Direction side) except -1:
    side.ready = True
    side.waiting.complete_all()
    return 0


cdef class PipeConn(Conn):
    """One end of a pipe; made by pipe()."""

    cdef str ends(self):
        return "pipe"

    def __repr__(self):
        return f"<PipeConn {'closed' if self.desc.closed else 'pipe'}>"

    # ------------------------------------------------------------ the two ends
    cdef bytes recv_some(self, Py_ssize_t most):
        raise SystemError("PipeConn.recv_some() has no descriptor")

    cdef bytes receive(self, Py_ssize_t most):
        cdef Py_ssize_t n
        cdef bytes data
        if not self.wait_for_data():
            return b""
        n = min(most, self.into.left)
        data = PyBytes_FromStringAndSize(NULL, n)     # the collector does not look at bytes: nothing else runs
        self.copy(PyBytes_AS_STRING(data), n)
        return data

    cdef Py_ssize_t receive_into(self, char *room, Py_ssize_t most) except -1:
        cdef Py_ssize_t n
        if not self.wait_for_data():
            return 0
        n = min(most, self.into.left)
        self.copy(room, n)
        return n

    cdef bint wait_for_data(self) except -1:
        """Wait until a writer has something; False at the end of the stream."""
        cdef PollDesc desc = self.desc
        cdef Stream stream = self.into
        while True:
            desc.reading.ready = False
            stream.check_fork()
            if stream.left:
                return True
            if stream.ended:
                return False
            desc.park(desc.reading)

    cdef int copy(self, char *room, Py_ssize_t n) except -1:
        cdef Stream stream = self.into
        memcpy(room, stream.data, n)
        stream.data += n
        stream.left -= n
        if stream.left == 0:
            look_again(stream.writer, stream.writer.writing)
        return 0

    cdef int send_all(self, const char *data, Py_ssize_t length, Py_ssize_t *sent) except -1:
        cdef PollDesc desc = self.desc
        cdef Stream stream = self.out
        if length == 0:
            return 0
        stream.check_fork()
        stream.data = data
        stream.left = length
        try:
            while True:
                desc.writing.ready = False
                if stream.left == 0:
                    return 0
                if stream.ended or stream.unread:
                    raise BrokenPipeError(_errno.EPIPE, "Broken pipe")
                look_again(stream.reader, stream.reader.reading)
                desc.park(desc.writing)
        finally:
            sent[0] = length - stream.left
            stream.take_back()

    # --------------------------------------------------------------- the methods
    def close_write(self):
        if bubbles:
            self.desc.check_edge()
        if self.desc.closed:
            raise closed_error()
        self.end_writing()

    cdef int end_writing(self) except -1:
        cdef Stream stream = self.out
        stream.ended = True
        look_again(stream.reader, stream.reader.reading)
        look_again(stream.writer, stream.writer.writing)
        return 0

    def close(self):
        if bubbles:
            self.desc.check_edge()
        self.abandon()

    cdef int abandon(self) except -1:
        cdef Stream stream = self.into
        if self.desc.closed:
            return 0
        stream.unread = True
        self.desc.close()
        self.end_writing()
        look_again(stream.writer, stream.writer.writing)
        return 0

    def setsockopt(self, *args):
        raise OSError(_errno.ENOTSOCK, "a pipe is no socket, and has no options")

    def getsockopt(self, *args):
        raise OSError(_errno.ENOTSOCK, "a pipe is no socket, and has no options")

    @property
    def local_addr(self):
        return "pipe"

    @property
    def remote_addr(self):
        return "pipe"


gl_seal(PipeConn, b"a PipeConn is made by goloop.net.pipe()")
gl_seal(Stream, b"a Stream is made by goloop.net.pipe()")


cdef PipeConn new_end(Stream into, Stream out):
    cdef PipeConn conn = PipeConn.__new__(PipeConn)
    conn.into = into
    conn.out = out
    conn.desc = out.writer
    return conn


cdef Stream new_stream(PollDesc writer, PollDesc reader):
    cdef Stream stream = Stream.__new__(Stream)
    stream.writer = writer
    stream.reader = reader
    stream.epoch = fork_epoch()
    return stream


def pipe() -> tuple[Conn, Conn]:
    """Return the two ends of a connection inside of this process, as a pair of Conns (Go: net.Pipe).

    Nothing is buffered: a write waits until reads of the other end have taken all of it. An empty write does not wait.
    The ends have no descriptor (fileno() is -1) and no socket options (OSError); both addresses are "pipe". After the
    close of one end, reads of the other return b"" and its writes raise BrokenPipeError. Deadlines, cancellation,
    close_write() and the rest are as for any Conn; TLSConn does not take one. From any thread, goroutine or coroutine.
    """
    cdef PollDesc one = new_memory_desc("Conn.read()", "Conn.write()")
    cdef PollDesc other = new_memory_desc("Conn.read()", "Conn.write()")
    cdef Stream there = new_stream(one, other)
    cdef Stream back = new_stream(other, one)
    return new_end(back, there), new_end(there, back)
