"""What every benchmark shares: cases, interleaved runs, samples and their statistics.

A case is measured for several contestants (loops, or whatever a benchmark compares) in turns: within a repeat each
contestant runs once, in a fresh process, so that the drift of a shared machine meets all of them. Ratios are taken
pair by pair within a repeat. The spread of a control that does not change says how noisy the machine was.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@dataclass
class Sample:
    """One run of one contestant."""

    rate: float  # operations per second
    cpu: float | None = None  # processor seconds per operation, of what is measured
    client_cpu: float | None = None  # the same of the load generator
    p50: float | None = None  # microseconds
    p99: float | None = None
    memory: float | None = None  # bytes per idle connection
    lost: int = 0


@dataclass(frozen=True)
class Case:
    """A workload that is measured. `run` takes a contestant's name and returns a Sample, or raises Unavailable."""

    family: str
    name: str
    unit: str  # what one operation is
    run: Callable[[str], Sample]
    contestants: tuple[str, ...] = ()  # empty: all that were asked for
    target: float | None = None  # what goloop / uvloop should be at least
    figure: str = "rate"  # the field of Sample that is compared; less is better for all but rate


class Unavailable(Exception):
    """A run is not possible here, for the reason given."""


@dataclass
class Result:
    """The samples of one case, by contestant, in the order of the repeats."""

    family: str
    name: str
    unit: str
    target: float | None = None
    figure: str = "rate"
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def values(self, contestant: str, figure: str = "") -> list[float]:
        got = (getattr(sample, figure or self.figure) for sample in self.samples.get(contestant, ()))
        return [value for value in got if value is not None]

    def median(self, contestant: str, figure: str = "") -> float | None:
        values = self.values(contestant, figure)
        return statistics.median(values) if values else None

    def spread(self, contestant: str) -> float | None:
        """(maximum - minimum) / median."""
        values = self.values(contestant)
        return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else None

    def ratios(self, one: str, other: str) -> list[float]:
        """one / other, pair by pair: the runs of one repeat met the same weather."""
        pairs = zip(self.values(one), self.values(other), strict=False)
        return [a / b for a, b in pairs if b]

    def ratio(self, one: str, other: str) -> float | None:
        ratios = self.ratios(one, other)
        return statistics.median(ratios) if ratios else None


def interleave(cases: Sequence[Case], contestants: Sequence[str], repeats: int, console: Console) -> list[Result]:
    """Measure every case `repeats` times, contestants in turns, with a progress bar."""
    plan = [
        (case, [c for c in contestants if not case.contestants or c.partition("+")[0] in case.contestants])
        for case in cases
    ]
    results = [Result(case.family, case.name, case.unit, case.target, case.figure) for case in cases]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=repeats * sum(len(who) for _, who in plan))
        for (case, who), result in zip(plan, results, strict=True):
            missing: set[str] = set()
            for repeat in range(repeats):
                # Everyone has each place in the order once in a while.
                turns = who[repeat % len(who) :] + who[: repeat % len(who)] if who else []
                for contestant in turns:
                    progress.update(task, description=f"{case.family}: {case.name} [{contestant}]")
                    if contestant not in missing:
                        try:
                            result.samples.setdefault(contestant, []).append(case.run(contestant))
                        except Unavailable as exc:
                            missing.add(contestant)
                            result.notes.append(f"{contestant}: {exc}")
                            console.print(f"[yellow]{case.family}: {case.name}, {contestant}: {exc}")
                    progress.advance(task)
    return results


def environment(packages: Iterable[str]) -> dict[str, Any]:
    """The machine and the versions, without which figures make no sense."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "versions": versions,
    }


def save(path: Path, env: dict[str, Any], settings: dict[str, Any], results: Sequence[Result]) -> None:
    """Write everything that was measured as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"environment": env, "settings": settings, "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(document) + "\n")


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[Result]]:
    """Read back what save() wrote: environment, settings, results."""
    document = json.loads(path.read_text())
    results = []
    for entry in document["results"]:
        entry["samples"] = {who: [Sample(**s) for s in samples] for who, samples in entry["samples"].items()}
        results.append(Result(**entry))
    return document["environment"], document["settings"], results


def quantity(value: float) -> str:
    """A rate in four or five characters."""
    for limit, divisor, suffix in ((1e6, 1e6, "M"), (1e3, 1e3, "k")):
        if value >= limit:
            return f"{value / divisor:.3g}{suffix}" if value / divisor < 1000 else f"{value / divisor:.0f}{suffix}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.exit("run benchmarks/run.py")
