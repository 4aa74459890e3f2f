"""What blocking handlers do to the others: asyncio, uvloop, goloop, and goloop with handoff.

    python benchmarks/handoff.py [--seconds 6] [--clients 8] [--kinds slow,fetch,query,child] [--loops ...]

For each loop and kind a fresh server (examples/blocking_handler.py) gets `clients` requests of 0.3 s at a time, over
and over, while another client asks for /health 100 times a second. Prints how long /health took, and how many slow
requests were answered in relation to the ideal. The clients are threads of this process with blocking sockets.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import subprocess
import sys
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

APP = Path(__file__).parent.parent / "examples" / "blocking_handler.py"
SERVERS = {
    "asyncio": ["--loop", "asyncio"],
    "uvloop": ["--loop", "uvloop"],
    "goloop": ["--loop", "goloop"],
    "goloop handoff": ["--loop", "goloop", "--handoff"],
}
SLOW = 0.3  # seconds
PERIOD = 0.01  # seconds between two requests for /health


def ask(connection: http.client.HTTPConnection, path: str) -> float:
    """Return how many seconds the answer took."""
    started = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200 or body != b"ok":
        raise RuntimeError(f"{path}: {response.status} {body!r}")
    return time.perf_counter() - started


def ask_slow(port: int, path: str, until: float, counts: list[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < until:
        ask(connection, path)
        count += 1
    counts.append(count)
    connection.close()


def measure(loop: str, kind: str, clients: int, seconds: float) -> tuple[list[float], float, str]:
    """Return the latencies of /health, the slow requests' throughput as a part of the ideal, and what /fetch uses."""
    with subprocess.Popen([sys.executable, APP, *SERVERS[loop]], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rpartition(":")[2])
            client = server.stdout.readline().strip()
            health = http.client.HTTPConnection("127.0.0.1", port)
            ask(health, "/health")
            counts: list[int] = []
            started = time.perf_counter()
            until = started + seconds
            threads = [
                threading.Thread(target=ask_slow, args=(port, f"/{kind}", until, counts)) for _ in range(clients)
            ]
            for thread in threads:
                thread.start()
            latencies = []
            while time.perf_counter() < until:
                took = ask(health, "/health")
                latencies.append(took)
                time.sleep(max(0.0, PERIOD - took))
            for thread in threads:
                thread.join()
            elapsed = time.perf_counter() - started
            health.close()
        finally:
            server.terminate()
    if len(counts) < clients:
        raise RuntimeError(f"{loop}: a client failed")
    return sorted(latencies), sum(counts) / (clients * elapsed / SLOW), client


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what blocking handlers do to the others.")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each server (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="slow requests at a time (default: %(default)s)")
    parser.add_argument("--kinds", default="slow,fetch,query,child", help="(default: %(default)s)")
    parser.add_argument("--loops", default=",".join(SERVERS), help="(default: %(default)s)")
    options = parser.parse_args()
    console = Console(highlight=False)
    table = Table(title=f"{options.clients} blocking requests of {SLOW} s at a time, Python {sys.version.split()[0]}")
    table.add_column("handler")
    table.add_column("loop")
    for heading in ("/health p50 ms", "p99 ms", "max ms", "slow requests / ideal"):
        table.add_column(heading, justify="right")
    for kind in options.kinds.split(","):
        for loop in options.loops.split(","):
            if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
                continue
            latencies, part, client = measure(loop, kind, options.clients, options.seconds)
            p50, p99 = (latencies[int(len(latencies) * p)] * 1000 for p in (0.5, 0.99))
            table.add_row(f"/{kind}", loop, f"{p50:.1f}", f"{p99:.1f}", f"{latencies[-1] * 1000:.1f}", f"{part:.2f}")
            table.caption = client
    console.print(table)


if __name__ == "__main__":
    main()
