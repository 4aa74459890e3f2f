# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Transport: the life of a connection, flow control, and how a protocol is called.

State of a transport, and what changes it:

    made      __init__()     the descriptor is owned, connection_made() is scheduled
    started   start_reading()        connection_made() has returned; reading may begin
    closing   close()        no more reading; what is buffered is still written
    lost      lose_soon()    connection_lost() is scheduled, exactly once; nothing is written any more
    gone      lose()         connection_lost() has returned; file, protocol and server are released

Every protocol method runs in the contextvars context that was current when the transport was made.
"""

import warnings
from asyncio import constants as _constants
from asyncio import futures as _futures
from asyncio.log import logger as _logger
from sys import version_info

from goloop.core.loop.handles cimport Pollable
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.system.posix cimport gl_coarse_ns


cdef extern from "Python.h":
    int PyContext_Enter(object ctx) except -1
    int PyContext_Exit(object ctx) except -1
    object PyContext_CopyCurrent()

cdef bint SERVER_TAKES_TRANSPORT = version_info >= (3, 13)   # Server._attach(transport)
cdef Py_ssize_t LOG_THRESHOLD = _constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES
cdef Py_ssize_t HIGH = 64 * 1024        # bytes; asyncio's default
cdef object _set_result = _futures._set_result_unless_cancelled

# Transports that exist. Written under the GIL; on a free-threaded build the count is approximate.
cdef Py_ssize_t live = 0


# isinstance(t, asyncio.Transport) must hold for extension types that cannot have it as a base: they answer
# one of these as their __class__.
def stand_in(name, *bases):
    """A class of asyncio's transport kinds, to be answered as __class__ by the type of that name."""
    return type(name, bases, {"__slots__": (), "__module__": "goloop"})


def live_transports():
    """How many goloop transports exist in this process."""
    return live


cdef int enter_context(object context) except -1:
    """Enter the context in which a protocol is called; leave_context() is its counterpart."""
    return PyContext_Enter(context)


cdef int leave_context(object context) except -1:
    return PyContext_Exit(context)


cdef bytes as_bytes(object data):
    """The bytes of any bytes-like object, whatever the items of a memoryview are."""
    return data if type(data) is bytes else bytes(data)


cdef object flat(object data):
    """A bytes-like object whose items are bytes: of others, len() and slices would count something else."""
    cdef object view
    if isinstance(data, (bytes, bytearray)):
        return data
    view = data if type(data) is memoryview else memoryview(data)
    return view.cast("B") if view.c_contiguous and view.nbytes else bytes(view)


