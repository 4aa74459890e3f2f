"""The matrix: which workload runs with which parameters, and what the goal is.

A family is one name for ONLY=. `full` adds the whole grid of connections and sizes; `quick` leaves a few cases.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import processes
from harness import Case, Sample
from loops import NATIVE

BLOCK = 1 << 16  # bytes that are one operation where megabytes are counted
MEGABYTE = 1e6
BURST = 200_000  # callbacks scheduled before the first one runs
SIZES = {100: "100 B", 1024: "1 KiB", 16384: "16 KiB", 262144: "256 KiB"}
STYLES = {
    "tcp_echo": "protocol",
    "tcp_echo_buffered": "buffered",
    "tcp_echo_streams": "streams",
    "tcp_echo_sock": "sock",
}


@dataclass(frozen=True)
class Settings:
    seconds: float
    warmup: float
    full: bool = False
    quick: bool = False


def grid(settings: Settings) -> list[tuple[int, int]]:
    """Connections and sizes of an echo family: a cross through 1 KiB, or everything."""
    if settings.quick:
        return [(1, 1024), (100, 1024), (10, 16384)]
    if settings.full:
        return list(itertools.product((1, 10, 100, 1000), SIZES))
    return [(1, 1024), (10, 1024), (50, 1024), (100, 1024), (1000, 1024), (100, 100), (10, 16384), (10, 262144)]


def work(
    s: Settings,
    family: str,
    name: str,
    unit: str,
    body: str,
    target: float = 1.1,
    part: float = 1,
    **parameters: object,
) -> Case:
    """A workload that times itself. part: how many units are one of its operations."""

    def run(loop: str) -> Sample:
        return processes.work(loop, body, parameters, s.warmup, s.seconds).per(part)

    return Case(family, name, unit, run, without=(NATIVE,), target=target)


def scheduling(s: Settings) -> Iterator[Case]:
    yield work(s, "call_soon", "chain", "callback", "scheduling:call_soon")
    yield work(s, "call_soon", "1,000 at a time", "callback", "scheduling:call_soon_batch")
    for arguments, name in ((0, "no argument"), (1, "one argument"), (3, "three arguments")):
        name = f"{BURST:,} at once, {name}"
        parameters = {"arguments": arguments, "count": BURST}
        yield work(s, "call_soon", name, "callback", "scheduling:call_soon_burst", part=BURST, **parameters)
    for threads in (1, 4):
        name = f"from {threads} thread{'s' * (threads > 1)}"
        yield work(s, "threadsafe", name, "callback", "scheduling:call_soon_threadsafe", threads=threads)
    yield work(s, "threadsafe", "wake and answer", "round trip", "scheduling:threadsafe_wake")
    for pending in (1_000, 1_000_000) if s.quick else (1_000, 100_000, 1_000_000):
        for operation in ("set", "cancel", "fire"):
            name = f"{operation}, {pending:,} pending"
            yield work(s, "timers", name, "timer", "scheduling:timer", operation=operation, pending=pending)
    yield work(s, "tasks", "create and finish", "task", "scheduling:task")
    yield work(s, "tasks", "sleep(0)", "turn", "scheduling:sleep_zero")
    yield work(s, "tasks", "gather of 100", "gather", "scheduling:gather", count=100)
    yield work(s, "tasks", "future ping-pong", "round trip", "scheduling:future_ping_pong")


def echo(
    s: Settings,
    family: str,
    name: str,
    kind: str,
    connections: int,
    size: int,
    target: float,
    serve: Callable[[str], list[str]],
    native: str | None,
    idle: int = 0,
    figure: str = "rate",
) -> Case:
    """A server driven by native/load.c. `serve` makes the command for a loop; `native`: kind of C server."""

    def run(contestant: str) -> Sample:
        if contestant == NATIVE:
            assert native is not None
            arguments = [str(socket_path())] if native == "unix" else []
            command = processes.native_command(native, *arguments)
        else:
            command = serve(contestant)
        with processes.Server(command) as server:
            try:
                return processes.drive(server, kind, connections, size, s.warmup, s.seconds, idle)
            finally:
                socket_path().unlink(missing_ok=True)

    without = () if native else (NATIVE,)
    return Case(family, name, "round trip", run, without=without, target=target, figure=figure)


def socket_path() -> Path:
    return processes.build_directory() / "echo.sock"


def title(connections: int, size: int) -> str:
    return f"{connections:,} connection{'s' * (connections > 1)}, {SIZES[size]}"


def goal(connections: int) -> float:
    return 1.05 if connections >= 10 else 0.95


def tcp(s: Settings, family: str, style: str, name: str, connections: int, size: int, kind: str = "tcp") -> Case:
    def serve(loop: str) -> list[str]:
        return processes.child_command(loop, "echo:tcp", {"style": style})

    return echo(s, family, name, kind, connections, size, goal(connections), serve, kind)


def streams(s: Settings) -> Iterator[Case]:
    for family, style in STYLES.items():
        for connections, size in grid(s):
            if connections == 50 and family not in ("tcp_echo", "tcp_echo_streams"):
                continue
            yield tcp(s, family, style, title(connections, size), connections, size)
    for connections in (10, 100):
        for style in ("writelines", "writes"):
            name = f"16 pieces by {style}, {title(connections, 1024)}"
            yield tcp(s, "writelines", style, name, connections, 1024)
        yield tcp(s, "two_writes", "two", f"echo, {title(connections, 1024)}", connections, 1024)
    yield tcp(s, "connect", "once", "connect, echo, close; 10 at a time", 10, 100, "churn")


def local(s: Settings) -> Iterator[Case]:
    def serve(loop: str) -> list[str]:
        return processes.child_command(loop, "echo:unix", {"path": str(socket_path())})

    for connections in (1, 100):
        target = 1.0 if connections > 1 else 0.95
        yield echo(s, "unix_echo", title(connections, 1024), "unix", connections, 1024, target, serve, "unix")


def datagrams(s: Settings) -> Iterator[Case]:
    def serve(loop: str) -> list[str]:
        return processes.child_command(loop, "echo:udp", {})

    for connections in (1, 50):
        target = 1.0 if connections > 1 else 0.95
        name = f"{connections} client{'s' * (connections > 1)}, 1 KiB"
        yield echo(s, "udp_echo", name, "udp", connections, 1024, target, serve, "udp")


def tls(s: Settings) -> Iterator[Case]:
    def serve(loop: str) -> list[str]:
        certificate, key = processes.certificate()
        return processes.child_command(loop, "echo:tls", {"certificate": certificate, "key": key})

    for connections, size in ((1, 1024), (50, 1024), (10, 16384)):
        target = 1.0 if connections > 1 else 0.95
        yield echo(s, "tls_echo", title(connections, size), "tls", connections, size, target, serve, None)


def bulk(s: Settings) -> Iterator[Case]:
    def one_way(what: str, streams: bool) -> Case:
        kind = {"sends": "source", "receives": "sink"}[what]

        def run(loop: str) -> Sample:
            with processes.Server(processes.child_command(loop, f"bulk:{kind}", {"streams": streams})) as server:
                return processes.drive(server, kind, 1, BLOCK, s.warmup, s.seconds).per(BLOCK / MEGABYTE)

        style = "streams" if streams else "protocol"
        return Case(f"bulk_{style}", f"MB that a server {what}", "MB", run, without=(NATIVE,), target=1.0)

    for streams in (False, True):
        for what in ("sends", "receives"):
            yield one_way(what, streams)


def request(
    s: Settings, family: str, name: str, body: str, path: str, connections: int, target: float, busy: bool = False
) -> Case:
    """A web server driven by wrk; busy: while every core has something else to do."""

    def run(loop: str) -> Sample:
        command = processes.child_command(loop, body, {})
        with processes.busy() if busy else contextlib.nullcontext(), processes.Server(command) as server:
            return processes.wrk([server], path, connections, s.warmup, s.seconds)

    name = f"{name}, {connections} connections"
    return Case(family, name, "request", run, without=(NATIVE,), target=target)


def serve_web(loop: str) -> list[str]:
    return processes.child_command(loop, "web:serve", {})


def web(s: Settings) -> Iterator[Case]:
    plan = {"hello": (10, 50, 500), "json": (50,), "64k": (50,)}
    if s.full:
        plan = dict.fromkeys(plan, (10, 50, 500))
    elif s.quick:
        plan = {"hello": (50,), "json": (50,)}
    names = {"hello": "aiohttp hello", "json": "aiohttp JSON", "64k": "aiohttp 64 KiB"}
    for path, counts in plan.items():
        for connections in counts:
            target = 1.25 if connections == 50 and path != "64k" else 1.05
            yield request(s, "http", names[path], "web:serve", f"/{path}", connections, target)
    for path, name, connections in (("hello", "plain", 50), ("hello", "plain", 10), ("10k", "10 KiB", 50)):
        if connections == 50 or not s.quick:
            yield request(s, "uvicorn", f"uvicorn {name}", "asgi:serve", f"/{path}", connections, 1.05)
    yield request(s, "uvicorn", "uvicorn, body in two writes", "asgi:serve", "/two", 50, 1.05)

    def client(loop: str) -> Sample:
        with processes.Server(processes.native_command("http", "13")) as server:
            parameters = {"port": int(server.address), "concurrency": 10}
            return processes.work(loop, "web:client", parameters, s.warmup, s.seconds)

    yield Case("http_client", "aiohttp GET, 10 at a time", "request", client, without=(NATIVE,), target=1.05)
    for connections in (1, 50):
        name = f"aiohttp WebSocket, {title(connections, 1024)}"
        yield echo(s, "websocket", name, "websocket", connections, 1024, goal(connections), serve_web, None)


def others(s: Settings) -> Iterator[Case]:
    yield work(s, "subprocess", "spawn /bin/true, 1 at a time", "process", "process:spawn", 1.0, concurrency=1)
    yield work(s, "subprocess", "spawn /bin/true, 10 at a time", "process", "process:spawn", 1.0, concurrency=10)
    yield work(s, "subprocess", "MB through cat, streams", "MB", "process:cat", 1.0, BLOCK / MEGABYTE)
    for host, concurrency in (("127.0.0.1", 1), ("localhost", 1), ("localhost", 10)):
        name = f"{host}, {concurrency} at a time"
        parameters = {"host": host, "concurrency": concurrency}
        yield work(s, "getaddrinfo", name, "call", "names:getaddrinfo", 1.0, 1, **parameters)

    def serve(loop: str) -> list[str]:
        return processes.child_command(loop, "echo:tcp", {"style": "protocol"})

    idle = 10_000
    if processes.raise_descriptor_limit() < idle + 500:
        idle = 500  # say so in the name: the limit of descriptors is too low for more
    for name, figure, target in (("round trips", "rate", 1.05), ("memory of each", "memory", 1.0)):
        label = f"100 active of {idle + 100:,}, {name}"
        native = None if figure == "memory" else "tcp"
        yield echo(s, "idle", label, "tcp", 100, 1024, target, serve, native, idle, figure)


def loaded(s: Settings) -> Iterator[Case]:
    """The machine has something else to do: on each core a process computes."""
    posts = work(s, "busy_threadsafe", "from 1 thread", "callback", "scheduling:call_soon_threadsafe", 1.0, threads=1)
    echoes = tcp(s, "busy_echo", "protocol", title(50, 1024), 50, 1024)
    for case in (posts, echoes):

        def run(contestant: str, run: Callable[[str], Sample] = case.run) -> Sample:
            with processes.busy():
                return run(contestant)

        yield replace(case, run=run)
    yield request(s, "busy_http", "aiohttp hello", "web:serve", "/hello", 50, 1.0, busy=True)


def every_core(s: Settings) -> Iterator[Case]:
    """As many servers as cores, each on its own, all on one port; on the same cores the load, one wrk each."""

    def servers(family: str, name: str, body: str, busy: bool) -> Case:
        def run(loop: str) -> Sample:
            with contextlib.ExitStack() as stack:
                if busy:
                    stack.enter_context(processes.busy())
                started: list[processes.Server] = []
                for core in processes.cores():
                    port = int(started[0].address) if started else 0
                    command = processes.child_command(loop, body, {"port": port, "shared": True})
                    started.append(stack.enter_context(processes.Server(command, core)))
                return processes.wrk(started, "/hello", 50, s.warmup, s.seconds)

        name = f"one process a core{', busy cores' if busy else ''}, {name}, 50 connections each"
        return Case(family, name, "request", run, without=(NATIVE,), target=1.0)

    for family, name, body in (("cores_http", "aiohttp hello", "web:serve"), ("cores_uvicorn", "plain", "asgi:serve")):
        for busy in (False, True):
            yield servers(family, name, body, busy)


def all_cases(settings: Settings) -> list[Case]:
    makers = (scheduling, streams, local, datagrams, tls, bulk, web, others, loaded, every_core)
    return [case for make in makers for case in make(settings)]
