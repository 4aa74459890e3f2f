"""gunicorn's workers side by side: goloop's GoroutineWorker, gevent and gthread, under wrk.

    python benchmarks/wsgi.py [--repeats 7] [--seconds 5] [--soak 30] [--views hello,queries,orm] [--workers ...]

The application is wsgi_app.py: Django with PostgreSQL, by psycopg. The goals are for `hello` and `queries`. Each run
has a gunicorn of its own with one worker process, which is warmed up first, then by the same clients, so that their
connections to the database are open. The workers take turns. Processor time is the worker process's. At the end each
worker has to serve each view for --soak seconds without a single error. Needs wrk and PostgreSQL (Debian: apt install
wrk postgresql), and the packages of the extras `test` and `bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import harness
import processes
from harness import Case, Result, Sample
from rich.console import Console
from rich.table import Table

sys.path.append(str(processes.HERE.parent / "compat_tests" / "e2e"))  # it starts the database

CONNECTIONS = 40  # each of them has a connection to the database
WORKERS = {
    "goloop": ["-k", "goloop.contrib.gunicorn.GoroutineWorker"],
    "gevent": ["-k", "gevent"],
    "gthread": ["-k", "gthread", "--threads", str(CONNECTIONS)],
}
GOALS_FOR = ("hello", "queries")
FASTER, CHEAPER = 1.2, 0.9  # the goals, against gevent
SLACK = 1  # seconds for which the load goes on behind the measurement
OUT = Path(__file__).parent / "results" / "wsgi.json"


def cpu_of(pid: int) -> float:
    """Processor seconds of a live process, all its threads."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


def wrk_command(address: str, path: str, connections: int, seconds: float) -> list[str]:
    """wrk counts whole seconds."""
    program = shutil.which("wrk")
    if program is None:
        raise harness.Unavailable("wrk is missing (Debian: apt install wrk)")
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(processes.NATIVE / "report.lua")]
    return [program, *options, f"http://127.0.0.1:{address}{path}"]


class Gunicorn:
    """A gunicorn with one worker process, as a context manager. address: its port; pid: the worker's."""

    def __init__(self, worker: str, environ: dict[str, str]) -> None:
        command = [sys.executable, "-m", "gunicorn", *WORKERS[worker], "--workers", "1", "--bind", "127.0.0.1:0"]
        command += ["--keep-alive", "30", "--no-control-socket", "wsgi_app:app"]
        paths = os.pathsep.join(filter(None, [str(processes.HERE), os.environ.get("PYTHONPATH")]))
        self.gunicorn = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ, "PYTHONPATH": paths}
        )
        self.log: list[str] = []
        self.address = self._wait_for(r"Listening at: http://127.0.0.1:(\d+)")
        self.pid = int(self._wait_for(r"Booting worker with pid: (\d+)"))
        self._reader = threading.Thread(target=self._read_on)
        self._reader.start()

    def _wait_for(self, pattern: str) -> str:
        assert self.gunicorn.stderr is not None
        for line in self.gunicorn.stderr:
            self.log.append(line)
            found = re.search(pattern, line)
            if found:
                return found[1]
        self.gunicorn.wait()
        raise RuntimeError(f"gunicorn did not start:\n{''.join(self.log)}")

    def so_far(self) -> tuple[float, float, int]:
        """The time, the worker's processor time, and how many requests it has got."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.address}/served") as answer:
            requests = int(answer.read())
        return time.perf_counter(), cpu_of(self.pid), requests

    def _read_on(self) -> None:
        assert self.gunicorn.stderr is not None
        self.log.extend(self.gunicorn.stderr)

    def __enter__(self) -> Gunicorn:
        return self

    def __exit__(self, *exc: object) -> None:
        self.gunicorn.terminate()
        self.gunicorn.wait()
        self._reader.join()
        assert self.gunicorn.stderr is not None
        self.gunicorn.stderr.close()
        errors = [line for line in self.log if "[ERROR]" in line or "Traceback" in line]
        if errors and exc[0] is None:
            raise RuntimeError(f"the worker had errors:\n{''.join(self.log)}")


@contextlib.contextmanager
def database() -> Iterator[dict[str, str]]:
    """A PostgreSQL of the benchmark's own, with the table; yields what the application has to know."""
    services: Any = importlib.import_module("services")
    trustme: Any = importlib.import_module("trustme")

    with services.postgres(trustme.CA(), connections=4 * CONNECTIONS) as server:
        fields = (str(server.folder), str(server.port), server.user, server.database)  # by its Unix socket
        environ = {"BENCH_POSTGRES": "|".join(fields)}
        subprocess.run([sys.executable, str(processes.HERE / "wsgi_app.py")], env={**os.environ, **environ}, check=True)
        yield environ


