"""gunicorn with goloop's worker, as a program of its own."""

import contextlib
import http.client
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.helpers.scripts import PATH

APPS = Path(__file__).with_name("apps")
SECONDS = 60


class Server:
    """A running gunicorn. address: a (host, port), or the path of a Unix socket."""

    def __init__(self, command, address):
        self.command = command
        self.address = address

    def connect(self):
        if isinstance(self.address, tuple):
            return socket.create_connection(self.address, SECONDS)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(self.address)
        return sock

    @contextlib.contextmanager
    def http(self):
        """An http.client's connection, closed at the end."""
        connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
        with self.connect() as connection.sock:
            yield connection

    def get(self, path, **options):
        """The body of one answer, on a connection of its own."""
        with self.http() as connection:
            connection.request(options.pop("method", "GET"), path, **options)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, (answer.status, body)
            return body

    def raw(self, request):
        """All that the server sends until it closes the connection."""
        with self.connect() as sock:
            sock.sendall(request)
            answer = b""
            while data := sock.recv(65536):
                answer += data
            return answer

    def signal(self, signum):
        self.command.process.send_signal(signum)

    def wait_for(self, pattern, times=1):
        return self.command.wait_for(pattern, times=times)

    def stop(self):
        """End it gracefully. It has said nothing of errors."""
        assert self.command.end(signal.SIGTERM) == 0
        self.quiet()

    def quiet(self):
        output = self.command.output()
        assert not re.search(r"Traceback|\[ERROR\]|\[CRITICAL\]|\[WARNING\]|Warning:", output), output
        return output


@pytest.fixture
def gunicorn(tmp_path, monkeypatch):
    """gunicorn(app, *options): a server with that application, ended after the test."""
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))
    commands = pytest.importorskip("commands", reason="compat_tests/ is not part of an installed package")
    pytest.importorskip("gunicorn")
    running = []

    def start(app="plain_app:app", *options, bind="127.0.0.1:0", workers=1, env=None):
        args = [sys.executable, "-X", "dev", "-W", "ignore:This process:DeprecationWarning", "-m", "gunicorn"]
        args += ["-k", "goloop.contrib.gunicorn.GoroutineWorker", "--bind", bind, "--workers", str(workers)]
        args += ["--no-control-socket", "--graceful-timeout", "20", *options, app]
        command = commands.Command(args, tmp_path, env={"PYTHONPATH": f"{APPS}:{PATH}", **(env or {})})
        running.append(command.__enter__())
        (where,) = command.wait_for(r"Listening at: (?:https?://|unix:)(\S+)")
        command.wait_for("Booting worker with pid", times=workers)
        host, _, port = where.rpartition(":")
        return Server(command, (host, int(port)) if host else where)

    yield start
    for command in running:
        command.__exit__(None, None, None)
