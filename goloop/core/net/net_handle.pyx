# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""What listeners, connections and packet connections have in common: closing, deadlines, socket options.

A subclass has close(), and is made by __init__() or by a function of its module, which sets `desc`.
"""

import socket as _socket
import warnings

from goloop.core.net.polldesc cimport PollDesc, never_opened
from goloop.core.system.sockaddr cimport format_go, sockaddr_of


# Guard: the GIL.
cdef unsigned long long received = 0, written = 0, accepts = 0


cdef void count_received(Py_ssize_t n) noexcept:
    global received
    received += n


cdef void count_written(Py_ssize_t n) noexcept:
    global written
    written += n


cdef void count_accepted() noexcept:
    global accepts
    accepts += 1


def counts():
    """Return the bytes that all connections have received and sent, and how many were accepted."""
    return received, written, accepts


cdef class NetHandle:
    """A socket of goloop.net: `with` closes it, and it warns when it is collected without having been closed."""

    def __cinit__(self):
        self.desc = never_opened

    def __del__(self):
        if not self.desc.closed:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:
                self.abandon()

    cdef str ends(self):
        raise SystemError("NetHandle.ends() is abstract")

    cdef int abandon(self) except -1:
        self.close()
        return 0

    def __repr__(self):
        if self.desc.closed:
            return f"<{type(self).__name__} closed>"
        return f"<{type(self).__name__} fd={self.desc.fd} {self.ends()}>"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def closed(self):
        """Whether close() was called (bool)."""
        return self.desc.closed

    def fileno(self) -> int:
        """Return the descriptor, which stays this object's; -1 once closed. From any thread, goroutine or coroutine.
        """
        return self.desc.fd

    def setsockopt(self, *args) -> None:
        """Set an option of the socket. From any thread, goroutine or coroutine.

        args: level, option and value, as socket.socket.setsockopt() takes them. ClosedError on a closed one,
        another OSError if the system refuses.
        """
        return with_socket(self.desc, "setsockopt", args)

    def getsockopt(self, *args) -> bytes:
        """Return an option of the socket. From any thread, goroutine or coroutine.

        args: level, option and, for bytes, their number, as socket.socket.getsockopt() takes them. ClosedError on a
        closed connection, another OSError if the system refuses.
        """
        return with_socket(self.desc, "getsockopt", args)


cdef class DuplexHandle(NetHandle):
    """A handle that is read from and written to, with a deadline for each."""

    def set_deadline(self, deadline: float | Context | None) -> None:
        """End all reads and writes, under way and to come, at a time (Go: SetDeadline).

        deadline: a number of seconds from now, after which they raise TimeoutError (0: at once); a
        goloop.context.Context, with whose end they raise its error; None: no end. It stays until it is set again; set
        it before each read for a timeout of each. TypeError for anything else, ValueError for a negative number and for
        a time of the clock; ClosedError on a closed connection. From any thread, goroutine or coroutine.
        """
        self.desc.set_deadline(self.desc.reading, deadline)
        self.desc.set_deadline(self.desc.writing, deadline)

    def set_read_deadline(self, deadline: float | Context | None) -> None:
        """End all reads, under way and to come, at a time (Go: SetReadDeadline).

        deadline: a number of seconds from now, after which they raise TimeoutError (0: at once); a
        goloop.context.Context, with whose end they raise its error; None: no end. It stays until it is set again.
        TypeError for anything else, ValueError for a negative number and for a time of the clock; ClosedError on a
        closed connection. From any thread, goroutine or coroutine.
        """
        self.desc.set_deadline(self.desc.reading, deadline)

    def set_write_deadline(self, deadline: float | Context | None) -> None:
        """End all writes, under way and to come, at a time (Go: SetWriteDeadline).

        deadline: a number of seconds from now, after which they raise TimeoutError (0: at once); a
        goloop.context.Context, with whose end they raise its error; None: no end. It stays until it is set again.
        TypeError for anything else, ValueError for a negative number and for a time of the clock; ClosedError on a
        closed connection. From any thread, goroutine or coroutine.
        """
        self.desc.set_deadline(self.desc.writing, deadline)

    @property
    def local_addr(self):
        """This end's address (str), "127.0.0.1:8080" or a path; "" for none, and once closed (Go: LocalAddr)."""
        return format_go(sockaddr_of(self.desc.fd, False)) if not self.desc.closed else ""


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
