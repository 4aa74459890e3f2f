"""python -m goloop top PID: what a process is busy with and what it waits for, live. Drawn by rich."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import count as counting
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from goloop.debug._outside.client import Connection
from goloop.debug._outside.text import duration, quantile, size

FUNCTIONS = 8  # rows
WAITS = 12  # rows, while the screen has room for them
SHARE = 20  # the pause is so many times as long as the look, at least: a twentieth of one processor for it all


def show(connection: Connection, delay: float, count: int | None) -> None:
    """Show the process until the user stops it, or `count` times. Trouble when the process ends."""
    console = Console(markup=False, highlight=False, emoji=False)
    looks = range(count) if count is not None else counting()
    earlier: dict[str, Any] | None = None
    with Live(console=console, screen=console.is_terminal and count is None, auto_refresh=False) as live:
        for number in looks:
            if number:
                time.sleep(max(delay, SHARE * earlier["took"] if earlier else 0.0))
            now = json.loads(connection.ask("top", patience=30.0))
            live.update(_screen(now, earlier, console.height), refresh=True)
            earlier = now


def _screen(now: dict[str, Any], earlier: dict[str, Any] | None, height: int) -> Group:
    parts = [Text(_head(now), style="bold"), *(Text(f"deadlock: {text}", "bold red") for text in now["deadlocks"])]
    parts += [_loops(now, earlier), _functions(now, earlier)]  # type: ignore[list-item]
    room = height - len(parts) - 2 * 3 - len(now["stats"]["loops"]) - FUNCTIONS
    parts.append(_waits(now["waits"][: max(3, min(WAITS, room))]))  # type: ignore[arg-type]
    return Group(*parts)


def _head(now: dict[str, Any]) -> str:
    memory = f", {size(now['rss'])}" if now["rss"] is not None else ""
    return (
        f"{now['program']} ({now['pid']}) up {duration(now['uptime'])}, {duration(now['cpu'])} of processor time"
        f"{memory}, {now['threads']} threads: {now['tasks']} tasks, {now['goroutines']} goroutines, "
        f"{now['connections']} connections"
    )


def _loops(now: dict[str, Any], earlier: dict[str, Any] | None) -> Table:
    table = _table("LOOP", "BUSY", "CALLBACKS/S", "LAG 99 %", "READY", "TIMERS", "IN", "OUT", "RUNS")
    before = {loop["number"]: loop for loop in earlier["stats"]["loops"]} if earlier else {}
    seconds = now["stats"]["uptime"] - earlier["stats"]["uptime"] if earlier else 0.0
    running = {loop["thread_name"]: loop for loop in now["loop_list"] if loop["running_for"]}
    for loop in now["stats"]["loops"]:
        was = before.get(loop["number"])
        runs = running.get(loop["thread"])
        table.add_row(
            f"{loop['number']} {loop['thread'] or '-'}",
            _rate(loop, was, "busy", seconds, lambda share: f"{100 * share:.0f} %"),
            _rate(loop, was, "callbacks", seconds, lambda rate: f"{rate:,.0f}"),
            duration(quantile(_since(loop["lag"], was and was["lag"]), 0.99)),
            str(loop["ready"]),
            str(loop["timers"]),
            _rate(loop, was, "received", seconds, lambda rate: f"{size(rate)}/s"),
            _rate(loop, was, "written", seconds, lambda rate: f"{size(rate)}/s"),
            f"{runs['running']} for {duration(runs['running_for'])}" if runs else "",
        )
    return table


def _rate(loop: dict[str, Any], was: dict[str, Any] | None, name: str, seconds: float, form: Any) -> str:
    return form((loop[name] - was[name]) / seconds) if was is not None and seconds else "-"


def _since(histogram: dict[str, Any], was: dict[str, Any] | None) -> dict[str, Any]:
    if was is None:
        return histogram
    return {**histogram, "counts": [a - b for a, b in zip(histogram["counts"], was["counts"], strict=True)]}


def _functions(now: dict[str, Any], earlier: dict[str, Any] | None) -> Table:
    before = {_key(f): f for f in _all_functions(earlier)} if earlier else {}
    rows = []
    for function in _all_functions(now):
        was = before.get(_key(function), {"seconds": 0.0, "calls": 0})
        rows.append((function["seconds"] - was["seconds"], function["calls"] - was["calls"], function))
    rows.sort(key=lambda row: row[0], reverse=True)
    table = _table("BUSIEST FUNCTIONS", "TIME", "CALLS", "LONGEST", "WHERE")
    for seconds, calls, function in rows[:FUNCTIONS]:
        where = f"{function['file']}:{function['line']}" if function["file"] else function["kind"]
        table.add_row(function["name"], duration(seconds), f"{calls:,}", duration(function["longest"]), where)
    return table


def _all_functions(look: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for loop in look["stats"]["loops"]:
        for function in loop["functions"]:
            yield {**function, "loop": loop["number"]}


def _key(function: dict[str, Any]) -> tuple[Any, ...]:
    return function["loop"], function["kind"], function["name"], function["file"], function["line"]


def _waits(waits: list[dict[str, Any]]) -> Table:
    table = _table("SLOWEST WAITS", "COUNT", "LONGEST", "FOR", "WHERE")
    for wait in waits:
        name = wait["function"] if wait["count"] > 1 else f"{wait['oldest_name']} {wait['function']}"
        longest = duration(wait["oldest"]) if wait["oldest"] else "-"
        table.add_row(f"{wait['kind']} {name}", str(wait["count"]), longest, wait["wait"], wait["where"])
    return table


def _table(first: str, *names: str) -> Table:
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="reverse")
    table.add_column(first, no_wrap=True, overflow="ellipsis", ratio=2)
    for name in names:
        wide = name in ("WHERE", "FOR", "RUNS")
        table.add_column(
            name, justify="left" if wide else "right", no_wrap=True, overflow="ellipsis", ratio=2 if wide else None
        )
    return table
