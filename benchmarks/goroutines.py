"""Goroutines and channels side by side with gevent, asyncio, and Go where a Go toolchain is installed.

    python benchmarks/goroutines.py [--repeats 5] [--seconds 0.5] [--only spawn,serve]

The harness is run.py's: fresh processes, contestants in turns. Workloads are in benchmarks/green. The echo server in
blocking style is driven by the native load generator.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import harness
import processes
import report
from green import OPERATIONS, TOOLS
from harness import Case, Sample, Unavailable
from rich.console import Console

CONTESTANTS = ["asyncio", "gevent", "goloop", "Go"]
CONNECTIONS, SIZE = 100, 1024
OUT = Path(__file__).parent / "results" / "goroutines.json"


@functools.cache
def go_program() -> str:
    compiler = shutil.which("go")
    if compiler is None:
        raise Unavailable("no Go toolchain (Debian: apt install golang-go)")
    program = processes.build_directory() / "green-go"
    source = str(processes.NATIVE / "green.go")
    done = subprocess.run([compiler, "build", "-o", str(program), source], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"green.go does not compile: {done.stderr.strip()[-300:]}")
    return str(program)


def command(contestant: str, workload: str, warmup: float, seconds: float) -> list[str]:
    arguments = [workload, str(warmup), str(seconds)]
    if contestant == "Go":
        return [go_program(), *arguments]
    if contestant != "asyncio" and importlib.util.find_spec(contestant) is None:
        raise Unavailable(f"{contestant} is not installed")
    return [sys.executable, str(processes.HERE / "green_child.py"), contestant, *arguments]


def operations(workload: str, warmup: float, seconds: float, contestant: str) -> Sample:
    line = command(contestant, workload, warmup, seconds)
    got = json.loads(processes.output_of(line, seconds + processes.PATIENCE))
    return Sample(got["operations"] / got["seconds"], got["cpu"] / got["operations"])


def memory(contestant: str) -> Sample:
    return Sample(rate=0, memory=json.loads(processes.output_of(command(contestant, "park", 0, 0), 120))["memory"])


def echo(warmup: float, seconds: float, contestant: str) -> Sample:
    with processes.Server(command(contestant, "serve", 0, 0)) as server:
        return processes.drive(server, "tcp", CONNECTIONS, SIZE, warmup, seconds)


def without(have: Sequence[str]) -> tuple[str, ...]:
    return tuple(contestant for contestant in CONTESTANTS if contestant not in have)


def all_cases(warmup: float, seconds: float) -> list[Case]:
    cases = [
        Case("goroutines", title, "operation", functools.partial(operations, name, warmup, seconds))
        for name, title in OPERATIONS.items()
    ]
    cases += [
        Case("tools", title, "operation", functools.partial(operations, name, warmup, seconds), without(have))
        for name, (title, have) in TOOLS.items()
    ]
    title = f"echo in blocking style, {CONNECTIONS} connections"
    cases.append(Case("goroutines", title, "message", functools.partial(echo, warmup, seconds)))
    cases.append(Case("goroutines", "20,000 parked, bytes each", "goroutine", memory, figure="memory"))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a run; default: %(default)s")
    parser.add_argument("--only", default="", help="parts of the names of cases, separated by commas")
    parser.add_argument("--against", default=",".join(CONTESTANTS), help="default: %(default)s")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    words = args.only.split(",")
    cases = [case for case in all_cases(0.2, args.seconds) if any(word in case.name for word in words)]
    contestants = args.against.split(",")
    env = harness.environment(("goloop", "gevent", "greenlet"))
    results = harness.interleave(cases, contestants, args.repeats, console)
    env["load_after"] = os.getloadavg()[0]
    harness.save(OUT, env, {"repeats": args.repeats, "seconds": args.seconds, "contestants": contestants}, results)
    report.show(results, contestants, console)


if __name__ == "__main__":
    main()
