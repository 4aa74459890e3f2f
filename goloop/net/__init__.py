"""Network connections in blocking style, for goroutines and plain threads (Go: net and crypto/tls).

dial() and listen() make them; goloop.core.net has the classes. Reading, writing and accepting park a goroutine and
block a plain thread. On the thread of a running loop they raise RuntimeError: there, asyncio's streams are the way, or
a goroutine.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal, overload

from goloop import context as _context
from goloop._backoff import pauses
from goloop.chan import Chan, recv, select
from goloop.context import Context
from goloop.core.net.conn import Conn
from goloop.core.net.listener import Listener
from goloop.core.net.packet_conn import PacketConn
from goloop.core.net.polldesc import PollDesc, may_wait
from goloop.core.net.tls_conn import TLSConn
from goloop.core.sched.goroutine import Goroutine, go
from goloop.core.sched.goroutine_api import sleep
from goloop.core.system.socket_file import SocketFile
from goloop.errors import Canceled, ClosedError, DeadlineExceeded
from goloop.net._address import ResolvedAddress, parse, resolve, unix_path
from goloop.net._limit import Limit, limit

__all__ = [
    "ClosedError",
    "Conn",
    "Listener",
    "PacketConn",
    "TLSConn",
    "TLSListener",
    "dial",
    "dial_tls",
    "listen",
    "listen_packet",
    "listen_tls",
]

_HEAD_START = 0.3  # seconds that the first family has before the other is tried as well; RFC 6555, as in Go
_KEEPALIVE = 15  # seconds of silence before the first probe, and between probes; Go's default
_BACKLOG = 65535  # the kernel cuts it down to net.core.somaxconn, as Go asks for

Stream = Literal["tcp", "tcp4", "tcp6", "unix"]
Packet = Literal["udp", "udp4", "udp6", "unixgram"]


# ------------------------------------------------------------------------ dial
@overload
def dial(
    network: Stream, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> Conn: ...
@overload
def dial(
    network: Packet, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> PacketConn: ...
@overload
def dial(
    network: str, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> Any: ...
def dial(
    network: str, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> Any:
    """Connect to an address (Go: net.Dial).

    network: "tcp", "udp", either with 4 or 6 for one family only, "unix" or "unixgram". address: "host:port",
    "[::1]:port", ":port" for this machine; a name of a host or of a service will do, and is looked up without stopping
    other goroutines. For Unix sockets a path, or "@name" for an abstract one. timeout: seconds for all of it,
    TimeoutError when it is over; None: the system's. ctx: a Context that ends the dial with its own end, by its error
    (Go: Dialer.DialContext); the connection outlives it; None: no context. Returns a Conn, or a PacketConn for
    datagrams.

    All addresses of a name are tried; if it has both families, the second one gets its chance after 0.3 s (RFC 6555).
    ValueError for a bad network or address, OSError with the first error when none answers. Connections have
    TCP_NODELAY and keep-alive set, as in Go. Parks a goroutine, which raises asyncio.CancelledError when it is
    cancelled; blocks a plain thread. RuntimeError on the thread of a running loop outside of a goroutine.
    """
    in_goroutine = may_wait("dial()", "asyncio.open_connection()")
    until = limit(timeout, ctx, "dial()")
    wanted = parse(network, address, passive=False)
    what = f"dial {network} {os.fspath(address)}"
    try:
        targets = resolve(wanted, in_goroutine, until)
        families = {target.family for target in targets}
        if len(families) == 1 or targets[0].kind != socket.SOCK_STREAM:
            return _dial_each(targets, until)
        return _dial_race(
            [t for t in targets if t.family == targets[0].family],
            [t for t in targets if t.family != targets[0].family],
            until,
        )
    except (Canceled, DeadlineExceeded) as exc:
        raise type(exc)(f"{what}: {exc}") from exc.__cause__
    except TimeoutError as exc:
        if exc.errno is not None:
            raise  # the system's
        raise TimeoutError(f"{what}: timed out") from None


def _dial_each(targets: list[ResolvedAddress], until: Limit) -> Any:
    """Try one after the other, each with its share of the time (Go: dialSerial)."""
    first: OSError | None = None
    for i, target in enumerate(targets):
        try:
            left = until.left()
            if left is None:
                return _connect(target, until)
            return _connect(target, until.within(max(left / (len(targets) - i), min(left, 2.0))))  # Go: partialDeadline
        except OSError as exc:
            if first is None:
                first = exc
            elif not isinstance(exc, TimeoutError):
                first.add_note(str(exc))
    assert first is not None, "no address"
    try:
        raise first
    finally:
        del first  # or it would keep this frame alive, and be kept by it


def _dial_race(first: list[ResolvedAddress], second: list[ResolvedAddress], until: Limit) -> Any:
    """Happy eyeballs: the second list starts when the first has had its head start, or has failed."""
    race = _Race(until)
    racers = [go(race.run, first)]
    try:
        return race.referee(racers, partial(go, race.run, second))
    except BaseException:
        race.call_off()
        raise
    finally:
        for racer in racers:
            racer.cancel()


class _Race:
    """Two goroutines that dial; the first connection wins, and another one is closed."""

    def __init__(self, until: Limit) -> None:
        self.until = until
        self.lock = threading.Lock()
        self.over = False  # guarded by lock
        self.winner: Chan[Any] = Chan(1)
        self.failures: Chan[Exception] = Chan(2)

    def run(self, targets: list[ResolvedAddress]) -> None:
        try:
            conn = _dial_each(targets, self.until)
        except (OSError, Canceled) as exc:
            self.failures.send(exc)
            return
        with self.lock:
            late, self.over = self.over, True
            if not late:
                self.winner.try_send(conn)
        if late:
            conn.close()

    def referee(self, racers: list[Goroutine[None]], start_second: Callable[[], Goroutine[None]]) -> Any:
        error: Exception | None = None
        for finished in range(2):
            while True:
                head_start = _HEAD_START if len(racers) == 1 else None
                try:
                    index, value, _ = select(recv(self.winner), recv(self.failures), timeout=head_start)
                    break
                except TimeoutError:
                    racers.append(start_second())
            if index == 0:
                return value
            error = error or value
            if len(racers) == 1 and finished == 0:
                racers.append(start_second())
        assert error is not None
        try:
            raise error
        finally:
            del error, value

    def call_off(self) -> None:
        with self.lock:
            self.over = True
            conn, there = self.winner.try_recv()
        if there and conn is not None:
            conn.close()


def _connect(target: ResolvedAddress, until: Limit) -> Any:
    for _ in range(3):
        sock = socket.socket(target.family, target.kind)
        try:
            sock.setblocking(False)
            _finish_connect(sock, target, until)
            if target.kind == socket.SOCK_DGRAM:
                return PacketConn(sock, partial(_pack, sock.family, False))
            if target.family == socket.AF_UNIX:
                return Conn(sock)
            if sock.getsockname() == sock.getpeername():
                # Linux connects a socket to itself when it gives that port out itself (Go: selfConnect).
                sock.close()
                continue
            _set_options(sock)
            return Conn(sock)
        except BaseException:
            sock.close()
            raise
    raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connection refused: dial {target}")


def _finish_connect(sock: socket.socket, target: ResolvedAddress, until: Limit) -> None:
    for pause in pauses():
        error = sock.connect_ex(target.sockaddr)
        if error != errno.EAGAIN or sock.family != socket.AF_UNIX:
            break
        left = until.left()
        sleep(pause if left is None else min(pause, left))
    if error in (errno.EINPROGRESS, errno.EINTR):
        desc = PollDesc(sock)
        try:
            desc.set_write_deadline(until.context)
            desc.wait_write(until.left())
        except (TimeoutError, Canceled):
            until.left()  # says whose time it was
            raise TimeoutError from None
        finally:
            desc.close()
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"{os.strerror(error)}: dial {target}")


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)


# ---------------------------------------------------------------------- listen
def _bound(
    network: str, address: str | os.PathLike[str], kind: int, reuse_port: bool
) -> tuple[socket.socket, ResolvedAddress]:
    """A socket bound to the first of the addresses that a name has, IPv4 before IPv6, as in Go."""
    wanted = parse(network, address, passive=True)
    if wanted.kind != kind:
        raise ValueError(f"{network!r} is not a network for this: use {'listen' if kind == 2 else 'listen_packet'}()")
    if reuse_port and wanted.family == socket.AF_UNIX:
        raise ValueError("reuse_port is for ports: a Unix socket has none")
    targets = wanted.numeric()
    if targets is None:
        targets = resolve(wanted, may_wait("listen() with a name to look up", "a number"), Limit(None, None))
    error: OSError | None = None
    for target in sorted(targets, key=lambda t: t.rank):
        try:
            sock = socket.socket(target.family, target.kind)
        except OSError as exc:  # no such family here
            error = error or exc
            continue
        try:
            if target.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not target.dual)
            if kind == socket.SOCK_STREAM and target.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(target.sockaddr)
            return sock, target
        except OSError as exc:
            sock.close()
            error = error or OSError(exc.errno, f"{exc.strerror}: listen {target}")
            if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break  # there, but not to be had: the caller has not asked for another one
        except BaseException:
            sock.close()
            raise
    assert error is not None, "no address"
    try:
        raise error
    finally:
        del error  # or it would keep this frame alive, and be kept by it


def listen(network: Stream, address: str | os.PathLike[str], *, reuse_port: bool = False) -> Listener:
    """Listen for connections (Go: net.Listen).

    network: "tcp", "tcp4", "tcp6" or "unix". address: "host:port", "[::1]:port", or a path or "@name" for a Unix
    socket; ":port" is every address of this machine, of both families, and port 0 a free one: see Listener.addr. A Unix
    socket's file must not exist, and goes away at the close. reuse_port: let other processes listen on the same port,
    and share the connections. Returns a Listener. ValueError for a bad network or address, OSError when it is taken.
    From any thread, goroutine or coroutine; RuntimeError on the thread of a running loop outside of a goroutine if
    there is a name to look up.
    """
    sock, target = _bound(network, address, socket.SOCK_STREAM, reuse_port)
    file = _socket_file(target)
    try:
        if target.family != socket.AF_UNIX:
            _set_options(sock)  # connections inherit them
        sock.listen(_BACKLOG)
        return Listener(sock, unix_path(target))
    except BaseException:
        _undo(sock, file)
        raise


def listen_packet(network: Packet, address: str | os.PathLike[str], *, reuse_port: bool = False) -> PacketConn:
    """Receive and send datagrams at an address (Go: net.ListenPacket).

    network: "udp", "udp4", "udp6" or "unixgram". address: "host:port", "[::1]:port", or a path or "@name" for a Unix
    socket; ":port" is every address of this machine, of both families, and port 0 a free one: see
    PacketConn.local_addr. A Unix socket's file must not exist, and goes away at the close. reuse_port: let other
    processes receive at the same port, and share the datagrams. Returns a PacketConn. ValueError for a bad network or
    address, OSError when it is taken. From any thread, goroutine or coroutine; RuntimeError on the thread of a running
    loop outside of a goroutine if there is a name to look up.
    """
    sock, target = _bound(network, address, socket.SOCK_DGRAM, reuse_port)
    file = _socket_file(target)
    try:
        return PacketConn(sock, partial(_pack, sock.family, target.dual), None if file is None else file.unlink)
    except BaseException:
        _undo(sock, file)
        raise


def _socket_file(target: ResolvedAddress) -> SocketFile | None:
    path = unix_path(target)
    try:
        return None if path is None else SocketFile(path)
    except OSError:
        return None  # gone already


def _undo(sock: socket.socket, file: SocketFile | None) -> None:
    """It is bound, and yet to nobody's use."""
    try:
        if file is not None:
            file.unlink()
    finally:
        sock.close()


