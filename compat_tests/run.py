"""Runs other people's test suites on asyncio, uvloop and goloop, and holds the results against expected/.

    python compat_tests/run.py --suite cpython --loops asyncio,uvloop,goloop [--select PATTERN]

Exit status: 0 when goloop (or each loop of --strict) has no unexpected outcome, 1 otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import expected
import report
from rich.console import Console
from supervise import Job, JobResult, Outcome, run_job

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".compat"
RESULTS = CACHE / "results"  # the last whole run of each suite on each Python, for --table
SUITES = ("cpython", "uvloop", "aiohttp", "asyncssh", "aiosmtpd", "e2e")
LOOPS = ("asyncio", "uvloop", "goloop")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="all", help=f"of {', '.join(SUITES)}; several with commas; default: all")
    parser.add_argument("--loops", default=",".join(LOOPS), help="default: %(default)s")
    parser.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only these tests: MODULE or MODULE::PART, globs with * and ?, e.g. test_events, 'test_e*::*pipe*'",
    )
    parser.add_argument("--strict", default="goloop", help="loops that decide the exit status; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="modules at once; default: %(default)s")
    parser.add_argument("--timeout", type=float, help="seconds for each test; default: the suite's")
    parser.add_argument("--reruns", type=int, default=0, help="run what failed again, N times, and report it as flaky")
    parser.add_argument("--with-left-out", action="store_true", help="run the left-out tests too, to check that list")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="for the table, at its marks if FILE has them")
    parser.add_argument("--table", action="store_true", help="no run: one table of the whole runs so far")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the failures' own texts")
    args = parser.parse_args(argv)
    args.suites = list(SUITES) if args.suite == "all" else args.suite.split(",")
    args.loops = args.loops.split(",")
    for given, known in ((args.suites, SUITES), (args.loops, LOOPS)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is not one of {', '.join(known)}")
    return args


def globs(patterns: list[str]) -> list[str]:
    """Turn --select patterns into globs over test ids."""
    found = []
    for pattern in patterns:
        module, _, part = pattern.partition("::")
        found.append(f"{module}::*{part}*" if part else f"{module}::*")
        if not part:
            found.append(module)
    return found


class Run:
    """One suite on the running Python: its jobs, their results, the verdicts."""

    def __init__(self, suite: Any, args: argparse.Namespace, console: Console) -> None:
        self.suite = suite
        self.args = args
        self.console = console
        self.expected = expected.load(suite.NAME)
        self.outcomes: dict[str, dict[str, Outcome]] = {loop: {} for loop in args.loops}
        self.flaky: list[str] = []
        self.left_out: set[str] = set()
        self.modules_out = 0
        self.lock = threading.Lock()
        if hasattr(suite, "prepare"):
            suite.prepare(lambda text: console.print(f"{suite.NAME}: {text}", highlight=False))

    def modules(self) -> list[str]:
        names: list[str] = self.suite.modules(CACHE)
        if not self.args.with_left_out:
            self.modules_out = sum(map(self.expected.is_left_out, names))
            names = [n for n in names if not self.expected.is_left_out(n)]
        wanted = [p.partition("::")[0] for p in self.args.select]
        return [n for n in names if not wanted or any(expected.matches(n, w) for w in wanted)]

    def log(self, loop: str, module: str, attempt: int = 0) -> Path:
        name = f"{self.suite.NAME}-{expected.PYTHON}-{loop}"
        return CACHE / "logs" / name / (f"{module}.log" if not attempt else f"{module}.again{attempt}.log")

    def job(self, loop: str, module: str) -> Job:
        job: Job = self.suite.job(CACHE, loop, module)
        lists = job.lists if self.args.with_left_out else self.expected.globs()
        return replace(job, lists=lists, select=globs(self.args.select), limit=self.args.timeout or job.limit)

    def one(self, loop: str, module: str) -> None:
        job = self.job(loop, module)
        result = run_job(job, self.log(loop, module))
        for attempt in range(1, self.args.reruns + 1):
            failed = [name for name, o in result.outcomes.items() if o.status == "failed"]
            if not failed:
                break
            again = run_job(replace(job, select=failed), self.log(loop, module, attempt))
            for name in failed:
                if name in again.outcomes and again.outcomes[name].status == "passed":
                    result.outcomes[name] = again.outcomes[name]
                    self.flaky.append(f"{loop}: {name}")
        self.done(loop, module, result)

    def done(self, loop: str, module: str, result: JobResult) -> None:
        with self.lock:
            self.outcomes[loop].update(result.outcomes)
            self.left_out |= result.left_out
            if not result.outcomes:
                return
            failed = {n: o for n, o in result.outcomes.items() if o.status == "failed"}
            style = "red" if failed else "green"
            ran = f"{len(result.outcomes)} run, {len(failed)} failed, {result.seconds:.1f} s"
            self.console.print(f"[{style}]{loop:8}[/] {module:28} {ran}", highlight=False)
            if self.args.verbose:
                for name, outcome in failed.items():
                    self.console.print(f"--- {loop} {name}\n{outcome.message}", markup=False, highlight=False)

    def run(self) -> report.Row:
        started = time.monotonic()
        units = [(loop, module) for module in self.modules() for loop in self.args.loops]
        jobs = 1 if getattr(self.suite, "SERIAL", False) else max(1, self.args.jobs)
        with ThreadPoolExecutor(jobs) as pool:
            for future in [pool.submit(self.one, *unit) for unit in units]:
                future.result()
        verdicts = {}
        for loop in self.args.loops:
            stock = self.outcomes.get("asyncio") if loop != "asyncio" else None
            listed = self.expected.failures.get(loop, {})
            whole = not self.args.select
            verdicts[loop] = expected.judge(loop, self.outcomes[loop], stock, listed, whole=whole)
        return report.Row(
            self.suite.TITLE,
            self.suite.version(),
            platform.python_version(),
            verdicts,
            self.outcomes,
            self.notes(verdicts),
            time.monotonic() - started,
        )

    def notes(self, verdicts: dict[str, expected.Verdict]) -> str:
        """Return what a reader of the numbers should know."""
        if hasattr(self.suite, "note"):
            return str(self.suite.note())
        touched = max((verdict.touched for verdict in verdicts.values()), default=0)
        return (
            f"{self.modules_out} modules and {len(self.left_out)} tests left out by list; {touched} of those run make "
            "a loop of their own through the replaced names"
        )


def tell(run: Run, row: report.Row, console: Console) -> None:
    for loop, verdict in row.verdicts.items():
        strict = loop in run.args.strict.split(",")
        for line in verdict.errors:
            style = "red" if strict else "dim"
            console.print(f"[{style}]{loop}[/]: ", end="")
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in run.flaky:
        console.print(f"[yellow]flaky[/]: {line}: passed when it was run again", highlight=False)


def store(name: str, row: report.Row, args: argparse.Namespace) -> None:
    """Keep the columns of a run that was whole, and of goloop as it is by default, for --table.

    Those of other loops stay from earlier runs, as long as these were of the same versions.
    """
    if args.select or args.with_left_out or any(key.startswith("GOLOOP_") for key in os.environ):
        return
    path = RESULTS / f"{name}-{expected.PYTHON}.json"
    (entry,) = report.as_json([row])
    if path.exists():
        (before,) = json.loads(path.read_text())
        same = ["version", "python", *(["note"] if row.version == report.PINNED else [])]
        if all(before[key] == entry[key] for key in same):
            for part in ("loops", "failures"):
                entry[part] = {**before[part], **entry[part]}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([entry], indent=1) + "\n")


def stored() -> list[report.Row]:
    """Return what store() kept, in the order of the suites and Pythons."""
    paths = [path for suite in SUITES for path in sorted(RESULTS.glob(f"{suite}-*.json"))]
    return [row for path in paths for row in report.rows_from_json(path)]


def write(rows: list[report.Row], args: argparse.Namespace, console: Console) -> None:
    console.print()
    report.show(rows, args.loops, console)
    if args.json:
        args.json.write_text(json.dumps(report.as_json(rows), indent=1) + "\n")
    if args.markdown:
        report.put(report.markdown(rows, args.loops), args.markdown)


def main() -> int:
    args = parse()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if args.table:
        write(stored(), args, console)
        return 0
    rows, wrong = [], 0
    for name in args.suites:
        run = Run(importlib.import_module(f"suites.{name}"), args, console)
        row = run.run()
        rows.append(row)
        store(name, row, args)
        tell(run, row, console)
        wrong += sum(len(row.verdicts[loop].errors) for loop in args.strict.split(",") if loop in row.verdicts)
        wrong += not any(row.outcomes.values())  # a run without a single test proves nothing
    write(rows, args, console)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
