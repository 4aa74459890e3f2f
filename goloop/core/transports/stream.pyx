# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""StreamTransport: TCP and Unix stream sockets.

The socket is registered once, for both directions, edge-triggered; after that only recv and send are
called. So an edge must never be forgotten: `readable` stays set from the edge until a read finds nothing.
A short read finds nothing more either (`short_read_drains`), which saves a call for each message, but only over
TCP, and only until an event says that something may stand behind what was read: a FIN, an error, urgent
data. Unix sockets end a read at ancillary data. One read an iteration, so that a fast peer does not starve
the others.
"""

from asyncio import constants as _constants
from asyncio import protocols as _protocols
from asyncio import selector_events as _selector_events
from asyncio import transports as _transports
from asyncio import trsock as _trsock
from asyncio.log import logger as _logger
from socket import socket as _Socket
from sys import version_info

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_XDECREF, PyObject
from libc.errno cimport EAGAIN, EINTR, errno

from goloop.core.loop.loop_core cimport READ_SIZE, LoopCore
from goloop.core.poll.pollset cimport (
    EPOLLERR, EPOLLHUP, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, gl_conn, gl_offload, offload_ops,
)
from goloop.core.system.posix cimport os_error
from goloop.core.system.sockaddr cimport (
    AF_INET, AF_INET6, IPPROTO_TCP, MSG_NOSIGNAL, SOCK_STREAM, local_address, raw_family, raw_kind, raw_proto,
    socklen_t,
)
from goloop.core.transports.base cimport as_bytes, enter_context, flat, leave_context

from goloop.core.transports.base import stand_in as _stand_in


cdef extern from "Python.h":
    PyObject *raw_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1

cdef extern from "sys/socket.h" nogil:
    enum:
        SOL_SOCKET
        SO_LINGER
    struct linger:
        int l_onoff
        int l_linger
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)

cdef extern from "netinet/tcp.h" nogil:
    enum:
        TCP_NODELAY

cdef enum:
    BULK = 32768            # bytes in one read: such a stream had better copy once, from the kernel. It stays inline
    BULK_INLINE_TURNS = 32  # for that many turns
    FOREVER = 0x7fffffff    # turns: for ever
    BULK_MORE = 4096        # bytes of room beyond what came last: a message of the same size leaves the read short

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef const gl_offload *io = offload_ops()
cdef object _BufferedProtocol = _protocols.BufferedProtocol
cdef object _StandIn = _stand_in("StreamTransport", _transports._FlowControlMixin)
cdef object _TransportSocket = _trsock.TransportSocket
cdef str WRITELINES = "writelines" if version_info >= (3, 12) else "write"   # as asyncio names it in its errors


cdef object wrong_type(object data):
    """The TypeError for what is not bytes, as asyncio's write() raises it: its words differ between patch releases."""
    try:
        _selector_events._SelectorSocketTransport.write(None, data)
    except TypeError as exc:
        return exc.with_traceback(None)
    return TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")


