"""An aiohttp application whose handlers block, as they should not: and with handoff no client notices.

    python examples/blocking_handler.py --loop goloop --handoff --port 8080

Ask for /slow a few times at once, and for /health meanwhile. With --loop asyncio, /health waits for all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiohttp import web

try:
    import requests

    CLIENT = f"requests {importlib.metadata.version('requests')}"

    def get(url: str) -> bytes:
        return requests.get(url, timeout=60).content

except ImportError:  # it is in the extras "test" and "bench"
    import urllib.request

    CLIENT = "urllib, as requests is not installed"

    def get(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=60) as response:
            return bytes(response.read())


SECONDS = 0.3  # that each of the slow ones takes


class SlowServer(BaseHTTPRequestHandler):
    """The other service, which a handler asks by a synchronous client."""

    def do_GET(self) -> None:
        time.sleep(SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        pass


async def health(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def slow(_: web.Request) -> web.Response:
    time.sleep(SECONDS)
    return web.Response(text="ok")


async def fetch(request: web.Request) -> web.Response:
    """A synchronous HTTP client."""
    return web.Response(body=get(request.app[SLOW_URL]))


async def query(_: web.Request) -> web.Response:
    """A database driver that blocks."""

    def nap(seconds: float) -> str:
        time.sleep(seconds)
        return "ok"

    with sqlite3.connect(":memory:") as db:
        db.create_function("wait", 1, nap)
        (text,) = db.execute("select wait(?)", (SECONDS,)).fetchone()
    db.close()
    return web.Response(text=text)


async def child(_: web.Request) -> web.Response:
    done = subprocess.run(["sleep", str(SECONDS)], check=True)
    return web.Response(text="ok" if done.returncode == 0 else "failed")


SLOW_URL = web.AppKey("SLOW_URL", str)


def make_app(slow_url: str) -> web.Application:
    app = web.Application()
    app[SLOW_URL] = slow_url
    for handler in (health, slow, fetch, query, child):
        app.router.add_get(f"/{handler.__name__}", handler)
    return app


async def serve(port: int) -> None:
    other = ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    runner = web.AppRunner(make_app(f"http://127.0.0.1:{other.server_port}/"))
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", port))
    await web.SockSite(runner, listener).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    print(f"/fetch asks by {CLIENT}", flush=True)
    try:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
    finally:
        await runner.cleanup()
        other.shutdown()
        other.server_close()


def runner_of(loop: str, handoff: bool) -> Callable[[Any], Any]:
    """Return what runs a coroutine on the loop of that name."""
    if loop == "goloop":
        import goloop

        return lambda main: goloop.run(main, handoff=handoff)
    if loop == "uvloop":
        import uvloop

        run: Callable[[Any], Any] = uvloop.run
        return run
    return asyncio.run


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve an application whose handlers block.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--loop", choices=("goloop", "asyncio", "uvloop"), default="goloop")
    parser.add_argument("--handoff", action="store_true", help="of goloop: other callbacks run meanwhile")
    options = parser.parse_args()
    try:
        runner_of(options.loop, options.handoff)(serve(options.port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
