"""What the page consists of: one address for each view. All of them only read, but for the one that records a trace."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Any

from aiohttp import web

from goloop.debug._collect import snapshot
from goloop.debug._door import recording, summaries
from goloop.debug._dump import dump
from goloop.debug._page import checks, rows
from goloop.debug._page.history import KEPT, History
from goloop.debug._stats import stats

TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_history = web.AppKey("history", History)


def make(allowed: Callable[[str], bool]) -> web.Application:
    """Return the application. allowed: tells which Host headers may name it."""
    made = web.Application(middlewares=[checks.middleware(allowed)], client_max_size=4096)
    made[_history] = History()
    made.cleanup_ctx.append(_keep_history)
    made.add_routes(
        [
            web.get("/", _index),
            web.get("/static/{name}", _static),
            web.get("/api/overview", _overview),
            web.get("/api/history", _samples),
            web.get("/api/tables", _tables),
            web.get("/api/graph", _graph),
            web.get("/dump", _dump),
            web.get("/dump.json", _dump_json),
            web.post("/api/trace", _trace),
        ]
    )
    return made


async def _keep_history(made: web.Application) -> AsyncIterator[None]:
    keeper = asyncio.ensure_future(made[_history].run())
    yield
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)


# ---------------------------------------------------------------- the files
_PACKAGE = resources.files("goloop.debug._page")
_FILES = {file.name: file for folder in ("static", "vendor") for file in _PACKAGE.joinpath(folder).iterdir()}


async def _index(request: web.Request) -> web.Response:
    return _file("index.html")


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _FILES or name.rpartition(".")[2] not in TYPES:
        raise web.HTTPNotFound
    return _file(name)


def _file(name: str) -> web.Response:
    return web.Response(body=_FILES[name].read_bytes(), content_type=TYPES[name.rpartition(".")[2]], charset="utf-8")


# ----------------------------------------------------------------- the data
def _json(content: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(content).encode(), content_type="application/json")


async def _overview(request: web.Request) -> web.Response:
    return _json(summaries.overview(snapshot(), stats()))


async def _samples(request: web.Request) -> web.Response:
    """The samples that are newer than `since`, a time of an earlier one."""
    try:
        since = float(request.query.get("since", "0"))
    except ValueError:
        raise web.HTTPBadRequest(text="since is a number\n") from None
    return _json({"samples": [s for s in request.app[_history].samples if s["time"] > since], "kept": KEPT})


async def _tables(request: web.Request) -> web.Response:
    return _json(rows.tables(snapshot()))


async def _graph(request: web.Request) -> web.Response:
    return _json(rows.graph(snapshot()))


async def _dump(request: web.Request) -> web.Response:
    return web.Response(text=_dumped("text"))


async def _dump_json(request: web.Request) -> web.Response:
    return web.Response(text=_dumped("json"), content_type="application/json")


def _dumped(form: Any) -> str:
    file = io.StringIO()
    dump(file, form)
    return file.getvalue()


async def _trace(request: web.Request) -> web.Response:
    try:
        seconds = float(request.query.get("seconds", "5"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= recording.LONGEST:
        raise web.HTTPBadRequest(text=f"seconds is a number up to {recording.LONGEST:g}\n")
    try:
        with recording.recording() as made:
            await asyncio.sleep(seconds)  # cancelled when the browser goes away
    except RuntimeError as exc:  # somebody else records one
        raise web.HTTPConflict(text=f"{exc}\n") from None
    return web.Response(
        body=await asyncio.to_thread(made.content),
        content_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="trace.json"'},
    )
