"""Sockets: connecting, accepting, receiving and sending. recv() and send() are core.sockio's.

A socket object with a timeout has a descriptor in non-blocking mode, and CPython waits with poll() before it calls
the system; one without has a descriptor in blocking mode, and CPython just calls. Neither may happen in a
goroutine, and neither mode may change for other users of the socket. So a goroutine makes its attempts with
MSG_DONTWAIT, or through a second socket object for the same descriptor whose timeout is 0, and parks in between.
accept() has no such flag: a listening socket without a timeout that a goroutine accepts from changes to
non-blocking mode for good, and accept() waits by itself wherever it is called from.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from goloop._backoff import pauses
from goloop.core.patch import fd_wait, socket_io
from goloop.core.patch.hook import hook, is_cooperative
from goloop.core.sched.goroutine_api import sleep
from goloop.monkey._dns import is_address
from goloop.monkey._threadpool import offload
from goloop.runtime import fork

_WOULD_BLOCK = _socket.MSG_DONTWAIT
_BLOCKING = _socket.MSG_WAITALL | _socket.MSG_ERRQUEUE  # if that waits is a matter of the mode, and of the protocol

_METHODS = vars(_socket.socket)
_family = _METHODS["family"].__get__
_type = _METHODS["type"].__get__
_proto = _METHODS["proto"].__get__
_ORIGINAL: dict[str, Callable[..., Any]] = {}


@contextmanager
def _without_timeout(sock: Any) -> Iterator[Any]:
    """A second socket object for the same descriptor, whose calls never wait."""
    fd = sock.fileno()
    if fd < 0:
        yield sock  # the original says that it is closed
        return
    second = _socket.socket(_family(sock), _type(sock) | _socket.SOCK_NONBLOCK, _proto(sock), fd)
    try:
        yield second
    finally:
        fd_wait.let_go(second)


def _attempt(sock: Any, name: str, write: bool, args: list[Any], flags: int, at: int) -> Any:
    """Call a method until it does not have to wait; args[at] are its flags, which are set for each attempt."""
    original = _ORIGINAL[name]
    if not isinstance(flags, int):
        return original(sock, *args)
    if flags & _BLOCKING:
        return offload(original, sock, *args)
    wait = socket_io.patience(sock, write)
    if wait is None or (flags & _WOULD_BLOCK and sock.gettimeout() is None):
        return original(sock, *args)
    while True:
        try:
            if sock.gettimeout() is None:
                args[at] = flags | _WOULD_BLOCK
                return original(sock, *args)
            with _without_timeout(sock) as second:
                return original(second, *args)
        except BlockingIOError:
            args[at] = flags
            wait()


def _recvfrom(self: Any, bufsize: Any, flags: Any = 0, /) -> Any:
    return _attempt(self, "recvfrom", False, [bufsize, flags], flags, 1)


def _recvfrom_into(self: Any, buffer: Any, nbytes: Any = 0, flags: Any = 0) -> Any:
    return _attempt(self, "recvfrom_into", False, [buffer, nbytes, flags], flags, 2)


def _recvmsg(self: Any, bufsize: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> Any:
    return _attempt(self, "recvmsg", False, [bufsize, ancbufsize, flags], flags, 2)


def _recvmsg_into(self: Any, buffers: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> Any:
    if not isinstance(buffers, (list, tuple)):
        buffers = list(buffers)
    return _attempt(self, "recvmsg_into", False, [buffers, ancbufsize, flags], flags, 2)


def _sendto(self: Any, data: Any, *args: Any) -> Any:
    if len(args) not in (1, 2):
        return _ORIGINAL["sendto"](self, data, *args)
    flags = args[0] if len(args) == 2 else 0
    return _attempt(self, "sendto", True, [data, flags, _resolved(self, args[-1])], flags, 1)


def _sendmsg(self: Any, buffers: Any, ancdata: Any = (), flags: Any = 0, address: Any = None, /) -> Any:
    if not isinstance(buffers, (list, tuple)):
        buffers = list(buffers)
    if not isinstance(ancdata, (list, tuple)):
        ancdata = list(ancdata)
    args = [buffers, ancdata, flags] if address is None else [buffers, ancdata, flags, _resolved(self, address)]
    return _attempt(self, "sendmsg", True, args, flags, 2)


# -------------------------------------------------------------------- connecting
def _resolved(sock: Any, address: Any) -> Any:
    """The address with a name exchanged for a number, as otherwise C would ask for it and block."""
    family = _family(sock)
    if family not in (_socket.AF_INET, _socket.AF_INET6) or not isinstance(address, tuple) or not address:
        return address
    host = address[0]
    if not isinstance(host, str) or is_address(host) or host == "<broadcast>":
        return address
    found = _socket.getaddrinfo(host, None, family)
    return (found[0][4][0], *address[1:])


@contextmanager
def _non_blocking(fd: int) -> Iterator[None]:
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    if before & os.O_NONBLOCK:
        yield
        return
    fcntl.fcntl(fd, fcntl.F_SETFL, before | os.O_NONBLOCK)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, before)


def _try_to_connect(sock: Any, address: Any) -> int:
    try:
        _ORIGINAL["connect"](sock, address)
    except (_socket.gaierror, _socket.herror):
        raise
    except OSError as exc:
        return exc.errno or errno.EINVAL
    return 0


def _connect_within(
    sock: Any, address: Any, timeout: float | None, attempt: Callable[[Any, Any], int] = _try_to_connect
) -> int:
    """Connect; return 0 or an error number, EWOULDBLOCK when the time is over."""
    until = None if timeout is None else time.monotonic() + timeout
    waits = pauses()
    while True:
        with _without_timeout(sock) as second, _non_blocking(second.fileno()):
            error = attempt(second, address)
        left = None if until is None else max(0.0, until - time.monotonic())
        if error in (errno.EINPROGRESS, errno.EINTR):
            if not fd_wait.wait(sock.fileno(), True, left):
                return errno.EWOULDBLOCK
            error = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            return 0 if error == errno.EISCONN else error
        if error != errno.EAGAIN or _family(sock) != _socket.AF_UNIX:
            return error
        pause = next(waits)
        if left is not None and left < pause:
            sleep(left)
            return errno.EWOULDBLOCK
        sleep(pause)


def _connect(self: Any, address: Any, /) -> None:
    timeout = self.gettimeout()
    if timeout == 0 or self.fileno() < 0:
        _ORIGINAL["connect"](self, address)
        return
    error = _connect_within(self, _resolved(self, address), timeout)
    if error == errno.EWOULDBLOCK:
        raise TimeoutError("timed out")
    if error:
        raise OSError(error, os.strerror(error))


def _connect_ex(self: Any, address: Any, /) -> int:
    timeout = self.gettimeout()
    if timeout == 0 or self.fileno() < 0:
        return _ORIGINAL["connect_ex"](self, address)  # type: ignore[no-any-return]
    return _connect_within(self, _resolved(self, address), timeout, _ORIGINAL["connect_ex"])


# --------------------------------------------------------------------- accepting
def _accept(self: Any, /) -> Any:
    original = _ORIGINAL["_accept"]
    if is_cooperative():
        wait = socket_io.patience(self, False)
        if wait is None or self.fileno() < 0:
            return original(self)
        while True:
            if self.gettimeout() is None and self.fileno() >= 0:
                mode = fcntl.fcntl(self, fcntl.F_GETFL)
                if not mode & os.O_NONBLOCK:
                    fcntl.fcntl(self, fcntl.F_SETFL, mode | os.O_NONBLOCK)
            try:
                with _without_timeout(self) as second:
                    return original(second)
            except BlockingIOError:
                wait()
    while True:
        try:
            return original(self)
        except BlockingIOError:
            if self.gettimeout() is not None:
                raise
            waiter = select.poll()  # a goroutine has changed the descriptor's mode, and not the socket's
            waiter.register(self.fileno(), select.POLLIN)
            waiter.poll()


# ---------------------------------------------------------------------- sendfile
_sendfile_ = socket.socket._sendfile_use_sendfile  # type: ignore[attr-defined]


def _sendfile(self: socket.socket, file: Any, offset: int = 0, count: int | None = None) -> int:
    if self.gettimeout() is None and is_cooperative():
        # The system call would block, with the descriptor in blocking mode, until all is sent.
        return self._sendfile_use_send(file, offset, count)  # type: ignore[attr-defined,no-any-return]
    return _sendfile_(self, file, offset, count)  # type: ignore[no-any-return]


def patch() -> None:
    fd_wait.patch()
    fork.add(fd_wait.after_fork_in_child)
    socket_io.patch(offload)
    for replacement in (_recvfrom, _recvfrom_into, _recvmsg, _recvmsg_into, _sendto, _sendmsg, _connect, _connect_ex):
        name = replacement.__name__[1:]
        _ORIGINAL[name] = hook(_METHODS[name], replacement)
    _ORIGINAL["_accept"] = hook(_METHODS["_accept"], _accept, always=True)
    for name in ("_sendfile_use_sendfile",):
        setattr(socket.socket, name, _sendfile)
