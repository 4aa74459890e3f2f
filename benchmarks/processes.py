"""Runs of the measured processes and of the native ones: the C server, the load generator, wrk.

The native programs are built on first use. Processor time of another process is read from its clock.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from harness import Sample, Unavailable

HERE = Path(__file__).parent
NATIVE = HERE / "native"
PATIENCE = 60  # seconds beyond the planned time after which a run has failed


@functools.cache
def build_directory() -> Path:
    # Kept until the process ends, with what was built in it.
    return Path(_keep.name)


_keep = tempfile.TemporaryDirectory(prefix="goloop-bench-")


@functools.cache
def built(name: str) -> Path:
    """The native program of that name, compiled once a run."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        raise Unavailable("no C compiler: install gcc")
    program = build_directory() / name
    extra: Sequence[str] = ()
    if name == "load" and _has_openssl(compiler):
        extra = ("-DWITH_TLS", "-lssl", "-lcrypto")
    command = [compiler, "-O2", "-std=gnu11", str(NATIVE / f"{name}.c"), "-o", str(program), *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{name}.c does not compile: {done.stderr.strip()[-300:]}")
    return program


@functools.cache
def _has_openssl(compiler: str) -> bool:
    source = "#include <openssl/ssl.h>\nint main(void) { return SSL_CTX_new(TLS_client_method()) == 0; }\n"
    command = [compiler, "-x", "c", "-", "-o", str(build_directory() / "probe"), "-lssl", "-lcrypto"]
    return subprocess.run(command, input=source, capture_output=True, text=True).returncode == 0


def raise_descriptor_limit() -> int:
    """As many descriptors as the system allows; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cpu_of(pid: int) -> float:
    """Processor seconds of a live process, all its threads."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


def memory_of(pid: int) -> int:
    """Resident bytes of a live process that are its own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Private_Dirty in smaps_rollup")


class Server:
    """A process that prints "ready ADDRESS", as a context manager that kills it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        word, _, self.address = self.process.stdout.readline().strip().partition(" ")
        if word != "ready":
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"{command}: did not become ready")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def child_command(loop: str, body: str, parameters: dict[str, Any]) -> list[str]:
    return [sys.executable, str(HERE / "child.py"), loop, body, json.dumps(parameters)]


def native_command(kind: str, *arguments: str) -> list[str]:
    return [str(built("server")), kind, *arguments]


def work(loop: str, body: str, parameters: dict[str, Any], warmup: float, seconds: float) -> Sample:
    """Run a workload that times itself."""
    command = child_command(loop, body, {**parameters, "warmup": warmup, "seconds": seconds})
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds + PATIENCE, check=True)
    got = json.loads(done.stdout)
    return Sample(got["operations"] / got["seconds"], got["cpu"] / got["operations"])


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    line = stream.readline()
    if not line:
        raise RuntimeError("the load generator failed: see above")
    return line


def drive(
    server: Server, kind: str, connections: int, size: int, warmup: float, seconds: float, idle: int = 0
) -> Sample:
    """Let the load generator work on a server."""
    if kind == "tls" and not _has_openssl(shutil.which(os.environ.get("CC", "gcc")) or "gcc"):
        raise Unavailable("the load generator needs the headers of OpenSSL (Debian: libssl-dev)")
    before = memory_of(server.process.pid)
    arguments = (kind, server.address, connections, size, warmup, seconds, idle)
    load = subprocess.Popen(
        [str(built("load")), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        _line(load.stdout)  # the warm-up is over
        cpu = cpu_of(server.process.pid)
        got = json.loads(_line(load.stdout))
        cpu = cpu_of(server.process.pid) - cpu
        memory = (memory_of(server.process.pid) - before) / idle if idle else None
    finally:
        server.process.kill()  # first, so that it does not report the load's going as errors
        load.kill()
        load.wait()
    operations = got["operations"]
    if not operations:
        raise RuntimeError(f"not one operation in {seconds} s")
    return Sample(
        rate=operations / got["seconds"],
        cpu=cpu / operations,
        client_cpu=got["client_cpu"] / operations,
        p50=got["p50"],
        p99=got["p99"],
        memory=memory,
        lost=got["lost"],
    )


def wrk_command(address: str, path: str, connections: int, seconds: float) -> list[str]:
    """wrk counts whole seconds."""
    program = shutil.which("wrk")
    if program is None:
        raise Unavailable("wrk is missing (Debian: apt install wrk)")
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(NATIVE / "report.lua")]
    return [program, *options, f"http://127.0.0.1:{address}{path}"]


def wrk(server: Server, path: str, connections: int, warmup: float, seconds: float) -> Sample:
    """Let wrk work on a server."""

    def run(duration: float) -> tuple[dict[str, Any], float]:
        command = wrk_command(server.address, path, connections, duration)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=duration + PATIENCE, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return json.loads(done.stdout.splitlines()[-1]), used

    if warmup:
        run(warmup)
    cpu = cpu_of(server.process.pid)
    got, used = run(seconds)
    cpu = cpu_of(server.process.pid) - cpu
    operations = got["operations"]
    if got["lost"]:
        raise RuntimeError(f"{got['lost']} requests failed")
    return Sample(operations / got["seconds"], cpu / operations, used / operations, got["p50"], got["p99"])


@functools.cache
def certificate() -> tuple[str, str]:
    """A self-signed certificate and its key, as paths."""
    key, cert = build_directory() / "key.pem", build_directory() / "cert.pem"
    program = shutil.which("openssl")
    if program is None:
        raise Unavailable("openssl is missing (Debian: apt install openssl)")
    options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=x")
    command = [program, "req", "-x509", *options, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return str(cert), str(key)
