# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""ReadPipeTransport and WritePipeTransport: pipes, FIFOs, terminals, one direction each.

Both watch level-triggered: the two directions of a terminal may share a descriptor, which then has no
single owner.
"""

import errno as _errno
import os
import stat
from asyncio import transports as _transports
from asyncio.log import logger as _logger

cimport cython

from goloop.core.loop.loop_core cimport READ_SIZE, LoopCore
from goloop.core.poll.pollset cimport READ, WRITE
from goloop.core.transports.base cimport Transport, enter_context, flat, leave_context

from goloop.core.transports.base import stand_in as _stand_in


cdef object _ReadStandIn = _stand_in("ReadPipeTransport", _transports.ReadTransport)
cdef object _WriteStandIn = _stand_in("WritePipeTransport", _transports._FlowControlMixin, _transports.WriteTransport)
cdef object _read = os.read
cdef object _write = os.write


cdef class PipeTransport(Transport):
    """What both directions have in common."""

    def __init__(self, LoopCore loop not None, pipe, protocol, waiter=None, extra=None):
        mode = os.fstat(pipe.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
            raise ValueError(self.refusal())
        self.setup(pipe, protocol, extra, None)
        self.extra["pipe"] = pipe
        os.set_blocking(self.fd, False)
        self.prepare(mode)
        self.announce(waiter)

    cdef str refusal(self):
        return ""

    cdef int prepare(self, int mode) except -1:
        return 0

    @property
    def _pipe(self):
        return self.file

    @_pipe.setter
    def _pipe(self, pipe):
        self.file = pipe

    @property
    def _fileno(self):
        return self.fd


@cython.final
cdef class ReadPipeTransport(PipeTransport):
    """The reading end of a pipe, as asyncio.ReadTransport."""

    max_size = READ_SIZE

    @property
    def __class__(self):
        return _ReadStandIn

    def __repr__(self):
        state = "closed" if self.file is None else "closing" if self.closing else "open"
        return f"<ReadPipeTransport {state} fd={self.fd} {'polling' if self.started and self.reading() else 'idle'}>"

    cdef str refusal(self):
        return "Pipe transport is for pipes/sockets only."

    cdef int start_reading(self) except -1:
        if self.reading():
            self.loop_core.add_watcher(self.fd, READ, self._read_ready, ())
        return 0

    cdef int stop_polling(self) except -1:
        self.loop_core.remove_watcher(self.fd, READ)
        return 0

    def _read_ready(self):
        if not self.reading():
            return
        try:
            data = _read(self.fd, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self.fail(exc, "Fatal read error on pipe transport")
            return
        if data:
            self.loop_core.accounts.received += len(data)
            self.bytes_in += <size_t>len(data)
            enter_context(self.context)
            try:
                self.proto.data_received(data)
            finally:
                leave_context(self.context)
        else:
            if self.loop_core._debug:
                _logger.info("%r was closed by peer", self)
            self.loop_core.soon(self.proto.eof_received, (), self.context)
            self.lose_soon(None)

    cdef int fail(self, object exc, str message) except -1:
        # EIO is how a terminal says that its other end is gone.
        if isinstance(exc, OSError) and exc.errno == _errno.EIO:
            if self.loop_core._debug:
                _logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self.loop_core.call_exception_handler({
                "message": message, "exception": exc, "transport": self, "protocol": self.proto,
            })
        return self.force_close(exc)

    def pause_reading(self):
        """Stop calling the protocol with data until resume_reading(). Harmless when already paused."""
        if self.reading():
            self.paused = True
            self.loop_core.remove_watcher(self.fd, READ)
            if self.loop_core._debug:
                _logger.debug("%r pauses reading", self)

    def resume_reading(self):
        """Go on after pause_reading()."""
        if self.closing or not self.paused:
            return
        self.paused = False
        if self.started:
            self.loop_core.add_watcher(self.fd, READ, self._read_ready, ())
        if self.loop_core._debug:
            _logger.debug("%r resumes reading", self)


@cython.final
cdef class WritePipeTransport(PipeTransport):
    """The writing end of a pipe, as asyncio.WriteTransport."""

    cdef bytearray buffer
    cdef bint watches_reader      # the poll set tells when the reading end goes away

    def __cinit__(self, *args, **kwargs):
        self.buffer = bytearray()

    @property
    def __class__(self):
        return _WriteStandIn

    def __repr__(self):
        state = "closed" if self.file is None else "closing" if self.closing else "open"
        return f"<WritePipeTransport {state} fd={self.fd} bufsize={len(self.buffer)}>"

    cdef str refusal(self):
        return "Pipe transport is only for pipes, sockets and character devices"

    cdef int prepare(self, int mode) except -1:
        self.watches_reader = not stat.S_ISCHR(mode)
        return 0

    cdef int start_reading(self) except -1:
        if self.watches_reader and not self.closing:
            self.loop_core.add_watcher(self.fd, READ, self._reader_gone, ())
        return 0

    cdef int stop_polling(self) except -1:
        if self.watches_reader:
            self.loop_core.remove_watcher(self.fd, READ)
        self.loop_core.remove_watcher(self.fd, WRITE)
        return 0

    def _reader_gone(self):
        if self.loop_core._debug:
            _logger.info("%r was closed by peer", self)
        self.force_close(BrokenPipeError() if self.buffer else None)

    cdef Py_ssize_t pending(self) except -1:
        return len(self.buffer)

    cdef int discard(self) except -1:
        self.buffer.clear()
        return 0

    def write(self, data):
        """Write data (bytes, bytearray or memoryview): now as far as the pipe takes it, the rest later."""
        cdef Py_ssize_t n = 0
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        data = flat(data)
        self.bytes_out += <size_t>len(data)
        if not data:
            return
        if self.lost or self.closing:
            self.ignored_write("pipe closed by peer or os.write(pipe, data) raised exception.")
            return
        self.loop_core.accounts.written += len(data)
        if not self.buffer:
            try:
                n = _write(self.fd, data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                self.fail(exc, "Fatal write error on pipe transport")
                return
            if n == len(data):
                return
            self.loop_core.add_watcher(self.fd, WRITE, self._write_ready, ())
        self.buffer += memoryview(data)[n:] if n else data
        self.maybe_pause()

    def writelines(self, list_of_data):
        """Write an iterable of bytes-like objects."""
        self.write(b"".join([flat(data) for data in list_of_data]))

    def _write_ready(self):
        cdef Py_ssize_t n
        if self.lost or not self.buffer:
            return
        try:
            n = _write(self.fd, self.buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self.fail(exc, "Fatal write error on pipe transport")
            return
        del self.buffer[:n]
        if not self.buffer:
            self.loop_core.remove_watcher(self.fd, WRITE)
            self.maybe_resume()      # may write
            if self.closing and not self.lost:
                self.lose_soon(None)

    # asyncio's has these three from its base class.
    def pause_reading(self):
        """NotImplementedError: this end does not read."""
        raise NotImplementedError

    def resume_reading(self):
        """NotImplementedError: this end does not read."""
        raise NotImplementedError

    def is_reading(self):
        """NotImplementedError: this end does not read."""
        raise NotImplementedError

    def can_write_eof(self):
        """Return True: closing a pipe is its end of file."""
        return True

    def write_eof(self):
        """Close the pipe once what is buffered has been written."""
        self.close()
