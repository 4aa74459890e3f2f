# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""PacketConn: datagrams in blocking style, for goroutines and plain threads (Go: net.PacketConn and net.UDPConn)."""

import socket as _socket

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport malloc

from goloop.core.net.net_handle cimport DuplexHandle, count_received, count_written
from goloop.core.net.polldesc cimport Direction, PollDesc, closed_error, never_opened, new_polldesc, outside_of_bubbles
from goloop.core.system.posix cimport os_error
from goloop.core.system.sockaddr cimport format_go, sockaddr_of


cdef extern from *:
    """
    #include <sys/socket.h>
    """
    int MSG_NOSIGNAL
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct sockaddr_storage:
        pass
    ssize_t recvfrom(int fd, void *data, size_t n, int flags, sockaddr *address, socklen_t *length) nogil
    ssize_t sendto(int fd, const void *data, size_t n, int flags, const sockaddr *address, socklen_t length) nogil

cdef enum:
    LARGEST = 65536        # bytes of a datagram

cdef char *scratch = <char *>malloc(LARGEST)      # between a recvfrom and its copy no other thread gets the GIL
if scratch == NULL:
    raise MemoryError


@cython.auto_pickle(False)    # it would be a second one of the same socket
cdef class PacketConn(DuplexHandle):
    """A socket for datagrams (Go: net.PacketConn, net.UDPConn), for goroutines and plain threads.

    Made by goloop.net's listen_packet(), and by dial() with a peer: then read() and write() are for that peer alone.
    From any thread: reads and writes park a goroutine, which raises asyncio.CancelledError when it is cancelled, or
    block a plain thread. Several may call at once, and take turns. On the thread of a running loop outside of a
    goroutine they raise RuntimeError; the other methods do not wait, and may be called there, too.

    A read or write raises TimeoutError when its deadline passes, ClosedError when the connection is closed, also during
    the call, and any other OSError of the system, such as ConnectionRefusedError. `with` closes it.
    """

    cdef object pack              # address -> sockaddr, as bytes
    cdef object unlink            # a function to call at the close, or None

    def __init__(self, sock not None, pack, unlink=None):
        if self.desc is not never_opened:
            raise RuntimeError("a PacketConn is made once")
        if not isinstance(sock, _socket.socket) or sock.type != _socket.SOCK_DGRAM:
            raise TypeError(f"a datagram socket is needed, got {sock!r}")
        sock.setblocking(False)
        self.pack = pack
        self.unlink = unlink
        self.desc = new_polldesc(outside_of_bubbles(sock.detach()), False, "PacketConn.read()", "PacketConn.write()")

    cdef str ends(self):
        return f"{self.local_addr} -> {self.remote_addr or 'any'}"

    cdef tuple receive(self, Py_ssize_t most):
        cdef PollDesc desc = self.desc
        cdef Direction side = desc.reading
        cdef sockaddr_storage address
        cdef socklen_t length
        cdef Py_ssize_t n
        if most < 0:
            raise ValueError(f"the most bytes of a datagram are needed, got {most}")
        desc.begin(side)
        try:
            while True:
                if side.ready:
                    length = sizeof(address)
                    n = recvfrom(desc.fd, scratch, min(most, LARGEST), 0, <sockaddr *>&address, &length)
                    if n >= 0:
                        count_received(n)
                        return (PyBytes_FromStringAndSize(scratch, n),
                                PyBytes_FromStringAndSize(<char *>&address, length))
                    if errno == EAGAIN:
                        side.ready = False
                    elif errno != EINTR:
                        raise os_error(errno)
                    continue
                desc.park(side)
        finally:
            desc.end(side)

    cdef Py_ssize_t send(self, object data, bytes raw) except -1:
        cdef PollDesc desc = self.desc
        cdef Direction side = desc.writing
        cdef const sockaddr *address = NULL if raw is None else <const sockaddr *>PyBytes_AS_STRING(raw)
        cdef socklen_t length = 0 if raw is None else <socklen_t>PyBytes_GET_SIZE(raw)
        cdef Py_buffer view
        cdef Py_ssize_t n
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            desc.begin(side)
            try:
                while True:
                    if side.ready:
                        n = sendto(desc.fd, view.buf, view.len, MSG_NOSIGNAL, address, length)
                        if n >= 0:
                            count_written(n)
                            return n
                        if errno == EAGAIN:
                            side.ready = False
                        elif errno != EINTR:
                            raise os_error(errno)
                        continue
                    desc.park(side)
            finally:
                desc.end(side)
        finally:
            PyBuffer_Release(&view)

    def read_from(self, Py_ssize_t n=65536) -> tuple[bytes, str]:
        """Wait for a datagram; return it and its sender's address (Go: ReadFrom).

        n: the most bytes of it, beyond which it is cut off; ValueError for a negative number. Returns (bytes, str), the
        address "" for none. Raises TimeoutError when the deadline passes, ClosedError when the connection is closed,
        also during the call, or another OSError of the system. Parks a goroutine, blocks a plain thread; RuntimeError
        on the thread of a running loop outside of a goroutine.
        """
        data, raw = self.receive(n)
        return data, format_go(raw)

    def read(self, Py_ssize_t n=65536) -> bytes:
        """Wait for a datagram and return it (Go: UDPConn.Read). A datagram without content is b"", too.

        n: the most bytes of it, beyond which it is cut off; ValueError for a negative number. Raises TimeoutError when
        the deadline passes, ClosedError when the connection is closed, also during the call, or another OSError of the
        system. Parks a goroutine, blocks a plain thread; RuntimeError on the thread of a running loop outside of a
        goroutine.
        """
        return self.receive(n)[0]

    def write_to(self, data: Buffer, address: str) -> int:
        """Send a datagram to an address, waiting for room to send (Go: WriteTo).

        data: a bytes-like object. address: a str such as "127.0.0.1:53", or a path; ValueError for a str that is none.
        A name is looked up each time: give a number. Returns the number of bytes. Raises TimeoutError when the deadline
        passes, ClosedError when the connection is closed, also during the call, or another OSError of the system. Parks
        a goroutine, blocks a plain thread; RuntimeError on the thread of a running loop outside of a goroutine.
        """
        if self.desc.closed:
            raise closed_error()
        return self.send(data, self.pack(address))

    def write(self, data: Buffer) -> int:
        """Send a datagram to the peer of the dial(), waiting for room to send (Go: UDPConn.Write).

        data: a bytes-like object. Returns the number of bytes. Raises TimeoutError when the deadline passes,
        ClosedError when the connection is closed, also during the call, or another OSError of the system. Parks a
        goroutine, blocks a plain thread; RuntimeError on the thread of a running loop outside of a goroutine.
        """
        return self.send(data, None)

    def close(self) -> None:
        """Close it; reads and writes under way raise ClosedError (Go: Close). Twice is harmless.

        From any thread, goroutine or coroutine: it does not wait.
        """
        unlink, self.unlink = self.unlink, None
        try:
            if unlink is not None:
                unlink()
        finally:
            self.desc.close()

    @property
    def remote_addr(self):
        """The address of the dialled peer (str); "" for none, and once closed (Go: RemoteAddr)."""
        return format_go(sockaddr_of(self.desc.fd, True)) if not self.desc.closed else ""
