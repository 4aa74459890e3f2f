"""Programs of their own, for what only shows in another process: its end, a fork, the environment."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping

from tests.helpers.waiting import SECONDS

PATH = os.pathsep.join(entry for entry in sys.path if entry)  # so that they find what the tests found


def run_python(
    *args: object, path: str = PATH, timeout: float = SECONDS, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter with these arguments, the environment changed like that, and nothing to read."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env={**os.environ, "PYTHONPATH": path, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_script(code: str, *, timeout: float = SECONDS, **env: str) -> tuple[int, str, str]:
    """Run Python code in a fresh interpreter; return (status, stdout, stderr)."""
    done = run_python("-X", "dev", "-c", textwrap.dedent(code), timeout=timeout, env=env)
    return done.returncode, done.stdout, done.stderr


def run_loop_script(loop: asyncio.AbstractEventLoop, source: str, **env: str) -> tuple[int, str]:
    """Run Python code that finds a loop like the given one as ``loop``, and its class as ``new_loop``.

    Returns its exit status and standard output. Standard error is passed on to ours, where pytest shows it should the
    test fail.
    """
    cls = type(loop)
    prelude = f"""\
        import asyncio, os, signal, socket, sys, threading, time
        from {cls.__module__} import {cls.__qualname__} as new_loop
        loop = new_loop()
    """
    done = run_python("-u", "-c", textwrap.dedent(prelude) + textwrap.dedent(source), env=env)
    sys.stderr.write(done.stderr)
    return done.returncode, done.stdout
