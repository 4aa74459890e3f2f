"""uvicorn with httptools, and an application without a framework."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn

from workloads import keep
from workloads.listening import listener

# By path: the pieces of the body, each sent by itself.
BODIES = {
    "/hello": [b"Hello, world!"],
    "/10k": [b"x" * 10_240],
    "/two": [b"x" * 512, b"y" * 512],
}


def response(pieces: list[bytes]) -> list[dict[str, Any]]:
    length = sum(map(len, pieces))
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % length)]
    messages: list[dict[str, Any]] = [{"type": "http.response.start", "status": 200, "headers": headers}]
    for number, piece in enumerate(pieces, 1):
        messages.append({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})
    return messages


RESPONSES = {path: response(pieces) for path, pieces in BODIES.items()}


async def application(scope: Any, receive: Any, send: Any) -> None:
    for message in RESPONSES[scope["path"]]:
        await send(message)


async def serve(loop: Any, port: int = 0, shared: bool = False) -> int:
    sock = listener(port, shared)
    bound: int = sock.getsockname()[1]  # not every loop leaves the socket open
    config = uvicorn.Config(
        application, http="httptools", ws="none", lifespan="off", access_log=False, log_level="error", loop="none"
    )
    server = uvicorn.Server(config)
    serving = loop.create_task(server.serve(sockets=[sock]))
    keep(serving)
    while not server.started:
        await asyncio.sleep(0.01)
        if serving.done():
            serving.result()
    return bound
