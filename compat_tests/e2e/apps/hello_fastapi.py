"""FastAPI: see hello.py."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import hello
from fastapi import FastAPI, Response, WebSocket


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    hello.up()
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/square/{number}")
async def square(number: int) -> Response:
    body, headers = await hello.square(number)
    return Response(body, headers=headers)


@app.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await socket.accept()
    number = int(await socket.receive_text())
    await socket.send_text((await hello.square(number))[0])
    await socket.close()
