# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Listener: accepts connections in blocking style, for goroutines and plain threads (Go: net.Listener)."""

import socket as _socket

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno

from goloop.core.net.conn cimport new_conn
from goloop.core.net.net_handle cimport NetHandle, count_accepted
from goloop.core.net.polldesc cimport Direction, PollDesc, never_opened, new_polldesc, outside_of_bubbles
from goloop.core.system.posix cimport os_error
from goloop.core.system.sockaddr cimport format_go, sockaddr_of

from goloop.core.system.socket_file import SocketFile as _SocketFile
from goloop.errors import ClosedError


cdef extern from *:
    """
    #include <sys/socket.h>
    """
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct sockaddr_storage:
        pass
    int accept4(int fd, sockaddr *address, socklen_t *length, int flags) nogil


cdef class Listener(NetHandle):
    """A listening socket (Go: net.Listener), for goroutines and plain threads.

    accept() parks a goroutine or blocks a plain thread; several may accept at once. Made by goloop.net's listen(), or
    by Listener(sock, path). sock: a listening stream socket, which the Listener takes over; TypeError for anything
    else. path: the file to unlink at the close, unless it is another one's by then; None: no file. `with` closes it;
    iterating over it accepts until it is closed. On the thread of a running loop outside of a goroutine accept() raises
    RuntimeError; the other methods do not wait, and may be called from any thread, goroutine or coroutine.
    """

    cdef bytes local
    cdef bint short_read_drains  # see PollDesc.short_read_drains: what the connections are
    cdef object file             # the _SocketFile of a Unix socket that was made for it, or None

    def __cinit__(self):
        self.local = b""

    def __init__(self, sock not None, path=None):
        if self.desc is not never_opened:
            raise RuntimeError("a Listener is made once")
        if not isinstance(sock, _socket.socket) or not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            raise TypeError(f"a listening stream socket is needed, got {sock!r}")
        sock.setblocking(False)
        self.short_read_drains = sock.family != _socket.AF_UNIX
        self.local = sockaddr_of(sock.fileno(), False)
        if path is not None:
            self.file = _SocketFile(path)
        self.desc = new_polldesc(outside_of_bubbles(sock.detach()), False, "Listener.accept()", "Listener")

    cdef str ends(self):
        return self.addr

    def accept(self) -> Conn:
        """Wait for the next connection and return its Conn (Go: Accept).

        ClosedError when the listener is closed, also during the call; TimeoutError when its deadline passes; other
        OSErrors, such as one for too many open files, leave the connection to be accepted later. Parks a goroutine,
        which raises asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a
        running loop outside of a goroutine.
        """
        cdef PollDesc desc = self.desc
        cdef Direction side = desc.reading
        cdef sockaddr_storage address
        cdef socklen_t length
        cdef int fd
        desc.begin(side)
        try:
            while True:
                if side.ready:
                    length = sizeof(address)
                    fd = accept4(desc.fd, <sockaddr *>&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
                    if fd >= 0:
                        count_accepted()
                        return new_conn(fd, PyBytes_FromStringAndSize(<char *>&address, length), self.short_read_drains)
                    if errno == EINTR or errno == ECONNABORTED:
                        continue      # Go: a connection that was gone before it was accepted is no error
                    if errno != EAGAIN:
                        raise os_error(errno)
                    side.ready = False
                    continue
                desc.park(side)
        finally:
            desc.end(side)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.accept()
        except ClosedError:
            raise StopIteration from None

    def close(self) -> None:
        """Stop listening; accept() calls under way raise ClosedError (Go: Close). Twice is harmless.

        From any thread, goroutine or coroutine: it does not wait.
        """
        if self.desc.closed:
            return
        file, self.file = self.file, None
        try:
            if file is not None:
                file.unlink()
        except OSError:
            pass                      # gone already, or of a folder that may not be changed
        finally:
            self.desc.close()

    @property
    def addr(self):
        """The address on which it listens (str), "127.0.0.1:8080" or a path; also when it is closed (Go: Addr)."""
        return format_go(self.local)

    def set_deadline(self, deadline: float | Context | None) -> None:
        """End all accept() calls, under way and to come, at a time (Go: TCPListener.SetDeadline).

        deadline: a number of seconds from now, after which they raise TimeoutError (0: at once); a
        goloop.context.Context, with whose end they raise its error; None: no end. It stays until it is set again.
        TypeError for anything else, ValueError for a negative number and for a time of the clock; ClosedError on a
        closed listener. From any thread, goroutine or coroutine.
        """
        self.desc.set_deadline(self.desc.reading, deadline)
