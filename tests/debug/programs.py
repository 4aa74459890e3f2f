"""Programs to look into, and the commands that do."""

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

from tests.helpers.scripts import PATH, run_python


class Program(subprocess.Popen[str]):
    """A Python program that runs. It prints a line when it is ready, and reads its standard input as it likes."""

    def __init__(self, code: str, *options: str, **variables: str) -> None:
        super().__init__(
            [sys.executable, *options, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": PATH, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Return the next line of its output. What it says of its failure is the test's."""
        assert self.stdout is not None and self.stderr is not None
        line = self.stdout.readline()
        assert line, self.stderr.read()
        return line.rstrip("\n")

    def hears(self, line: str) -> None:
        """Send it a line."""
        assert self.stdin is not None
        self.stdin.write(line + "\n")
        self.stdin.flush()


@contextlib.contextmanager
def running(code: str, *options: str, **variables: str) -> Iterator[Program]:
    """Run the program until the block ends. Its door is open, unless the variables say no."""
    with Program(code, *options, **{"GOLOOP_DEBUG": "1", **variables}) as program:
        try:
            program.says()
            yield program
        finally:
            program.kill()


def goloop(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run python -m goloop with these arguments."""
    return run_python("-m", "goloop", *args, env=variables)
