from libc.stdint cimport int64_t, uint64_t

from goloop.core.loop.handles cimport Pollable
from goloop.core.loop.loop_core cimport LoopCore


# What stream, datagram and pipe transports have in common. All fields belong to the loop's thread.
cdef class Transport(Pollable):
    cdef LoopCore loop_core       # never NULL; outlives the connection, so that late calls stay harmless
    cdef object file              # the socket or pipe; None once connection_lost() has returned
    cdef int fd
    cdef object proto               # None once connection_lost() has returned
    cdef object context             # in which every protocol method runs
    cdef object server              # the asyncio.Server that counts this connection, or None
    cdef dict extra
    cdef bint closing               # close() or a fatal error: no more reading
    cdef bint paused                # pause_reading()
    cdef bint lost                  # connection_lost() is scheduled
    cdef bint busy                  # run() is on the stack: a nested iteration must not enter it
    cdef bint told                  # connection_made() is or was called: the protocol is responsible
    cdef bint started               # connection_made() has returned, reading may begin
    cdef Py_ssize_t lost_writes     # writes after the connection was lost
    cdef Py_ssize_t high, low       # water marks, bytes
    # For those who look at the program:
    cdef int64_t made               # when, monotonic nanoseconds as of the kernel's last tick
    cdef uint64_t bytes_in          # received
    cdef uint64_t bytes_out         # written, what is buffered included
    cdef public bint _protocol_paused
    cdef dict __dict__
    cdef object __weakref__

    cdef object runs(self)
    cdef int setup(self, object file, object protocol, object extra, object context) except -1
    cdef int release_file(self) except -1
    cdef int announce(self, object waiter) except -1
    cdef int start_reading(self) except -1
    cdef Py_ssize_t pending(self) except -1
    cdef int discard(self) except -1
    cdef int stop_polling(self) except -1
    cdef int call(self, str method, tuple args) except -1
    cdef int maybe_pause(self) except -1
    cdef int maybe_resume(self) except -1
    cdef int ignored_write(self, str warning) except -1
    cdef int fail(self, object exc, str message) except -1
    cdef int force_close(self, object exc) except -1
    cdef int lose_soon(self, object exc) except -1
    cdef int lose(self, object exc) except -1
    cdef bint reading(self) noexcept


cdef int enter_context(object context) except -1
cdef int leave_context(object context) except -1
cdef bytes as_bytes(object data)
cdef object flat(object data)
