"""What the door answers: one function for each thing that can be asked for, called in the thread of the client."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from goloop.debug._collect import snapshot
from goloop.debug._door import recording, summaries
from goloop.debug._door.server import Client, Refused
from goloop.debug._dump import dump
from goloop.debug._stats import stats


def answer(request: dict[str, Any], client: Client) -> bytes:
    """Return the body of the answer. Refused for what cannot be answered."""
    make = _ANSWERS.get(str(request.get("do")))
    if make is None:
        raise Refused(f"goloop can do {', '.join(_ANSWERS)}, but not {request.get('do')!r}")
    return make(request, client)


def _summary(request: dict[str, Any], client: Client) -> bytes:
    return _json(summaries.summary(snapshot()))


def _dump(request: dict[str, Any], client: Client) -> bytes:
    form = request.get("format", "text")
    if form not in ("text", "json"):
        raise Refused(f"a dump is text or json, not {form!r}")
    file = io.StringIO()
    dump(file, form)
    return file.getvalue().encode()


def _stats(request: dict[str, Any], client: Client) -> bytes:
    return _json(summaries.figures(stats()))


def _top(request: dict[str, Any], client: Client) -> bytes:
    return _json(summaries.overview(snapshot(), stats()))


def _trace(request: dict[str, Any], client: Client) -> bytes:
    seconds = request.get("seconds")
    if not isinstance(seconds, (int, float)) or not 0 < seconds <= recording.LONGEST:
        raise Refused(f"a trace takes at most {recording.LONGEST:g} seconds, not {seconds!r}")
    try:
        with recording.recording() as made:
            if client.left_within(seconds):
                raise Refused("nobody waits for the trace any more")
    except RuntimeError as exc:
        raise Refused(str(exc)) from None
    return made.content()


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


_ANSWERS: dict[str, Callable[[dict[str, Any], Client], bytes]] = {
    "summary": _summary,
    "dump": _dump,
    "stats": _stats,
    "top": _top,
    "trace": _trace,
}
