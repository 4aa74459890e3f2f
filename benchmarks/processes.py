"""Runs of the measured processes and of the native ones: the C server, the load generator, wrk.

The native programs are built on first use. Whatever a measured process does wrong is raised as Failed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from harness import Failed, Sample, Unavailable
from usage import Meter, Usage, memory_of

HERE = Path(__file__).parent
NATIVE = HERE / "native"
MOST_LINES = 30  # that are shown of what a process says
PATIENCE = 60  # seconds beyond the planned time after which a run has failed


@functools.cache
def build_directory() -> Path:
    # Kept until the process ends, with what was built in it.
    return Path(_keep.name)


_keep = tempfile.TemporaryDirectory(prefix="goloop-bench-")
atexit.register(_keep.cleanup)


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


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started within runs on this core only; None: anywhere."""
    if core is None:
        yield
        return
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """On each core a process computes meanwhile, as nice as what is measured; it does not outlive this one."""
    source = f"import os\nwhile os.getppid() == {os.getpid()}:\n    sum(range(100_000))"
    spinners = []
    try:
        for core in cores():
            with pinned(core):
                spinners.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", source]))
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def explain(status: int | None, complaint: str) -> str:
    """Why a process failed, in a line: its last words, or its exit status."""
    lines = [line for line in complaint.splitlines() if line.strip()]
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return lines[-1].strip()[-300:] if lines else f"exit status {status}"


def pass_on(command: Sequence[str], complaint: str) -> None:
    """Show what a process wrote to its stderr, and who it was."""
    lines = complaint.splitlines()
    if lines:
        name = " ".join(Path(word).name if "/" in word else word for word in command)
        said = "\n    ".join(lines[-MOST_LINES:])
        sys.stderr.write(f"{name} said, in {len(lines)} lines of which these are the last:\n    {said}\n")


def output_of(command: Sequence[str], limit: float) -> str:
    """Run a program to its end. What it says on stderr is passed on, or is the reason of Failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise Failed(f"no answer within {limit:g} s") from None
    if done.returncode:
        failure = Failed(explain(done.returncode, done.stderr))
        failure.add_note(done.stderr)
        raise failure
    pass_on(command, done.stderr)
    return done.stdout


class Lines:
    """A process from whose output lines are read, which it has to write in time, as a context manager that kills it."""

    def __init__(self, command: Sequence[str], stdin: int | None = None) -> None:
        self.command = command
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by __exit__()
        self.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=self._stderr, text=True)

    def __enter__(self) -> Self:
        return self

    def line(self, limit: float) -> str:
        """The next line; without one in `limit` seconds the process is killed, and has failed."""
        assert self.process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(limit, give_up)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            status = self.process.wait()
            raise Failed(f"no answer within {limit:g} s" if late.is_set() else explain(status, self.complaint()))
        return line.strip()

    def complaint(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()

    def failure(self, seen: str) -> Failed:
        """What to raise for something that was seen from outside: with what the process itself says of it."""
        status, complaint = self.process.poll(), self.complaint()
        return Failed(f"{seen} ({explain(status, complaint)})" if status is not None or complaint else seen)

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        pass_on(self.command, self.complaint())
        self._stderr.close()


class Server(Lines):
    """A process that prints "ready ADDRESS"."""

    def __init__(self, command: Sequence[str], core: int | None = None) -> None:
        with pinned(core):
            super().__init__(command)
        try:
            word, _, self.address = self.line(PATIENCE).partition(" ")
            if word != "ready":
                raise Failed(f"printed {word!r} instead of its address")
        except BaseException:
            self.__exit__()
            raise


def child_command(loop: str, body: str, parameters: dict[str, Any]) -> list[str]:
    return [sys.executable, str(HERE / "child.py"), loop, body, json.dumps(parameters)]


def native_command(kind: str, *arguments: str) -> list[str]:
    return [str(built("server")), kind, *arguments]


def work(loop: str, body: str, parameters: dict[str, Any], warmup: float, seconds: float) -> Sample:
    """Run a workload that times itself."""
    command = child_command(loop, body, {**parameters, "warmup": warmup, "seconds": seconds})
    got = json.loads(output_of(command, seconds + PATIENCE))
    operations = got["operations"]
    return Sample(
        rate=operations / got["seconds"],
        cpu=got["cpu"] / operations,
        system=got["system"] / operations,
        switches=got["switches"] / operations,
    )


def served(got: dict[str, Any], used: Usage) -> Sample:
    """The sample of a load generator's line of JSON, and of what the server used meanwhile."""
    operations = got["operations"]
    if not operations:
        raise Failed(f"not one operation in {got['seconds']:g} s")
    return Sample(
        rate=operations / got["seconds"],
        cpu=used.cpu / operations,
        system=None if used.system is None else used.system / operations,
        switches=used.switches / operations,
        client_cpu=got["client_cpu"] / operations,
        p50=got["p50"] or None,
        p99=got["p99"] or None,
        lost=got["lost"],
    )