@cython.final
cdef class StreamTransport(StreamOutput):
    """A connection over a stream socket, as asyncio.Transport."""

    _start_tls_compatible = True
    _sendfile_compatible = _constants._SendfileMode.TRY_NATIVE
    max_size = READ_SIZE

    def __init__(
        self, LoopCore loop not None, sock, protocol, waiter=None, extra=None, server=None, context=None
    ):
        cdef int family
        self.setup(sock, protocol, extra, context)
        self.buffered = isinstance(protocol, _BufferedProtocol)
        family = raw_family(sock)
        self.extra["socket"] = _TransportSocket(sock)
        self.extra["sockname"] = local_address(sock, self.fd, family)
        if "peername" not in self.extra:
            try:
                self.extra["peername"] = sock.getpeername()
            except OSError:
                self.extra["peername"] = None
        self.keep_open(sock)
        if server is not None:
            self.join_server(server)
        self.tcp = self.short_read_drains = family == AF_INET or family == AF_INET6
        if self.tcp and raw_kind(sock) == SOCK_STREAM:
            self.set_nodelay(raw_proto(sock))
        self.loop_core.own(self.fd, self)
        self.announce(waiter)

    @property
    def __class__(self):
        return _StandIn

    def __repr__(self):
        state = "closed" if self.file is None else "closing" if self.closing else "open"
        return (f"<StreamTransport {state} fd={self.fd} read={'polling' if self.polling() else 'idle'} "
                f"write=<{'polling' if self.size else 'idle'}, bufsize={self.size}>>")

    cdef int keep_open(self, object sock) except -1:
        """Let a sock.close() of another owner take effect only when the transport lets go.

        The transport reads and writes by number: were the number used again meanwhile, it would do so on another
        connection. The counter is the one with which socket.makefile() does the same.
        """
        if isinstance(sock, _Socket):
            sock._io_refs += 1
            self.counted = True
        return 0

    cdef int set_nodelay(self, int proto) except -1:
        """Send small pieces at once. A socket made without a protocol's number is TCP, or does not know the option."""
        cdef int on = 1
        if proto == IPPROTO_TCP or proto == 0:
            if setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 and proto:
                raise os_error(errno)
        return 0

    cdef int release_file(self) except -1:
        cdef linger reset = linger(1, 0)
        if self.conn != NULL:
            # A kernel that is left with unread bytes resets the connection. It does not know of those that we have.
            if io.unread(self.conn):
                setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))
            self.drop_conn()
        if self.counted:
            self.counted = False
            self.file._io_refs -= 1   # the caller closes the file next
        return 0

    cdef bint polling(self):
        return self.started and self.reading() and not self.ended

    @property
    def _sock(self):
        self.settle()
        return self.file

    @_sock.setter
    def _sock(self, sock):
        self.file = sock

    @property
    def _sock_fd(self):
        return self.fd

    @property
    def _paused(self):
        return self.paused

    @property
    def _eof(self):
        return self.eof

    @property
    def _empty_waiter(self):
        return self.empty_waiter

    def __dealloc__(self):
        if self.conn != NULL:
            io.close(self.conn, self.conn_generation)

    def set_protocol(self, protocol):
        """Switch to another protocol; it gets what arrives from now on."""
        self.proto = protocol
        self.buffered = isinstance(protocol, _BufferedProtocol)

    # ------------------------------------------------------------------ events
    cdef object runs(self):
        inner = getattr(self.proto, "_app_protocol", None) if self.buffered else None      # of TLS what it serves
        return type(self.proto) if inner is None else type(inner)

    cdef object run(self):
        cdef unsigned int events = self.events
        self.settle()              # a write that fails comes before the end of the stream that it fails for
        if self.lost or self.busy:
            return None
        self.events = 0
        self.loop_core.offload_policy.turns += 1
        if self.offloaded:
            io.look(self.conn)
        if events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.short_read_drains = False
        if events & ~<unsigned int>EPOLLOUT:
            self.readable = True
        enter_context(self.context)
        self.busy = True
        try:
            if self.readable and self.started and not self.ended and self.reading():
                self.read()
            if events & (EPOLLOUT | EPOLLHUP | EPOLLERR) and not self.lost:
                if self.size:
                    self.flush()
                elif self.writable_waiter is not None:
                    self._wake_writable()
        except BaseException:
            # SystemExit or KeyboardInterrupt: should the loop run again, nothing that was not dealt with is forgotten.
            self.events |= events
            self.loop_core.queue(self)
            raise
        finally:
            self.busy = False
            leave_context(self.context)
        if self.events:
            self.loop_core.queue(self)  # a nested iteration brought them
        else:
            self.follow_policy()
        return None

    cdef inline int follow_policy(self) except -1:
        """After a turn: offload the connection or take it back, as the loop's policy has it."""
        if self.offloaded:
            if not self.loop_core.offload_policy.on or io.failed(self.conn):
                self.take_back_conn()
        elif self.loop_core.offload_policy.on and self.conn == NULL:
            if self.inline_turns_left:
                self.inline_turns_left -= 1
            else:
                self.offload()
        return 0

    # ----------------------------------------------------------------- offload
    # To everything else here an offloaded connection is a socket like any other: reads find what the netpoller has
    # received, writes go to its ring as they would go to the kernel's buffer. Whatever is not plain reading and writing
    # takes the connection back first, and then does what it always did. HACKING.md, protocol "offload".
    cdef int offload(self) except -1:
        """Give the socket to the netpoller, if nothing is under way."""
        cdef gl_conn *conn
        if not self.tcp or not self.started or self.closing or self.paused or self.ended or self.eof:
            return 0
        if self.readable or self.size or self.queued or self.collected:
            return 0
        if self.empty_waiter is not None or self.writable_waiter is not None:
            return 0
        if not self.loop_core.pollset.suspend(self.fd, self):
            return 0
        conn = io.open(self.loop_core.pollset.ps, self.fd, <void *>self, self.short_read_drains)
        if conn == NULL:
            self.loop_core.pollset.resume(self.fd, self)  # then not: it was only to be faster
            return 0
        self.conn = conn
        self.conn_generation = conn.generation
        self.offloaded = True
        self.loop_core.offload_policy.offloaded += 1
        self.loop_core.offload_policy.offloads += 1
        return 0

    cdef int take_back(self) except -1:
        """Take the socket back from the netpoller. Returns 0, or the errno with which its last send failed.

        What was received and not read is read first; what was written and not sent is in the buffer again.
        """
        cdef const char *data = NULL
        cdef size_t n
        cdef int error
        self.offloaded = False
        self.inline_turns_left = self.loop_core.offload_policy.inline_turns
        self.loop_core.offload_policy.offloaded -= 1
        if self.conn.generation != self.conn_generation:
            self.conn = NULL          # a fork came between: this is the child's copy of the parent's connection
            return 0
        if not io.take_back(self.conn):
            with nogil:
                while not io.take_back(self.conn):
                    sched_yield()
        error = io.failed(self.conn)
        while not error:
            n = io.unsent(self.conn, &data)
            if n == 0:
                break
            self.push(PyBytes_FromStringAndSize(data, n), 0)
        if not io.readable(self.conn):
            self.drop_conn()
        elif self.started and self.reading():
            self.readable = True
            self.loop_core.queue(self)
        self.loop_core.pollset.resume(self.fd, self)
        return error

    cdef int drop_conn(self) except -1:
        io.close(self.conn, self.conn_generation)
        self.conn = NULL
        return 0

    cdef int take_back_conn(self) except -1:
        """Back to the loop's own reading and writing, if the netpoller has the socket."""
        cdef int error
        if self.offloaded:
            error = self.take_back()
            if error and not self.lost:
                self.fail(os_error(error), "Fatal write error on socket transport")
        return 0

    cdef int pin_inline(self, bint on) except -1:
        """Leave reading and writing to the loop until further notice: a peer waits for each message, and few come."""
        if on:
            self.take_back_conn()
            self.inline_turns_left = FOREVER
        elif self.inline_turns_left > BULK_INLINE_TURNS:
            self.inline_turns_left = BULK_INLINE_TURNS
        return 0

    cdef Py_ssize_t receive_offloaded(self, char *room, Py_ssize_t length) except -2:
        """As receive(), from what the netpoller has received; conn is NULL afterwards if the socket is to be asked."""
        cdef Py_ssize_t n = io.recv(self.conn, room, length)
        cdef int error
        if n > 0:
            if self.offloaded:
                if n >= BULK:
                    self.take_back_conn()
                    self.inline_turns_left = BULK_INLINE_TURNS
                else:
                    self.readable = io.readable(self.conn)
            return n       # once it is not offloaded, the socket is to be asked after what is left here
        if n < 0 and errno == EAGAIN:
            if self.offloaded:
                self.readable = False
            else:
                self.drop_conn()
            return -1
        error = errno if n < 0 else 0
        if self.offloaded:
            self.take_back()
        if self.conn != NULL:
            self.drop_conn()
        self.readable = False
        if n < 0:
            self.fail(os_error(error), "Fatal read error on socket transport")
        return n

    # ----------------------------------------------------------------- reading
    cdef int read(self) except -1:
        if self.buffered:
            self.read_buffered()
        else:
            self.read_bytes()
        if self.readable and self.reading() and not self.ended:
            self.loop_core.queue(self)
        return 0

    cdef Py_ssize_t receive(self, char *room, Py_ssize_t length) except -2:
        """recv: the number of bytes, 0 at the end of the stream, -1 when there is nothing or it failed."""
        cdef Py_ssize_t n
        if self.conn != NULL:
            n = self.receive_offloaded(room, length)
            if n >= 0 or self.conn != NULL or self.lost:
                self.loop_core.accounts.received += max(n, 0)
                return n
        n = recv(self.fd, room, length, 0)
        if n < 0:
            if errno == EAGAIN:
                self.readable = False
            elif errno != EINTR:
                self.readable = False
                self.fail(os_error(errno), "Fatal read error on socket transport")
            return n
        self.loop_core.accounts.received += n
        if n < length and self.short_read_drains:
            self.readable = False
        return n

    cdef int read_bytes(self) except -1:
        cdef object data = None
        try:
            data = self.receive_bytes()
            if data:
                self.proto.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal error: protocol.data_received() call failed.")
            return 0
        if data is not None and not data:
            self.got_eof()
        return 0

    cdef object receive_bytes(self):
        """What a read brings, as bytes: empty at the end of the stream, None when there is nothing or it failed."""
        cdef char *room
        cdef Py_ssize_t n
        if self.bulk:
            return self.receive_bulk()
        room = self.loop_core.scratch()
        n = self.receive(room, READ_SIZE)
        if n >= BULK:
            self.bulk = n
        self.bytes_in += max(n, 0)
        return None if n < 0 else PyBytes_FromStringAndSize(room, n)

    cdef object receive_bulk(self):
        """As take(), into bytes that are made beforehand: what is large is not copied again."""
        cdef Py_ssize_t length = min(self.bulk + BULK_MORE, READ_SIZE), n
        cdef PyObject *data = raw_bytes(NULL, length)
        try:
            n = self.receive(PyBytes_AS_STRING(<object>data), length)
            if n < 0:
                return None
            self.bytes_in += n
            _PyBytes_Resize(&data, n)
            self.bulk = 0 if n < BULK else 2 * n if n == length else n
            return <object>data
        finally:
            Py_XDECREF(data)

    cdef int read_buffered(self) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t n
        cdef object room
        try:
            room = self.proto.get_buffer(-1)
            if not len(room):
                raise RuntimeError("get_buffer() returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal error: protocol.get_buffer() call failed.")
            return 0
        try:
            PyObject_GetBuffer(room, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        except Exception:
            exc = TypeError(f"get_buffer() must return a read-write bytes-like object, not {type(room).__name__!r}")
            self.fail(exc, "Fatal read error on socket transport")
            return 0
        try:
            n = self.receive(<char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if n > 0:
            self.bytes_in += n
            try:
                self.proto.buffer_updated(n)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self.fail(exc, "Fatal error: protocol.buffer_updated() call failed.")
        elif n == 0:
            self.got_eof()
        return 0

    cdef int got_eof(self) except -1:
        self.readable = False
        if self.loop_core._debug:
            _logger.debug("%r received EOF", self)
        try:
            keep_open = self.proto.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal error: protocol.eof_received() call failed.")
            return 0
        if keep_open:
            self.ended = True
        else:
            self.close()
        return 0

    def pause_reading(self):
        """Stop calling the protocol with data until resume_reading(). Harmless when already paused."""
        if self.reading():
            self.take_back_conn()  # from here on nothing is read from the socket
            if self.closing:
                return
            self.paused = True
            if self.loop_core._debug:
                _logger.debug("%r pauses reading", self)

    def resume_reading(self):
        """Go on after pause_reading(); what has come in meanwhile is read in the next iteration."""
        if self.closing or not self.paused:
            return
        self.paused = False
        self.readable = True      # the edge of what waits may be spent
        self.ended = False        # and a new protocol has a right to the end of the stream
        if self.started:
            self.loop_core.queue(self)
        if self.loop_core._debug:
            _logger.debug("%r resumes reading", self)

    # ----------------------------------------------------------------- writing
    cdef int discard(self) except -1:
        if self.offloaded:
            self.take_back()
        self.settle()      # it was written before, and may go as far as the kernel takes it
        self.buffer = None
        self.first = 0
        self.offset = 0
        self.size = 0
        return 0

    def write(self, data):
        """Send data (bytes, bytearray or memoryview): now as far as the socket takes it, the rest later."""
        cdef Py_buffer view
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise wrong_type(data)
        self.check_writable("write")
        if type(data) is memoryview and not data.c_contiguous:
            data = bytes(data)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len == 0:
                return
            self.bytes_out += view.len
            if self.lost:
                self.ignored_write("socket.send() raised exception.")
                return
            self.loop_core.accounts.written += view.len
            if self.offloaded and self.write_offloaded(view.buf, view.len):
                return
            if (self.loop_core.todo or self.collected) and self.size == 0 and self.collect(data, view.buf, view.len):
                return
            if not self.lost:
                self.send_or_buffer(data, <const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int send_or_buffer(self, object data, const char *start, Py_ssize_t length) except -1:
        """Send now, unless something waits already; buffer what is left."""
        cdef Py_ssize_t n = 0
        cdef int error = 0
        if self.size == 0:
            n = send(self.fd, start, length, MSG_NOSIGNAL)
            if n < 0:
                error = errno
                n = 0
        if error and error != EAGAIN and error != EINTR:
            return self.fail(os_error(error), "Fatal write error on socket transport")
        if n == length:
            return 0
        if type(data) is bytes:
            self.push(data, n)
        else:
            self.push(PyBytes_FromStringAndSize(start + n, length - n), 0)
        if error == EINTR:
            self.events |= EPOLLOUT      # nothing will tell that there is room: try again
            self.loop_core.queue(self)
        return self.maybe_pause()

    cdef inline bint write_offloaded(self, const void *data, Py_ssize_t length) except -1:
        """Give it to the netpoller. False: it has no room, and the socket is the loop's again."""
        if <size_t>length <= io.room(self.conn):
            io.put(self.conn, data, length)
            self.kick()
            return True
        self.take_back_conn()
        self.inline_turns_left = BULK_INLINE_TURNS
        return self.lost

    def writelines(self, list_of_data):
        """Send an iterable of bytes-like objects, in one system call as far as the socket takes them."""
        cdef object data
        cdef bint idle = self.size == 0
        self.check_writable(WRITELINES)
        pieces = []
        for data in list_of_data:
            data = as_bytes(flat(data))
            if data:
                self.bytes_out += PyBytes_GET_SIZE(data)
                pieces.append(data)
        if not pieces:
            return
        if self.lost:
            self.ignored_write("socket.send() raised exception.")
            return
        for data in pieces:
            self.loop_core.accounts.written += PyBytes_GET_SIZE(data)
        if self.offloaded:
            if self.put_all(pieces):
                return
            self.take_back_conn()
            self.inline_turns_left = BULK_INLINE_TURNS
            if self.lost:
                return
            idle = self.size == 0
        if idle and (self.loop_core.todo or self.collected):
            while pieces and self.collect(pieces[0], PyBytes_AS_STRING(pieces[0]), PyBytes_GET_SIZE(pieces[0])):
                del pieces[0]
            if self.lost or not pieces:
                return
            idle = self.size == 0
        for data in pieces:
            self.push(data, 0)
        if idle:
            self.flush()
        if self.size:
            self.maybe_pause()

    cdef bint put_all(self, list pieces) except -1:
        """Leave the pieces to the netpoller, if they all fit."""
        cdef size_t room = io.room(self.conn)
        cdef object data
        for data in pieces:
            if <size_t>PyBytes_GET_SIZE(data) > room:
                return False
            room -= PyBytes_GET_SIZE(data)
        for data in pieces:
            io.put(self.conn, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.kick()
        return True

    cdef inline int kick(self) except -1:
        """The netpoller has something to send."""
        io.kick(self.conn)
        if self.loop_core.todo:
            self.loop_core.outbox.kick()
        else:
            self.loop_core.outbox.tell_netpoller()
        return 0
