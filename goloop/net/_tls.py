"""dial_tls() and listen_tls(): TLS on top of dial() and listen()."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from goloop import context as _context
from goloop.context import Context
from goloop.core.net.conn import Conn
from goloop.core.net.listener import Listener
from goloop.core.net.tls_conn import TLSConn
from goloop.errors import ClosedError
from goloop.net._address import parse
from goloop.net._dial import dial
from goloop.net._limit import Limit, limit
from goloop.net._listen import listen
from goloop.net._options import Stream


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
    return dial_securely(
        network, address, context, server_hostname, until, lambda: dial(network, address, timeout, ctx=ctx)
    )


def dial_securely(
    network: str,
    address: str | os.PathLike[str],
    context: ssl.SSLContext | None,
    server_hostname: str | None,
    until: Limit,
    dial: Callable[[], Conn],
) -> TLSConn:
    if network not in ("tcp", "tcp4", "tcp6", "unix"):
        raise ValueError(f"{network!r} is not a network for TLS")
    if context is None:
        context = ssl.create_default_context()
    _check_context(context, ssl.PROTOCOL_TLS_SERVER, "dial_tls() needs a client's context")
    if server_hostname is not None and not isinstance(server_hostname, str):
        raise TypeError(f"a server_hostname is a str, got {server_hostname!r}")
    wanted = parse(network, address, passive=False)
    if server_hostname is None and network != "unix":
        server_hostname = wanted.host
    if not server_hostname and context.check_hostname:
        raise ValueError("a context with check_hostname needs a server_hostname: whose certificate is it to be?")
    conn = dial()
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
