"""Runs aiohttp_app.py under goloop and under asyncio, drives both with many clients, and checks every response.

The servers are subprocesses that take turns in short rounds, so that a noisy machine is equally unfair to each. The
clients run on asyncio's own loop in this process: a neutral judge. The exit status is 0 only if every response was
right, every kind of request was made, and each server stopped gracefully at SIGTERM without having complained.

What a response must hold is written here a second time instead of being imported from the application: a checker
that shares code with the server cannot see that code's mistakes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import json
import os
import platform
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

APP = Path(__file__).with_name("aiohttp_app.py")
UVLOOP = "import runpy, sys, uvloop; uvloop.install(); del sys.argv[0]; runpy.run_path(*sys.argv[:1], None, '__main__')"
LAUNCHERS = {"goloop": ["-m", "goloop"], "asyncio": [], "uvloop": ["-c", UVLOOP]}
COMPLAINTS = re.compile(r"Traceback \(most|Exception ignored|Fatal|was destroyed but|never (awaited|retrieved)")

ROUND = 0.5  # seconds; short against the seconds-long disturbances of a shared machine
REQUEST_TIMEOUT = 15.0  # seconds; a response that takes this long counts as lost
START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 15.0  # seconds
MAX_ERRORS = 100  # a loop that got so many things wrong is not asked further
SHOWN_ERRORS = 5

BLOCK = 65536  # bytes
DOWNLOAD_BLOCKS = 32  # 2 MiB
FILE_BLOCKS = 5
NOISE = random.Random(2009).randbytes(4 * BLOCK)


# --- What a right response looks like -------------------------------------------------------------------------------


class WrongResponse(Exception):
    """A response differs from what was asked for; the text says where."""


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


def expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongResponse(f"{what}: got {short(got)}, expected {short(wanted)}")


def short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


def expect_bytes(what: str, got: bytes, wanted: bytes) -> None:
    if got != wanted:
        pairs = enumerate(zip(got, wanted, strict=False))
        same = next((offset for offset, (one, other) in pairs if one != other), min(len(got), len(wanted)))
        raise WrongResponse(
            f"{what}: got {len(got)} bytes, expected {len(wanted)}; from offset {same}"
            f" got {short(got[same : same + 16])}, expected {short(wanted[same : same + 16])}"
        )


def expect_header(reply: Reply, name: str, wanted: str | None) -> None:
    expect(f"header {name}", reply.headers.get(name), wanted)


def parse_json(reply: Reply) -> object:
    expect("status", reply.status, 200)
    expect_header(reply, "Content-Type", "application/json; charset=utf-8")
    expect_header(reply, "Content-Length", str(len(reply.body)))
    try:
        return json.loads(reply.body)
    except ValueError as error:
        raise WrongResponse(f"body is not JSON: {error}: {short(reply.body)}") from None


def blocks(first: int, count: int) -> bytes:
    """The content of downloads and of the file: 64 KiB blocks, each with its number in the first 8 bytes."""
    filling = bytes(range(256)) * (BLOCK // 256)
    return b"".join(number.to_bytes(8, "big") + filling[8:] for number in range(first, first + count))


FILE = blocks(0, FILE_BLOCKS)


def check_item(reply: Reply, number: int, tag: str, loop: str) -> None:
    """`loop` is the package whose event loop must have served this: the proof that a row measures what it names."""
    got = parse_json(reply)
    module = str(got.pop("loop", None)) if isinstance(got, dict) else ""
    expect("JSON", got, {"number": number, "square": number * number, "query": {"tag": tag}})
    expect("event loop of the server", module.partition(".")[0], loop)


def check_form(reply: Reply, kind: str, fields: dict[str, str], files: dict[str, tuple[str, bytes]]) -> None:
    described = {
        name: {"filename": filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, (filename, content) in files.items()
    }
    expect("JSON", parse_json(reply), {"type": kind, "fields": fields, "files": described})


def check_download(reply: Reply, first: int, count: int) -> None:
    expect("status", reply.status, 200)
    expect_header(reply, "Transfer-Encoding", "chunked")
    expect_header(reply, "Content-Length", None)
    expect_bytes("download", reply.body, blocks(first, count))


def check_file(reply: Reply, span: tuple[int, int] | None) -> None:
    """`span` is the range asked for, first and last byte; None stands for the whole file."""
    first, last = span or (0, len(FILE) - 1)
    expect("status", reply.status, 206 if span else 200)
    expect_header(reply, "Content-Range", f"bytes {first}-{last}/{len(FILE)}" if span else None)
    expect_header(reply, "Content-Type", "application/octet-stream")
    expect_header(reply, "Content-Length", str(last - first + 1))
    expect_bytes("file", reply.body, FILE[first : last + 1])


def check_events(reply: Reply, first: int, count: int) -> None:
    expect("status", reply.status, 200)
    expect_header(reply, "Content-Type", "text/event-stream")
    expect_header(reply, "Cache-Control", "no-cache")
    *events, rest = reply.body.split(b"\n\n")
    expect("end of the event stream", rest, b"")
    for number, event in enumerate(events, first):
        data = f'data: {{"number": {number}, "square": {number * number}}}'
        expect("event", event.decode(errors="replace").split("\n"), [f"id: {number}", "event: tick", data])
    expect("number of events", len(events), count)


def check_echo(sent: Sequence[str | bytes], received: Sequence[object], close_code: int | None) -> None:
    for number, (message, answer) in enumerate(zip(sent, received, strict=False)):
        expect(f"type of message {number}", type(answer), type(message))
        expect(f"message {number}", answer, message)
    expect("number of messages", len(received), len(sent))
    expect("close code", close_code, 1000)


# --- The six kinds of request ---------------------------------------------------------------------------------------


@dataclass
class Client:
    session: aiohttp.ClientSession
    loop: str  # the package whose event loop the server must run on

    async def fetch(self, method: str, path: str, **options: Any) -> Reply:
        async with self.session.request(method, path, **options) as response:
            return Reply(response.status, response.headers, await response.read())


async def ask_item(client: Client, rng: random.Random) -> None:
    number, tag = rng.randrange(10**6), f"{rng.random()} & ü/?#=+"
    check_item(await client.fetch("GET", f"/items/{number}", params={"tag": tag}), number, tag, client.loop)


async def ask_form(client: Client, rng: random.Random) -> None:
    fields = {"name": f"Zoë {rng.random()}", "note": "a=1&b=2\r\n" * rng.randrange(20)}
    files: dict[str, tuple[str, bytes]] = {}
    kind, data = "application/x-www-form-urlencoded", aiohttp.FormData(fields)
    if rng.random() < 0.5:
        kind = "multipart/form-data"
        start = rng.randrange(len(NOISE))
        files["upload"] = (f"noise-{start}.bin", NOISE[start : start + rng.randrange(2 * BLOCK)])
        data.add_field("upload", files["upload"][1], filename=files["upload"][0])
    check_form(await client.fetch("POST", "/form", data=data), kind, fields, files)


async def ask_download(client: Client, rng: random.Random) -> None:
    first = rng.randrange(10**9)
    reply = await client.fetch("GET", f"/download/{first}/{DOWNLOAD_BLOCKS}")
    check_download(reply, first, DOWNLOAD_BLOCKS)


async def ask_file(client: Client, rng: random.Random) -> None:
    span, headers = None, {}
    if rng.random() < 0.5:
        first = rng.randrange(len(FILE))
        span = first, rng.randrange(first, len(FILE))
        headers["Range"] = f"bytes={span[0]}-{span[1]}"
    check_file(await client.fetch("GET", "/file", headers=headers), span)


async def ask_events(client: Client, rng: random.Random) -> None:
    first, count = rng.randrange(10**6), rng.randrange(1, 20)
    check_events(await client.fetch("GET", f"/events/{first}/{count}"), first, count)


async def ask_echo(client: Client, rng: random.Random) -> None:
    # The sizes cross the three forms of a frame's length: up to 125 bytes, up to 65535, and more.
    messages: list[str | bytes] = [f"grüße {rng.random()}", b"", NOISE[: rng.randrange(126, 5000)], "", "x" * 126]
    messages.append(NOISE[: BLOCK + rng.randrange(BLOCK)])
    received: list[object] = []
    async with client.session.ws_connect("/echo") as websocket:
        for message in messages:
            await (websocket.send_str(message) if isinstance(message, str) else websocket.send_bytes(message))
        for _ in messages:
            answer = await websocket.receive()
            if answer.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise WrongResponse(f"WebSocket ended after {len(received)} messages: {answer}")
            received.append(answer.data)
    check_echo(messages, received, websocket.close_code)


Ask = Callable[[Client, random.Random], Awaitable[None]]
# How often each is drawn; the bulky and the slow ones less, so that no kind dominates the time.
KINDS: dict[str, tuple[Ask, int]] = {
    "item": (ask_item, 12),
    "form": (ask_form, 6),
    "file": (ask_file, 4),
    "echo": (ask_echo, 4),
    "events": (ask_events, 4),
    "download": (ask_download, 1),
}


# --- The server, a subprocess ---------------------------------------------------------------------------------------


class ServerFailed(Exception):
    """The server did not come up; the text holds what it said."""


@dataclass
class Server:
    process: asyncio.subprocess.Process
    stderr: asyncio.Task[bytes]  # done when the process has ended
    url: str = ""
    stopping: bool = False  # SIGTERM was sent

    @classmethod
    @asynccontextmanager
    async def start(cls, command: Sequence[str]) -> AsyncIterator[Server]:
        """Run a server; the block is entered when it listens, and whatever is left at its end is killed."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        server = cls(process, asyncio.create_task(process.stderr.read()))
        try:
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    line = await process.stdout.readline()
            except TimeoutError:
                raise ServerFailed(f"printed no URL within {START_TIMEOUT:.0f} s") from None
            match = re.search(rb"http://\S+", line)
            if match is None:
                await server.kill()
                output = (await server.stderr).decode(errors="backslashreplace")
                raise ServerFailed(f"printed {short(line)} instead of its URL\n{output[-4000:]}")
            server.url = match[0].decode()
            yield server
        finally:
            await server.kill()
            await server.stderr

    def cpu(self) -> float:
        """Processor time used so far, in seconds, by all its threads."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def running(self) -> bool:
        try:  # the kernel knows earlier than process.returncode
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def terminate(self) -> None:
        if not self.stopping and self.running:
            self.stopping = True
            with suppress(ProcessLookupError):
                self.process.terminate()

    async def stop(self) -> list[str]:
        """Ask it to stop, unless that was done; what was wrong with its end or in its output."""
        problems = []
        self.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                status = await self.process.wait()
            if not self.stopping:
                problems.append(f"the server ended by itself with status {status}")
            elif status != 0:
                problems.append(f"the server ended with status {status} at SIGTERM")
        except TimeoutError:
            problems.append(f"the server still ran {STOP_TIMEOUT:.0f} s after SIGTERM")
            await self.kill()
        output = (await self.stderr).decode(errors="backslashreplace")
        if complaint := COMPLAINTS.search(output):
            start = max(0, complaint.start() - 500)  # the line before a traceback tells where it comes from
            problems.append(f"the server complained:\n{output[start : start + 4000].rstrip()}")
        return problems


# --- Driving it -----------------------------------------------------------------------------------------------------


@dataclass
class Contender:
    """One loop's server, its client, and what came of it."""

    loop: str
    server: Server
    client: Client
    latencies: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})  # seconds
    errors: list[str] = field(default_factory=list)  # what clients got wrong
    faults: list[str] = field(default_factory=list)  # what the server did wrong besides
    elapsed: float = 0.0  # seconds
    cpu: float = 0.0  # seconds

    @property
    def requests(self) -> int:
        return sum(map(len, self.latencies.values()))

    @property
    def rate(self) -> float:
        return self.requests / self.elapsed if self.elapsed else 0.0

    def percentile(self, percent: float) -> float:
        """In milliseconds; nan when nothing was measured."""
        ordered = sorted(latency for kind in self.latencies.values() for latency in kind)
        return ordered[int(len(ordered) * percent / 100)] * 1000 if ordered else float("nan")

    def problems(self) -> list[str]:
        missing = [f"not one right response to {kind!r}" for kind, done in self.latencies.items() if not done]
        return self.faults + self.errors + missing


