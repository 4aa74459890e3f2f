"""Quart: see hello.py."""

from __future__ import annotations

import hello
from quart import Quart, Response, websocket

app = Quart(__name__)


@app.before_serving
async def up() -> None:
    hello.up()


@app.get("/square/<int:number>")
async def square(number: int) -> Response:
    body, headers = await hello.square(number)
    return Response(body, headers=headers)


@app.websocket("/ws")
async def ws() -> None:
    number = int(await websocket.receive())
    await websocket.send((await hello.square(number))[0])
