"""A session of the documentation in a shell: its commands one after the other, servers in the background."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.helpers.waiting import SECONDS, until

# What the documentation calls curl is this: not every machine that runs the tests has it.
CURL = """#!{python}
import sys, urllib.request
sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[-1], timeout={seconds}).read())
"""
PORT = "8080"  # the documentation's; a free one takes its place


def free_port() -> int:
    """Return a port that is free now, and that neither the kernel nor another process of the tests gives to others."""
    port = 20_000 + os.getpid() % 10_000
    while True:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            port += 1
        else:
            return port


def _listens(port: int, server: subprocess.Popen[str]) -> bool:
    assert server.poll() is None, server.communicate()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=SECONDS):
        return True
    return False


def run_session(
    commands: Sequence[tuple[str, str]], files: Mapping[str, str], folder: Path
) -> Iterator[tuple[str, str, str]]:
    """Write the files, run the commands, and yield each with what it should print and what it does.

    A command that ends with & is a server at port 8080. At the end it gets SIGINT, as from Ctrl-C.
    """
    port = free_port()
    for name, text in files.items():
        (folder / name).write_text(re.sub(rf"\b{PORT}\b", str(port), text))
    programs = folder / "bin"
    programs.mkdir()
    (programs / "curl").write_text(CURL.format(python=sys.executable, seconds=SECONDS))
    (programs / "curl").chmod(0o755)
    (folder / "pytest.ini").write_text("[pytest]\n")  # or the configuration of a folder above would count
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "PYTEST_ADDOPTS": "-p no:asyncio"}
    servers = []
    try:
        for command, expected in commands:
            shell = ["bash", "-c", re.sub(rf"\b{PORT}\b", str(port), command.removesuffix("&").strip())]
            if command.endswith("&"):
                shell[-1] = "exec " + shell[-1]
                server = subprocess.Popen(
                    shell, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                servers.append(server)
                until(lambda server=server: _listens(port, server))  # type: ignore[misc]
                continue
            done = subprocess.run(
                shell, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
            )
            yield command, expected, done.stdout.replace(str(port), PORT)
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
        for server in servers:
            with contextlib.closing(server.stdout):  # type: ignore[type-var]
                out, _ = server.communicate(timeout=SECONDS)
                assert "Traceback" not in out, out
