"""What every TCP socket of goloop.net is set to, and the names of the networks."""

from __future__ import annotations

import socket
from typing import Literal

_KEEPALIVE = 15  # seconds of silence before the first probe, and between probes; Go's default

Stream = Literal["tcp", "tcp4", "tcp6", "unix"]
Packet = Literal["udp", "udp4", "udp6", "unixgram"]


def set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)
