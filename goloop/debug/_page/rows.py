"""A snapshot as the page's tables and its graph have it. Names, states and places only: no arguments, no data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from goloop.debug._door import summaries
from goloop.debug._snapshot import Goroutine, Snapshot, Stack, Task, Thread
from goloop.debug._text import place_of_file

MOST_ROWS = 20_000  # of tasks and goroutines together; those that have waited longest
MOST_NODES = 400  # of the graph: more than that nobody can see


def tables(seen: Snapshot) -> dict[str, Any]:
    """Return all tables. Like tasks and goroutines have the same `group`, a text that a person can read."""
    everybody: list[Task | Goroutine] = [*seen.tasks, *seen.goroutines]
    everybody.sort(key=lambda each: seen.age(each.since) or 0.0, reverse=True)
    words = summaries.Words(seen)
    stacks: dict[Any, int] = {}
    frames: list[list[str]] = []

    def stack_number(stack: Stack) -> int:
        number = stacks.setdefault(stack.place, len(frames))
        if number == len(frames):
            frames.append([f"{place_of_file(frame.file)}:{frame.line} in {frame.function}" for frame in stack][::-1])
        return number

    return {
        "took": seen.took,
        "omitted": {**seen.omitted, "rows": max(0, len(everybody) - MOST_ROWS)},
        "problems": list(seen.problems),
        "deadlocks": [deadlock.text for deadlock in seen.deadlocks],
        "rows": [_row(seen, each, stack_number, words) for each in everybody[:MOST_ROWS]],
        "stacks": frames,
        "connections": [_plain(seen, each) for each in seen.connections[:MOST_ROWS]],
        "servers": [_plain(seen, each) for each in seen.servers],
        "primitives": [_plain(seen, each) for each in seen.primitives[:MOST_ROWS]],
        "workers": [_plain(seen, each) for each in seen.workers],
        "children": [_plain(seen, each) for each in seen.children],
        "executors": [_plain(seen, each) for each in seen.executors],
    }


def _row(seen: Snapshot, each: Task | Goroutine, stack_number: Any, words: summaries.Words) -> dict[str, Any]:
    kind, function = ("task", each.coroutine) if isinstance(each, Task) else ("goroutine", each.function)
    reason = each.wait.kind if each.wait is not None else each.state
    stack = stack_number(each.stack)
    return {
        "key": each.key,
        "kind": kind,
        "name": label(each),
        "function": function,
        "state": each.state,
        "wait": words.wait(each) if each.wait is not None else "",
        "age": seen.age(each.since),
        "group": f"{kind} {function} · {reason} · {stack}",
        "stack": stack,
        "place": summaries.place(each.stack),
        "creator": stack_number(each.creator),
        "parent": each.parent if isinstance(each, Task) else "",
    }


def label(each: Task | Goroutine) -> str:
    """Return what a person calls it."""
    return each.name if isinstance(each, Task) else f"goroutine {each.id}{f' {each.name!r}' if each.name else ''}"


def _plain(seen: Snapshot, each: Any) -> dict[str, Any]:
    found = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
    if "since" in found:
        found["age"] = seen.age(found.pop("since"))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


# ---------------------------------------------------------------- the graph
def graph(seen: Snapshot) -> dict[str, Any]:
    """Return who waits for what, and who has it: nodes and edges, of those that wait for something with a name.

    Those in a circle are first, then what most wait for, when there are more than can be seen.
    """
    labels = dict(_labels(seen))
    edges = sorted({edge for edge in _edges(seen) if edge[0] in labels and edge[1] in labels})
    in_circle = {key for deadlock in seen.deadlocks for key in deadlock.members}
    waiting: dict[str, int] = {}
    for _, to in edges:
        waiting[to] = waiting.get(to, 0) + 1
    shown: dict[str, None] = dict.fromkeys(key for edge in edges for key in edge if key in in_circle)
    for start, to in sorted(edges, key=lambda edge: (edge[0] not in in_circle, -waiting[edge[1]], edge)):
        if len(shown) < MOST_NODES - 1:
            shown.update(dict.fromkeys((start, to)))
    return {
        "nodes": [{"key": key, **labels[key], "circle": key in in_circle} for key in shown],
        "edges": [
            {"from": a, "to": b, "circle": a in in_circle and b in in_circle}
            for a, b in edges
            if a in shown and b in shown
        ],
        "left_out": len({key for edge in edges for key in edge} - shown.keys()),
        "deadlocks": [deadlock.text for deadlock in seen.deadlocks],
    }


def _edges(seen: Snapshot) -> Iterator[tuple[str, str]]:
    waiters: list[Task | Goroutine | Thread] = [*seen.tasks, *seen.goroutines, *seen.threads]
    for each in waiters:
        if each.wait is not None:
            for key in each.wait.on:
                yield each.key, key
    for primitive in seen.primitives:
        for holder in primitive.holders:
            yield primitive.key, holder
        for waiter in primitive.waiters:
            yield waiter, primitive.key


def _labels(seen: Snapshot) -> Iterator[tuple[str, dict[str, str]]]:
    for task in seen.tasks:
        yield task.key, {"kind": "task", "label": label(task), "more": f"{task.coroutine}, {task.wait or task.state}"}
    for g in seen.goroutines:
        yield g.key, {"kind": "goroutine", "label": label(g), "more": f"{g.function}, {g.wait or g.state}"}
    for primitive in seen.primitives:
        more = ", ".join(each for each in (primitive.kind, primitive.detail, primitive.held_by) if each)
        yield primitive.key, {"kind": "lock", "label": primitive.name or primitive.kind, "more": more}
    for thread in seen.threads:
        yield thread.key, {"kind": "thread", "label": thread.name, "more": thread.role}
    for child in seen.children:
        yield child.key, {"kind": "process", "label": f"process {child.pid}", "more": child.program}
