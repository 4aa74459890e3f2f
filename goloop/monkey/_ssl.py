"""ssl.SSLSocket: handshake, reading, writing and closing, which are core.sslio's."""

import os

from goloop.core import fdwait, fields, sslio


def patch() -> None:
    fields.find_timeout()
    fdwait.patch()
    sslio.patch()
    os.register_at_fork(after_in_child=sslio.forget)
