"""An ordinary aiohttp application: JSON, forms, a streamed download, WebSockets, server-sent events, a static file.

It does not know which event loop runs it. Start it with `python examples/aiohttp_app.py --port 8080`; SIGTERM and
Ctrl-C stop it gracefully: requests in progress are answered, WebSockets are closed with code 1001.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiohttp import WSCloseCode, WSMsgType, web

STATIC_FILE = web.AppKey("STATIC_FILE", Path)
WEBSOCKETS = web.AppKey("WEBSOCKETS", set[web.WebSocketResponse])
FILLING = bytes(range(256)) * 256


def numbered_blocks(first: int, count: int) -> Iterator[bytes]:
    """Blocks of 64 KiB that each begin with their number, so that a lost or swapped block shows."""
    for number in range(first, first + count):
        yield number.to_bytes(8, "big") + FILLING[8:]


async def item(request: web.Request) -> web.Response:
    number = int(request.match_info["number"])
    loop = type(asyncio.get_running_loop()).__module__
    return web.json_response({"number": number, "square": number**2, "query": dict(request.query), "loop": loop})


async def form(request: web.Request) -> web.Response:
    """Tell what a form held, whether it came urlencoded or multipart."""
    fields: dict[str, str] = {}
    files: dict[str, dict[str, str | int]] = {}
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            content = value.file.read()
            digest = hashlib.sha256(content).hexdigest()
            files[name] = {"filename": value.filename, "size": len(content), "sha256": digest}
        else:
            fields[name] = str(value)
    return web.json_response({"type": request.content_type, "fields": fields, "files": files})


async def download(request: web.Request) -> web.StreamResponse:
    """Stream without telling the length beforehand, which makes it chunked; a slow reader slows the writer down."""
    first, count = int(request.match_info["first"]), int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    for block in numbered_blocks(first, count):
        await response.write(block)
    return response


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events, one a millisecond."""
    first, count = int(request.match_info["first"]), int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for number in range(first, first + count):
        data = json.dumps({"number": number, "square": number**2})
        await response.write(f"id: {number}\nevent: tick\ndata: {data}\n\n".encode())
        await asyncio.sleep(0.001)
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    request.app[WEBSOCKETS].add(websocket)
    try:
        async for message in websocket:
            if message.type is WSMsgType.TEXT:
                await websocket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await websocket.send_bytes(message.data)
    finally:
        request.app[WEBSOCKETS].discard(websocket)
    return websocket


async def static_file(request: web.Request) -> web.FileResponse:
    """aiohttp lets the kernel send a FileResponse, with `loop.sendfile`."""
    return web.FileResponse(request.app[STATIC_FILE])


async def make_static_file(app: web.Application) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        app[STATIC_FILE] = Path(folder, "blocks.bin")
        app[STATIC_FILE].write_bytes(b"".join(numbered_blocks(0, 5)))
        yield


async def close_websockets(app: web.Application) -> None:
    for websocket in app[WEBSOCKETS].copy():
        await websocket.close(code=WSCloseCode.GOING_AWAY, message=b"server stops")


def make_app() -> web.Application:
    app = web.Application()
    app[WEBSOCKETS] = set()
    app.cleanup_ctx.append(make_static_file)
    app.on_shutdown.append(close_websockets)
    app.router.add_get(r"/items/{number:\d+}", item)
    app.router.add_post("/form", form)
    app.router.add_get(r"/download/{first:\d+}/{count:\d+}", download)
    app.router.add_get(r"/events/{first:\d+}/{count:\d+}", events)
    app.router.add_get("/echo", echo)
    app.router.add_get("/file", static_file)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="A small aiohttp application that shows one of everything.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any free port (default: %(default)s)")
    options = parser.parse_args()
    listener = socket.create_server((options.host, options.port), backlog=512)
    app = make_app()

    async def announce(_: web.Application) -> None:
        # On startup, not before: by then run_app has its signal handlers in place.
        print("Listening on http://{}:{}".format(*listener.getsockname()), flush=True)

    app.on_startup.append(announce)
    web.run_app(app, sock=listener, backlog=512, print=None)


if __name__ == "__main__":
    main()
