"""Addresses of goloop.net: "host:port" and paths, what they stand for, and looking up names without stopping others."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from goloop.chan import Chan, recv, select
from goloop.core.net.polldesc import may_wait
from goloop.core.sched import scheduler
from goloop.core.sched.goroutine import go
from goloop.core.sched.goroutine_api import wait
from goloop.core.system.sockaddr import is_numeric_host
from goloop.net._limit import Limit

_FAMILIES = {
    "tcp": (socket.AF_UNSPEC, socket.SOCK_STREAM),
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "udp": (socket.AF_UNSPEC, socket.SOCK_DGRAM),
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "unixgram": (socket.AF_UNIX, socket.SOCK_DGRAM),
}
_LONGEST_PATH = 107  # bytes; sun_path without its end


@dataclass(frozen=True)
class ResolvedAddress:
    """One address to connect or bind to."""

    network: str
    family: int
    kind: int
    sockaddr: Any  # as the socket module takes it
    dual: bool = False  # IPv6, to be bound for both families

    @property
    def rank(self) -> int:
        """In which order addresses are tried to be bound."""
        return 0 if self.dual else 1 if self.family == socket.AF_INET else 2

    @property
    def address(self) -> str:
        """The address alone, as it is written."""
        if self.family == socket.AF_UNIX:
            return str(self.sockaddr.replace(chr(0), "@"))
        host = f"[{self.sockaddr[0]}]" if self.family == socket.AF_INET6 else self.sockaddr[0]
        return f"{host}:{self.sockaddr[1]}"

    def __str__(self) -> str:
        return f"{self.network} {self.address}"

    def raw(self) -> bytes:
        """The sockaddr as the system takes it."""
        if self.family == socket.AF_UNIX:
            return struct.pack("=H", socket.AF_UNIX) + os.fsencode(self.sockaddr)
        host, port, *rest = self.sockaddr
        packed = socket.inet_pton(self.family, host.partition("%")[0])
        if self.family == socket.AF_INET:
            return struct.pack("=H", self.family) + struct.pack("!H", port) + packed + bytes(8)
        flow, scope = rest
        return struct.pack("=H", self.family) + struct.pack("!HI", port, flow) + packed + struct.pack("=I", scope)


def unix_path(target: ResolvedAddress) -> str | None:
    """The file that binding to it makes, None if none."""
    path = target.sockaddr if target.family == socket.AF_UNIX else ""
    return path if path and path[0] != "\0" else None


@dataclass(frozen=True)
class AddressSpec:
    """An address as it was given."""

    network: str
    family: int
    kind: int
    host: str  # a path for Unix sockets
    port: str
    passive: bool
    mapped: bool  # IPv4 as an IPv6 socket takes it will do, too

    def numeric(self) -> list[ResolvedAddress] | None:
        """The addresses that it stands for if that needs no look-up, else None."""
        if self.family == socket.AF_UNIX:
            return [ResolvedAddress(self.network, self.family, self.kind, self.host)]
        host, family, dual = self.host, self.family, False
        if not host and self.passive:
            if family == socket.AF_UNSPEC:
                four = self._lookup("0.0.0.0", socket.AF_INET)
                return [*(self._lookup("::", socket.AF_INET6, dual=True) if socket.has_ipv6 else []), *four]
            host = "::" if family == socket.AF_INET6 else "0.0.0.0"
        elif not host:
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        elif host == "::" and self.passive and family == socket.AF_UNSPEC:
            dual = True
        if self.mapped and ":" not in host and is_numeric_host(host):
            host = "::ffff:" + host
        try:
            return self._lookup(host, family, dual, socket.AI_NUMERICHOST)
        except socket.gaierror as exc:
            if exc.errno in (socket.EAI_NONAME, socket.EAI_ADDRFAMILY):
                if exc.errno == socket.EAI_NONAME and not is_numeric_host(host):
                    return None
                raise ValueError(f"{host!r} is not an address of network {self.network!r}") from None
            if exc.errno == socket.EAI_SERVICE:
                raise ValueError(f"unknown port {self.port!r} of network {self.network!r}") from None
            raise

    def _lookup(self, host: str, family: int, dual: bool = False, flags: int = 0) -> list[ResolvedAddress]:
        infos = socket.getaddrinfo(host, self.port, family, self.kind, 0, flags)
        return [ResolvedAddress(self.network, int(info[0]), self.kind, info[4], dual) for info in infos]

    def look_up(self) -> list[ResolvedAddress]:
        """Ask the system, which may take long; OSError (socket.gaierror) if there is no such name."""
        try:
            if not self.mapped:
                return self._lookup(self.host, self.family)
            # IPv4 first, as Go's net.ResolveUDPAddr
            found = self._lookup(self.host, self.family, False, socket.AI_V4MAPPED | socket.AI_ALL)
            return sorted(found, key=lambda target: not target.sockaddr[0].startswith("::ffff:"))
        except socket.gaierror as exc:
            if exc.errno == socket.EAI_SERVICE:
                raise ValueError(f"unknown port {self.port!r} of network {self.network!r}") from None
            raise socket.gaierror(exc.errno, f"{exc.strerror}: {self.host}") from None


def parse(network: str, address: str | os.PathLike[str], *, passive: bool, mapped: bool = False) -> AddressSpec:
    """Take an address apart; ValueError if it, or the network, is none.

    passive: it is to be bound to. mapped: it is for an IPv6 socket that takes IPv4 as well.
    """
    if not isinstance(network, str) or network not in _FAMILIES:
        raise ValueError(f"unknown network {network!r}: it is one of {', '.join(_FAMILIES)}")
    family, kind = _FAMILIES[network]
    text = os.fspath(address) if isinstance(address, os.PathLike) else address
    if not isinstance(text, str):
        port = f'such as ":{address}"' if isinstance(address, int) else "host:port"
        example = "a path" if family == socket.AF_UNIX else port
        raise TypeError(f"an address is a str, {example}, got {address!r}")
    if family == socket.AF_UNIX:
        if not text or "\0" in text:
            raise ValueError(f"a Unix socket needs a path, got {text!r}")
        if len(os.fsencode(text)) > _LONGEST_PATH:
            raise ValueError(f"the path of a Unix socket has at most {_LONGEST_PATH} bytes: {text!r}")
        return AddressSpec(network, family, kind, "\0" + text[1:] if text[0] == "@" else text, "", passive, False)
    host, port = _split(text)
    if port.isascii() and port.isdigit():
        if int(port) > 65535:
            raise ValueError(f"a port is at most 65535: {text!r}")
    elif not port or not port[0].isalpha():
        raise ValueError(f"bad port in {text!r}")
    return AddressSpec(network, family, kind, host, port, passive, mapped)


def _split(text: str) -> tuple[str, str]:
    host, colon, port = text.rpartition(":")
    if not colon or host.endswith("]") != host.startswith("[") or text.endswith("]"):
        raise ValueError(f"an address is host:port, got {text!r}")
    if host.startswith("["):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"too many colons: write an IPv6 address as [::1]:80, got {text!r}")
    if any(c in host for c in "[]/ \0"):
        raise ValueError(f"bad host in {text!r}")
    return host, port


def resolve(wanted: AddressSpec, in_goroutine: bool, until: Limit) -> list[ResolvedAddress]:
    """The addresses of a spec. A goroutine parks while a name is looked up in a thread, a plain thread blocks."""
    timeout = until.left()
    targets = wanted.numeric()
    if targets is not None:
        return targets
    if until.context is None and in_goroutine:
        return _look_up(wanted, timeout)
    if until.context is None and timeout is None:
        return wanted.look_up()
    # The system's function cannot be interrupted: leave it behind when the time is over.
    found: Chan[tuple[list[ResolvedAddress], Exception | None]] = Chan(1)
    asks = go(_answer, wanted, found)
    try:
        done = None if until.context is None else recv(until.context.done())
        index, answer, _ = select(recv(found), done, timeout=timeout)
    except TimeoutError:
        until.left()  # says whose time it was
        raise
    finally:
        asks.cancel()
    if index == 1:
        until.left()
    addresses: list[ResolvedAddress]
    addresses, error = answer
    if error is not None:
        raise error
    return addresses


def _look_up(wanted: AddressSpec, timeout: float | None) -> list[ResolvedAddress]:
    """In a goroutine."""
    worker = scheduler.this_worker()
    assert worker is not None
    found: list[ResolvedAddress] = wait(worker.loop.run_in_executor(None, wanted.look_up), timeout)
    return found


def _answer(wanted: AddressSpec, found: Chan[tuple[list[ResolvedAddress], Exception | None]]) -> None:
    try:
        found.try_send((_look_up(wanted, None), None))
    except Exception as exc:
        found.try_send(([], exc))


def pack(family: int, dual: bool, address: str) -> bytes:
    """The sockaddr of where a datagram is to go; dual: from an IPv6 socket that takes IPv4 as well."""
    network = {socket.AF_INET: "udp4", socket.AF_INET6: "udp6"}.get(socket.AddressFamily(family), "unixgram")
    wanted = parse(network, address, passive=False, mapped=dual)
    targets = wanted.numeric()
    if targets is None:
        targets = resolve(wanted, may_wait("write_to() with a name to look up", "a number"), Limit(None, None))
    return targets[0].raw()
