"""The results of a run: a table for people, JSON for tools, Markdown for the documentation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expected import Verdict
from rich.console import Console
from rich.table import Table
from supervise import Outcome

NOTE = (
    "Failures are those of the loop alone: a test that fails on the stock asyncio loop in the same run as well "
    "says something of the machine, and is counted apart (“on asyncio too”)."
)
BEGIN, END = "<!-- table -->", "<!-- /table -->"  # where a file has the table
PINNED = "pinned"  # the version of a suite that is about many packages; its note has theirs


@dataclass
class Row:
    """One suite on one Python."""

    suite: str
    version: str
    python: str
    verdicts: dict[str, Verdict]
    outcomes: dict[str, dict[str, Outcome]]
    note: str
    seconds: float


def _cell(loop: str, verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    text = f"{verdict.passed} / {verdict.failed - verdict.shared} / {verdict.skipped}"
    notes = []
    if verdict.expected:
        notes.append(f"{verdict.expected} expected")
    if verdict.shared:
        notes.append(f"{verdict.shared} on asyncio too")
    return text + (f" ({', '.join(notes)})" if notes else "")


def _rows(rows: list[Row], loops: list[str]) -> tuple[list[str], list[list[str]]]:
    head = ["suite", "version", "Python", *loops]
    body = [[r.suite, r.version, r.python, *(_cell(loop, r.verdicts.get(loop)) for loop in loops)] for r in rows]
    return head, body


def show(rows: list[Row], loops: list[str], console: Console) -> None:
    head, body = _rows(rows, loops)
    table = Table(title="Other people's test suites: passed / failed / skipped")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i < 3 else "right")
    for cells in body:
        table.add_row(*cells)
    console.print(table)
    console.print(NOTE, style="dim")
    for row in rows:
        line = f"{row.suite}, Python {row.python}: {row.note}; {row.seconds:.0f} s"
        console.print(line, style="dim", highlight=False)


def markdown(rows: list[Row], loops: list[str]) -> str:
    head, body = _rows(rows, loops)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * 3}{'--:|' * len(loops)}"]
    lines += [f"| {' | '.join(line)} |" for line in body]
    notes = dict.fromkeys(f"{row.suite}: {row.note}." for row in rows if row.version == PINNED)
    return "\n".join([*lines, "", f"Passed / failed / skipped. {NOTE}", *notes, ""])


def put(table: str, path: Path) -> None:
    """Write a table to a file: between its marks, if the file is there and has them."""
    before = path.read_text() if path.exists() else ""
    head, found, rest = before.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{table}{END}{tail}" if found and ended else table)


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            "suite": row.suite,
            "version": row.version,
            "python": row.python,
            "note": row.note,
            "seconds": round(row.seconds, 1),
            "loops": {loop: vars(verdict) for loop, verdict in row.verdicts.items()},
            "failures": {
                loop: {name: o.message for name, o in sorted(outcomes.items()) if o.status == "failed"}
                for loop, outcomes in row.outcomes.items()
            },
        }
        for row in rows
    ]


def rows_from_json(path: Path) -> list[Row]:
    """Read what --json wrote, to put the rows of several Pythons into one table."""
    return [
        Row(
            entry["suite"],
            entry["version"],
            entry["python"],
            {loop: Verdict(**verdict) for loop, verdict in entry["loops"].items()},
            {},
            entry["note"],
            entry["seconds"],
        )
        for entry in json.loads(path.read_text())
    ]
