"""Runs one test module of a suite on one loop in a process of its own, and gives back how each test ended.

The watchdog is outside of the tested process: it reads the journal (plugins/journal.py) and aborts the
process when a test is over its time limit. So the tests see no additional thread and no alarm signal, both of
which CPython's tests count or use, and a loop that hangs in native code with the GIL held is cut just
as well. SIGABRT makes faulthandler print the stacks into the log; what is left is done in a new process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PLUGINS = HERE / "plugins"

COLLECT_LIMIT = 180.0  # seconds from the start of a process to its first test
EXIT_LIMIT = 30.0  # seconds from the last test to the end of the process
ABORT_GRACE = 3.0  # seconds that faulthandler has for the stacks before SIGKILL
POLL = 0.1  # seconds between two looks at the journal
LONGEST_POLL = 1.0  # what counts of such a pause at most: a stopped runner or a sleeping machine is no hang


@dataclass(frozen=True)
class Outcome:
    """How one test ended. status: passed, failed or skipped. loops: loops under test that it made."""

    status: str
    message: str = ""
    loops: int = 0


@dataclass
class Job:
    """One module of a suite on one loop: everything that the tested process needs."""

    suite: str
    loop: str
    module: str  # as in test ids: test_events
    target: list[str]  # pytest's arguments that name it
    options: list[str] = field(default_factory=list)
    interpreter: list[str] = field(default_factory=list)  # options before -m
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None  # None: a new empty folder
    limit: float = 60.0  # seconds for each test
    lists: dict[str, list[str]] = field(default_factory=lambda: {"left_out": [], "kept": []})
    select: list[str] = field(default_factory=list)


@dataclass
class JobResult:
    job: Job
    outcomes: dict[str, Outcome]
    left_out: set[str]
    seconds: float


class _Tail:
    """Reads the complete lines that were added to a journal since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as f:
            f.seek(self.offset)
            data = f.read()
        data = data[: data.rfind(b"\n") + 1]
        self.offset += len(data)
        return [json.loads(line) for line in data.splitlines()]


class _Attempt:
    """One process of a job, from its start to its end."""

    def __init__(self, job: Job, result: JobResult, folder: Path, log: Path) -> None:
        self.job = job
        self.result = result
        self.current: str | None = None
        self.ended = False
        self.progress = 0
        self.failures = 0
        plan = folder / "plan.json"
        done = sorted(result.outcomes)
        plan.write_text(json.dumps({**job.lists, "select": job.select, "done": done}))
        self.tail = _Tail(folder / "journal")
        self.tail.path.unlink(missing_ok=True)
        env = {
            **os.environ,
            "COMPAT_LOOP": job.loop,
            "COMPAT_PLAN": str(plan),
            "COMPAT_JOURNAL": str(self.tail.path),
            **job.env,
        }
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGINS), os.environ.get("PYTHONPATH")]))
        cwd = job.cwd or folder / "cwd"
        cwd.mkdir(exist_ok=True)
        command = [sys.executable, "-X", "faulthandler", *job.interpreter, "-m", "pytest"]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, "-p", "loop_under_test", "-p", "journal", *job.options, *job.target],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def take(self) -> bool:
        """Read what the journal has; return whether that was anything."""
        entries = self.tail.read()
        for entry in entries:
            if "start" in entry:
                self.current = entry["start"]
            elif "left_out" in entry:
                self.result.left_out.add(entry["left_out"])
            elif "id" in entry:
                outcome = Outcome(entry["status"], entry["message"], entry["loops"])
                self.result.outcomes[entry["id"]] = outcome
                self.current = None
                self.progress += 1
                self.failures += outcome.status == "failed"
            elif "end" in entry:
                self.ended = True
        return bool(entries)

    def limit(self) -> float:
        if self.ended:
            return EXIT_LIMIT
        return self.job.limit if self.current or self.progress else COLLECT_LIMIT

    def cut(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ABORT_GRACE)

    def reap(self) -> int:
        """Kill what a test has left, in the process's session or in one of its own, and return the exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        mark = f"COMPAT_JOURNAL={self.tail.path}\0".encode()  # in the environment of all that came from it
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if mark in environ.read_bytes():
                    os.kill(int(environ.parent.name), signal.SIGKILL)
        return self.process.wait()

    def run(self) -> str | None:
        """Wait for the end; return None, or what was wrong with it."""
        waited = 0.0
        before = time.monotonic()
        hung = None
        while self.process.poll() is None:
            now = time.monotonic()
            waited += min(now - before, LONGEST_POLL)
            before = now
            if self.take():
                waited = 0.0
            elif waited > self.limit():
                hung = f"hang: cut after {self.limit():g} s"
                self.cut()
                break
            time.sleep(POLL)
        code = self.reap()
        self.take()
        if hung:
            return hung
        if code in (0, 1, 5) and self.ended:  # pytest's: all passed, some failed, nothing collected
            return None
        return f"died by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


def run_job(job: Job, log: Path) -> JobResult:
    """Run all tests of a job, going on after hangs and crashes; the processes' output is put into log."""
    result = JobResult(job, {}, set(), 0.0)
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="compat-", ignore_cleanup_errors=True) as name:
        while True:
            attempt = _Attempt(job, result, Path(name), log)
            wrong = attempt.run()
            if wrong is None:
                break
            if not (attempt.ended and attempt.failures):  # a test that failed may well leave a thread that never ends
                victim = attempt.current or f"{job.module}::<{'exit' if attempt.ended else 'start'}>"
                result.outcomes[victim] = Outcome("failed", wrong)
            if attempt.ended or not (attempt.current or attempt.progress):
                break  # nothing is left to run, or it would not start the next time either
    result.seconds = time.monotonic() - started
    return result