def _pack(family: int, dual: bool, address: str) -> bytes:
    """The sockaddr of where a datagram is to go; dual: from an IPv6 socket that takes IPv4 as well."""
    network = {socket.AF_INET: "udp4", socket.AF_INET6: "udp6"}.get(socket.AddressFamily(family), "unixgram")
    wanted = parse(network, address, passive=False, mapped=dual)
    targets = wanted.numeric()
    if targets is None:
        targets = resolve(wanted, may_wait("write_to() with a name to look up", "a number"), Limit(None, None))
    return targets[0].raw()


# ------------------------------------------------------------------------- TLS
def dial_tls(
    network: Stream,
    address: str | os.PathLike[str],
    context: ssl.SSLContext | None = None,
    *,
    server_hostname: str | None = None,
    timeout: float | None = None,
    ctx: Context | None = None,
) -> TLSConn:
    """Connect and do the TLS handshake (Go: tls.Dial).

    network: "tcp", "tcp4", "tcp6" or "unix". address: "host:port", "[::1]:port", or a path or "@name" for a Unix
    socket. context: a client's ssl.SSLContext; None: ssl.create_default_context(). server_hostname: the name that the
    server's certificate must be for; None: the host in the address. timeout: seconds for all of it, TimeoutError when
    it is over; None: the system's. ctx: a goloop.context.Context that ends it with its own end, by its error; the
    connection outlives it; None: no context. Returns a TLSConn. ValueError for arguments that do not go together,
    ssl.SSLError if TLS fails, another OSError if the connection does. Parks a goroutine, which raises
    asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
    outside of a goroutine.
    """
    until = limit(timeout, ctx, "dial_tls()")
    if network not in ("tcp", "tcp4", "tcp6", "unix"):
        raise ValueError(f"{network!r} is not a network for TLS")
    if context is None:
        context = ssl.create_default_context()
    _check_context(context, ssl.PROTOCOL_TLS_SERVER, "dial_tls() needs a client's context")
    wanted = parse(network, address, passive=False)
    if server_hostname is None and network != "unix":
        server_hostname = wanted.host
    if not server_hostname and context.check_hostname:
        raise ValueError("a context with check_hostname needs a server_hostname: whose certificate is it to be?")
    conn = dial(network, address, timeout, ctx=ctx)
    try:
        secure = TLSConn(conn, context, server_hostname=server_hostname)
    except BaseException:
        conn.close()
        raise
    try:
        with _deadline_of(until) as deadline:
            secure.set_deadline(deadline)
            secure.handshake()
            secure.set_deadline(None)
        return secure
    except BaseException:
        secure.close()
        raise


