"""Echo over TCP, side by side on several loops, in interleaved runs: make bench.

    python benchmarks/run.py [--loops asyncio,uvloop,goloop] [--connections 1,50] [--size 1024] [--repeats 5]

Every run has a fresh server process and a fresh client process. The client speaks epoll, not asyncio, keeps one
message in flight on each connection, and counts round trips. Loops take turns within a repeat, so that the drift of
a shared machine meets all of them; the spread of asyncio's column is the control.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import multiprocessing
import select
import socket
import statistics
import time
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

SPAWN = multiprocessing.get_context("spawn")


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def serve(loop: str, ports: Any) -> None:
    """Run an echo server on the loop of that name, for ever; its port goes to the queue."""
    if loop != "asyncio":
        importlib.import_module(loop).install()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def drive(port: int, connections: int, size: int, seconds: float, results: Any) -> None:
    """Echo messages of `size` bytes for `seconds`; round trips per second go to the queue."""
    message = b"x" * size
    poll = select.epoll()
    socks, left = {}, {}
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        socks[sock.fileno()] = sock
        left[sock.fileno()] = size
        poll.register(sock, select.EPOLLIN)
    for sock in socks.values():
        sock.sendall(message)
    trips, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        for fd, _ in poll.poll():
            left[fd] -= len(socks[fd].recv(1 << 18))
            if not left[fd]:
                left[fd] = size
                trips += 1
                socks[fd].sendall(message)
    results.put(trips / (time.monotonic() - started))


def measure(loop: str, connections: int, size: int, seconds: float) -> float:
    ports, results = SPAWN.Queue(), SPAWN.Queue()
    server = SPAWN.Process(target=serve, args=(loop, ports), daemon=True)
    server.start()
    client = SPAWN.Process(target=drive, args=(ports.get(timeout=30), connections, size, seconds, results))
    client.start()
    rate: float = results.get(timeout=seconds + 30)
    client.join()
    server.kill()
    server.join()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default="asyncio,uvloop,goloop")
    parser.add_argument("--connections", default="1,50")
    parser.add_argument("--size", type=int, default=1024, help="bytes a message; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a run; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    loops = args.loops.split(",")
    counts = [int(n) for n in args.connections.split(",")]

    rates: dict[tuple[int, str], list[float]] = {(n, loop): [] for n in counts for loop in loops}
    turns = [(n, loop) for _ in range(args.repeats) for n in counts for loop in loops]
    console = Console()
    for n, loop in track(turns, "measuring", console=console, transient=True):
        rates[n, loop].append(measure(loop, n, args.size, args.seconds))

    table = Table(title=f"TCP echo, {args.size} bytes: thousands of round trips per second, {args.repeats} runs each")
    for heading in ("connections", "loop", "minimum", "median", "maximum", *(f"/ {loop}" for loop in loops)):
        table.add_column(heading, justify="left" if heading == "loop" else "right")
    for n in counts:
        for loop in loops:
            got = rates[n, loop]
            # Pair by pair: the runs of one repeat met the same weather.
            ratios = [statistics.median(a / b for a, b in zip(got, rates[n, other], strict=True)) for other in loops]
            figures = (min(got), statistics.median(got), max(got))
            table.add_row(str(n), loop, *(f"{f / 1000:.1f}" for f in figures), *(f"{r:.2f}" for r in ratios))
    console.print(table)


if __name__ == "__main__":
    main()
