"""Before anything is measured: does each contestant answer right? Who does not is left out of the families concerned.

The loop itself is tried by workloads/answers.py in a child, servers from outside, with blocking sockets, in the very
form in which they are measured. Each check is a process of its own with a time limit, so that a crash or a hang is an
answer, too. asyncio and goloop have to pass: if they do not, something is wrong with goloop or with the benchmark.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import os
import random
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import loops
import processes
from harness import Dropped, Failed
from rich.console import Console
from rich.progress import track

LIMIT = 60  # seconds for one check
PATIENCE = 10  # seconds for one answer of a server


@dataclass(frozen=True)
class Check:
    """Something that the families rely on. `run` raises for a contestant with which it is not so."""

    name: str
    families: frozenset[str]  # empty: all
    run: Callable[[str], None]


def expect_equal(got: bytes, right: bytes, what: str) -> None:
    if got == right:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, right, strict=False)) if a != b), min(len(got), len(right)))
    raise Failed(f"{what}: {len(got)} bytes instead of {len(right)}, different from byte {at} on")


# ------------------------------------------------------------------------------------------------- servers
def read_exactly(sock: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = sock.recv(1 << 18)
        if not data:
            break
        got += data
    return bytes(got)


def messages() -> list[bytes]:
    generator = random.Random(1)
    return [generator.randbytes(size) for size in (1, 100, 1024, 5_000, 16_384) for _ in range(5)]


def echo_messages(sock: socket.socket, what: str) -> None:
    """One at a time comes back as it was; after the end of what is sent, the server closes."""
    with sock:
        for message in messages():
            sock.sendall(message)
            expect_equal(read_exactly(sock, len(message)), message, what)
        if not isinstance(sock, ssl.SSLSocket):
            sock.shutdown(socket.SHUT_WR)
            try:
                expect_equal(sock.recv(1), b"", f"{what}: after the end")
            except TimeoutError:
                raise Failed(f"{what}: does not close after the client's end") from None


def echo_flood(sock: socket.socket, what: str) -> None:
    """Four MiB that are sent while what comes back is read, and the last of it after the end of what is sent."""
    data = random.Random(2).randbytes(1 << 22)

    def send() -> None:
        for at in range(0, len(data), 77_777):
            sock.sendall(data[at : at + 77_777])
        sock.shutdown(socket.SHUT_WR)

    with sock:
        sender = threading.Thread(target=send)
        sender.start()
        got = read_exactly(sock, len(data) + 1)
        sender.join()
        expect_equal(got, data, what)


def connect(address: str) -> socket.socket:
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(address)
        return sock
    return socket.create_connection(("127.0.0.1", int(address)), PATIENCE)


def streams_echo(address: str, flood: bool = True) -> None:
    held = [connect(address) for _ in range(3)]
    for sock in held:
        echo_messages(sock, "echo")
    if flood:
        echo_flood(connect(address), "echo of 4 MiB")


def closing_echo(address: str) -> None:
    for _ in range(20):
        with connect(address) as sock:
            sock.sendall(b"x" * 100)
            expect_equal(read_exactly(sock, 101), b"x" * 100, "echo and close")


def datagrams_echo(address: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", int(address)))
        for message in messages():
            sock.send(message)
            expect_equal(sock.recv(1 << 16), message, "datagram")


def tls_echo(address: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for _ in range(3):
        echo_messages(context.wrap_socket(connect(address)), "echo over TLS")


def bulk_source(address: str) -> None:
    size = 1 << 23
    block = random.Random(0).randbytes(1 << 16)  # that of workloads/bulk.py
    with connect(address) as sock:
        expect_equal(read_exactly(sock, size)[:size], block * (size // len(block)), "bulk")


def bulk_sink(address: str) -> None:
    data = random.Random(3).randbytes(1 << 23)
    with connect(address) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        expect_equal(read_exactly(sock, 100), b"%d %d" % (len(data), zlib.crc32(data)), "bulk: length and CRC-32")


def fetched(address: str, paths: Sequence[str]) -> list[tuple[int, bytes]]:
    """Status and body of each path, three times on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", int(address), timeout=PATIENCE)
    got = []
    for path in [*paths, *paths, *paths]:
        connection.request("GET", path)
        response = connection.getresponse()
        got.append((response.status, response.read()))
    connection.close()
    return got


@functools.cache
def right_pages(body: str, paths: tuple[str, ...]) -> list[tuple[int, bytes]]:
    """What asyncio answers."""
    with processes.Server(processes.child_command(loops.CONTROL, body, {})) as server:
        got = fetched(server.address, paths)
    if any(status != 200 for status, _ in got):
        raise RuntimeError(f"{body} does not serve {paths}")
    return got


def pages(contestant: str, body: str, paths: tuple[str, ...]) -> None:
    right = right_pages(body, paths)
    with processes.Server(processes.child_command(contestant, body, {})) as server:
        for path, got, expected in zip(paths * 3, fetched(server.address, paths), right, strict=True):
            if got[0] != expected[0]:
                raise Failed(f"{path}: status {got[0]}")
            expect_equal(got[1], expected[1], path)


