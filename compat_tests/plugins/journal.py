"""Pytest plugin: a journal of what starts and how it ends, one JSON object a line, flushed at once.

A junit file is written at the end of a session, which a hang or a crash never reaches; the journal is
there up to the test that did it. Read by compat_tests/supervise.py, which also gives the plan: a JSON file
with `left_out`, `kept`, `select` (globs over test ids) and `done` (ids that an earlier process has finished).

A test id is the node id without the folder and the `.py` of its module: `test_events::Class::test_name`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import signal
from typing import Any

import pytest

_PID = os.getpid()  # a test's forked child that comes back here must not write
_MESSAGE = 2000  # characters of a failure that are worth keeping in a result


def test_id(nodeid: str) -> str:
    """Return the id that compat_tests uses for a pytest node id."""
    path, _, rest = nodeid.partition("::")
    module = re.sub(r"\.py$", "", path.rsplit("/", 1)[-1])
    return f"{module}::{rest}" if rest else module


def matches(name: str, patterns: list[str]) -> bool:
    """Tell whether one of the globs takes name; `[` stands for itself, as ids of parameters have it."""
    return any(fnmatch.fnmatchcase(name, p.replace("[", "[[]")) for p in patterns)


class Journal:
    """Writes the journal of one process and keeps the plan's tests only."""

    def __init__(self) -> None:
        with open(os.environ["COMPAT_PLAN"]) as f:
            plan = json.load(f)
        self.left_out: list[str] = plan["left_out"]
        self.kept: list[str] = plan["kept"]
        self.select: list[str] = plan["select"]
        self.done = frozenset(plan["done"])
        self.file = open(os.environ["COMPAT_JOURNAL"], "a", buffering=1)  # noqa: SIM115 (lives as long as the process)
        self.status = "passed"
        self.message = ""
        self.made = 0

    def write(self, **entry: Any) -> None:
        if os.getpid() == _PID:
            self.file.write(json.dumps(entry) + "\n")

    @staticmethod
    def loops_made() -> int:
        import loop_under_test

        return loop_under_test.UNDER_TEST.made

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        keep: list[pytest.Item] = []
        drop: list[pytest.Item] = []
        for item in items:
            name = test_id(item.nodeid)
            wanted = not self.select or matches(name, self.select)
            out = matches(name, self.left_out) and not matches(name, self.kept)
            run = wanted and name not in self.done and not out
            (keep if run else drop).append(item)
            if wanted and not run and name not in self.done:
                self.write(left_out=name)
        if drop:
            config.hook.pytest_deselected(items=drop)
        items[:] = keep

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            name = test_id(report.nodeid)
            if name not in self.done:
                self.write(id=name, status=report.outcome, message=str(report.longrepr)[-_MESSAGE:], loops=0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.status, self.message = "passed", ""
        self.made = self.loops_made()
        self.write(start=test_id(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == "failed":
            self.status = "failed"
            self.message = str(report.longrepr)[-_MESSAGE:]
        elif report.outcome == "skipped" and type(report) is pytest.TestReport and self.status == "passed":
            self.status = "skipped"  # a skipped subtest is not a skipped test, hence the exact type
            longrepr: Any = report.longrepr
            self.message = str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        made = self.loops_made() - self.made
        self.write(id=test_id(nodeid), status=self.status, message=self.message, loops=made)

    def pytest_sessionfinish(self) -> None:
        self.write(end=True)


def pytest_configure(config: pytest.Config) -> None:
    if "COMPAT_JOURNAL" in os.environ:
        # A shell's background job ignores SIGINT and nohup's SIGHUP; tests and their children would do so too
        for sig, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            if signal.getsignal(sig) == signal.SIG_IGN:
                signal.signal(sig, usual)
        config.pluginmanager.register(Journal(), "compat-journal")
