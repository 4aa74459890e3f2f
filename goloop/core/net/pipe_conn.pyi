from typing import NoReturn

from goloop.core.net.conn import Conn

class PipeConn(Conn):
    def __new__(cls) -> NoReturn: ...

class Stream:
    def __new__(cls) -> NoReturn: ...

def pipe() -> tuple[Conn, Conn]: ...