def measure(environ: dict[str, str], view: str, warmup: float, seconds: float, worker: str) -> Sample:
    if worker != "gthread" and importlib.util.find_spec(worker) is None:
        raise harness.Unavailable(f"{worker} is not installed")
    command = functools.partial(wrk_command, path=f"/{view}", connections=CONNECTIONS)
    with Gunicorn(worker, environ) as server:
        subprocess.run(command(server.address, seconds=warmup), stdout=subprocess.DEVNULL, check=True)
        load = subprocess.Popen(
            command(server.address, seconds=warmup + seconds + SLACK), stdout=subprocess.PIPE, text=True
        )
        with load:
            time.sleep(warmup)
            begun, cpu, served = server.so_far()
            time.sleep(seconds)
            ended, cpu_then, served_then = server.so_far()
            got = json.loads(load.communicate(timeout=processes.PATIENCE)[0].splitlines()[-1])
    if got["lost"]:
        raise RuntimeError(f"{worker}, {view}: {got['lost']} requests failed")
    requests = served_then - served
    return Sample(requests / (ended - begun), (cpu_then - cpu) / requests, p50=got["p50"], p99=got["p99"])


def _range(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    middle = form.format(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{form.format(min(values))}-{form.format(max(values))}]"


def show(results: Sequence[Result], workers: Sequence[str], console: Console) -> None:
    """Medians with minimum and maximum. Ratios are taken pair by pair within a round."""
    table = Table(title="median [minimum-maximum]; ratios to gevent, pair by pair")
    for head in ("view", "worker", "requests/s", "CPU µs/request", "p50 ms", "p99 ms", "requests/s", "CPU", "p99"):
        table.add_column(head, justify="left" if head in ("view", "worker") else "right")
    for result in results:
        table.add_section()
        for worker in workers:
            figures: list[tuple[str, float, str]] = [
                ("rate", 1, "{:.0f}"),
                ("cpu", 1e6, "{:.1f}"),
                ("p50", 1e-3, "{:.1f}"),
                ("p99", 1e-3, "{:.1f}"),
            ]
            line = [_range([v * unit for v in result.values(worker, name)], form) for name, unit, form in figures]
            for name in ("rate", "cpu", "p99"):
                pairs = zip(result.values(worker, name), result.values("gevent", name), strict=False)
                line.append("" if worker == "gevent" else _range([a / b for a, b in pairs], "{:.2f}"))
            table.add_row(result.name, worker, *line)
    console.print(table)


def reached(result: Result) -> list[str]:
    """Which goals against gevent are missed."""
    rate, cpu, p99 = (
        statistics.median(
            a / b for a, b in zip(result.values("goloop", name), result.values("gevent", name), strict=True)
        )
        for name in ("rate", "cpu", "p99")
    )
    missed = []
    if rate < FASTER:
        missed.append(f"{rate:.2f} of gevent's requests/s, and not {FASTER}")
    if cpu > CHEAPER:
        missed.append(f"{cpu:.2f} of gevent's processor time, and not {CHEAPER}")
    if p99 > 1:
        missed.append(f"{p99:.2f} of gevent's p99")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="rounds; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="length of a run; default: %(default)s")
    parser.add_argument("--warmup", type=float, default=2, help="seconds before it; default: %(default)s")
    parser.add_argument("--soak", type=float, default=30, help="seconds without an error at the end; 0: none")
    parser.add_argument("--views", default="hello,queries,orm", help="default: %(default)s")
    parser.add_argument("--workers", default=",".join(WORKERS), help="default: %(default)s")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    workers, views = args.workers.split(","), args.views.split(",")
    with database() as environ:
        run = functools.partial(functools.partial, measure, environ)
        cases = [Case("wsgi", view, "request", run(view, args.warmup, args.seconds)) for view in views]
        env = harness.environment(("goloop", "gunicorn", "gevent", "greenlet", "django", "psycopg"))
        results = harness.interleave(cases, workers, args.repeats, console)
        env["load_after"] = os.getloadavg()[0]
        settings: dict[str, Any] = {"repeats": args.repeats, "seconds": args.seconds, "contestants": workers}
        harness.save(OUT, env, settings, results)
        show(results, workers, console)
        console.print(f"load average {env['load_before']:.1f} before, {env['load_after']:.1f} after; written: {OUT}")
        for result in results:
            if {"goloop", "gevent"} <= set(workers) and result.name in GOALS_FOR:
                console.print(f"{result.name}: {'; '.join(reached(result)) or 'all goals are reached'}")
        if args.soak:
            for worker in workers:
                for view in views:
                    sample = measure(environ, view, args.warmup, args.soak, worker)
                    console.print(
                        f"{worker}, {view}: {sample.rate * args.soak:.0f} requests in {args.soak:g} s, no error"
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
