# cython: language_level=3, boundscheck=False, wraparound=False
"""SSLProtocol: asyncio's TLS protocol, with the way of the data compiled.

It goes on after a pause in the context of the connection, as a plain one does, and not in that of whoever called
resume_reading(). Handshake, shutdown, flow control's decisions and errors are the standard library's
(asyncio.sslproto), the same from Python 3.11 to 3.15. What each message goes through is here: the same steps on the
same attributes, without frames, and without the exception that says that there is nothing more to read, which costs
more than reading.

What asyncio gets wrong is right here: sizes are in bytes whatever the items of a memoryview are, what came before an
error is delivered, the buffer of a BufferedProtocol may be of any type, the peer gets OpenSSL's alert, and the caller
of create_connection() or start_tls() goes on before the protocol gets data.
"""

import ssl as _ssl
from asyncio import sslproto as _sslproto

from goloop.core.transports.base cimport as_bytes, flat
from goloop.core.transports.stream cimport StreamTransport

cdef object _Object = _ssl.SSLObject
cdef object _SSLError = _ssl.SSLError
cdef tuple AGAIN = _sslproto.SSLAgainErrors
cdef object UNWRAPPED = _sslproto.SSLProtocolState.UNWRAPPED
cdef object DO_HANDSHAKE = _sslproto.SSLProtocolState.DO_HANDSHAKE
cdef object WRAPPED = _sslproto.SSLProtocolState.WRAPPED
cdef object FLUSHING = _sslproto.SSLProtocolState.FLUSHING
cdef object STATE_INIT = _sslproto.AppProtocolState.STATE_INIT
cdef object SHUTDOWN = _sslproto.SSLProtocolState.SHUTDOWN
cdef object _Protocol = _sslproto.SSLProtocol
cdef object _Transport = _sslproto._SSLProtocolTransport
cdef object _set_state = _Protocol._set_state
cdef object _connection_made = _Protocol.connection_made
cdef object _on_handshake_complete = _Protocol._on_handshake_complete
cdef object _fatal_error = _Protocol._fatal_error
cdef object _buffer_updated = _Protocol.buffer_updated
cdef object _do_read = _Protocol._do_read
cdef object _write_appdata = _Protocol._write_appdata
cdef object _control_app_writing = _Protocol._control_app_writing

cdef Py_ssize_t RECORD = 16 * 1024      # bytes; one read returns no more than one record's (RFC 8446, 5.1)


cdef object raw(object sslobj):
    """What does the work for an SSLObject; a class of an application's own is called as it is."""
    return sslobj._sslobj if type(sslobj) is _Object else sslobj


cdef object context_of(object transport):
    """The context in which a transport calls its protocol; None if it is not one of ours."""
    while isinstance(transport, _Transport):      # TLS inside of TLS
        transport = transport._ssl_protocol and transport._ssl_protocol._transport
    return getattr(transport, "_context", None)


class SSLTransport(_Transport):
    """What the application writes to; as asyncio's."""

    def write(self, data):
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: expecting a bytes-like instance, got {type(data).__name__}")
        data = flat(data)
        if data:
            self._ssl_protocol._write_appdata((data,))

    def writelines(self, list_of_data):
        cdef list pieces = [flat(data) for data in list_of_data]     # a wrong one is an error before anything is sent
        self._ssl_protocol._write_appdata([piece for piece in pieces if piece])

    def abort(self):
        self._force_close(None)

    def _close_with_server(self):
        """Close, unless the protocol has been told of the connection, or the peer may take it as made.

        From the first answer on, the handshake may be over for the peer. Its time is limited.
        """
        cdef object tls = self._ssl_protocol
        if tls is not None and tls._app_state is STATE_INIT and not tls._answered:
            self.close()

    def _force_close(self, exc):
        self._closed = True
        if self._ssl_protocol is not None:      # a second close() lets go of it, so that no cycle is left
            self._ssl_protocol._abort(exc)


