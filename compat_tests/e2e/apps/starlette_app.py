"""The Starlette application that uvicorn and hypercorn serve; see ../traffic.py for what it must answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import loops
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

if "hypercorn" in sys.modules and loops.NAME == "goloop":
    loops.install()  # hypercorn knows loops by name only; its workers import the application before they make theirs


def _headers(**more: str) -> dict[str, str]:
    return {"x-loop": loops.class_name(), **more}


async def echo(request: Request) -> Response:
    body = await request.body()
    return Response(body, headers=_headers(**{"x-digest": hashlib.sha256(body).hexdigest()}))


async def stream(request: Request) -> Response:
    count = request.path_params["count"]

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"".join(b"%06d\n" % i for i in range(count))
            await asyncio.sleep(0)

    return StreamingResponse(body(), headers=_headers())


def thread(request: Request) -> Response:
    """A plain function, which Starlette runs in a worker thread of anyio."""
    number = request.path_params["number"]
    main = threading.current_thread() is threading.main_thread()
    return JSONResponse({"square": number * number, "main thread": main})


async def sleep(request: Request) -> Response:
    await asyncio.sleep(request.path_params["ms"] / 1000)
    return PlainTextResponse("slept", headers=_headers())


async def gate(request: Request) -> Response:
    state = request.app.state
    number = state.waiting
    state.waiting += 1
    if state.waiting == request.path_params["count"]:
        state.waiting = 0
        state.gate.set()
        state.gate = asyncio.Event()
    else:
        await state.gate.wait()
    return PlainTextResponse(str(number), headers=_headers())


async def child(request: Request) -> Response:
    number = request.path_params["number"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"print({number}); exit({number})", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return JSONResponse({"code": process.returncode, "out": out.decode()}, headers=_headers())


async def ws(socket: WebSocket) -> None:
    await socket.accept()
    last = 0
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "bye":
                await socket.close(4000 + last, loops.class_name())
                return
            if message.get("bytes") is not None:
                last = (message["bytes"] or b"\0")[0]
                await socket.send_bytes(message["bytes"])
            else:
                await socket.send_text(message["text"])
    except WebSocketDisconnect:
        return


class Duplex:
    """Plain ASGI: sends each piece of the body back as it comes in. A class, since Starlette wraps functions."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = [(b"x-loop", loops.class_name().encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.waiting = 0
    app.state.gate = asyncio.Event()
    print(f"app: up on {loops.class_name()}", flush=True)
    yield
    await asyncio.sleep(0.01)
    print("app: down", flush=True)


app = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/stream/{count:int}", stream),
        Route("/thread/{number:int}", thread),
        Route("/sleep/{ms:int}", sleep),
        Route("/gate/{count:int}", gate),
        Route("/child/{number:int}", child),
        WebSocketRoute("/ws", ws),
        Route("/duplex", Duplex(), methods=["POST"]),
    ],
    lifespan=lifespan,
)
