import ssl

from goloop.core.net.conn import Conn

class TLSConn(Conn):
    ssl_object: ssl.SSLObject
    def __init__(
        self, conn: Conn, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None
    ) -> None: ...
    def handshake(self) -> None: ...