def drive(
    server: Server, kind: str, connections: int, size: int, warmup: float, seconds: float, idle: int = 0
) -> Sample:
    """Let the load generator work on a server."""
    if kind == "tls" and not _has_openssl(shutil.which(os.environ.get("CC", "gcc")) or "gcc"):
        raise Unavailable("the load generator needs the headers of OpenSSL (Debian: libssl-dev)")
    pid = server.process.pid
    before = memory_of(pid)
    arguments = (kind, server.address, connections, size, warmup, seconds, idle)
    with Lines([str(built("load")), *map(str, arguments)], stdin=subprocess.PIPE) as load:
        try:
            load.line(warmup + PATIENCE)  # the warm-up is over
            meter = Meter([pid])
            got = json.loads(load.line(seconds + PATIENCE))
            sample = served(got, meter.stop())
            if idle:
                sample.memory = (memory_of(pid) - before) / idle
        except (Failed, OSError) as exc:  # OSError: the server has ended
            raise server.failure(str(exc)) from exc
        finally:
            server.process.kill()  # first, so that it does not report the load's going as errors
    return sample


def wrk(servers: Sequence[Server], path: str, connections: int, warmup: float, seconds: float) -> Sample:
    """Let wrk work on a server; if there are several, on one port, one wrk of so many connections on each core."""
    program = shutil.which("wrk")
    if program is None:
        raise Unavailable("wrk is missing (Debian: apt install wrk)")
    url = f"http://127.0.0.1:{servers[0].address}{path}"

    whole = max(1, round(seconds))  # wrk knows no fractions
    command = [program, "-t1", f"-c{connections}", f"-d{whole}s", "-s", str(NATIVE / "report.lua"), url]

    @contextlib.contextmanager
    def loads() -> Iterator[list[Lines]]:
        with contextlib.ExitStack() as stack:
            started = []
            for core in cores() if len(servers) > 1 else [None]:
                with pinned(core):
                    started.append(stack.enter_context(Lines(command)))
            yield started

    if warmup:
        with loads():  # and killed early
            time.sleep(warmup)
    try:
        meter = Meter([server.process.pid for server in servers])
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with loads() as started:
            reports = [_report_of(load, whole + PATIENCE) for load in started]
        used = meter.stop()
    except OSError as exc:
        ended = [server for server in servers if server.process.poll() is not None]
        if not ended:
            raise
        raise ended[0].failure(str(exc)) from exc
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    got = {name: sum(report[name] for report in reports) for name in ("operations", "lost")}
    got |= {name: max(report[name] for report in reports) for name in ("seconds", "p50", "p99")}
    got["client_cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if got["lost"]:
        raise Failed(f"{got['lost']} requests failed")
    return served(got, used)


def _report_of(load: Lines, limit: float) -> dict[str, Any]:
    """The line of report.lua, which is the last; before it stands what wrk says to people."""
    end = time.monotonic() + limit
    while not (line := load.line(end - time.monotonic())).startswith("{"):
        continue
    report: dict[str, Any] = json.loads(line)
    return report


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
