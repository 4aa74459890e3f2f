"""The socket methods of a loop: sock_recv and its kin, and sendfile.

Each tries the call at once and waits only when the socket would block. A wait that is cancelled stops
watching the descriptor before the cancellation is seen, and leaves received data where it is.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import socket
from asyncio import exceptions
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from goloop._backoff import pauses
from goloop.core.system.addrinfo import literal_addrinfo

if TYPE_CHECKING:
    from asyncio import BaseEventLoop as _Base
else:
    _Base = object

_T = TypeVar("_T")
_WOULD_BLOCK = (BlockingIOError, InterruptedError)


class SocketMethods(_Base):
    """Mixed into Loop. All methods take non-blocking sockets (ValueError in debug mode otherwise).

    They are for coroutines.
    """

    _debug: bool
    _closed: bool
    if TYPE_CHECKING:  # from Loop's other bases
        _add_reader: Any
        _add_writer: Any
        _remove_reader: Any
        _remove_writer: Any
        _ensure_fd_no_transport: Any
        _ensure_resolved: Any
        _check_sendfile_params: Any

    def _check_socket(self, sock: socket.socket) -> None:
        _refuse_ssl(sock)
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")

    async def _readiness(self, sock: socket.socket, write: bool) -> None:
        """Wait until the socket is ready for reading, or for writing."""
        fd = sock.fileno()
        ready = self.create_future()

        def tell() -> None:
            stop()
            if not ready.done():
                ready.set_result(None)

        def stop() -> None:
            if not handle.cancelled():  # else another watcher has the descriptor
                (self._remove_writer if write else self._remove_reader)(fd)

        self._ensure_fd_no_transport(fd)
        handle = (self._add_writer if write else self._add_reader)(fd, tell)
        try:
            await ready
        finally:
            stop()

    async def _when_ready(self, sock: socket.socket, write: bool, call: Callable[[], _T]) -> _T:
        """The result of call(), tried again whenever the socket is ready until it does not block.

        The waiting task itself makes the call, when it runs again. A wait that is cancelled has taken nothing.
        """
        while True:
            await self._readiness(sock, write)
            try:
                return call()
            except _WOULD_BLOCK:
                pass

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """Resolve a name in a coroutine of this loop (asyncio: getaddrinfo).

        host: a name, an address, or None. port: a number, the name of a service, or None. family, type, proto, flags:
        what to find, 0 for all. Returns the list of socket.getaddrinfo(). An address with a number is answered at
        once, in this thread; whatever is to be looked up goes to the default executor, and in debug mode, where
        asyncio logs the time that it takes, everything does. Raises socket.gaierror; RuntimeError if the loop is
        closed.
        """
        if not (self._debug or self._closed):
            found = literal_addrinfo(host, port, family, type, proto, flags)
            if found is not None:
                return found
        return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive from a socket in a coroutine of this loop (asyncio: sock_recv).

        Returns the bytes, b"" at the end of the stream. sock: a non-blocking socket (ValueError in debug mode
        otherwise; TypeError for an ssl.SSLSocket). n: the most bytes. Raises the system's OSError.
        """
        self._check_socket(sock)
        try:
            return sock.recv(n)
        except _WOULD_BLOCK:
            return await self._when_ready(sock, False, lambda: sock.recv(n))

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive from a socket into a buffer, in a coroutine of this loop (asyncio: sock_recv_into).

        sock: a non-blocking socket (ValueError in debug mode otherwise; TypeError for an ssl.SSLSocket). buf: a
        writable bytes-like object. Returns the number of bytes, 0 at the end of the stream. Raises the system's
        OSError.
        """
        self._check_socket(sock)
        try:
            return sock.recv_into(buf)
        except _WOULD_BLOCK:
            return await self._when_ready(sock, False, lambda: sock.recv_into(buf))

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
        """Receive a datagram in a coroutine of this loop; return (data, address) (asyncio: sock_recvfrom).

        sock: a non-blocking socket (ValueError in debug mode otherwise; TypeError for an ssl.SSLSocket). bufsize: the
        most bytes, beyond which the datagram is cut off. Raises the system's OSError.
        """
        self._check_socket(sock)
        try:
            return sock.recvfrom(bufsize)
        except _WOULD_BLOCK:
            return await self._when_ready(sock, False, lambda: sock.recvfrom(bufsize))

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
        """Receive a datagram into a buffer, in a coroutine of this loop (asyncio: sock_recvfrom_into).

        sock: a non-blocking socket (ValueError in debug mode otherwise; TypeError for an ssl.SSLSocket). buf: a
        writable bytes-like object. nbytes: the most bytes; 0: as many as there is room for. Returns (number of bytes,
        address). Raises the system's OSError.
        """
        self._check_socket(sock)
        try:
            return sock.recvfrom_into(buf, nbytes)
        except _WOULD_BLOCK:
            return await self._when_ready(sock, False, lambda: sock.recvfrom_into(buf, nbytes))

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all of the data to a socket, in a coroutine of this loop (asyncio: sock_sendall).

        sock: a non-blocking socket (ValueError in debug mode otherwise; TypeError for an ssl.SSLSocket). data: a
        bytes-like object. Raises the system's OSError.
        """
        self._check_socket(sock)
        with memoryview(data) as view, memoryview(view if view.c_contiguous else bytes(view)).cast("B") as left:
            sent = 0

            def send() -> int:
                return sock.send(left[sent:])

            while True:
                try:
                    sent += send()
                except _WOULD_BLOCK:
                    sent += await self._when_ready(sock, True, send)
                if sent >= len(left):
                    return

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        """Send a datagram in a coroutine of this loop; return the number of bytes (asyncio: sock_sendto).

        sock: a non-blocking socket (ValueError in debug mode otherwise; TypeError for an ssl.SSLSocket). data: a
        bytes-like object. address: of the socket's family. Raises the system's OSError.
        """
        self._check_socket(sock)
        waits = pauses()
        waited = False
        while True:
            try:
                return sock.sendto(data, address)
            except _WOULD_BLOCK:
                if sock.family == socket.AF_UNIX and waited:
                    # Ready says that the sender has room, and nothing about a receiver that it is not connected to.
                    await asyncio.sleep(next(waits))
                waited = True
            await self._readiness(sock, True)

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection in a coroutine of this loop (asyncio: sock_accept).

        Returns (non-blocking socket, address). sock: a non-blocking socket that listens (ValueError in debug mode
        otherwise; TypeError for an ssl.SSLSocket). Raises the system's OSError.
        """
        self._check_socket(sock)
        try:
            conn, address = sock.accept()
        except _WOULD_BLOCK:
            conn, address = await self._when_ready(sock, False, lambda: sock.accept())
        conn.setblocking(False)
        return conn, address

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a socket to an address, in a coroutine of this loop (asyncio: sock_connect).

        sock: a non-blocking socket (ValueError in debug mode otherwise; TypeError for an ssl.SSLSocket). address: of
        the socket's family; a host name in it is resolved. Raises the system's OSError, such as ConnectionRefusedError.
        """
        self._check_socket(sock)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = resolved[0][4]
        for pause in pauses():
            try:
                sock.connect(address)
            except _WOULD_BLOCK as exc:
                if exc.errno != errno.EAGAIN:
                    break
                if sock.family != socket.AF_UNIX:
                    raise
                await asyncio.sleep(pause)
            else:
                return
        await self._readiness(sock, True)
        _finish_connect(sock, address)

    async def _sock_sendfile_native(self, sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
        return await _sendfile(sock.fileno, lambda: self._readiness(sock, True), file, offset, count)

    async def _sock_sendfile_fallback(self, sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
        if hasattr(file, "seek"):
            file.seek(offset)  # up to Python 3.13 asyncio leaves the file where it stands if the offset is 0
        sent: int = await super()._sock_sendfile_fallback(sock, file, offset, count)  # type: ignore[misc]
        return sent

    async def _sendfile_fallback(self, transport: Any, file: Any, offset: int, count: int | None) -> int:
        if hasattr(file, "seek"):
            file.seek(offset)  # as above
        sent: int = await super()._sendfile_fallback(transport, file, offset, count)  # type: ignore[misc]
        return sent

    async def _sendfile_native(self, transport: Any, file: Any, offset: int, count: int | None) -> int:
        self._check_sendfile_params(transport._sock, file, offset, count)
        emptied = transport._make_empty_waiter()  # RuntimeError while another sendfile() runs
        resume = transport.is_reading()
        transport.pause_reading()
        try:
            await emptied

            def fileno() -> int:
                if transport._conn_lost:
                    raise ConnectionError("Connection is closed by peer")
                return int(transport._sock_fd)

            return await _sendfile(fileno, transport._make_writable_waiter, file, offset, count)
        finally:
            del emptied  # an exception in it refers to this frame
            transport._reset_empty_waiter()
            if resume:
                transport.resume_reading()


def _refuse_ssl(sock: object) -> None:
    """TypeError for an SSL socket, as asyncio has it."""
    if _SSLSocket is not None and isinstance(sock, _SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")


try:
    from ssl import SSLSocket as _SSLSocket
except ImportError:
    _SSLSocket = None  # type: ignore[assignment, misc]


def _finish_connect(sock: socket.socket, address: Any) -> None:
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"Connect call failed {address}")


async def _sendfile(
    fileno: Callable[[], int], writable: Callable[[], Any], file: Any, offset: int, count: int | None
) -> int:
    """Send a regular file; its position ends behind what was sent, also when the sending fails."""
    try:
        source = file.fileno()
        size = os.fstat(source).st_size
    except (AttributeError, io.UnsupportedOperation, OSError):
        raise exceptions.SendfileNotAvailableError("not a regular file") from None
    chunk = min(count or size, 1 << 30)
    if not chunk:
        return 0
    total = 0
    try:
        while count is None or total < count:
            try:
                wanted = chunk if count is None else min(chunk, count - total)
                sent = os.sendfile(fileno(), source, offset + total, wanted)
            except _WOULD_BLOCK:
                await writable()
                continue
            except OSError as exc:
                if total and exc.errno == errno.ENOTCONN:  # the connection was lost in the middle
                    raise ConnectionError(exc.errno, "the connection was lost") from exc
                if isinstance(exc, ConnectionError) or total:
                    raise
                raise exceptions.SendfileNotAvailableError("os.sendfile call failed") from exc
            if not sent:
                break
            total += sent
        return total
    finally:
        os.lseek(source, offset + total, os.SEEK_SET)