def websocket(address: str) -> None:
    async def exchange() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{address}/") as ws:
            for message in messages():
                await ws.send_bytes(message)
                expect_equal(await ws.receive_bytes(timeout=PATIENCE), message, "WebSocket")

    asyncio.run(exchange())


# --------------------------------------------------------------------------------------------------- table
def inside(contestant: str, name: str, **parameters: object) -> None:
    """A check of workloads/answers.py."""
    said = processes.output_of(processes.child_command(contestant, f"answers:{name}", dict(parameters)), LIMIT)
    if said.strip() != "right":
        raise Failed(f"printed {said.strip()[-300:]!r}")


def outside(contestant: str, ask: Callable[[str], None], body: str, **parameters: object) -> None:
    """A server, and somebody who asks it."""
    with processes.Server(processes.child_command(contestant, body, dict(parameters))) as server:
        try:
            ask(server.address)
        except OSError as exc:
            raise server.failure(f"{type(exc).__name__}: {exc}") from exc


def unix(contestant: str) -> None:
    path = processes.build_directory() / f"check-{os.getpid()}.sock"
    try:
        outside(contestant, streams_echo, "echo:unix", path=str(path))
    finally:
        path.unlink(missing_ok=True)


def tls(contestant: str) -> None:
    certificate, key = processes.certificate()
    outside(contestant, tls_echo, "echo:tls", certificate=certificate, key=key)


def client(contestant: str) -> None:
    with processes.Server(processes.native_command("http", "13")) as server:
        inside(contestant, "http_client", port=int(server.address), length=13)


def checks() -> list[Check]:
    def check(name: str, families: str, function: Any, *args: Any, **kwargs: Any) -> Check:
        return Check(name, frozenset(families.split()), lambda contestant: function(contestant, *args, **kwargs))

    echoes = functools.partial(check, function=outside)
    ping_pong = functools.partial(streams_echo, flood=False)  # what the buffered protocol writes is not its own
    both = [
        check(f"bulk, {what}", f"bulk_{style}", outside, ask, f"bulk:{what}", streams=style == "streams", **more)
        for style in ("protocol", "streams")
        for what, ask, more in (("source", bulk_source, {}), ("sink", bulk_sink, {"digest": True}))
    ]
    return [
        check("start and end", "", inside, "starts"),
        check("callbacks", "call_soon", inside, "callbacks"),
        check("tasks", "tasks", inside, "tasks"),
        check("timers", "timers", inside, "timers"),
        check("threads", "threadsafe busy_threadsafe", inside, "threadsafe"),
        check("names", "getaddrinfo", inside, "getaddrinfo"),
        check("subprocesses", "subprocess", inside, "subprocesses"),
        check("HTTP client", "http_client", client),
        echoes("echo", "tcp_echo idle busy_echo", ask=streams_echo, body="echo:tcp", style="protocol"),
        echoes("echo, buffered", "tcp_echo_buffered", ask=ping_pong, body="echo:tcp", style="buffered"),
        echoes("echo, streams", "tcp_echo_streams", ask=streams_echo, body="echo:tcp", style="streams"),
        echoes("echo, sock_recv", "tcp_echo_sock", ask=streams_echo, body="echo:tcp", style="sock"),
        echoes("echo, writelines", "writelines", ask=streams_echo, body="echo:tcp", style="writelines"),
        echoes("echo, many writes", "writelines", ask=streams_echo, body="echo:tcp", style="writes"),
        echoes("echo, two writes", "two_writes", ask=streams_echo, body="echo:tcp", style="two"),
        echoes("echo and close", "connect", ask=closing_echo, body="echo:tcp", style="once"),
        echoes("datagrams", "udp_echo", ask=datagrams_echo, body="echo:udp"),
        check("Unix sockets", "unix_echo", unix),
        check("TLS", "tls_echo", tls),
        *both,
        check("aiohttp", "http cores_http busy_http", pages, "web:serve", ("/hello", "/json", "/64k")),
        check("uvicorn", "uvicorn cores_uvicorn", pages, "asgi:serve", ("/hello", "/10k", "/two")),
        echoes("WebSocket", "websocket", ask=websocket, body="web:serve"),
    ]


def qualify(contestants: Sequence[str], families: Collection[str], every: Sequence[Check], console: Console) -> Dropped:
    """Try everyone in what the families need; return who is out of which family, and why."""
    needed = [
        (check, [family for family in families if family in check.families or not check.families]) for check in every
    ]
    plan = [(check, concerned, who) for check, concerned in needed if concerned for who in contestants]
    dropped: Dropped = {}
    for check, concerned, who in track(plan, "checking answers", console=console, transient=True):
        if who == loops.NATIVE or all((family, who) in dropped for family in concerned):
            continue
        try:
            check.run(who)
        except Exception as exc:  # a fault of the benchmark itself meets the others as well, and ends the run
            if not loops.is_peer(who):
                exc.add_note(f"{who} fails in the check of {check.name}")
                raise
            for family in concerned:
                dropped.setdefault((family, who), f"{check.name}: {exc}")
            console.print(f"{who}: wrong in {check.name}: {exc}", style="yellow")
    return dropped
