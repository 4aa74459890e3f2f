"""A program in a terminal: what it shows is collected, and keys are typed. The end of the `with` block kills it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from commands import APPS, END, HERE, READY

ESCAPES = re.compile(
    r"\x1b(\[[0-9;?<>=!]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[PX^_].*?\x1b\\|[@-Z\\-_=>])", re.DOTALL
)
SIZE = struct.pack("HHHH", 40, 120, 0, 0)  # rows, columns


class Terminal:
    """args: the program. environment: more of it."""

    def __init__(self, args: list[str], environment: dict[str, str]) -> None:
        path = os.pathsep.join([str(HERE), str(APPS), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment}
        self.seen = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, SIZE)
        self.process = subprocess.Popen(
            args, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, close_fds=True
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def shown(self) -> str:
        """Return all that was shown so far, without colours and movements."""
        return ESCAPES.sub("", self.seen.decode(errors="replace"))

    def _read(self, seconds: float) -> bool:
        """Wait for more output; False if there will be no more."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.seen += os.read(self.master, 65_536)
            except OSError:  # EIO: the program has closed its side
                return False
        return True

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the screen has shown what a regular expression matches."""
        until = time.monotonic() + READY
        going = True
        while (found := re.search(pattern, self.shown())) is None:
            if not going or time.monotonic() > until:
                pytest.fail(f"no {pattern!r} in:\n{self.shown()}")
            going = self._read(0.1)
        return found

    def end(self) -> int:
        """Wait for the end of the program, and return its status."""
        until = time.monotonic() + END
        while self._read(0.05) and time.monotonic() < until:
            pass
        return self.process.wait(END)
