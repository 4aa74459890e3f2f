# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""DatagramTransport: UDP and Unix datagram sockets.

Registered like a stream, edge-triggered for both directions; a turn reads up to BATCH datagrams. Sockets
of a family that system/sockaddr.pyx knows are read and written here, others by the socket module, which also resolves
names.
"""

import collections
import socket as _socket_module
from asyncio import transports as _transports
from asyncio import trsock as _trsock
from asyncio.log import logger as _logger
from sys import version_info

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno

from goloop.core.loop.loop_core cimport READ_SIZE, LoopCore
from goloop.core.poll.pollset cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from goloop.core.system.posix cimport os_error
from goloop.core.system.sockaddr cimport (
    MSG_NOSIGNAL, Address, known, local_address, pack, raw_family, sockaddr, sockaddr_storage, socklen_t, unpack,
)
from goloop.core.transports.base cimport Transport, enter_context, flat, leave_context

from goloop.core.transports.base import stand_in as _stand_in


cdef extern from "Python.h":
    int PyBUF_WRITE

cdef extern from "sys/socket.h" nogil:
    ssize_t recvfrom(int fd, void *buf, size_t n, int flags, sockaddr *address, socklen_t *length)
    ssize_t sendto(int fd, const void *buf, size_t n, int flags, const sockaddr *address, socklen_t length)

cdef enum:
    BATCH = 16      # datagrams a turn; more wait for the next iteration

cdef object _StandIn = _stand_in("DatagramTransport", _transports._FlowControlMixin, _transports.DatagramTransport)
cdef type _Socket = _socket_module.socket
cdef int HEADER = 8 if version_info >= (3, 13) else 0     # what asyncio adds for each datagram that waits
cdef bint SEND_EMPTY = version_info >= (3, 13)            # before, asyncio's sendto(b"") did nothing


@cython.final
cdef class DatagramTransport(Transport):
    """A datagram socket, as asyncio.DatagramTransport."""

    cdef object buffer            # (bytes, address) that wait to be sent
    cdef Py_ssize_t size          # bytes that wait, headers included
    cdef object address           # remote address given to create_datagram_endpoint(), or None
    cdef bint connected           # to a peer with a name: its datagrams go out by send()
    cdef bint paired              # to a peer, perhaps without a name (an end of a socketpair)
    cdef bint readable
    cdef int family
    cdef bint native              # recvfrom and sendto are called here
    cdef Address peer             # of the last datagram received
    cdef object peer_name         # the same, as the protocol was given it: an answer need not convert it back

    max_size = READ_SIZE

    def __init__(self, LoopCore loop not None, sock, protocol, address=None, waiter=None, extra=None):
        self.setup(sock, protocol, extra, None)
        self.buffer = collections.deque()
        self.address = address
        self.extra["socket"] = _trsock.TransportSocket(sock)
        self.family = raw_family(sock)
        self.native = known(self.family) and type(sock) is _Socket
        self.extra["sockname"] = local_address(sock, self.fd, self.family)
        if "peername" not in self.extra:
            try:
                self.extra["peername"] = sock.getpeername()
            except OSError:
                self.extra["peername"] = None
        self.connected = bool(self.extra["peername"])
        self.paired = self.extra["peername"] is not None
        self.loop_core.own(self.fd, self)
        self.announce(waiter)

    @property
    def __class__(self):
        return _StandIn

    def __repr__(self):
        state = "closed" if self.file is None else "closing" if self.closing else "open"
        return f"<DatagramTransport {state} fd={self.fd} bufsize={self.size}>"

    @property
    def _sock(self):
        return self.file

    @_sock.setter
    def _sock(self, sock):
        self.file = sock
        self.native = False      # the program wants to see the calls

    @property
    def _sock_fd(self):
        return self.fd

    # ------------------------------------------------------------------ events
    cdef object run(self):
        cdef unsigned int events = self.events
        if self.lost or self.busy:
            return None
        self.events = 0
        if events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            self.readable = True
        enter_context(self.context)
        self.busy = True
        try:
            if self.readable and self.started and self.reading():
                self.read()
            if events & (EPOLLOUT | EPOLLERR) and self.buffer and not self.lost:
                self.flush()
        except BaseException:
            self.events |= events     # as in StreamTransport.run()
            self.loop_core.queue(self)
            raise
        finally:
            self.busy = False
            leave_context(self.context)
        if self.events:
            self.loop_core.queue(self)
        return None

    cdef int read(self) except -1:
        cdef int _i
        for _i in range(BATCH):
            if not (self.receive() if self.native else self.receive_by_object()):
                return 0
            if not self.reading():
                return 0
        self.loop_core.queue(self)
        return 0

    cdef bint receive(self) except -1:
        """Receive a datagram and deliver it; False when there was none."""
        cdef char *room = self.loop_core.scratch()
        cdef Py_ssize_t n
        cdef Address peer
        peer.length = sizeof(sockaddr_storage)
        n = recvfrom(self.fd, room, READ_SIZE, 0, <sockaddr *>&peer.storage, &peer.length)
        if n >= 0:
            self.peer = peer
            self.peer_name = unpack(&peer)
            self.received(PyBytes_FromStringAndSize(room, n), self.peer_name)
        elif errno == EAGAIN:
            self.readable = False
            return False
        elif errno != EINTR:
            self.refused(os_error(errno))
        return True

    cdef bint receive_by_object(self) except -1:
        cdef char *scratch = self.loop_core.scratch()
        cdef object room = PyMemoryView_FromMemory(scratch, READ_SIZE, PyBUF_WRITE)
        cdef Py_ssize_t n
        try:
            n, address = self.file.recvfrom_into(room)
        except BlockingIOError:
            self.readable = False
            return False
        except InterruptedError:
            return True
        except OSError as exc:
            self.refused(exc)
        else:
            self.received(PyBytes_FromStringAndSize(scratch, n), address)
        return True

    # The protocol's methods: what they raise is reported, and the endpoint lives on, as in asyncio.
    cdef int received(self, bytes data, object address) except -1:
        self.loop_core.accounts.received += PyBytes_GET_SIZE(data)
        self.bytes_in += <size_t>len(data)
        try:
            self.proto.datagram_received(data, address)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report("datagram_received", exc)
        return 0

    cdef int refused(self, object error) except -1:
        try:
            self.proto.error_received(error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report("error_received", exc)
        return 0

    cdef int report(self, str method, object exc) except -1:
        self.loop_core.call_exception_handler({
            "message": f"Exception in callback DatagramTransport.{method}()", "exception": exc, "transport": self,
            "protocol": self.proto,
        })
        return 0

    def pause_reading(self):
        """Stop calling the protocol with datagrams until resume_reading(). Harmless when already paused."""
        if self.reading():
            self.paused = True
            if self.loop_core._debug:
                _logger.debug("%r pauses reading", self)

    def resume_reading(self):
        """Go on after pause_reading(); what the socket holds is received in the next iteration."""
        if self.closing or not self.paused:
            return
        self.paused = False
        self.readable = True      # the edge of what waits may be spent
        if self.started:
            self.loop_core.queue(self)
        if self.loop_core._debug:
            _logger.debug("%r resumes reading", self)

    # ----------------------------------------------------------------- writing
    # asyncio's has these four from its base class.
    def write(self, data):
        """NotImplementedError: use sendto()."""
        raise NotImplementedError

    def writelines(self, list_of_data):
        """NotImplementedError: use sendto()."""
        raise NotImplementedError

    def write_eof(self):
        """NotImplementedError: a datagram socket has no end of file."""
        raise NotImplementedError

    def can_write_eof(self):
        """NotImplementedError: a datagram socket has no end of file."""
        raise NotImplementedError

    cdef Py_ssize_t pending(self) except -1:
        return self.size

    cdef int discard(self) except -1:
        self.buffer.clear()
        self.size = 0
        return 0

    def close(self):
        """Close when what is buffered has been sent; connection_lost(None) is called after that."""
        if self.closing:
            return
        self.closing = True
        if not self.buffer:
            self.lose_soon(None)

    def sendto(self, data, addr=None):
        """Send a datagram to addr, or to the remote address of a connected endpoint.

        What the kernel refuses goes to the protocol's error_received().
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        data = flat(data)
        self.bytes_out += <size_t>len(data)
        if not SEND_EMPTY and not data:
            return
        if self.address:
            if addr is not None and addr != self.address:
                raise ValueError(f"Invalid address: must be None or {self.address}")
            addr = self.address
        if self.lost:
            if self.address:
                self.ignored_write("socket.send() raised exception.")
            return
        self.loop_core.accounts.written += len(data)
        if not self.buffer and self.send(data, addr):
            return
        if self.lost:
            return
        self.buffer.append((bytes(data), addr))
        self.size += len(data) + HEADER
        self.maybe_pause()

    cdef bint send(self, object data, object addr) except -1:
        """True: the datagram is dealt with; False: the socket is full."""
        cdef Address packed
        cdef Address *to = &packed
        try:
            if self.connected or (addr is None and self.paired):
                if self.native:
                    to.length = 0
                    return self.send_to(data, to)
                self.file.send(data)
            elif self.native and addr is not None and addr is self.peer_name:
                return self.send_to(data, &self.peer)
            elif self.native and pack(addr, self.family, to):
                return self.send_to(data, to)
            else:
                self.file.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self.refused(exc)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal write error on datagram transport")
        return True

    cdef bint send_to(self, object data, const Address *to) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t n
        cdef int error
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        n = sendto(self.fd, view.buf, view.len, MSG_NOSIGNAL, <sockaddr *>&to.storage if to.length else NULL, to.length)
        error = errno
        PyBuffer_Release(&view)
        if n >= 0:
            return True
        if error != EAGAIN and error != EINTR:
            self.refused(os_error(error))
            return True
        return False

    cdef int flush(self) except -1:
        cdef Py_ssize_t length
        while self.buffer:
            data, addr = self.buffer[0]
            if not self.send(data, addr):
                break      # full; the low-water mark may be reached all the same
            if self.lost:
                return 0
            length = len(data)
            self.buffer.popleft()
            self.size -= length + HEADER
        self.maybe_resume()      # may send
        if self.closing and not self.buffer and not self.lost:
            self.lose_soon(None)
        return 0
