"""The aiohttp application that aiohttp itself and gunicorn serve; see ../traffic.py for what it must answer."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import loops
from aiohttp import WSMsgType, web

STATE: web.AppKey[dict[str, Any]] = web.AppKey("state", dict)


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.Response(body=body, headers={"x-digest": hashlib.sha256(body).hexdigest()})


async def stream(request: web.Request) -> web.StreamResponse:
    count = int(request.match_info["count"])
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"".join(b"%06d\n" % i for i in range(count)))
    await response.write_eof()
    return response


async def thread(request: web.Request) -> web.Response:
    number = int(request.match_info["number"])

    def work() -> dict[str, Any]:
        main = threading.current_thread() is threading.main_thread()
        return {"square": number * number, "main thread": main}

    return web.json_response(await asyncio.get_running_loop().run_in_executor(None, work))


async def sleep(request: web.Request) -> web.Response:
    await asyncio.sleep(int(request.match_info["ms"]) / 1000)
    return web.Response(text="slept")


async def gate(request: web.Request) -> web.Response:
    state = request.app[STATE]
    number = state["waiting"]
    state["waiting"] += 1
    if state["waiting"] == int(request.match_info["count"]):
        state["waiting"] = 0
        state["gate"].set()
        state["gate"] = asyncio.Event()
    else:
        await state["gate"].wait()
    return web.Response(text=str(number))


async def child(request: web.Request) -> web.Response:
    number = int(request.match_info["number"])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"print({number}); exit({number})", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return web.json_response({"code": process.returncode, "out": out.decode()})


async def file(request: web.Request) -> web.StreamResponse:
    """Send the file that the environment names, with sendfile where there is no TLS."""
    return web.FileResponse(os.environ["E2E_FILE"])


async def ws(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    last = 0
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            last = (message.data or b"\0")[0]
            await socket.send_bytes(message.data)
        elif message.data != "bye":
            await socket.send_str(message.data)
        else:
            await socket.close(code=4000 + last, message=loops.class_name().encode())
    return socket


async def duplex(request: web.Request) -> web.StreamResponse:
    """Send each piece of the body back as it comes in."""
    response = web.StreamResponse()
    await response.prepare(request)
    async for chunk in request.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


async def hold(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"first\n")
    path = Path(os.environ["E2E_FOLDER"], request.match_info["name"])
    while not path.exists():
        await asyncio.sleep(0.01)
    await response.write(b"second\n")
    await response.write_eof()
    return response


async def pid(request: web.Request) -> web.Response:
    return web.Response(text=str(os.getpid()))


async def name_the_loop(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["x-loop"] = loops.class_name()


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    app[STATE].update(waiting=0, gate=asyncio.Event())
    print(f"app: up on {loops.class_name()}", flush=True)
    yield
    await asyncio.sleep(0.01)
    print("app: down", flush=True)


def make() -> web.Application:
    app = web.Application(client_max_size=2**24)
    app[STATE] = {}
    app.add_routes(
        [
            web.post("/echo", echo),
            web.get(r"/stream/{count:\d+}", stream),
            web.get(r"/thread/{number:\d+}", thread),
            web.get(r"/sleep/{ms:\d+}", sleep),
            web.get(r"/gate/{count:\d+}", gate),
            web.get(r"/child/{number:\d+}", child),
            web.get("/file", file),
            web.get("/ws", ws),
            web.post("/duplex", duplex),
            web.get("/hold/{name}", hold),
            web.get("/pid", pid),
        ]
    )
    app.on_response_prepare.append(name_the_loop)
    app.cleanup_ctx.append(lifespan)
    return app


async def factory() -> web.Application:
    """Make the application inside the worker's loop: what gunicorn is told to call."""
    return make()
