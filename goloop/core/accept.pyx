# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Acceptor: takes connections from a listening socket, a whole batch in one iteration.

A plain connection becomes a transport at once, without a task; a TLS one needs a task that waits for its
handshake. asyncio makes a task for each.
"""

import socket
from asyncio import constants as _constants
from asyncio import trsock as _trsock
from asyncio.log import logger as _logger
from os import strerror as _strerror

cimport cython
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno

from goloop.core.handles cimport Pollable
from goloop.core.loop cimport LoopCore, fd_of
from goloop.core.netpoll cimport READ


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <unistd.h>
    /* glibc hides accept4 unless _GNU_SOURCE came before every other header. */
    extern int accept4(int, struct sockaddr *, socklen_t *, int);
    #define GL_ACCEPT(fd) accept4(fd, 0, 0, 02000000 | 04000)   /* SOCK_CLOEXEC | SOCK_NONBLOCK */
    """
    int GL_ACCEPT(int fd) nogil
    int close(int fd) nogil


cdef int NONBLOCK = socket.SOCK_NONBLOCK
cdef object _socket = socket.socket
cdef double RETRY = _constants.ACCEPT_RETRY_DELAY      # seconds


@cython.final
cdef class Acceptor(Pollable):
    """Accepts for one listening socket of one server, until cancelled."""

    cdef LoopCore core
    cdef object sock, factory, server, tls
    cdef int backlog, family, kind, proto, fd
    cdef bint cancelled

    def __init__(self, LoopCore loop, sock, factory, server, int backlog, tls):
        """tls: None, or a callable that makes a TLS connection of an accepted socket (a coroutine)."""
        self.core = loop
        self.sock = sock
        self.fd = fd_of(sock)
        self.factory = factory
        self.server = server
        self.backlog = max(backlog, 1)
        self.tls = tls
        self.family = int(sock.family)
        self.kind = int(sock.type)
        self.proto = int(sock.proto)

    def start(self):
        """Begin, or begin again after the system ran out of resources."""
        if not self.cancelled and not self.core._closed:
            before = self.core.pollset.watch(self.fd, READ, self, None)
            if before is not None and before is not self:
                before.cancel()

    def cancel(self):
        self.cancelled = True

    def __repr__(self):
        return f"<Acceptor fd={self.fd} server={self.server!r}>"

    cdef object run(self):
        try:
            self.accept()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.core.call_exception_handler({
                "message": f"Exception in callback {self!r}", "exception": exc,
                "socket": _trsock.TransportSocket(self.sock),
            })

    cdef int accept(self) except -1:
        cdef int _i, fd, error
        for _i in range(self.backlog):
            if self.cancelled:
                break
            fd = GL_ACCEPT(self.fd)
            if fd >= 0:
                self.serve(fd)
                continue
            error = errno
            if error == EAGAIN or error == EINTR or error == ECONNABORTED:
                break
            exc = OSError(error, _strerror(error))
            if error != EMFILE and error != ENFILE and error != ENOBUFS and error != ENOMEM:
                raise exc
            # The descriptor stays ready, so look away for a while.
            self.core.call_exception_handler({
                "message": "socket.accept() out of system resource", "exception": exc,
                "socket": _trsock.TransportSocket(self.sock),
            })
            self.core.pollset.unwatch(self.fd, READ)
            self.core.call_later(RETRY, self.start)
            break
        return 0

    cdef int serve(self, int fd) except -1:
        cdef object conn, protocol = None
        try:
            conn = _socket(self.family, self.kind | NONBLOCK, self.proto, fileno=fd)
        except BaseException:
            close(fd)
            raise
        if self.core._debug:
            _logger.debug("%r got a new connection from %r", self.server, conn)
        if self.tls is not None:
            self.core.create_task(self.tls(self.factory, conn, self.server))
            return 0
        try:
            protocol = self.factory()
            self.core._make_socket_transport(conn, protocol, server=self.server)
        except (SystemExit, KeyboardInterrupt):
            conn.close()
            raise
        except BaseException as exc:
            conn.close()
            info = {"message": "Error on transport creation for incoming connection", "exception": exc}
            if protocol is not None:
                info["protocol"] = protocol
            self.core.call_exception_handler(info)
        return 0
