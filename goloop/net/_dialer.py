"""Dialer and ListenConfig: dial() and listen() with options."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Any, overload

from goloop.context import Context
from goloop.core.net.conn import Conn
from goloop.core.net.listener import Listener
from goloop.core.net.packet_conn import PacketConn
from goloop.core.net.tls_conn import TLSConn
from goloop.net._address import parse
from goloop.net._dial import DialOptions, dial_with
from goloop.net._limit import limit
from goloop.net._listen import listen_packet_with, listen_with
from goloop.net._options import KEEP_ALIVE, Control, Options, Packet, Stream, check_keep_alive
from goloop.net._tls import dial_securely


def _check_control(control: Control | None) -> None:
    if control is not None and not callable(control):
        raise TypeError(f"control is a function of network, address and socket, got {control!r}")


@dataclass(frozen=True)
class Dialer:
    """Options of dial(), for as many dials as one likes (Go: net.Dialer).

    timeout: seconds for each dial; None: the system's. local_addr: the address of this end, "host:port" with a numeric
    host, ":port", or a path for unixgram; None: the kernel's choice. keep_alive: seconds of silence on a TCP connection
    before the first probe, and between probes; 0: none. control: control(network, address, sock) is called with each
    socket before it is bound and connected, to set options; it must not close it; None: no function. TypeError or
    ValueError for values that are none. Immutable; from any thread, goroutine or coroutine.
    """

    timeout: float | None = None
    local_addr: str | os.PathLike[str] | None = None
    keep_alive: int = KEEP_ALIVE
    control: Control | None = None

    def __post_init__(self) -> None:
        limit(self.timeout, None, "Dialer()")
        check_keep_alive(self.keep_alive)
        _check_control(self.control)

    def _how(self, network: str) -> DialOptions:
        options = Options(self.keep_alive, self.control)
        if self.local_addr is None:
            return DialOptions(options)
        if network == "unix":
            raise ValueError("the end that dials a Unix stream has no address")
        local = parse(network, self.local_addr, passive=True).numeric()
        if local is None:
            raise ValueError(f"a local address is numeric, got {self.local_addr!r}")
        return DialOptions(options, tuple(local))

    @overload
    def dial(self, network: Stream, address: str | os.PathLike[str], *, ctx: Context | None = None) -> Conn: ...
    @overload
    def dial(self, network: Packet, address: str | os.PathLike[str], *, ctx: Context | None = None) -> PacketConn: ...
    @overload
    def dial(self, network: str, address: str | os.PathLike[str], *, ctx: Context | None = None) -> Any: ...
    def dial(self, network: str, address: str | os.PathLike[str], *, ctx: Context | None = None) -> Any:
        """Connect to an address with these options (Go: Dialer.Dial, Dialer.DialContext).

        network, address, ctx: as dial() takes them. Returns a Conn, or a PacketConn for datagrams. Raises what dial()
        raises, and what the control function does; OSError (EADDRNOTAVAIL) for a target of another family than the
        local address, or one of the system for a local address that is taken. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine.
        """
        return dial_with(self._how(network), network, address, limit(self.timeout, ctx, "dial()"))

    def dial_tls(
        self,
        network: Stream,
        address: str | os.PathLike[str],
        context: ssl.SSLContext | None = None,
        *,
        server_hostname: str | None = None,
        ctx: Context | None = None,
    ) -> TLSConn:
        """Connect with these options and do the TLS handshake (Go: tls.DialWithDialer).

        network, address, context, server_hostname, ctx: as dial_tls() takes them. Returns a TLSConn. Raises what
        dial_tls() and dial() of this object raise. Parks a goroutine, which raises asyncio.CancelledError when it is
        cancelled; blocks a plain thread. RuntimeError on the thread of a running loop outside of a goroutine.
        """
        until = limit(self.timeout, ctx, "dial_tls()")
        how = self._how(network)
        return dial_securely(
            network, address, context, server_hostname, until, lambda: dial_with(how, network, address, until)
        )


@dataclass(frozen=True)
class ListenConfig:
    """Options of listen() and listen_packet(), for as many as one likes (Go: net.ListenConfig).

    keep_alive: seconds of silence on an accepted TCP connection before the first probe, and between probes; 0: none.
    control: control(network, address, sock) is called with each socket before it is bound, to set options; it must not
    close it; None: no function. reuse_port: let other processes listen on the same port, and share what comes.
    TypeError or ValueError for values that are none. Immutable; from any thread, goroutine or coroutine.
    """

    keep_alive: int = KEEP_ALIVE
    control: Control | None = None
    reuse_port: bool = False

    def __post_init__(self) -> None:
        check_keep_alive(self.keep_alive)
        _check_control(self.control)

    def _options(self) -> Options:
        return Options(self.keep_alive, self.control)

    def listen(self, network: Stream, address: str | os.PathLike[str]) -> Listener:
        """Listen for connections with these options (Go: ListenConfig.Listen).

        network, address: as listen() takes them. Returns a Listener. Raises what listen() raises, and what the control
        function does. From any thread, goroutine or coroutine; RuntimeError on the thread of a running loop outside of
        a goroutine if there is a name to look up.
        """
        return listen_with(self._options(), network, address, self.reuse_port)

    def listen_packet(self, network: Packet, address: str | os.PathLike[str]) -> PacketConn:
        """Receive and send datagrams at an address with these options (Go: ListenConfig.ListenPacket).

        network, address: as listen_packet() takes them. Returns a PacketConn. Raises what listen_packet() raises, and
        what the control function does. From any thread, goroutine or coroutine; RuntimeError on the thread of a running
        loop outside of a goroutine if there is a name to look up.
        """
        return listen_packet_with(self._options(), network, address, self.reuse_port)