def listen_tls(
    network: Stream, address: str | os.PathLike[str], context: ssl.SSLContext, *, reuse_port: bool = False
) -> TLSListener:
    """Listen for TLS connections (Go: tls.Listen).

    network: "tcp", "tcp4", "tcp6" or "unix". address: "host:port", "[::1]:port", or a path or "@name" for a Unix
    socket; ":port" is every address of this machine, of both families, and port 0 a free one: see TLSListener.addr.
    context: the server's ssl.SSLContext, with its certificate. reuse_port: let other processes listen on the same port,
    and share the connections. Returns a TLSListener. Its accept() returns a TLSConn at once; the handshake happens at
    the connection's first read or write, so a slow client keeps no other from being accepted. TypeError or ValueError
    for a bad context, network or address, OSError when the address is taken. From any thread, goroutine or coroutine;
    RuntimeError on the thread of a running loop outside of a goroutine if there is a name to look up.
    """
    _check_context(context, ssl.PROTOCOL_TLS_CLIENT, "listen_tls() needs a server's context")
    return TLSListener(listen(network, address, reuse_port=reuse_port), context)


def _check_context(context: ssl.SSLContext, wrong: int, what: str) -> None:
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"an ssl.SSLContext is needed, got {context!r}")
    if context.protocol == wrong:
        raise ValueError(f"{what}, and this one is made with {context.protocol.name}")


