"""What of a snapshot those get who ask often: counts, loops, and waits with like ones folded together."""

from __future__ import annotations

import dataclasses
import os
import sysconfig
from typing import Any

from goloop import errors as goloop_errors
from goloop.debug._snapshot import Goroutine, Loop, Snapshot, Stack, Task
from goloop.debug._stats import Stats
from goloop.debug._text import place_of_file

STUCK = 0.1  # seconds in one callback after which a loop is said to be stuck in it; asyncio's slow_callback_duration
_LIBRARIES = (sysconfig.get_path("stdlib"), os.path.dirname(goloop_errors.__file__))
WAITS = 50  # folded waits, the slowest first


def summary(seen: Snapshot) -> dict[str, Any]:
    """Return the line of ps for the process."""
    process = seen.process
    return {
        "pid": process.pid,
        "program": process.program,
        "python": process.python,
        "goloop": process.goloop,
        "uptime": seen.age(process.started),
        "loops": sum(not loop.worker and loop.state != "closed" for loop in seen.loops),
        "tasks": len(seen.tasks) + seen.omitted.get("tasks", 0),
        "goroutines": len(seen.goroutines) + seen.omitted.get("goroutines", 0),
        "connections": len(seen.connections) + seen.omitted.get("connections", 0),
        "state": _state(seen),
    }


def _state(seen: Snapshot) -> str:
    if seen.deadlocks:
        return "deadlock"
    longest = max((running_for(seen, loop) for loop in seen.loops), default=0.0)
    return f"busy {longest:.1f} s" if longest >= STUCK else "ok"


def running_for(seen: Snapshot, loop: Loop) -> float:
    """Return for how many seconds the loop has been in the callback that runs now; 0 if it is in none."""
    return 0.0 if loop.state == "idle" else seen.age(loop.since) or 0.0


def overview(seen: Snapshot, numbers: Stats) -> dict[str, Any]:
    """Return what top shows of a process."""
    return {
        **summary(seen),
        "stats": figures(numbers),
        "cpu": seen.process.cpu,
        "rss": seen.process.rss,
        "threads": seen.process.threads,
        "loop_list": [_loop(seen, loop) for loop in seen.loops if loop.state != "closed"],
        "waits": waits(seen)[:WAITS],
        "deadlocks": [deadlock.text for deadlock in seen.deadlocks],
        "took": seen.took,
    }


def figures(numbers: Stats) -> dict[str, Any]:
    """Return the numbers of the process, with short names of files."""
    found = numbers.to_dict()
    for loop in found["loops"]:
        for function in loop["functions"]:
            function["file"] = place_of_file(function["file"])
    return found


def _loop(seen: Snapshot, loop: Loop) -> dict[str, Any]:
    plain = {field.name: getattr(loop, field.name) for field in dataclasses.fields(loop)}
    del plain["stack"]
    names = {thread.ident: thread.name for thread in seen.threads}
    return {**plain, "running_for": running_for(seen, loop), "thread_name": names.get(loop.thread)}


class Words:
    """What the waits of one snapshot are called."""

    def __init__(self, seen: Snapshot) -> None:
        self._primitives = {primitive.key: primitive for primitive in seen.primitives}

    def wait(self, each: Task | Goroutine) -> str:
        """Return what it waits for and who has that, or its state if it does not wait."""
        if each.wait is None:
            return each.state
        things = [self._primitives[key] for key in each.wait.on if key in self._primitives]
        if len(things) != 1:
            return str(each.wait)
        held = f" held by {things[0].held_by}" if things[0].held_by else ""
        return f"{each.wait}: {things[0].name}{held}"


def waits(seen: Snapshot) -> list[dict[str, Any]]:
    """Return the waits of tasks and goroutines, like ones as one: the same function, reason and place.

    The one that has waited longest is the first.
    """
    folded: dict[Any, dict[str, Any]] = {}
    words = Words(seen)
    everybody: list[Task | Goroutine] = [*seen.tasks, *seen.goroutines]
    for each in everybody:
        if each.state in ("running", "ready", "runnable"):
            continue
        if isinstance(each, Task) and each.goroutine:
            continue  # the goroutine that it is stands for it
        reason = each.wait.kind if each.wait is not None else each.state
        age = seen.age(each.since) or 0.0
        group = folded.setdefault((type(each), _function(each), reason, each.stack.place), {"count": 0, "oldest": -1.0})
        group["count"] += 1
        group["newest"] = min(age, group.get("newest", age))
        if age > group["oldest"]:
            group["oldest"] = age
            group["oldest_name"] = _name(each)
            group["wait"] = words.wait(each)
        group.setdefault("kind", "task" if isinstance(each, Task) else "goroutine")
        group.setdefault("function", _function(each))
        group.setdefault("reason", reason)
        group.setdefault("where", place(each.stack))
    return sorted(folded.values(), key=lambda group: group["oldest"], reverse=True)


def _function(each: Task | Goroutine) -> str:
    return each.coroutine if isinstance(each, Task) else each.function


def _name(each: Task | Goroutine) -> str:
    return each.name if isinstance(each, Task) else f"goroutine {each.name or each.id}"


def place(stack: Stack) -> str:
    """Return where in the program's own code it is, as far as that is known: below the library that it has called."""
    frames = list(stack)
    own = [frame for frame in frames if not frame.file.startswith(_LIBRARIES)]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f"{place_of_file(frame.file)}:{frame.line}"
