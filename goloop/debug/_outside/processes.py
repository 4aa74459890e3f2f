"""What /proc tells of a process, without its help."""

from __future__ import annotations

import os
import re

_MODULE = re.compile(r"goloop/core/poll/pollset\.cpython-3(\d+)t?-")


def exists(pid: int) -> bool:
    """Return whether there is such a process, and not only its remains."""
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """Return the letter of its state, as ps has it: T is stopped, Z a zombie. "" if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return chr(file.read().rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return ""


def owner(pid: int) -> int:
    """Return the user whose process it is. OSError if there is no such process."""
    return os.stat(f"/proc/{pid}").st_uid


def command(pid: int) -> str:
    """Return its command line, in one line. "" if that cannot be read, or there is none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return " ".join(file.read().replace(b"\0", b" ").decode(errors="replace").split())
    except OSError:
        return ""


def number_inside(pid: int) -> int:
    """Return the number that the process itself knows: another one in a container."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[-1]) for line in file if line.startswith("NSpid:")), pid)
    except OSError:
        return pid


def python_with_goloop(pid: int) -> tuple[int, int] | None:
    """Return the version of the Python in which the process has imported goloop. None if it has not, or that cannot be
    seen."""
    try:
        with open(f"/proc/{pid}/maps", errors="replace") as file:
            found = _MODULE.search(file.read())
    except OSError:
        return None
    return (3, int(found[1])) if found else None