cdef class Transport(Pollable):
    def __cinit__(self, LoopCore loop not None, *args, **kwargs):
        global live
        live += 1
        self.loop_core = loop
        self.fd = -1

    def __dealloc__(self):
        global live
        live -= 1

    def __dir__(self):
        """Those of this type, too: object.__dir__() looks at __class__, which is a stand-in."""
        return sorted({*object.__dir__(self), *dir(type(self))})

    cdef int setup(self, object file, object protocol, object extra, object context) except -1:
        self.extra = {} if extra is None else extra
        self.context = PyContext_CopyCurrent() if context is None else context
        self.proto = protocol
        self.high = HIGH
        self.low = HIGH // 4
        self.file = file
        self.fd = file.fileno()
        self.made = gl_coarse_ns()
        return 0

    def __del__(self):
        if self.file is not None:
            try:
                warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            finally:
                self.release_file()
                self.file.close()
                self.leave_server()

    cdef object runs(self):
        return type(self.proto)

    cdef int release_file(self) except -1:
        """The transport is about to close its file."""
        return 0

    # --------------------------------------------------------------- starting
    cdef int announce(self, object waiter) except -1:
        """Schedule connection_made(), then the start of reading, then the waiter's result, as asyncio does."""
        self.loop_core.soon(self._connection_made, (), self.context)
        self.loop_core.soon(self._start_reading, (), self.context)
        if waiter is not None:
            self.loop_core.soon(_set_result, (waiter, None), None)
        return 0

    def _connection_made(self):
        self.told = True
        self.proto.connection_made(self)

    def _start_reading(self):
        if not self.lost and self.file is not None:
            self.started = True
            self.start_reading()

    cdef int start_reading(self) except -1:
        """Watch the descriptor; connection_made() has returned, or raised.

        The first event comes with the next iteration's harvest, and so behind everything that this one schedules:
        the caller that waits for the transport goes on before the protocol gets data.
        """
        try:
            self.loop_core.pollset.resume(self.fd, self)
        except OSError as exc:
            self.fail(exc, "Fatal error: the descriptor of a transport cannot be watched")
        return 0

    def join_server(self, server):
        """Be counted among a server's connections."""
        if SERVER_TAKES_TRANSPORT:
            server._attach(self)
        else:
            server._attach()
        self.server = server

    def leave_server(self):
        server = self.server
        self.server = None
        if server is not None:
            if SERVER_TAKES_TRANSPORT:
                server._detach(self)
            else:
                server._detach()

    # ---------------------------------------------------------------- ending
    cdef Py_ssize_t pending(self) except -1:
        """Bytes that wait to be written."""
        return 0

    cdef int discard(self) except -1:
        """Forget what waits to be written."""
        return 0

    cdef int stop_polling(self) except -1:
        return self.loop_core.detach(self.fd, self)

    cdef int fail(self, object exc, str message) except -1:
        """A fatal error: report it unless it is the network's, and close without flushing."""
        if isinstance(exc, OSError):
            if self.loop_core._debug:
                _logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self.loop_core.call_exception_handler({
                "message": message, "exception": exc, "transport": self, "protocol": self.proto,
            })
        return self.force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        self.fail(exc, message)

    cdef int force_close(self, object exc) except -1:
        if self.lost:
            return 0
        self.discard()
        return self.lose_soon(exc)

    def _force_close(self, exc):
        self.force_close(exc)

    cdef int lose_soon(self, object exc) except -1:
        self.closing = True
        self.lost = True
        self.stop_polling()
        self.loop_core.soon(self._call_connection_lost, (exc,), self.context)
        return 0

    def _call_connection_lost(self, exc):
        self.lose(exc)

    cdef int lose(self, object exc) except -1:
        cdef object file = self.file, protocol = self.proto
        if file is None:
            return 0
        try:
            if protocol is not None:
                protocol.connection_lost(exc)
        finally:
            self.release_file()
            self.file = None
            self.proto = None
            file.close()
            self.leave_server()
        return 0

    def abort(self):
        """Close at once: buffered data is lost, connection_lost(None) is called in a later iteration."""
        self.force_close(None)

    def close(self):
        """Close when what is buffered has been written; connection_lost(None) is called after that."""
        if self.closing:
            return
        self.closing = True
        if not self.pending():
            self.lose_soon(None)

    def _close_with_server(self):
        """Close, unless the protocol has been told of the connection and is responsible for it."""
        if not self.told:
            self.close()

    def is_closing(self):
        """Return True once close(), abort() or a fatal error has begun to end the transport."""
        return self.closing

    # --------------------------------------------------------------- protocol
    def set_protocol(self, protocol):
        """Switch to another protocol; it gets what arrives from now on."""
        self.proto = protocol

    def get_protocol(self):
        """Return the current protocol; None once the connection is gone."""
        return self.proto

    @property
    def _protocol(self):
        return self.proto

    @property
    def _loop(self):
        return None if self.file is None else self.loop_core

    @property
    def _extra(self):
        return self.extra

    @property
    def _context(self):
        """The context in which the protocol is called."""
        return self.context

    @property
    def _conn_lost(self):
        return int(self.lost) + self.lost_writes

    @property
    def _closing(self):
        return self.closing

    def get_extra_info(self, name, default=None):
        """Return what is known under that name, or default; it stays known after the close."""
        return self.extra.get(name, default)

    cdef int call(self, str method, tuple args) except -1:
        """Call a method of the protocol; what it raises goes to the exception handler."""
        try:
            getattr(self.proto, method)(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop_core.call_exception_handler({
                "message": f"protocol.{method}() failed", "exception": exc, "transport": self,
                "protocol": self.proto,
            })
        return 0

    # ---------------------------------------------------------------- reading
    cdef bint reading(self) noexcept:
        return not self.closing and not self.paused

    def is_reading(self):
        """Return True while the transport is open and not paused."""
        return self.reading()

    # ------------------------------------------------------------ flow control
    cdef int maybe_pause(self) except -1:
        if not self._protocol_paused and self.pending() > self.high:
            self._protocol_paused = True
            self.call("pause_writing", ())
        return 0

    cdef int maybe_resume(self) except -1:
        if self._protocol_paused and self.pending() <= self.low:
            self._protocol_paused = False
            self.call("resume_writing", ())
        return 0

    cdef int ignored_write(self, str warning) except -1:
        """A write to a lost connection does nothing, and says so in the log when it goes on."""
        if self.lost_writes + 1 >= LOG_THRESHOLD:
            _logger.warning(warning)
        self.lost_writes += 1
        return 0

    def _maybe_pause_protocol(self):
        self.maybe_pause()

    def _maybe_resume_protocol(self):
        self.maybe_resume()

    def _set_write_buffer_limits(self, high=None, low=None):
        if high is None:
            high = HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high = high
        self.low = low

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the water marks, in bytes: pause_writing() above high, resume_writing() at or below low."""
        self._set_write_buffer_limits(high=high, low=low)
        self.maybe_pause()

    def get_write_buffer_limits(self):
        """Return the water marks as (low, high), in bytes."""
        return (self.low, self.high)

    def get_write_buffer_size(self):
        """Return how many bytes wait to be written."""
        return self.pending()
