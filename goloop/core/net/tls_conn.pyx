# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""TLSConn: TLS over a Conn, by way of ssl.SSLObject and two memory buffers (Go: crypto/tls.Conn).

`lock` guards the SSLObject and its buffers, which a reader and a writer use at once on two threads; it is held for one
call into OpenSSL and never during a wait. `unsent` is guarded by the turn to write, and the bytes read ahead
(`early`) by `lock`. A deadline or a cancellation in the middle of anything leaves it to be continued.
"""

import ssl as _ssl
from _thread import allocate_lock

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from goloop.core.net.conn cimport Conn
from goloop.core.net.polldesc cimport PollDesc, closed_error, never_opened

from goloop.errors import Canceled


cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_NOSIGNAL
    ssize_t send(int fd, const void *data, size_t n, int flags)

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char *data, Py_ssize_t size, int flags)
    int PyBUF_READ

cdef enum:
    CHUNK = 65536          # bytes encrypted, or received, at a time

cdef object _Again = (_ssl.SSLWantReadError, _ssl.SSLWantWriteError)
cdef object _SSLError = _ssl.SSLError
cdef object _ZeroReturn = _ssl.SSLZeroReturnError


cdef class TLSConn(Conn):
    """A TLS connection over a Conn, which it takes over; otherwise used as a Conn (Go: crypto/tls.Conn).

    conn: a Conn that nothing reads or writes, and that is no TLSConn. context: an ssl.SSLContext. server_side: be the
    server. server_hostname: the name that a server's certificate must be for. TypeError or ValueError for arguments
    that do not go together, ClosedError for a closed Conn, RuntimeError for one in use. From any thread, goroutine or
    coroutine: the handshake happens at the first read or write, unless handshake() is called before. It parks a
    goroutine and blocks a plain thread, and raises ssl.SSLError if it fails. An end of the stream without TLS's own end
    is an ssl.SSLEOFError: an attacker may have cut it off.

    ssl_object: an attribute, to be read only: the ssl.SSLObject, to ask for certificates, version and ALPN protocol.
    """

    def __init__(self, Conn conn not None, context, *, server_side=False, server_hostname=None):
        if self.desc is not never_opened:
            raise RuntimeError("a TLSConn is made once")
        if isinstance(conn, TLSConn):
            raise TypeError("TLS inside of TLS is not supported")
        if not isinstance(context, _ssl.SSLContext):
            raise TypeError(f"an ssl.SSLContext is needed, got {context!r}")
        if context.check_hostname and not server_side and not server_hostname:
            # ssl.SSLObject would check nothing then.
            raise ValueError("a context with check_hostname needs a server_hostname: whose certificate is it to be?")
        if conn.desc.closed:
            raise closed_error()
        if conn.desc.fd < 0:
            raise TypeError("TLS needs a connection with a descriptor, and a pipe() has none")
        if conn.desc.reading.held or conn.desc.writing.held:
            raise RuntimeError("TLS cannot begin while the connection is being read or written")
        self.incoming = _ssl.MemoryBIO()
        self.outgoing = _ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_side, server_hostname)
        self.incoming.write(conn.buffer[conn.at:])
        self.lock = allocate_lock()
        self.unsent = self.early = b""
        self.remote = conn.remote
        self.desc, conn.desc = conn.desc, never_opened      # the Conn itself is closed from here on
        self.desc.reading.what, self.desc.writing.what = "TLSConn.read()", "TLSConn.write()"

    # ------------------------------------------------------------ the two ends
    cdef int prepare(self) except -1:
        return 0 if self.shaken else self.shake()

    cdef int flush(self) except -1:
        """Send what OpenSSL has made. With the turn to write."""
        cdef bytes data
        cdef Py_ssize_t sent
        while True:
            with self.lock:
                data = self.unsent + self.outgoing.read()
            if not data:
                return 0
            sent = 0
            try:
                Conn.send_all(self, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &sent)
            finally:
                self.unsent = data[sent:]

    cdef int feed(self) except -1:
        """Receive something for OpenSSL. With the turn to read."""
        cdef bytes data = self.recv_some(CHUNK)
        with self.lock:
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()
        return 0

    cdef int shake(self) except -1:
        cdef PollDesc desc = self.desc
        cdef bint done = False
        desc.begin(desc.reading)
        try:
            desc.begin(desc.writing)
            try:
                while not self.shaken:
                    if self.failure is not None:
                        raise self.failure
                    try:
                        self.ssl_object.do_handshake()
                        done = True
                    except _Again:
                        pass
                    except _SSLError as exc:
                        self.failure = exc
                        self.send_now()          # the alert that says why
                        raise
                    self.flush()
                    if done:
                        self.shaken = True
                    else:
                        self.feed()
            finally:
                desc.end(desc.writing)
        finally:
            desc.end(desc.reading)
        return 0

    cdef bytes receive(self, Py_ssize_t most):
        cdef PollDesc desc = self.desc
        cdef bytes data
        cdef object failure = None
        cdef bint more
        while True:
            data = None
            with self.lock:
                if self.early:
                    data, self.early = self.early[:most], self.early[most:]
                    return data
                try:
                    data = self.ssl_object.read(most)
                except _Again:
                    pass
                except _ZeroReturn:
                    data = b""
                except _SSLError as exc:
                    failure = exc
                more = self.outgoing.pending > 0
            if failure is not None:
                if not desc.writing.held:
                    self.send_now()              # the alert that says why
                raise failure
            if more and not desc.writing.held:   # an answer to the peer's TLS; a writer under way sends it along
                try:
                    desc.begin(desc.writing)
                    try:
                        self.flush()
                    finally:
                        desc.end(desc.writing)
                except (TimeoutError, Canceled):
                    pass                         # the writer's deadline; the next write sends it
                except BaseException:
                    if data:
                        with self.lock:
                            self.early = data + self.early
                    raise
            if data is not None:
                return data
            self.feed()

    cdef Py_ssize_t receive_into(self, char *room, Py_ssize_t most) except -1:
        cdef bytes data = self.receive(most)
        memcpy(room, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return PyBytes_GET_SIZE(data)

    cdef int send_all(self, const char *data, Py_ssize_t length, Py_ssize_t *sent) except -1:
        self.flush()
        while sent[0] < length:
            piece = PyMemoryView_FromMemory(<char *>data + sent[0], min(length - sent[0], CHUNK), PyBUF_READ)
            with self.lock:
                sent[0] += <Py_ssize_t>self.ssl_object.write(piece)
            self.flush()
        return 0

    cdef int send_now(self) except -1:
        """Send what OpenSSL has made as far as it goes without waiting."""
        cdef bytes data
        with self.lock:
            data = self.unsent + self.outgoing.read()
        self.unsent = b""
        if data:
            send(self.desc.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_NOSIGNAL)
        return 0

    cdef int say_goodbye(self) except -1:
        if self.shaken and not self.desc.writing.held:
            with self.lock:
                try:
                    self.ssl_object.unwrap()
                except OSError:
                    pass                         # the peer's own is not waited for
            self.send_now()
        return 0

    # --------------------------------------------------------------- the methods
    def handshake(self) -> None:
        """Do the handshake now, if it was not done (Go: tls.Conn.Handshake).

        ssl.SSLError if it fails, also from every read and write then; TimeoutError when the deadline of reads or writes
        passes; ClosedError when the connection is closed, also during the call. Parks a goroutine, blocks a plain
        thread; RuntimeError on the thread of a running loop outside of a goroutine.
        """
        self.prepare()

    def close_write(self) -> None:
        """Send TLS's end of the stream after the written bytes; reading goes on (Go: tls.Conn.CloseWrite).

        It does the handshake before if that was not done, and raises as a write does: TimeoutError, ClosedError,
        ssl.SSLError or another OSError. Parks a goroutine, blocks a plain thread; RuntimeError on the thread of a
        running loop outside of a goroutine.
        """
        cdef PollDesc desc = self.desc
        self.prepare()
        desc.begin(desc.writing)
        try:
            self.flush()
            with self.lock:
                try:                             # or else OpenSSL would take what is there for a protocol error
                    while True:
                        data = self.ssl_object.read(CHUNK)
                        if not data:
                            break
                        self.early += data
                except OSError:
                    pass
                try:
                    self.ssl_object.unwrap()
                except OSError:
                    pass
            self.flush()
        finally:
            desc.end(desc.writing)
