"""ssl.SSLSocket: handshake, reading, writing and closing, which are core.sslio's."""

import os

from goloop.core.patch import cpython_layout, fd_wait, ssl_io


def patch() -> None:
    cpython_layout.find_timeout()
    fd_wait.patch()
    ssl_io.patch()
    os.register_at_fork(after_in_child=ssl_io.after_fork_in_child)
