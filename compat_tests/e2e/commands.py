"""Programs that a test starts: their output, the line that says they are ready, and their end within a time limit.

Each gets a session of its own, and its whole process group is killed at the end of the `with` block, whatever
happened; so no test leaves a server behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
READY = 30.0  # seconds for a server to come up, on a slow machine
END = 30.0  # seconds for it to end once it was asked to
POLL = 0.02  # seconds between two looks


def free_port() -> int:
    """Return a TCP port on which there was no listener a moment ago, for servers that cannot take port 0."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Command:
    """A running program. log: the file that has its output."""

    def __init__(self, args: list[str], folder: Path, *, env: dict[str, str] | None = None, **options: Any) -> None:
        self.log = folder / f"{Path(args[0]).name}-{os.urandom(3).hex()}.log"
        path = os.pathsep.join([str(HERE), str(APPS), *filter(None, [os.environ.get("PYTHONPATH")])])
        everything = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.args = args
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                args,
                env=everything,
                cwd=options.pop("cwd", folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, kind: object, exc: object, tb: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if kind is not None:
            print(f"--- {' '.join(self.args)}\n{self.output()}---")

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, *, times: int = 1, limit: float = READY) -> list[Any]:
        """Wait until the output has `times` matches of a regular expression and return them, as re.findall() does."""
        until = time.monotonic() + limit
        while True:
            ended = self.process.poll()
            found = re.findall(pattern, self.output())
            if len(found) >= times:
                return found
            if ended is not None:
                pytest.fail(f"ended with {ended} before {pattern!r} was seen:\n{self.output()}")
            if time.monotonic() > until:
                pytest.fail(f"no {pattern!r} within {limit:g} s:\n{self.output()}")
            time.sleep(POLL)

    def end(self, signum: int | None = None) -> int:
        """Send a signal, if one is given, wait for the end, and return the exit status."""
        if signum is not None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(END)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler's stacks go to the log
            time.sleep(1)
            pytest.fail(f"did not end within {END:g} s:\n{self.output()}")
