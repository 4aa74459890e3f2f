"""class Loop: what of an event loop stays in Python.

The hot path is core.loop.LoopCore, first in the MRO; what is cold and not Linux's business comes from
asyncio.BaseEventLoop of the running Python. This file has the rest: running, closing, signals, Unix
sockets, the factories for transports, and the waiting socket methods.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import threading
import warnings
import weakref
from asyncio import base_events, constants, coroutines, events, sslproto, unix_events
from asyncio.log import logger
from collections.abc import Callable
from typing import Any

from goloop.core.accept import Acceptor
from goloop.core.datagram import DatagramTransport
from goloop.core.loop import LoopCore
from goloop.core.pipes import ReadPipeTransport, WritePipeTransport
from goloop.core.stream import StreamTransport
from goloop.process import SubprocessTransport, spawn
from goloop.sock import SocketMethods

_UNLINK_SOCKETS = sys.version_info >= (3, 13)  # asyncio unlinks a Unix server's path from there on


class Loop(LoopCore, SocketMethods, asyncio.BaseEventLoop):
    """An asyncio event loop that parks instead of polling.

    Drop-in for asyncio.SelectorEventLoop on Linux; see asyncio.AbstractEventLoop for the methods. All
    methods belong to the thread that runs the loop, except call_soon_threadsafe().
    """

    def __init__(self) -> None:
        super().__init__()
        self._signal_handlers: dict[int, asyncio.Handle] = {}
        self._signal_sockets: tuple[socket.socket, socket.socket] | None = None
        self._acceptors: dict[int, Acceptor] = {}
        self._unix_server_sockets: dict[socket.socket, int] = {}
        _loops.add(self)

    # ---------------------------------------------------------------- running
    def _run_forever_setup(self) -> None:
        self._check_closed()
        self._check_running()
        if self._is_foreign():
            raise RuntimeError("this event loop belongs to the parent process: make a new one after a fork")
        self._set_coroutine_origin_tracking(self._debug)
        self._old_agen_hooks = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
        events._set_running_loop(self)

    def _run_forever_cleanup(self) -> None:
        self._stopping = False
        self._thread_id = None
        events._set_running_loop(None)
        self._set_coroutine_origin_tracking(False)
        if self._old_agen_hooks is not None:
            sys.set_asyncgen_hooks(*self._old_agen_hooks)
            self._old_agen_hooks = None

    def run_forever(self) -> None:
        """Run until stop() is called; the calling thread becomes the loop's home thread."""
        borrowed = False
        try:
            self._run_forever_setup()
            borrowed = self._borrow_wakeup_fd()
            self._run_until_stopped()
        finally:
            if self._thread_id == threading.get_ident():
                if borrowed:
                    self._return_wakeup_fd()
                self._run_forever_cleanup()

    def close(self) -> None:
        """Close the loop and everything native that it holds; it must not run. Twice is harmless."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self._closed:
            return
        if sys.is_finalizing():
            if self._signal_handlers:
                warnings.warn(
                    f"Closing the loop {self!r} on interpreter shutdown stage, skipping signal handlers removal",
                    ResourceWarning,
                    source=self,
                )
                self._signal_handlers.clear()
        else:
            for sig in list(self._signal_handlers):
                self.remove_signal_handler(sig)
        self._close_signal_sockets()
        super().close()
        self._acceptors.clear()
        self._shutdown_core()

    # ---------------------------------------------------------------- signals
    # A signal's C handler writes its number to the wake-up descriptor, whatever the main thread does and
    # whoever holds the GIL; the netpoller then wakes the loop. While the loop runs in the main thread it
    # borrows the descriptor even without handlers of its own: a Ctrl-C that arrives just before the loop
    # parks would otherwise wait for the next event.

    def _open_signal_sockets(self) -> socket.socket:
        if self._signal_sockets is None:
            reader, writer = socket.socketpair()
            reader.setblocking(False)
            writer.setblocking(False)
            self._signal_sockets = reader, writer
            self._add_reader(reader.fileno(), self._read_signals)
        return self._signal_sockets[1]

    def _close_signal_sockets(self) -> None:
        if self._signal_sockets is not None:
            reader, writer = self._signal_sockets
            self._signal_sockets = None
            self._remove_reader(reader.fileno())
            if not self._is_foreign() and threading.current_thread() is threading.main_thread():
                _restore_wakeup_fd(writer.fileno(), -1)
            reader.close()
            writer.close()

    def _borrow_wakeup_fd(self) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return False
        fd = self._open_signal_sockets().fileno()
        before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        if before not in (-1, fd):
            signal.set_wakeup_fd(before)  # somebody else's: leave it
        return before == -1

    def _return_wakeup_fd(self) -> None:
        if self._signal_sockets is not None and not self._signal_handlers:
            _restore_wakeup_fd(self._signal_sockets[1].fileno(), -1)

    def _read_signals(self) -> None:
        assert self._signal_sockets is not None
        try:
            numbers = self._signal_sockets[0].recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        for number in numbers:
            handle = self._signal_handlers.get(number)
            if handle is None:
                continue  # for Python's own handler, or removed since
            if handle.cancelled():
                self.remove_signal_handler(number)
            else:
                self._enqueue_handle(handle)

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Call callback(*args) in the loop when the signal arrives. Only for a loop of the main thread."""
        if coroutines.iscoroutine(callback) or coroutines.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        fd = self._open_signal_sockets().fileno()
        try:
            signal.set_wakeup_fd(fd)
        except (ValueError, OSError) as exc:
            raise RuntimeError(str(exc)) from None
        handle = self._make_handle(callback, args)
        self._signal_handlers[sig] = handle
        try:
            signal.signal(sig, unix_events._sighandler_noop)
            signal.siginterrupt(sig, False)
        except OSError as exc:
            del self._signal_handlers[sig]
            if not self._signal_handlers and not self.is_running():
                _restore_wakeup_fd(fd, -1)
            if exc.errno == 22:
                raise RuntimeError(f"sig {sig} cannot be caught") from exc
            raise

    def remove_signal_handler(self, sig: int) -> bool:
        """Put the default handler of the signal back. Returns whether there was a handler to remove."""
        self._check_signal(sig)
        if self._signal_handlers.pop(sig, None) is None:
            return False
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as exc:
            if exc.errno == 22:
                raise RuntimeError(f"sig {sig} cannot be caught") from exc
            raise
        if not self.is_running():
            self._return_wakeup_fd()
        return True

    def _check_signal(self, sig: int) -> None:
        if not isinstance(sig, int):
            raise TypeError(f"sig must be an int, not {sig!r}")
        if sig not in signal.valid_signals():
            raise ValueError(f"invalid signal number {sig}")

    # ---------------------------------------------------------------- serving
    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        **_: Any,
    ) -> None:
        async def tls(factory: Any, conn: socket.socket, server: Any) -> None:
            await self._accept_tls(factory, conn, sslcontext, server, ssl_handshake_timeout, ssl_shutdown_timeout)

        acceptor = Acceptor(self, sock, protocol_factory, server, backlog, tls if sslcontext else None)
        self._acceptors[sock.fileno()] = acceptor
        acceptor.start()

    def _stop_serving(self, sock: socket.socket) -> None:
        path = sock.getsockname() if sock in self._unix_server_sockets else None
        acceptor = self._acceptors.pop(sock.fileno(), None)
        if acceptor is not None:
            acceptor.cancel()
        self._remove_reader(sock.fileno())
        sock.close()
        if path is not None:
            inode = self._unix_server_sockets.pop(sock)
            try:
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as exc:
                logger.error("Unable to clean up listening UNIX socket %r: %r", path, exc)

    async def _accept_tls(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        conn: socket.socket,
        sslcontext: Any,
        server: Any,
        handshake_timeout: float | None,
        shutdown_timeout: float | None,
    ) -> None:
        protocol = transport = None
        try:
            protocol = factory()
            waiter = self.create_future()
            transport = self._make_ssl_transport(
                conn,
                protocol,
                sslcontext,
                waiter,
                server_side=True,
                server=server,
                ssl_handshake_timeout=handshake_timeout,
                ssl_shutdown_timeout=shutdown_timeout,
            )
            try:
                await waiter
            except BaseException:
                transport.close()
                raise
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if transport is None:
                conn.close()
            # A peer that breaks its handshake is everyday; a factory that raises is not.
            if self._debug or protocol is None:
                context = {"message": "Error on transport creation for incoming connection", "exception": exc}
                if protocol is not None:
                    context["protocol"] = protocol
                if transport is not None:
                    context["transport"] = transport
                self.call_exception_handler(context)

    # -------------------------------------------------------------- factories
    def _make_socket_transport(
        self, sock: Any, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None
    ) -> StreamTransport:
        return StreamTransport(self, sock, protocol, waiter, extra, server)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        call_connection_made: bool = True,
    ) -> Any:
        tls = sslproto.SSLProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        StreamTransport(self, rawsock, tls, extra=extra, server=server)
        return tls._app_transport

    def _make_datagram_transport(
        self, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
    ) -> DatagramTransport:
        return DatagramTransport(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(
        self, pipe: Any, protocol: Any, waiter: Any = None, extra: Any = None
    ) -> ReadPipeTransport:
        return ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self, pipe: Any, protocol: Any, waiter: Any = None, extra: Any = None
    ) -> WritePipeTransport:
        return WritePipeTransport(self, pipe, protocol, waiter, extra)

    async def _make_subprocess_transport(
        self,
        protocol: Any,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> SubprocessTransport:
        return await spawn(self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra=extra, **kwargs)

    # ----------------------------------------------------------- Unix sockets
    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], Any],
        path: Any = None,
        *,
        ssl: Any = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[Any, Any]:
        """Connect to a Unix stream socket; see asyncio.loop.create_unix_connection()."""
        assert server_hostname is None or isinstance(server_hostname, str)
        if ssl:
            if server_hostname is None:
                raise ValueError("you have to pass server_hostname when using ssl")
        else:
            if server_hostname is not None:
                raise ValueError("server_hostname is only meaningful with ssl")
            _only_with_ssl(ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self.sock_connect(sock, os.fspath(path))
            except BaseException:
                sock.close()
                raise
        else:
            if sock is None:
                raise ValueError("no path and sock were specified")
            _check_unix_stream(sock)
            sock.setblocking(False)
        return await self._create_connection_transport(
            sock,
            protocol_factory,
            ssl,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def create_unix_server(
        self,
        protocol_factory: Callable[[], Any],
        path: Any = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = _UNLINK_SOCKETS,
    ) -> asyncio.Server:
        """Serve on a Unix stream socket; see asyncio.loop.create_unix_server().

        cleanup_socket: unlink the path when the server closes, unless it is another server's by then
        (default: as asyncio of the running Python, that is from 3.13 on).
        """
        if isinstance(ssl, bool):
            raise TypeError("ssl argument must be an SSLContext or None")
        if not ssl:
            _only_with_ssl(ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = _bind_unix(os.fspath(path))
        else:
            if sock is None:
                raise ValueError("path was not specified, and no sock specified")
            _check_unix_stream(sock)
        if cleanup_socket:
            name = sock.getsockname()
            if name and name[0] not in (0, "\x00"):
                try:
                    self._unix_server_sockets[sock] = os.stat(name).st_ino
                except FileNotFoundError:
                    pass
        sock.setblocking(False)
        server = base_events.Server(
            self, [sock], protocol_factory, ssl, backlog, ssl_handshake_timeout, ssl_shutdown_timeout
        )
        if start_serving:
            server._start_serving()
            await asyncio.sleep(0)
        return server


def _only_with_ssl(**timeouts: float | None) -> None:
    for name, value in timeouts.items():
        if value is not None:
            raise ValueError(f"{name} is only meaningful with ssl")


def _check_unix_stream(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


def _bind_unix(path: Any) -> socket.socket:
    """A socket bound to the path, in place of a stale one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path[0] not in (0, "\x00"):  # not in the abstract name space
            try:
                if stat.S_ISSOCK(os.stat(path).st_mode):
                    os.remove(path)
            except FileNotFoundError:
                pass
            except OSError as exc:
                logger.error("Unable to check or remove stale UNIX socket %r: %r", path, exc)
        sock.bind(path)
    except OSError as exc:
        sock.close()
        if exc.errno == 98:
            raise OSError(exc.errno, f"Address {path!r} is already in use") from None
        raise
    except BaseException:
        sock.close()
        raise
    return sock


# -------------------------------------------------------------------- processes
_loops: weakref.WeakSet[Loop] = weakref.WeakSet()  # whose signal sockets a forked child must not write to


def _restore_wakeup_fd(ours: int, other: int) -> None:
    """Set the wake-up descriptor to `other` if it is ours now."""
    try:
        before = signal.set_wakeup_fd(-1)
        if before not in (-1, ours):
            signal.set_wakeup_fd(before)
        elif other != -1:
            signal.set_wakeup_fd(other)
    except (ValueError, OSError) as exc:
        logger.info("set_wakeup_fd failed: %s", exc)


def _after_fork_in_child() -> None:
    """A signal in the child must not reach the parent's handlers through the sockets they share."""
    for loop in list(_loops):
        if loop._signal_sockets is not None and threading.current_thread() is threading.main_thread():
            _restore_wakeup_fd(loop._signal_sockets[1].fileno(), -1)


os.register_at_fork(after_in_child=_after_fork_in_child)
