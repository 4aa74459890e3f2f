"""Private PostgreSQL, Redis and MariaDB servers: started on free ports in folders of their own, and stopped at the end.

The programs are those of the distribution's packages. A server that the machine runs already is left alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import pytest
import trustme


@dataclass(frozen=True)
class Postgres:
    """A running server. Over TCP it asks for the password, over its Unix socket (in folder) for nothing."""

    port: int
    folder: Path
    user: str = "e2e"
    password: str = "a password"
    database: str = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}:a%20password@127.0.0.1:{self.port}/{self.database}"


@dataclass(frozen=True)
class Redis:
    port: int
    tls_port: int
    socket: Path


@dataclass(frozen=True)
class MariaDB:
    """A running server."""

    port: int
    user: str = "e2e"
    password: str = "a password"
    database: str = "test"


def _postgres_bin() -> Path:
    """Return the folder of PostgreSQL's programs; Debian has them beside the PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("postgres")
    if found:
        return found[-1].parent
    if on_path:
        return Path(on_path).parent
    pytest.skip("PostgreSQL is not installed: apt-get install postgresql")


def _account(*names: str) -> dict[str, Any]:
    """Return Popen's arguments for an account that a database runs under: PostgreSQL refuses root."""
    if os.getuid() != 0:
        return {}
    for name in (*names, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip(f"the server does not run as root and there is no account for it, like {names[0]}")


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """Make a folder for a server. Other accounts cannot enter pytest's tmp_path, and it is too long for a socket."""
    folder = Path(tempfile.mkdtemp(prefix=f"e2e-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _certificate(authority: trustme.CA, folder: Path, account: dict[str, Any]) -> tuple[Path, Path]:
    """Write a certificate for this machine and its key, which only the server's account may read."""
    certificate, key = folder / "server.pem", folder / "server.key"
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    if account:
        for path in (folder, certificate, key):
            os.chown(path, account["user"], account["group"])
    return certificate, key


@contextmanager
def postgres(authority: trustme.CA, connections: int = 60) -> Iterator[Postgres]:
    programs, account = _postgres_bin(), _account("postgres")
    with ExitStack() as stack:
        folder = stack.enter_context(_folder("postgres"))
        certificate, key = _certificate(authority, folder, account)
        data = folder / "data"
        server = Postgres(commands.free_port(), folder)
        (folder / "password").write_text(server.password)
        (folder / "password").chmod(0o644)
        init = [str(programs / "initdb"), "-D", str(data), "-U", server.user, "-E", "UTF8", "--locale=C", "--no-sync"]
        init += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={folder / 'password'}"]
        done = subprocess.run(init, cwd=folder, capture_output=True, text=True, timeout=60, check=False, **account)
        assert done.returncode == 0, done.stdout + done.stderr
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": server.port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": connections,
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
        }
        args = [str(programs / "postgres"), "-D", str(data)]
        for name, value in settings.items():
            args += ["-c", f"{name}={value}"]
        running = stack.enter_context(commands.Command(args, folder, **account))
        running.wait_for("database system is ready to accept connections")
        yield server
        assert running.end(signal.SIGINT) == 0, running.output()  # "fast shutdown": clients are cut off


@contextmanager
def redis(authority: trustme.CA) -> Iterator[Redis]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed: apt-get install redis-server")
    with ExitStack() as stack:
        folder = stack.enter_context(_folder("redis"))
        certificate, key = _certificate(authority, folder, {})
        root = folder / "ca.pem"
        authority.cert_pem.write_to_path(root)
        server = Redis(commands.free_port(), commands.free_port(), folder / "redis.sock")
        args = [program, "--bind", "127.0.0.1", "--port", str(server.port), "--unixsocket", str(server.socket)]
        args += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--tls-port", str(server.tls_port)]
        args += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(root)]
        args += ["--tls-auth-clients", "no"]
        running = stack.enter_context(commands.Command(args, folder))
        running.wait_for("Ready to accept connections")
        yield server
        assert running.end(signal.SIGTERM) == 0, running.output()


@contextmanager
def mariadb() -> Iterator[MariaDB]:
    program = shutil.which("mariadbd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    install = shutil.which("mariadb-install-db")
    if program is None or install is None:
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server")
    account = _account("mysql")
    with ExitStack() as stack:
        folder = stack.enter_context(_folder("mariadb"))
        if account:
            os.chown(folder, account["user"], account["group"])
        data = folder / "data"
        init = [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
        done = subprocess.run(init, cwd=folder, capture_output=True, text=True, timeout=120, check=False, **account)
        assert done.returncode == 0, done.stdout + done.stderr
        server = MariaDB(commands.free_port())
        (folder / "init.sql").write_text(
            f"CREATE DATABASE IF NOT EXISTS {server.database};\n"
            f"CREATE USER '{server.user}'@'%' IDENTIFIED BY '{server.password}';\n"
            f"GRANT ALL ON *.* TO '{server.user}'@'%';\n"
        )
        (folder / "init.sql").chmod(0o644)
        args = [program, "--no-defaults", f"--datadir={data}", "--bind-address=127.0.0.1", f"--port={server.port}"]
        args += [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}", f"--init-file={folder / 'init.sql'}"]
        args += ["--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve"]
        running = stack.enter_context(commands.Command(args, folder, **account))
        running.wait_for("ready for connections")
        yield server
        assert running.end(signal.SIGTERM) == 0, running.output()
