"""The file of a Unix socket: it goes away with the socket, unless it is another one's by then."""

from __future__ import annotations

import os
import stat


class SocketFile:
    """The file that a socket was bound to; FileNotFoundError if there is none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.identity: tuple[int, int] | None = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        st = os.lstat(self.path)
        return (st.st_dev, st.st_ino) if stat.S_ISSOCK(st.st_mode) else None

    def unlink(self) -> None:
        """Unlink it, if it is still the same; OSError if that fails."""
        try:
            if self.identity is not None and self._identity() == self.identity:
                os.unlink(self.path)
        except FileNotFoundError:
            pass  # gone already
