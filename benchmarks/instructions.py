"""Instructions per operation, counted by callgrind: for machines too noisy to time anything.

    python benchmarks/instructions.py [--loops uvloop,goloop] [--keep DIRECTORY] [WORKLOAD ...]

Each workload runs twice, with different numbers of operations, and the difference counts: start-up cancels out. Only
user space is counted, the system calls' own work is not. --keep leaves callgrind's files for callgrind_annotate.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import processes
from rich.console import Console
from rich.progress import track
from rich.table import Table

# name: (body, parameters, operations of the first and the second run)
WORK: dict[str, tuple[str, dict[str, object], int, int]] = {
    "call_soon": ("scheduling:call_soon", {}, 2_000, 12_000),
    "call_soon_batch": ("scheduling:call_soon_batch", {}, 2_000, 12_000),
    "threadsafe": ("scheduling:call_soon_threadsafe", {"threads": 1}, 2_000, 12_000),
    "timer_set": ("scheduling:timer", {"operation": "set", "pending": 1000}, 2_000, 12_000),
    "timer_fire": ("scheduling:timer", {"operation": "fire", "pending": 1000}, 2_000, 12_000),
    "task": ("scheduling:task", {}, 1_000, 6_000),
    "gather": ("scheduling:gather", {"count": 100}, 20, 120),
    "ping_pong": ("scheduling:future_ping_pong", {}, 1_000, 6_000),
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
    "aiohttp": ("web:serve", {}, "http", 10),
}
SECONDS = (1, 4)  # of load, for servers


def callgrind(command: list[str], name: str, directory: Path) -> list[str]:
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory / name}", *command]


def collected(stderr: str) -> int:
    found = re.search(r"Collected : (\d+)", stderr)
    if found is None:
        raise RuntimeError(stderr[-2000:])
    return int(found[1])


def count_work(loop: str, name: str, directory: Path) -> float:
    body, parameters, *operations = WORK[name]
    totals = []
    for n in operations:
        command = processes.child_command(loop, body, {**parameters, "operations": n})
        done = subprocess.run(callgrind(command, f"{name}.{loop}.{n}", directory), capture_output=True, text=True)
        totals.append(collected(done.stderr))
    between: float = (totals[1] - totals[0]) / (operations[1] - operations[0])
    return between


def count_server(loop: str, name: str, directory: Path) -> float:
    body, parameters, kind, connections = SERVE[name]
    totals, operations = [], []
    for seconds in SECONDS:
        if kind == "tls":
            certificate, key = processes.certificate()
            parameters = {"certificate": certificate, "key": key}
        command = callgrind(processes.child_command(loop, body, parameters), f"{name}.{loop}.{seconds}", directory)
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        if kind == "http":
            url = f"http://127.0.0.1:{address}/hello"
            load = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(processes.NATIVE / "report.lua"), url]
        else:
            arguments = (kind, address, connections, 1024 if kind != "churn" else 100, 0, seconds, 0)
            load = [str(processes.built("load")), *map(str, arguments)]
        got = subprocess.run(load, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
        server.send_signal(signal.SIGTERM)
        totals.append(collected(server.communicate()[1]))
        operations.append(json.loads(got.splitlines()[-1])["operations"])
    between: float = (totals[1] - totals[0]) / (operations[1] - operations[0])
    return between


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=", ".join((*WORK, *SERVE)))
    parser.add_argument("--loops", default="uvloop,goloop")
    parser.add_argument("--keep", type=Path, default=processes.build_directory())
    args = parser.parse_args()
    loops = args.loops.split(",")
    args.keep.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONHASHSEED"] = "0"
    console = Console()
    table = Table("workload", *loops, *((f"{loops[-1]}/{loops[0]}",) if len(loops) > 1 else ()))
    names = args.workloads or [*WORK, *SERVE]
    for name in track(names, "counting", console=console, transient=True):
        counts = [(count_work if name in WORK else count_server)(loop, name, args.keep) for loop in loops]
        last = (f"{counts[-1] / counts[0]:.2f}",) if len(loops) > 1 else ()
        table.add_row(name, *(f"{count:,.0f}" for count in counts), *last)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
