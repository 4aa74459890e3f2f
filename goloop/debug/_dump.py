"""dump(): a snapshot as a text or as JSON."""

from __future__ import annotations

import json
from typing import Any

from goloop.debug._collect import snapshot
from goloop.debug._snapshot import Snapshot
from goloop.debug._text import text_of, write_all


def dump(file: Any = None, format: str = "text") -> None:
    """Write what the process does at this moment: what runs, what waits for what, since when, where (Go: SIGQUIT).

    file: a file object for text or a descriptor; None: the standard error. format: "text" (like things are told once,
    the stuck ones first) or "json" (Snapshot.to_dict()); ValueError for others. From any thread, goroutine or
    coroutine, also while every loop is stuck. Arguments and payloads are not shown.
    """
    write_all(file, rendered(snapshot(), format))


def rendered(found: Snapshot, format: str) -> str:
    """Return a snapshot in a format of dump()."""
    if format == "text":
        return text_of(found)
    if format == "json":
        return json.dumps(found.to_dict(), ensure_ascii=False) + "\n"
    raise ValueError(f'the format of a dump is "text" or "json", got {format!r}')