class SSLProtocol(_Protocol):
    """The protocol of the transport underneath, and the transport's other half for the application."""

    _handshake_ends = False       # connection_made() is called, and the waiter woken
    _answered = False             # something was sent

    def _get_app_transport(self):
        if self._app_transport is None and not self._app_transport_created:
            self._app_transport = SSLTransport(self._loop, self)
            self._app_transport_created = True
        return self._app_transport

    def _set_state(self, new_state):
        _set_state(self, new_state)
        if isinstance(self._transport, StreamTransport):
            (<StreamTransport>self._transport).pin_inline(new_state is not WRAPPED)  # through handshake and shutdown

    def connection_made(self, transport):
        if self._app_transport is not None and self._app_transport._closed:
            # Closed before there was anything to shut down: the task that waited for the connection was cancelled.
            self._transport = transport
            transport.abort()
        else:
            _connection_made(self, transport)

    def _on_handshake_complete(self, handshake_exc):
        self._handshake_ends = True
        try:
            _on_handshake_complete(self, handshake_exc)
        finally:
            self._handshake_ends = False
        if self._state is WRAPPED:     # data may have come with the handshake's end; the waiter's turn is before
            self._loop.call_soon(self._do_read, context=context_of(self._transport))

    def _fatal_error(self, exc, message="Fatal error on transport"):
        cdef object transport = self._transport
        if isinstance(exc, _SSLError) and transport is not None and not transport.is_closing():
            if self._outgoing.pending and not self._ssl_writing_paused:
                transport.write(self._outgoing.read())     # ends with the alert that tells the peer why
        _fatal_error(self, exc, message)

    def _abort(self, exc=None):
        self._set_state(UNWRAPPED)
        if self._transport is not None:
            self._transport._force_close(exc)

    def buffer_updated(self, nbytes):
        if self._state is WRAPPED:
            self._incoming.write(self._ssl_buffer_view[:nbytes])
            self._do_read()
        else:
            _buffer_updated(self, nbytes)

    def _resume_reading(self):
        if self._app_reading_paused:
            self._app_reading_paused = False
            self._loop.call_soon(self._go_on, context=context_of(self._transport))

    def _go_on(self):
        if self._state is WRAPPED:
            self._do_read()
        elif self._state is FLUSHING:
            self._do_flush()
        elif self._state is SHUTDOWN:
            self._do_shutdown()

    def _do_read(self):
        if self._handshake_ends and self._state is WRAPPED:
            self._write_appdata(())      # the end of the handshake goes out now, and what was written meanwhile
            return
        if self._state is not WRAPPED or self._app_protocol_is_buffer or self._app_reading_paused:
            _do_read(self)
            return
        try:
            self._do_read__copied()
            if self._write_backlog:
                self._do_write()
            else:
                self._process_outgoing()
            self._control_ssl_reading()
        except Exception as exc:
            self._fatal_error(exc, "Fatal error on SSL protocol")

    def _do_read__copied(self):
        cdef object sslobj = raw(self._sslobj), incoming = self._incoming, failure = None
        cdef bytes chunk = None, first = None
        cdef list more = None
        cdef bint ended = False
        try:
            while True:
                chunk = sslobj.read(RECORD)
                if not chunk:
                    ended = True
                    break
                if first is None:
                    first = chunk
                elif more is None:
                    more = [first, chunk]
                else:
                    more.append(chunk)
                # OpenSSL takes no more out of the memory than the record that it decrypts, so nothing is left anywhere.
                if not incoming.pending and not sslobj.pending():
                    break
        except AGAIN:
            pass
        except _SSLError as exc:
            failure = exc
        if first is not None:
            self._app_protocol.data_received(first if more is None else b"".join(more))
        self._end_of_read(ended, failure)

    def _do_read__buffered(self):
        cdef object sslobj = raw(self._sslobj), failure = None, room
        cdef Py_ssize_t n, got = 0
        cdef bint ended = False
        # The protocol's buffer is let go of before it is told: it may resize it.
        with memoryview(self._app_protocol_get_buffer(self._get_read_buffer_size())) as buffer:
            if not buffer.nbytes:
                raise RuntimeError("get_buffer() returned an empty buffer")
            with buffer.cast("B") as room:
                try:
                    while got < room.nbytes:
                        n = sslobj.read(room.nbytes - got, room[got:])
                        if n == 0:
                            ended = True
                            break
                        got += n
                    else:
                        self._loop.call_soon(self._do_read)
                except AGAIN:
                    pass
                except _SSLError as exc:
                    failure = exc
        if got:
            self._app_protocol_buffer_updated(got)
        self._end_of_read(ended, failure)

    def _end_of_read(self, ended, failure):
        if failure is not None:        # behind the data that came before it
            raise failure
        if ended:                      # the peer's close_notify
            self._call_eof_received()
            self._start_shutdown()

    def _write_appdata(self, list_of_data):
        cdef object backlog = self._write_backlog
        cdef bint waits = self._state is DO_HANDSHAKE or len(backlog) > 0
        cdef Py_ssize_t i
        if self._state is not WRAPPED and self._state is not DO_HANDSHAKE:
            _write_appdata(self, list_of_data)
            return
        for data in list_of_data:
            self._write_buffer_size += len(data)
            backlog.append(as_bytes(data) if waits else data)
        try:
            if self._state is WRAPPED:
                self._do_write()
        except Exception as exc:
            self._fatal_error(exc, "Fatal error on SSL protocol")
        if not waits:
            for i in range(len(backlog)):      # what waits from here on must not change with the caller's buffer
                backlog[i] = as_bytes(backlog[i])

    def _do_write(self):
        cdef object sslobj = raw(self._sslobj), backlog = self._write_backlog
        cdef Py_ssize_t count
        try:
            while backlog:
                data = backlog[0]
                count = sslobj.write(data)
                if count < len(data):
                    backlog[0] = data[count:]
                else:
                    backlog.popleft()
                self._write_buffer_size -= count
        except AGAIN:
            pass
        self._process_outgoing()

    def _process_outgoing(self):
        if not self._ssl_writing_paused and self._outgoing.pending:
            self._answered = True
            self._transport.write(self._outgoing.read())
        self._control_app_writing()

    def _control_app_writing(self):
        cdef Py_ssize_t size = self._outgoing.pending + self._write_buffer_size
        if size <= self._outgoing_low_water if self._app_writing_paused else size >= self._outgoing_high_water:
            _control_app_writing(self)
