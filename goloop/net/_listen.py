"""listen() and listen_packet(): a socket bound to an address, and the file of one that is a path."""

from __future__ import annotations

import errno
import os
import socket
from functools import partial

from goloop.core.net.listener import Listener
from goloop.core.net.packet_conn import PacketConn
from goloop.core.net.polldesc import may_wait
from goloop.core.sched.bubble import refuse_in_bubble
from goloop.core.system.socket_file import SocketFile
from goloop.net._address import ResolvedAddress, pack, parse, resolve, unix_path
from goloop.net._limit import Limit
from goloop.net._options import Options, Packet, Stream

_BACKLOG = 65535  # the kernel cuts it down to net.core.somaxconn, as Go asks for


def _targets(network: str, address: str | os.PathLike[str], kind: int, reuse_port: bool) -> list[ResolvedAddress]:
    """The addresses that a name has, in the order in which they are tried: IPv4 before IPv6, as in Go."""
    refuse_in_bubble("listen()")
    wanted = parse(network, address, passive=True)
    if wanted.kind != kind:
        other = "listen" if wanted.kind == socket.SOCK_STREAM else "listen_packet"
        raise ValueError(f"{network!r} is not a network for this: use {other}()")
    if reuse_port and wanted.family == socket.AF_UNIX:
        raise ValueError("reuse_port is for ports: a Unix socket has none")
    targets = wanted.numeric()
    if targets is None:
        targets = resolve(wanted, may_wait("listen() with a name to look up", "a number"), Limit(None, None))
    return sorted(targets, key=lambda t: t.rank)


def _bind(sock: socket.socket, network: str, target: ResolvedAddress, reuse_port: bool, options: Options) -> None:
    if target.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not target.dual)
    if target.kind == socket.SOCK_STREAM and target.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    options.prepare(sock, network, target.address)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(target.sockaddr)


def _bound(
    network: str, address: str | os.PathLike[str], kind: int, reuse_port: bool, options: Options
) -> tuple[socket.socket, ResolvedAddress]:
    """A socket bound to the first of the addresses that a name has, and this address."""
    error: OSError | None = None
    for target in _targets(network, address, kind, reuse_port):
        try:
            sock = socket.socket(target.family, target.kind)
        except OSError as exc:  # no such family here
            error = error or exc
            continue
        try:
            _bind(sock, network, target, reuse_port, options)
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
    return listen_with(Options(), network, address, reuse_port)


def listen_with(options: Options, network: str, address: str | os.PathLike[str], reuse_port: bool) -> Listener:
    sock, target = _bound(network, address, socket.SOCK_STREAM, reuse_port, options)
    file = _socket_file(target)
    try:
        if target.family != socket.AF_UNIX:
            options.set_tcp(sock)  # connections inherit them
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
    return listen_packet_with(Options(), network, address, reuse_port)


def listen_packet_with(options: Options, network: str, address: str | os.PathLike[str], reuse_port: bool) -> PacketConn:
    sock, target = _bound(network, address, socket.SOCK_DGRAM, reuse_port, options)
    file = _socket_file(target)
    try:
        return PacketConn(sock, partial(pack, sock.family, target.dual), None if file is None else file.unlink)
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
    """Undo a bind whose listener could not be made."""
    try:
        if file is not None:
            file.unlink()
    finally:
        sock.close()
