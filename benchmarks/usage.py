"""What processes use: processor time, context switches, memory.

A process that measures itself reads getrusage(). Of another one the clock of its processor time is read, which is
exact, and /proc: the kernel's ticks for the split into user and system, and the context switches of each thread.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    cpu: float  # processor seconds, user and system, of all threads
    system: float | None  # the kernel's part of them; None: too short to tell
    switches: int  # context switches, voluntary and not, of all threads


def own() -> tuple[float, float, int]:
    """User seconds, system seconds and context switches of this process, so far."""
    got = resource.getrusage(resource.RUSAGE_SELF)
    return got.ru_utime, got.ru_stime, got.ru_nvcsw + got.ru_nivcsw


def cpu_of(pid: int) -> float:
    """Processor seconds of a live process, all its threads."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


def _ticks_of(pid: int) -> tuple[int, int]:
    """User and system time of a live process, in ticks of the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def _switches_of(pid: int) -> dict[str, int]:
    """Context switches by thread. One that ends meanwhile is left out."""
    counts = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            status = Path(f"/proc/{pid}/task/{thread}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        counts[thread] = sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
    return counts


class Meter:
    """What live processes use from now on, until stop()."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.pids = pids
        self._before = self._read()

    def _read(self) -> list[tuple[float, tuple[int, int], dict[str, int]]]:
        return [(cpu_of(pid), _ticks_of(pid), _switches_of(pid)) for pid in self.pids]

    def stop(self) -> Usage:
        cpu, user, system, switches = 0.0, 0, 0, 0
        for before, after in zip(self._before, self._read(), strict=True):
            cpu += after[0] - before[0]
            user += after[1][0] - before[1][0]
            system += after[1][1] - before[1][1]
            switches += sum(count - before[2].get(thread, 0) for thread, count in after[2].items())
        ticks = user + system
        return Usage(cpu, cpu * system / ticks if ticks else None, switches)


def memory_of(pid: int) -> int:
    """Resident bytes of a live process that are its own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Private_Dirty in smaps_rollup")
