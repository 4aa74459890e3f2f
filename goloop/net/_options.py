"""What sockets of goloop.net are set to, and the names of the networks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

KEEP_ALIVE: Final = 15  # seconds of silence before the first probe, and between probes; Go's default

Stream = Literal["tcp", "tcp4", "tcp6", "unix"]
Packet = Literal["udp", "udp4", "udp6", "unixgram"]


Control = Callable[[str, str, socket.socket], object]


class Options(NamedTuple):
    """keep_alive: seconds; 0: none. control: called with network, address and socket before that is used."""

    keep_alive: int = KEEP_ALIVE
    control: Control | None = None

    def prepare(self, sock: socket.socket, network: str, address: str) -> None:
        """The socket is new."""
        if self.control is not None:
            self.control(network, address, sock)

    def set_tcp(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self.keep_alive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, self.keep_alive)


def check_keep_alive(seconds: int) -> None:
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise TypeError(f"keep_alive is a whole number of seconds, got {seconds!r}")
    if not 0 <= seconds <= 32767:  # what the kernel takes
        raise ValueError(f"keep_alive is 0 for none, or at most 32767 seconds, got {seconds}")
