"""ssl.SSLSocket: handshake, reading, writing and closing, which are core.sslio's."""

from goloop.core.patch import cpython_layout, fd_wait, ssl_io
from goloop.runtime import fork


def patch() -> None:
    cpython_layout.find_timeout()
    fd_wait.patch()
    fork.add(fd_wait.after_fork_in_child)
    ssl_io.patch()
    fork.add(ssl_io.after_fork_in_child)
