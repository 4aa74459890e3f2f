"""Sanic: see hello.py."""

from __future__ import annotations

import hello
from sanic import HTTPResponse, Request, Sanic, Websocket

app = Sanic("hello")


@app.after_server_start
async def up(app: Sanic) -> None:
    hello.up()


@app.get("/square/<number:int>")
async def square(request: Request, number: int) -> HTTPResponse:
    body, headers = await hello.square(number)
    return HTTPResponse(body, headers=headers)


@app.websocket("/ws")
async def ws(request: Request, socket: Websocket) -> None:
    number = int(await socket.recv() or "")
    await socket.send((await hello.square(number))[0])
