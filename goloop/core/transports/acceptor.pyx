# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Acceptor: takes connections from a listening socket, a whole batch in one iteration.

A plain connection becomes a transport at once. All of a batch share a task until their protocols know of them, for a
cancellation of all tasks to reach them. A TLS one needs a task that waits for its handshake. asyncio makes a task for
each. As there, each connection has its own copy of the context in which the server was started: for the protocol
factory, the transport, and the task.
"""

import socket
from asyncio import constants as _constants
from asyncio import futures as _futures
from asyncio import trsock as _trsock
from asyncio.log import logger as _logger
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from functools import partial as _partial

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from posix.unistd cimport close

from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.poll.pollset cimport READ
from goloop.core.system.posix cimport fd_of, os_error
from goloop.core.system.sockaddr cimport (
    SOCK_CLOEXEC, SOCK_NONBLOCK, Address, known, sockaddr, sockaddr_storage, socklen_t, unpack,
)
from goloop.core.transports.base cimport enter_context, leave_context


cdef extern from "Python.h":
    object PyContext_Copy(object context)
    object PyContext_CopyCurrent()

cdef extern from "sys/socket.h" nogil:
    int accept4(int fd, sockaddr *address, socklen_t *length, int flags)

cdef object _socket = socket.socket
cdef object _set_result = _futures._set_result_unless_cancelled
cdef tuple OUT_OF_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)
cdef double RETRY = _constants.ACCEPT_RETRY_DELAY      # seconds


cdef class Acceptor(Pollable):
    """Accepts for one listening socket of one server, until cancelled."""

    def __cinit__(self, LoopCore loop not None, *args, **kwargs):
        self.loop_core = loop
        self.fd = -1

    def __init__(self, LoopCore loop not None, sock, factory, server, int backlog, tls, context=None):
        """tls: None, or a callable that makes a TLS connection of a socket that this acceptor accepted (a coroutine).

        context: the contextvars.Context of the server; None: a copy of the current one.
        """
        self.sock = sock
        self.fd = fd_of(sock)
        self.factory = factory
        self.context = PyContext_CopyCurrent() if context is None else context
        self.server = server
        self.backlog = max(backlog, 1)
        self.tls = tls
        self.accepting = set()
        self.family = int(sock.family)
        self.kind = int(sock.type)
        self.proto = int(sock.proto)

    def start(self):
        """Begin, or begin again after the system ran out of resources."""
        if not self.cancelled and not self.loop_core._closed:
            before = self.loop_core.pollset.add_watcher(self.fd, READ, self, None)
            if before is not None and before is not self:
                before.cancel()

    def cancel(self):
        """Accept no more, and close what is being accepted: no protocol knows of it yet."""
        self.cancelled = True
        for accepted in list(self.accepting):
            if isinstance(accepted, _socket):
                accepted.close()
            else:
                accepted._close_with_server()

    def _tls_over(self, conn, task):
        """A task that is cancelled before it has begun cannot close its connection. One that has begun does."""
        self.accepting.discard(conn)
        if task.cancelled():
            conn.close()

    def _told(self, list fresh, told):
        self.accepting.difference_update(fresh)
        _set_result(told, None)

    def __repr__(self):
        return f"<Acceptor fd={self.fd} server={self.server!r}>"

    cdef object run(self):
        try:
            try:
                self.accept()
            finally:
                if self.told is not None:
                    self.accepting.update(self.fresh)
                    self.loop_core.soon(self._told, (self.fresh, self.told), None)  # behind each connection_made()
                    self.told = self.fresh = None
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop_core.call_exception_handler({
                "message": f"Exception in callback {self!r}", "exception": exc,
                "socket": _trsock.TransportSocket(self.sock),
            })

    cdef int accept(self) except -1:
        cdef Address address
        cdef object context
        cdef int _i, fd, error
        for _i in range(self.backlog):
            if self.cancelled:
                break
            address.length = sizeof(sockaddr_storage)
            fd = accept4(self.fd, <sockaddr *>&address.storage, &address.length, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                error = errno
                if error == EAGAIN or error == EINTR or error == ECONNABORTED:
                    break
                exc = os_error(error)
                if error not in OUT_OF_RESOURCES:
                    raise exc
                # The descriptor stays ready, so look away for a while.
                self.loop_core.call_exception_handler({
                    "message": "socket.accept() out of system resource", "exception": exc,
                    "socket": _trsock.TransportSocket(self.sock),
                })
                if not self.cancelled:
                    self.loop_core.pollset.remove_watcher(self.fd, READ)
                    self.loop_core.call_later(RETRY, self.start)
                break
            self.loop_core.accounts.accepts += 1
            context = PyContext_Copy(self.context)
            enter_context(context)
            try:
                self.serve(fd, &address)
            finally:
                leave_context(context)
        return 0

    cdef int serve(self, int fd, Address *peer) except -1:
        cdef object conn = None, protocol = None
        cdef dict extra = {"peername": unpack(peer)} if known(self.family) else {}    # else the transport asks
        try:
            # With the flag the new object knows that it does not block, without a system call.
            conn = _socket(self.family, self.kind | SOCK_NONBLOCK, self.proto, fd)
        finally:
            if conn is None:
                close(fd)
        if self.loop_core._debug:
            _logger.debug("%r got a new connection from %r: %r", self.server, extra.get("peername"), conn)
        if self.tls is not None:
            self.accepting.add(conn)
            task = self.loop_core.create_task(self.tls(self, self.factory, conn, extra, self.server))
            task.add_done_callback(_partial(self._tls_over, conn))
            return 0
        if self.told is None:
            self.fresh = []
            self.told = self.loop_core._see_through(self.fresh)
        try:
            protocol = self.factory()
            if self.cancelled:
                conn.close()      # the factory closed the server
            else:
                self.fresh.append(
                    self.loop_core._make_socket_transport(conn, protocol, extra=extra, server=self.server))
        except (SystemExit, KeyboardInterrupt):
            conn.close()
            raise
        except BaseException as exc:
            conn.close()
            info = {"message": "Error on transport creation for incoming connection", "exception": exc}
            if protocol is not None:
                info["protocol"] = protocol
            self.loop_core.call_exception_handler(info)
        return 0
