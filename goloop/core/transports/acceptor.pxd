cimport cython

from goloop.core.loop.handles cimport Pollable
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.system.sockaddr cimport Address


# All fields belong to the loop's thread.
@cython.final
cdef class Acceptor(Pollable):
    cdef LoopCore loop_core
    cdef object sock, factory, server, tls
    cdef object context           # in which the server was started; each connection gets a copy
    cdef int backlog, family, kind, proto, fd
    cdef readonly set accepting   # transports of connections that are being accepted, sockets of those without one yet
    cdef list fresh               # those of plain connections that this turn has accepted, and
    cdef object told              # the future for the end of the wait until their protocols know of them; else None
    cdef readonly bint cancelled

    cdef int accept(self) except -1
    cdef int serve(self, int fd, Address *peer) except -1
