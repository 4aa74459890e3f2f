"""aiohttp: a server with bodies of three kinds, a WebSocket echo, a client."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import web
from child import Operate, Watch

from workloads.listening import listener

BODY = b"x" * 65536


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello, world!")


async def some_json(request: web.Request) -> web.Response:
    return web.json_response(
        {"id": 17, "name": "goloop", "tags": ["asyncio", "epoll"], "nested": {"a": 1.5, "b": None}}
    )


async def body(request: web.Request) -> web.Response:
    return web.Response(body=BODY)


async def websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_bytes(message.data)
    return socket


async def serve(loop: Any, port: int = 0, shared: bool = False) -> int:
    app = web.Application()
    app.add_routes(
        [
            web.get("/hello", hello),
            web.get("/json", some_json),
            web.get("/64k", body),
            web.get("/", websocket),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.SockSite(runner, listener(port, shared), backlog=1024)
    await site.start()
    bound: int = runner.addresses[0][1]
    return bound


async def client(loop: Any, port: int, concurrency: int) -> Operate:
    """GET from a native server on kept-alive connections."""
    url = f"http://127.0.0.1:{port}/"

    async def operate(n: int, watch: Watch) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
            left = 0

            async def fetch() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    async with session.get(url) as response:
                        await response.read()

            async def fetch_all(count: int) -> None:
                nonlocal left
                left = count
                await asyncio.gather(*(fetch() for _ in range(concurrency)))

            await fetch_all(concurrency)  # connects
            with watch:
                await fetch_all(n)

    return operate