@contextmanager
def _deadline_of(until: Limit) -> Iterator[Context | float | None]:
    """A limit as a connection's deadline."""
    if until.context is None:
        yield until.left()
    elif until.until is None:
        yield until.context
    else:
        with _context.with_deadline(until.context, until.until) as deadline:
            yield deadline


class TLSListener:
    """A Listener whose connections are TLSConns (Go: tls.Listen); made by listen_tls().

    accept() parks a goroutine or blocks a plain thread; several may accept at once. `with` closes it; iterating over it
    accepts until it is closed. On the thread of a running loop outside of a goroutine accept() raises RuntimeError; the
    other methods do not wait, and may be called from any thread, goroutine or coroutine.
    """

    def __init__(self, listener: Listener, context: ssl.SSLContext) -> None:
        if not isinstance(listener, Listener):
            raise TypeError(f"a Listener is needed, got {listener!r}")
        self._listener = listener
        self._context = context

    def accept(self) -> TLSConn:
        """Wait for the next connection and return its TLSConn, whose handshake is still to come (Go: Accept).

        ClosedError when the listener is closed, also during the call; TimeoutError when its deadline passes; other
        OSErrors, such as one for too many open files, leave the connection to be accepted later. Parks a goroutine,
        which raises asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a
        running loop outside of a goroutine.
        """
        conn = self._listener.accept()
        try:
            return TLSConn(conn, self._context, server_side=True)
        except BaseException:
            conn.close()
            raise

    def close(self) -> None:
        """Stop listening; accept() calls under way raise ClosedError (Go: Close). Twice is harmless.

        From any thread, goroutine or coroutine: it does not wait.
        """
        self._listener.close()

    def set_deadline(self, deadline: float | Context | None) -> None:
        """End all accept() calls, under way and to come, at a time (Go: TCPListener.SetDeadline).

        deadline: a number of seconds from now, after which they raise TimeoutError (0: at once); a
        goloop.context.Context, with whose end they raise its error; None: no end. It stays until it is set again.
        TypeError for anything else, ValueError for a negative number and for a time of the clock; ClosedError on a
        closed listener. From any thread, goroutine or coroutine.
        """
        self._listener.set_deadline(deadline)

    def fileno(self) -> int:
        """Return the descriptor, which stays the listener's; -1 once closed. From any thread."""
        return self._listener.fileno()

    def __iter__(self) -> Iterator[TLSConn]:
        while True:
            try:
                yield self.accept()
            except ClosedError:
                return

    def __enter__(self) -> TLSListener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TLSListener {self._listener!r}>"

    @property
    def addr(self) -> str:
        """The address on which it listens (str), "127.0.0.1:8080" or a path; also when it is closed (Go: Addr)."""
        return self._listener.addr

    @property
    def closed(self) -> bool:
        """Whether close() was called (bool)."""
        return self._listener.closed
