"""Instructions per operation, counted by callgrind: for machines too noisy to time anything.

    python benchmarks/instructions.py [--loops uvloop,goloop|all] [--keep DIRECTORY] [WORKLOAD ...]

Each workload runs twice, with different numbers of operations, and the difference counts: start-up cancels out. Only
user space is counted, the system calls' own work is not. --keep leaves callgrind's files for callgrind_annotate. A peer
that does not work under valgrind is left out of the row, and the reason is said.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import loops
import processes
from harness import Failed
from rich.console import Console
from rich.progress import track
from rich.table import Table

BURST = 10_000  # callbacks; more than the processor's caches hold would not change what is counted
# name: (body, parameters, operations of the first and the second run)
WORK: dict[str, tuple[str, dict[str, object], int, int]] = {
    "call_soon": ("scheduling:call_soon", {}, 2_000, 12_000),
    "call_soon_batch": ("scheduling:call_soon_batch", {}, 2_000, 12_000),
    "burst_0": ("scheduling:call_soon_burst", {"arguments": 0, "count": BURST}, 1, 4),
    "burst_1": ("scheduling:call_soon_burst", {"arguments": 1, "count": BURST}, 1, 4),
    "burst_3": ("scheduling:call_soon_burst", {"arguments": 3, "count": BURST}, 1, 4),
    "threadsafe": ("scheduling:call_soon_threadsafe", {"threads": 1}, 2_000, 12_000),
    "timer_set": ("scheduling:timer", {"operation": "set", "pending": 1000}, 2_000, 12_000),
    "timer_fire": ("scheduling:timer", {"operation": "fire", "pending": 1000}, 2_000, 12_000),
    "task": ("scheduling:task", {}, 1_000, 6_000),
    "sleep_zero": ("scheduling:sleep_zero", {}, 2_000, 12_000),
    "gather": ("scheduling:gather", {"count": 100}, 20, 120),
    "ping_pong": ("scheduling:future_ping_pong", {}, 1_000, 6_000),
    "getaddrinfo": ("names:getaddrinfo", {"host": "127.0.0.1", "concurrency": 1}, 1_000, 6_000),
    "resolve": ("names:getaddrinfo", {"host": "localhost", "concurrency": 1}, 200, 1_200),
    "spawn": ("process:spawn", {"concurrency": 1}, 5, 25),
    "cat": ("process:cat", {}, 50, 250),
}
# name: (body, parameters, kind of load, connections)
SERVE: dict[str, tuple[str, dict[str, object], str, int]] = {
    "echo": ("echo:tcp", {"style": "protocol"}, "tcp", 10),
    "echo_1": ("echo:tcp", {"style": "protocol"}, "tcp", 1),
    "echo_buffered": ("echo:tcp", {"style": "buffered"}, "tcp", 10),
    "echo_streams": ("echo:tcp", {"style": "streams"}, "tcp", 10),
    "echo_sock": ("echo:tcp", {"style": "sock"}, "tcp", 10),
    "writelines": ("echo:tcp", {"style": "writelines"}, "tcp", 10),
    "writes": ("echo:tcp", {"style": "writes"}, "tcp", 10),
    "connect": ("echo:tcp", {"style": "once"}, "churn", 10),
    "tls": ("echo:tls", {}, "tls", 10),
    "udp": ("echo:udp", {}, "udp", 10),
    "websocket": ("web:serve", {}, "websocket", 10),
    "two_writes": ("echo:tcp", {"style": "two"}, "tcp", 10),
    "sends": ("bulk:source", {"streams": True}, "source", 1),
    "receives": ("bulk:sink", {"streams": True}, "sink", 1),
    "aiohttp": ("web:serve", {}, "http", 10),
    "uvicorn": ("asgi:serve", {}, "http", 10),
}
SECONDS = (1, 4)  # of load, for servers
SIZES = {"churn": 100, "source": 1 << 16, "sink": 1 << 16}  # bytes of a message; of all others 1024
PATIENCE = 300  # seconds for one run; valgrind is some fifty times slower


def callgrind(command: list[str], name: str, directory: Path) -> list[str]:
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory / name}", *command]


def collected(stderr: str) -> int:
    found = re.search(r"Collected : (\d+)", stderr)
    if found is None:
        raise Failed(stderr.strip()[-300:] or "callgrind counted nothing")
    return int(found[1])


def between(totals: list[int], operations: list[int]) -> float:
    if operations[1] <= operations[0]:
        raise Failed("not more operations in the longer run")
    return (totals[1] - totals[0]) / (operations[1] - operations[0])


def count_work(loop: str, name: str, directory: Path) -> float:
    body, parameters, *operations = WORK[name]
    totals = []
    for n in operations:
        command = callgrind(
            processes.child_command(loop, body, {**parameters, "operations": n}), f"{name}.{loop}.{n}", directory
        )
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end within {PATIENCE} s") from None
        if done.returncode:
            raise Failed(processes.explain(done.returncode, re.sub(r"(?m)^==.*\n", "", done.stderr)))
        totals.append(collected(done.stderr))
    part = BURST if name.startswith("burst") else 1
    return between(totals, operations) / part


def load_command(kind: str, address: str, connections: int, seconds: int) -> list[str]:
    if kind == "http":
        url = f"http://127.0.0.1:{address}/hello"
        return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(processes.NATIVE / "report.lua"), url]
    arguments = (kind, address, connections, SIZES.get(kind, 1024), 0, seconds, 0)
    return [str(processes.built("load")), *map(str, arguments)]


def count_server(loop: str, name: str, directory: Path) -> float:
    body, parameters, kind, connections = SERVE[name]
    totals, operations = [], []
    if kind == "tls":
        certificate, key = processes.certificate()
        parameters = {"certificate": certificate, "key": key}
    for seconds in SECONDS:
        command = callgrind(processes.child_command(loop, body, parameters), f"{name}.{loop}.{seconds}", directory)
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        watchdog = threading.Timer(PATIENCE, server.kill)
        watchdog.start()
        try:
            assert server.stdout is not None
            word, _, address = server.stdout.readline().strip().partition(" ")
            got = processes.output_of(load_command(kind, address, connections, seconds), PATIENCE) if word else ""
            server.send_signal(signal.SIGTERM)
            totals.append(collected(server.communicate()[1]))
            operations.append(json.loads(got.splitlines()[-1])["operations"])
        finally:
            watchdog.cancel()
            server.kill()
            server.communicate()
    return between(totals, operations)


def row(name: str, contestants: list[str], directory: Path, console: Console) -> list[str]:
    """The counts; goloop's in relation to uvloop's, and to the smallest of the other peers' counts."""
    counts: dict[str, float] = {}
    for loop in contestants:
        try:
            counts[loop] = (count_work if name in WORK else count_server)(loop, name, directory)
        except Failed as exc:
            if not loops.is_peer(loop):
                raise
            console.print(f"{name}, {loop}: {exc}", style="yellow", markup=False)
    cells = [f"{counts[loop]:,.0f}" if loop in counts else "-" for loop in contestants]
    mine, rival = counts.get(loops.SUBJECT), counts.get(loops.RIVAL)
    best = min((who for who in loops.others(contestants) if who in counts), key=counts.__getitem__, default=None)
    cells.append(f"{mine / rival:.2f}" if mine and rival else "-")
    cells.append(f"{mine / counts[best]:.2f} {best}" if mine and best else "-")
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=", ".join((*WORK, *SERVE)))
    parser.add_argument("--loops", default="uvloop,goloop", help="with commas, or all; default: %(default)s")
    parser.add_argument("--keep", type=Path, default=processes.build_directory())
    args = parser.parse_args()
    everyone = [name for name in loops.default_contestants() if name != loops.NATIVE]
    contestants = everyone if args.loops == "all" else args.loops.split(",")
    args.keep.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONHASHSEED"] = "0"
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("workload", *contestants, f"/ {loops.RIVAL}", "/ best other")
    for name in track(args.workloads or [*WORK, *SERVE], "counting", console=console, transient=True):
        table.add_row(name, *row(name, contestants, args.keep, console))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
