"""Litestar: see hello.py."""

from __future__ import annotations

import hello
from litestar import Litestar, Response, WebSocket, get, websocket


@get("/square/{number:int}", sync_to_thread=None)
async def square(number: int) -> Response[str]:
    body, headers = await hello.square(number)
    return Response(body, headers=headers, media_type="text/plain")


@websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await socket.accept()
    number = int(await socket.receive_text())
    await socket.send_text((await hello.square(number))[0])
    await socket.close()


async def up() -> None:
    hello.up()


app = Litestar([square, ws], openapi_config=None, on_startup=[up])