async def work(contender: Contender, kinds: Sequence[str], rng: random.Random, deadline: float) -> None:
    """One client: first one request of each of `kinds`, then random ones until the deadline."""
    names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
    opening = list(kinds)
    while opening or time.perf_counter() < deadline:
        kind = opening.pop() if opening else rng.choices(names, weights)[0]
        started = time.perf_counter()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await KINDS[kind][0](contender.client, rng)
        except Exception as error:  # whatever it is, the client did not get its answer
            contender.errors.append(f"{kind}: {type(error).__name__}: {error}")
            if len(contender.errors) >= MAX_ERRORS or not contender.server.running:
                return
        else:
            contender.latencies[kind].append(time.perf_counter() - started)


async def play_round(contender: Contender, clients: int, number: int, seconds: float) -> None:
    """All clients at once. The same number gives each loop the same requests in the same order per client."""
    started, cpu = time.perf_counter(), contender.server.cpu()
    names = list(KINDS)
    async with asyncio.TaskGroup() as group:
        for index in range(clients):
            # However short the first round is, it has every kind of request.
            opening = names[index::clients] if number == 0 else []
            rng = random.Random(f"{number} {index}")
            group.create_task(work(contender, opening, rng, started + seconds))
    contender.elapsed += time.perf_counter() - started
    contender.cpu += max(0.0, contender.server.cpu() - cpu)


