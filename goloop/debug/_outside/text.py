"""What ps and stats print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

FUNCTIONS = 15  # lines of stats for the functions that use the loops most


def duration(seconds: float | None) -> str:
    """Return it in the unit that suits it: "12 µs", "3.2 s", "4.5 h". "-" if it is not known."""
    if seconds is None:
        return "-"
    for unit, size, below in (("µs", 1e-6, 1e-3), ("ms", 1e-3, 1.0), ("s", 1.0, 120.0), ("min", 60.0, 7200.0)):
        if seconds < below:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Return the rows below one another, in columns; the last one is as wide as it is."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)


def ps(found: list[dict[str, Any]]) -> str:
    """Return the table of the programs."""
    rows = [("PID", "UP", "PYTHON", "LOOPS", "TASKS", "GOROUTINES", "CONNECTIONS", "STATE", "COMMAND")]
    for each in found:
        counts = [str(each.get(name, "-")) for name in ("python", "loops", "tasks", "goroutines", "connections")]
        command = each["command"]
        shown = command if len(command) <= 60 else command[:59] + "…"
        state = "silent" if "error" in each else each["state"]
        rows.append((str(each["pid"]), duration(each.get("uptime")), *counts, state, shown))
    silent = [each["error"] for each in found if "error" in each]
    return "\n".join([columns(rows), *silent])


def stats(found: dict[str, Any]) -> str:
    """Return what stats prints."""
    parts = [_process(found)]
    parts += [_loop(loop) for loop in found["loops"]]
    if rows := functions(found["loops"]):
        parts.append("where the time of the loops went (estimated from samples):\n" + columns(rows))
    return "\n\n".join(parts)


def _process(found: dict[str, Any]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["goroutines"].items()))
    waits = f", the oldest for {duration(found['backlog_age'])}" if found["backlog"] else ""
    return (
        f"process {found['pid']}: up {duration(found['uptime'])}, {duration(found['cpu'])} of processor time, "
        f"{found['threads']} threads\n"
        f"goroutines: {sum(found['goroutines'].values())} ({states or 'none'}), {found['started']} started so far; "
        f"{found['backlog']} wait for a worker{waits}\n"
        f"workers: {found['workers']} of at most {found['max_workers']}, gomaxprocs {found['gomaxprocs']}; "
        f"handoffs: {found['handoffs']}"
    )


def _loop(loop: dict[str, Any]) -> str:
    ran = loop["busy"] + loop["asleep"]
    share = f"{100 * loop['busy'] / ran:.0f} %" if ran else "-"
    rows = [
        ("", "median", "99 %", "longest"),
        *(
            (what, duration(quantile(loop[name], 0.5)), duration(quantile(loop[name], 0.99)), duration(longest))
            for what, name in (("lag", "lag"), ("timers late by", "timer_lag"), ("callbacks take", "callback_time"))
            for longest in [loop[name]["longest"]]
        ),
    ]
    return (
        f"loop {loop['number']}{' of a worker' if loop['worker'] else ''} in thread {loop['thread'] or '-'}: "
        f"busy {share} of the time, {loop['iterations']:,} iterations, {loop['callbacks']:,} callbacks\n"
        f"now: {loop['ready']} ready, {loop['timers']} timers, {loop['descriptors']} descriptors, "
        f"{loop['away']} callbacks stuck elsewhere\n"
        f"so far: {loop['accepts']:,} accepted, {size(loop['received'])} received, {size(loop['written'])} written, "
        f"{loop['handoffs']} handoffs\n" + columns(rows)
    )


def quantile(histogram: dict[str, Any], q: float) -> float:
    """Return the time that a share q of all took at most, of a histogram in JSON: Histogram.quantile()."""
    wanted, seen = q * sum(histogram["counts"]), 0
    for bound, count in zip((*histogram["bounds"], histogram["longest"]), histogram["counts"], strict=True):
        seen += count
        if count and seen >= wanted:
            return float(min(bound, histogram["longest"]))
    return 0.0


def functions(loops: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the rows for the functions that took most of the loops' time, with a header; none if none is known."""
    found = sorted((f for loop in loops for f in loop["functions"]), key=lambda f: f["seconds"], reverse=True)
    if not found:
        return []
    whole = sum(f["seconds"] for f in found) or 1.0
    return [("SHARE", "TIME", "CALLS", "LONGEST", "KIND", "FUNCTION")] + [
        (
            f"{100 * f['seconds'] / whole:.0f} %",
            duration(f["seconds"]),
            f"{f['calls']:,}",
            duration(f["longest"]),
            f["kind"],
            f"{f['name']} {f['file']}:{f['line']}" if f["file"] else f["name"],
        )
        for f in found[:FUNCTIONS]
    ]
