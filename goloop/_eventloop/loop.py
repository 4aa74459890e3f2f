"""class Loop: the part of an event loop that stays in Python.

The hot path is core.loop.LoopCore, first in the MRO; the cold paths come from the standard library of the
running Python. This file has the rest: running, closing, serving, and the factories for transports.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import ssl
import sys
import threading
from asyncio import constants, events, unix_events
from asyncio.log import logger
from collections.abc import Callable

# By name: a watcher for blocking calls (blockbuster) replaces them in os, and lets asyncio's own pass
from os import stat, unlink
from typing import TYPE_CHECKING, Any

from goloop import _environment
from goloop._eventloop import unhandled
from goloop._eventloop.nesting import Nesting, come_back, step_aside
from goloop._eventloop.signals import SignalMethods
from goloop._eventloop.socket_methods import SocketMethods
from goloop._eventloop.stats import LoopStats, add_loop, of_loop, remove_loop, thread_names
from goloop._eventloop.subprocesses import SubprocessTransport, spawn
from goloop.core.loop.loop_core import LoopCore
from goloop.core.sched.bubble import bubble
from goloop.core.transports.acceptor import Acceptor
from goloop.core.transports.datagram import DatagramTransport
from goloop.core.transports.pipes import ReadPipeTransport, WritePipeTransport
from goloop.core.transports.sslproto import SSLProtocol
from goloop.core.transports.stream import StreamTransport
from goloop.runtime import ports

# The cold part, which is the same for every loop on Unix, is the standard library's. Its functions are borrowed one
# by one: as a base class it would bring a selector along.
_UnixLoop: Any = unix_events._UnixSelectorEventLoop


def _switch(name: str, value: bool) -> bool:
    """Check a switch: any text would be on, "0" as well."""
    if value not in (True, False):
        raise TypeError(f"{name} is True, False or None, got {value!r}")
    return bool(value)


def _close_unused(selector: selectors.BaseSelector) -> None:
    if type(selector).__module__ != selectors.__name__:
        raise TypeError(
            f"a goloop loop does not wait in a selector, and {selector!r} is not one of the standard library's"
        )
    selector.close()


class Loop(LoopCore, Nesting, SignalMethods, SocketMethods, asyncio.BaseEventLoop):
    """An asyncio event loop that parks instead of polling.

    Drop-in for asyncio.SelectorEventLoop on Linux; see asyncio.AbstractEventLoop for the methods. All methods belong to
    the thread that runs the loop, except call_soon_threadsafe() and those that say so.

    selector: as asyncio.SelectorEventLoop takes it. The loop closes it, because it waits in a way of its own; TypeError
    for a selector that is not one of the standard library's, which would be there to do something else. handoff: while
    a callback is stuck in a blocking call, let another thread run the other callbacks (Go: handoffp); None: if the
    environment has GOLOOP_HANDOFF=1. watch: report callbacks that are stuck for longer than slow_callback_duration
    while they are; None: as the environment's GOLOOP_WATCH says, without it in debug mode. TypeError for either that is
    no bool. RuntimeError where handing off is not possible.
    """

    _is_bubble = False  # of goloop.testing

    def __init__(
        self,
        selector: selectors.BaseSelector | None = None,
        *,
        handoff: bool | None = None,
        watch: bool | None = None,
    ) -> None:
        handoff = bool(_environment.get("GOLOOP_HANDOFF")) if handoff is None else _switch("handoff", handoff)
        watch = _environment.get("GOLOOP_WATCH") if watch is None else _switch("watch", watch)
        if selector is not None:
            _close_unused(selector)
        super().__init__()
        self._number = add_loop(self)
        self._handoff = handoff
        self._watch = watch
        self._acceptors: dict[int, Acceptor] = {}
        self._unix_server_sockets: dict[socket.socket, int] = {}
        self._children: set[SubprocessTransport] = set()  # those whose exit has not been seen
        if self._handoff:
            try:
                ports.current.enable_handoff(self)
            except BaseException:
                self._handoff = False
                self.close()
                raise

    # ---------------------------------------------------------------- running
    def _run_forever_setup(self) -> None:
        self._check_closed()
        self._check_running()
        self._check_not_foreign()
        if bubble() is not None and not self._is_bubble:
            raise RuntimeError("a bubble has one loop, whose time is virtual: no other one can run in it")
        self._set_coroutine_origin_tracking(self._debug)
        self._old_agen_hooks: Any = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
        self._outside = step_aside()
        events._set_running_loop(self)

    def _run_forever_cleanup(self) -> None:
        self._stopping = False
        self._thread_id = None
        come_back(self._outside)
        self._outside = None, None, None
        self._set_coroutine_origin_tracking(False)
        if self._old_agen_hooks is not None:
            sys.set_asyncgen_hooks(*self._old_agen_hooks)
            self._old_agen_hooks = None

    def run_forever(self) -> None:
        """Run until stop() is called; the calling thread becomes the loop's home thread (asyncio: run_forever).

        In a plain thread, which it blocks, or a goroutine's. RuntimeError if the loop is closed, runs already, or was
        made before a fork, or if another loop runs in this thread.
        """
        if self._may_nest():
            self._run_forever_nested()
            return
        self._run_forever_setup()
        ports.current.loop_starts(self, self._watches())
        try:
            self._borrow_wakeup_fd()
            self._run_until_stopped()
        finally:
            ports.current.loop_stops(self)
            if not self._signal_handlers:
                self._give_back_wakeup_fd()
            self._run_forever_cleanup()

    def _watches(self) -> bool:
        return self._debug if self._watch is None else self._watch

    def _run_as_substitute(self) -> None:
        """Run the loop in this thread until home is free again, or the loop is about to stop."""
        self._set_up_thread()
        try:
            self._drive()
        finally:
            self._clean_up_thread()

    def _set_up_thread(self) -> None:
        if self._debug:
            sys.set_coroutine_origin_tracking_depth(constants.DEBUG_STACK_DEPTH)
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
        events._set_running_loop(self)

    def _clean_up_thread(self) -> None:
        events._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)
        sys.set_coroutine_origin_tracking_depth(0)

    def close(self) -> None:
        """Close the loop and everything native that it holds (asyncio: close). Twice is harmless.

        RuntimeError while it runs. From any thread. Goroutines that were started from it are cancelled and waited for.
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self._closed:
            return
        if not sys.is_finalizing():  # the runtime's modules may be gone by then
            ports.current.loop_closes(self)
        self._close_signals()
        for child in list(self._children):
            child._loop_closes()
        super().close()
        self._acceptors.clear()
        remove_loop(self._number)
        self._shutdown_core()
        if self._handoff and not sys.is_finalizing():
            ports.current.loop_closed(self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an exception, or another mishap, that has no caller to go to (asyncio: call_exception_handler).

        context: a dict with the text "message", and what else is known. From any thread.
        """
        unhandled.tell(self, context)
        super().call_exception_handler(context)

    def stats(self) -> LoopStats:
        """Return the numbers of this loop: what it has done, and how long that took. From any thread, also while the
        loop is stuck. After close() they do not change any more."""
        return of_loop(self, thread_names())

    # ---------------------------------------------------------------- serving
    if not TYPE_CHECKING:  # type checkers have them from asyncio.AbstractEventLoop, with their arguments
        create_unix_connection = _UnixLoop.create_unix_connection
        create_unix_server = _UnixLoop.create_unix_server

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Any = None,
        **_: Any,
    ) -> None:
        async def tls(
            acceptor: Acceptor, factory: Any, conn: socket.socket, extra: dict[str, Any], server: Any
        ) -> None:
            def make_transport(protocol: Any, waiter: Any) -> Any:
                return self._make_ssl_transport(
                    conn,
                    protocol,
                    sslcontext,
                    waiter,
                    server_side=True,
                    extra=extra,
                    server=server,
                    ssl_handshake_timeout=ssl_handshake_timeout,
                    ssl_shutdown_timeout=ssl_shutdown_timeout,
                )

            await self._accept_tls(acceptor, factory, conn, make_transport)

        acceptor = Acceptor(self, sock, protocol_factory, server, backlog, tls if sslcontext else None, context)
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
                if stat(path).st_ino == inode:
                    unlink(path)
            except FileNotFoundError:
                pass
            except OSError as exc:
                logger.error("Unable to clean up listening UNIX socket %r: %r", path, exc)

    def _see_through(self, accepted: list[StreamTransport]) -> asyncio.Future[None]:
        """Close connections that are accepted now, should all tasks be cancelled before their protocols know of them.

        The one task that they share until then is cancelled with the others, and none of them would close them. Returns
        the future that is to be done when the protocols know.
        """

        async def wait() -> None:
            await told

        def over(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                for transport in accepted:
                    transport.close()

        told = self.create_future()
        task = self.create_task(wait())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.add_done_callback(over)
        return told

    async def _accept_tls(
        self,
        acceptor: Acceptor,
        factory: Callable[[], asyncio.BaseProtocol],
        conn: socket.socket,
        make_transport: Callable[[Any, asyncio.Future[None]], Any],
    ) -> None:
        """Do the handshake with a connection that was accepted; an error closes it."""
        protocol = transport = None
        try:
            if not acceptor.cancelled:
                protocol = factory()
            if acceptor.cancelled:  # perhaps by the factory
                conn.close()
                return
            waiter = self.create_future()
            transport = make_transport(protocol, waiter)
            acceptor.accepting.discard(conn)
            acceptor.accepting.add(transport)
            try:
                await waiter
            except BaseException:
                transport.close()
                raise
            finally:
                acceptor.accepting.discard(transport)
                del waiter  # an exception in it refers to this frame
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if transport is None:
                conn.close()
            # A peer that breaks its handshake is everyday; a factory that raises is not.
            if self._debug or protocol is None:
                self._report_accept_error(exc, protocol, transport)

    def _report_accept_error(self, exc: BaseException, protocol: Any, transport: Any) -> None:
        context = {"message": "Error on transport creation for incoming connection", "exception": exc}
        if protocol is not None:
            context["protocol"] = protocol
        if transport is not None:
            context["transport"] = transport
        self.call_exception_handler(context)

    # -------------------------------------------------------------- factories
    # From Python 3.15 on asyncio says in which context a transport calls its protocol; else it is the current one.
    def _make_socket_transport(
        self,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
    ) -> StreamTransport:
        self._ensure_fd_no_transport(sock)
        return StreamTransport(self, sock, protocol, waiter, extra, server, context)

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
        context: Any = None,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        tls: Any = SSLProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made,
            ssl_handshake_timeout=ssl_handshake_timeout,  # type: ignore[arg-type]
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        StreamTransport(self, rawsock, tls, extra=extra, server=server, context=context)
        return tls._app_transport

    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade a transport to TLS; return the transport that the protocol uses from now on (asyncio: start_tls).

        transport: one that create_connection() or create_server() made. protocol: its protocol. sslcontext: an
        ssl.SSLContext; TypeError for anything else, and for another transport. server_side: be the server.
        server_hostname: the name that a server's certificate must be for. ssl_handshake_timeout, ssl_shutdown_timeout:
        seconds; None: 60 and 30. Returns None if the connection was closed meanwhile; raises ssl.SSLError, or
        ConnectionAbortedError when the time is over. For coroutines on this loop. A difference from asyncio: the
        handshake gets the unread bytes of a StreamReader, as they came behind the line that asked for TLS, and so are
        TLS, or an attack.
        """
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        tls: Any = SSLProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            False,
            ssl_handshake_timeout=ssl_handshake_timeout,  # type: ignore[arg-type]
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        transport.pause_reading()  # until the new protocol knows the transport
        if isinstance(protocol, asyncio.StreamReaderProtocol):
            reader: Any = protocol._stream_reader  # type: ignore[attr-defined]
            if reader is not None:
                tls._incoming.write(reader._buffer)
                reader._buffer.clear()
                reader._paused = False
        transport.set_protocol(tls)
        begin = [self.call_soon(tls.connection_made, transport), self.call_soon(transport.resume_reading)]
        try:
            await waiter
        except BaseException:
            transport.close()
            for handle in begin:
                handle.cancel()
            raise
        finally:
            del waiter  # an exception in it refers to this frame
        return tls._app_transport

    def _make_datagram_transport(
        self, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
    ) -> DatagramTransport:
        self._ensure_fd_no_transport(sock)
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
        self, protocol: Any, args: Any, *popen: Any, **kwargs: Any
    ) -> SubprocessTransport:
        return await spawn(self, protocol, args, *popen, **kwargs)