async def stop_gracefully(contender: Contender) -> list[str]:
    """SIGTERM with a WebSocket open and an event stream half sent: the one is closed, the other is sent to its end."""
    session, server, count = contender.client.session, contender.server, 200
    try:
        async with (
            asyncio.timeout(STOP_TIMEOUT),
            session.get(f"/events/0/{count}") as response,
            session.ws_connect("/echo") as websocket,
        ):
            await websocket.send_str("still there")
            expect("message before SIGTERM", (await websocket.receive()).data, "still there")
            body = await response.content.readline()
            server.terminate()
            body += await response.read()
            check_events(Reply(response.status, response.headers, body), 0, count)
            last = await websocket.receive()
            expect("WebSocket after SIGTERM", (last.type, last.data), (aiohttp.WSMsgType.CLOSE, 1001))
    except Exception as error:
        return [f"at SIGTERM: {type(error).__name__}: {error}"]
    return []


async def compete(options: argparse.Namespace, progress: Progress, bar: TaskID) -> list[Contender]:
    """Let the loops take turns, stop their servers, and return them with everything that went wrong."""
    async with AsyncExitStack() as stack:
        contenders: list[Contender] = []
        for loop in options.loops:
            command = [sys.executable, *LAUNCHERS[loop], str(options.app), "--port", "0"]
            try:
                server = await stack.enter_async_context(Server.start(command))
            except ServerFailed as error:
                raise ServerFailed(f"{loop}: the server {error}") from None
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(server.url, connector=connector))
            contenders.append(Contender(loop, server, Client(session, loop)))

        rounds = max(1, round(options.seconds / ROUND))
        progress.update(bar, total=rounds * len(contenders))
        for number in range(rounds):
            for contender in contenders:
                progress.update(bar, description=contender.loop)
                if len(contender.errors) < MAX_ERRORS and contender.server.running:
                    await play_round(contender, options.clients, number, options.seconds / rounds)
                progress.advance(bar)
        for contender in contenders:
            progress.update(bar, description=f"stopping {contender.loop}")
            if contender.server.running:
                contender.faults += await stop_gracefully(contender)
            contender.faults += await contender.server.stop()
        return contenders


