"""Network connections in blocking style, for goroutines and plain threads (Go: net and crypto/tls).

dial() and listen() make them; goloop.core.net has the classes. Reading, writing and accepting park a goroutine and
block a plain thread. On the thread of a running loop they raise RuntimeError: there, asyncio's streams are the way, or
a goroutine.
"""

from goloop.core.net.conn import Conn
from goloop.core.net.copy import copy
from goloop.core.net.listener import Listener
from goloop.core.net.packet_conn import PacketConn
from goloop.core.net.pipe_conn import pipe
from goloop.core.net.tls_conn import TLSConn
from goloop.errors import ClosedError
from goloop.net._dial import dial
from goloop.net._dialer import Dialer, ListenConfig
from goloop.net._listen import listen, listen_packet
from goloop.net._tls import TLSListener, dial_tls, listen_tls

__all__ = [
    "ClosedError",
    "Conn",
    "Dialer",
    "ListenConfig",
    "Listener",
    "PacketConn",
    "TLSConn",
    "TLSListener",
    "copy",
    "dial",
    "dial_tls",
    "listen",
    "listen_packet",
    "listen_tls",
    "pipe",
]
