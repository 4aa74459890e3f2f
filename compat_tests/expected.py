"""The tests that are left out of a suite, those that are expected to fail, and the verdict on a run.

Owns the TOML files in expected/, one a suite:

    [left_out]                    # not run on any loop
    "test_windows_events" = "reason"
    [kept]                        # exceptions from it
    [goloop]                      # expected failures of a loop on every Python
    "test_ssl::TestSSL::test_x" = "reason"
    [goloop."3.11"]               # the same, on one Python
    [left_out."3.14"]

Keys are globs over test ids (`[` stands for itself). A key of [left_out] or [kept] takes the test, class or
module that it names with everything inside; a key of a loop takes whole ids only. Expected failures are strict: one
that passes, or that names no test, is an error.
"""

from __future__ import annotations

import fnmatch
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from supervise import Outcome

FOLDER = Path(__file__).resolve().parent / "expected"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def inside(name: str, pattern: str) -> bool:
    """Tell whether pattern takes the test name, or its module, or its class."""
    return matches(name, pattern) or matches(name, pattern + "::*") or matches(name, pattern + "[*")


@dataclass
class Expected:
    """The lists of one suite for the running Python: pattern -> reason."""

    left_out: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def globs(self) -> dict[str, list[str]]:
        """Return left_out and kept in the form of the tested process's plan."""
        tables = {"left_out": self.left_out, "kept": self.kept}
        return {name: [p + tail for p in table for tail in ("", "::*", "[*")] for name, table in tables.items()}

    def is_left_out(self, name: str) -> bool:
        return any(inside(name, p) for p in self.left_out)


def load(suite: str) -> Expected:
    """Read expected/<suite>.toml; a reason that is missing or empty is an error."""
    path = FOLDER / f"{suite}.toml"
    expected = Expected()
    if not path.exists():
        return expected
    for section, entries in tomllib.loads(path.read_text()).items():
        merged: dict[str, str] = {}
        for key, value in entries.items():
            if isinstance(value, dict):
                if key == PYTHON:
                    merged.update(value)
                continue
            merged[key] = value
        for key, reason in merged.items():
            if not isinstance(reason, str) or not reason.strip():
                raise ValueError(f"{path.name}: [{section}] {key!r} has no reason")
        if section in ("left_out", "kept"):
            setattr(expected, section, merged)
        else:
            expected.failures[section] = merged
    return expected


@dataclass
class Verdict:
    """How one loop did in one suite."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    touched: int = 0  # tests that made a loop under test
    expected: int = 0  # of the failures: listed
    shared: int = 0  # of the failures: on stock asyncio too, in this run
    errors: list[str] = field(default_factory=list)  # what makes the run fail, one line each


def judge(
    loop: str,
    outcomes: dict[str, Outcome],
    stock: dict[str, Outcome] | None,
    listed: dict[str, str],
    *,
    whole: bool,
) -> Verdict:
    """Count outcomes and hold them against the list.

    stock: outcomes of asyncio in the same run, if it was run. whole: every test of the suite was to run,
    so an entry that names none is stale.
    """
    verdict = Verdict()
    used: set[str] = set()
    for name, outcome in sorted(outcomes.items()):
        verdict.touched += bool(outcome.loops)
        if outcome.status == "skipped":
            verdict.skipped += 1
        elif outcome.status == "passed":
            verdict.passed += 1
        else:
            verdict.failed += 1
        taken = [p for p in listed if matches(name, p)]
        used.update(taken)
        also = stock is not None and name in stock and stock[name].status == "failed"
        if outcome.status == "failed":
            if loop != "asyncio" and also:
                verdict.shared += 1
            elif taken:
                verdict.expected += 1
            else:
                verdict.errors.append(f"failed: {name}: {gist(outcome.message)}")
        elif outcome.status == "passed" and taken:
            verdict.errors.append(f"passed, but is listed as a failure: {name} ({taken[0]!r})")
        elif outcome.status == "skipped" and stock is not None and name in stock and stock[name].status == "passed":
            verdict.errors.append(f"skipped, but runs on asyncio: {name}: {gist(outcome.message)}")
    if stock is not None:
        verdict.errors += _missing(outcomes, stock)
    if whole:
        verdict.errors += [f"listed as a failure, but names no test: {p!r}" for p in listed.keys() - used]
    return verdict


def _missing(outcomes: dict[str, Outcome], stock: dict[str, Outcome]) -> list[str]:
    """Return a line for each test, or for each module with many, that only asyncio has run."""
    modules: dict[str, list[str]] = {}
    for name in sorted(stock.keys() - outcomes.keys()):
        if stock[name].status != "failed":
            modules.setdefault(name.partition("::")[0], []).append(name)
    lines = []
    for module, names in modules.items():
        if len(names) > 5:
            lines.append(f"not run, but runs on asyncio: {len(names)} tests of {module}")
        else:
            lines += [f"not run, but runs on asyncio: {name}" for name in names]
    return lines


def gist(message: str) -> str:
    """Return the most telling line of a failure: the first that pytest marks as the error, or the last."""
    lines = [line for line in message.splitlines() if line.strip()]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (marked[0] if marked else lines[-1].strip() if lines else "")[:200]