# --- Command line and report ----------------------------------------------------------------------------------------


def make_table(contenders: Sequence[Contender], options: argparse.Namespace) -> Table:
    versions = f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}"
    table = Table(
        title=f"{options.clients} clients, {options.seconds:g} s for each loop, {versions}",
        caption="requests/s includes the clients' work on the same machine;\nCPU is the server's alone, per request",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.add_column("loop")
    for heading in ("requests", "errors", "requests/s", "ratio to asyncio", "p50 ms", "p99 ms", "CPU ms"):
        table.add_column(heading, justify="right")
    base = next((contender.rate for contender in contenders if contender.loop == "asyncio"), 0.0)
    for contender in contenders:
        table.add_row(
            contender.loop,
            str(contender.requests),
            str(len(contender.errors) + len(contender.faults)),
            f"{contender.rate:.0f}",
            f"{contender.rate / base:.2f}" if base else "-",
            f"{contender.percentile(50):.1f}",
            f"{contender.percentile(99):.1f}",
            f"{contender.cpu / contender.requests * 1000:.2f}" if contender.requests else "-",
        )
    return table


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Drive an aiohttp application under several event loops.")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each loop (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=50, help="concurrent clients (default: %(default)s)")
    parser.add_argument("--loops", default="goloop,asyncio", help="of goloop, asyncio, uvloop (default: %(default)s)")
    parser.add_argument("--app", type=Path, default=APP, help="the application to serve (default: %(default)s)")
    options = parser.parse_args(argv)
    options.loops = options.loops.split(",")
    for loop in options.loops:
        if loop not in LAUNCHERS:
            parser.error(f"no such loop: {loop!r}; there are {', '.join(LAUNCHERS)}")
        if importlib.util.find_spec(loop) is None:
            parser.error(f"{loop} is not installed for {sys.executable}")
    if len(set(options.loops)) < len(options.loops):
        parser.error("each loop may be given once")
    if options.seconds <= 0 or options.clients <= 0:
        parser.error("--seconds and --clients must be more than 0")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    console = Console(highlight=False)
    columns = TextColumn("{task.description:>16}"), BarColumn(None), TextColumn("{task.percentage:>3.0f} %")
    animated = sys.stdout.isatty() and not console.is_dumb_terminal
    with Progress(*columns, console=console, transient=True, disable=not animated) as progress:
        bar = progress.add_task("starting", total=None)
        try:
            contenders = asyncio.run(compete(options, progress, bar))
        except ServerFailed as error:
            console.print(str(error), markup=False, soft_wrap=True)
            return 1

    console.print(make_table(contenders, options))
    for contender in contenders:
        problems = contender.problems()
        for problem in problems[:SHOWN_ERRORS]:
            console.print(f"{contender.loop}: {problem}", markup=False, soft_wrap=True, style="red")
        if len(problems) > SHOWN_ERRORS:
            console.print(f"{contender.loop}: and {len(problems) - SHOWN_ERRORS} more", style="red")
    if any(contender.problems() for contender in contenders):
        console.print("FAILED", style="bold red")
        return 1
    total = sum(contender.requests for contender in contenders)
    console.print(f"All {total} responses were right, and each server stopped gracefully.", style="green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
