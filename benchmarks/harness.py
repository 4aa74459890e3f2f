"""What every benchmark shares: cases, interleaved runs, samples and their statistics.

A case is measured for several contestants (loops, or whatever a benchmark compares) in turns: within a repeat each
contestant runs once, in a fresh process, so that the drift of a shared machine meets all of them. Ratios are taken
pair by pair within a repeat. The spread of a control that does not change says how noisy the machine was.

A contestant that is a guest here is dropped from a family once it fails in it, with the reason, and its samples of
that case with it: figures of something that does not work count for nothing. Any other failure ends the run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@dataclass
class Sample:
    """One run of one contestant."""

    rate: float  # operations per second
    cpu: float | None = None  # processor seconds per operation, user and system, of all threads of what is measured
    system: float | None = None  # the kernel's part of cpu
    switches: float | None = None  # context switches per operation, voluntary and not, of the same threads
    client_cpu: float | None = None  # the same of the load generator
    p50: float | None = None  # microseconds
    p99: float | None = None
    memory: float | None = None  # bytes per idle connection
    lost: int = 0

    def per(self, part: float) -> Sample:
        """The same with another unit: an operation was so many of them."""
        scaled = replace(self, rate=self.rate * part)
        for name in ("cpu", "system", "switches", "client_cpu"):
            value = getattr(self, name)
            setattr(scaled, name, None if value is None else value / part)
        return scaled


@dataclass(frozen=True)
class Case:
    """A workload that is measured. `run` takes a contestant's name and returns a Sample, or raises Unavailable."""

    family: str
    name: str
    unit: str  # what one operation is
    run: Callable[[str], Sample]
    without: tuple[str, ...] = ()  # contestants that have nothing of the kind
    target: float | None = None  # what goloop / uvloop should be at least
    figure: str = "rate"  # the field of Sample that is compared; less is better for all but rate


class Unavailable(Exception):
    """A run is not possible here, for the reason given."""


class Failed(Exception):
    """What was measured gave a wrong answer, none in time, or crashed."""


Dropped = dict[tuple[str, str], str]  # by family and contestant: why


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
    dropped: dict[str, str] = field(default_factory=dict)  # contestants that failed in this family: how

    def values(self, contestant: str, figure: str = "") -> list[float]:
        got = (getattr(sample, figure or self.figure) for sample in self.samples.get(contestant, ()))
        return [value for value in got if value is not None]

    def median(self, contestant: str, figure: str = "") -> float | None:
        values = self.values(contestant, figure)
        return statistics.median(values) if values else None

    def spread(self, contestant: str, figure: str = "") -> float | None:
        """(maximum - minimum) / median."""
        values = self.values(contestant, figure)
        return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else None

    def ratios(self, one: str, other: str, figure: str = "") -> list[float]:
        """one / other, pair by pair: the runs of one repeat met the same weather."""
        pairs = zip(self.values(one, figure), self.values(other, figure), strict=False)
        return [a / b for a, b in pairs if b]

    def ratio(self, one: str, other: str, figure: str = "") -> float | None:
        ratios = self.ratios(one, other, figure)
        return statistics.median(ratios) if ratios else None

    def best(self, contestants: Iterable[str], figure: str = "") -> str | None:
        """Of these the one with the best median; None if none has a figure."""
        medians = {who: value for who in contestants if (value := self.median(who, figure)) is not None}
        choose = max if (figure or self.figure) == "rate" else min
        return choose(medians, key=medians.__getitem__) if medians else None


def turns(case: Case, contestants: Sequence[str], repeats: int) -> Iterator[str]:
    """Who runs, in which order: everyone has each place once in a while."""
    who = [contestant for contestant in contestants if contestant.partition("+")[0] not in case.without]
    for repeat in range(repeats if who else 0):
        first = repeat % len(who)
        yield from who[first:] + who[:first]


def measure(case: Case, result: Result, contestant: str, is_guest: Callable[[str], bool], dropped: Dropped) -> str:
    """Add one sample to the result, and return what should be said: nothing, or why there is none."""
    try:
        result.samples.setdefault(contestant, []).append(case.run(contestant))
        return ""
    except Unavailable as exc:
        result.samples.pop(contestant)
        result.notes.append(f"{contestant}: {exc}")
        return str(exc)
    except Exception as exc:  # a fault of the benchmark itself meets the others as well, and ends the run
        if not is_guest(contestant):
            exc.add_note(f"{contestant} fails in {case.family}: {case.name}")
            raise
        reason = dropped[case.family, contestant] = f"{case.name}: {exc}"
        result.samples.pop(contestant)
        return reason


def interleave(
    cases: Sequence[Case],
    contestants: Sequence[str],
    repeats: int,
    console: Console,
    is_guest: Callable[[str], bool] = lambda contestant: False,
    dropped: Dropped | None = None,
) -> list[Result]:
    """Measure every case `repeats` times, contestants in turns, with a progress bar.

    is_guest: is this one dropped if it fails? dropped: those that are already, more are added.
    """
    dropped = {} if dropped is None else dropped
    plan = [list(turns(case, contestants, repeats)) for case in cases]
    results = [Result(case.family, case.name, case.unit, case.target, case.figure) for case in cases]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=sum(map(len, plan)))
        for case, who, result in zip(cases, plan, results, strict=True):
            missing = {contestant for contestant in who if (case.family, contestant) in dropped}
            for contestant in who:
                progress.update(task, description=f"{case.family}: {case.name} \\[{contestant}]")
                if contestant not in missing:
                    complaint = measure(case, result, contestant, is_guest, dropped)
                    if complaint:
                        missing.add(contestant)
                        console.print(f"{case.family}: {case.name}, {contestant}: {complaint}", style="yellow")
                progress.advance(task)
    for result in results:
        result.dropped = {who: why for (family, who), why in dropped.items() if family == result.family}
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
