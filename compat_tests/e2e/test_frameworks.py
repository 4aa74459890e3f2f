"""Web frameworks, each under servers that run it, started as a command with the one line that puts the loop in."""

from __future__ import annotations

import asyncio
import re
import signal
import sys

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")

import loops
import traffic
from commands import Command, free_port

PYTHON = [sys.executable, "-X", "faulthandler"]
UVICORN_LOOP = {"goloop": "goloop:new_event_loop"}.get(loops.NAME, loops.NAME)
KIND = "uvloop" if loops.NAME == "uvloop" else "asyncio"  # for servers that know loops by name only
WORKERS = {  # gunicorn's, by what they are made of; the loop goes in by the worker
    "asgi": {"goloop": ["goloop.contrib.gunicorn.ASGIWorker"]}.get(loops.NAME, ["asgi", "--asgi-loop", KIND]),
    "uvicorn": {
        "goloop": ["goloop.contrib.gunicorn.UvicornWorker"],
        "asyncio": ["uvicorn_worker.UvicornH11Worker"],
        "uvloop": ["uvicorn_worker.UvicornWorker"],
    }[loops.NAME],
}


def uvicorn(app, port):
    return [*PYTHON, "-m", "uvicorn", app, "--loop", UVICORN_LOOP, "--port", port]


def uvicorn_workers(app, port):
    return [*uvicorn(app, port), "--workers", "2"]


def hypercorn(app, port):
    return [*loops.python("-m", "hypercorn"), "--worker-class", KIND, "--bind", f"127.0.0.1:{port}", app]


def granian_workers(app, port):
    command = [*loops.python("-m", "granian"), "--interface", "asgi", "--loop", KIND, "--port", port, app]
    return [*command, "--workers", "2"]


def daphne(app, port):
    return [*loops.python("-m", "daphne"), "-p", port, app]


def gunicorn_asgi_workers(app, port):
    return _gunicorn("asgi", app, port)


def gunicorn_uvicorn_workers(app, port):
    return _gunicorn("uvicorn", app, port)


def _gunicorn(kind, app, port):
    command = [*PYTHON, "-m", "gunicorn", "--no-control-socket", "--bind", f"127.0.0.1:{port}", "--workers", "2"]
    return [*command, "--worker-class", *WORKERS[kind], app]


def sanic(app, port):
    return [*_sanic(app, port), "--single-process"]


def sanic_workers(app, port):
    return [*_sanic(app, port), "--workers", "2"]


def _sanic(app, port):
    return [*loops.python("-m", "sanic"), app, "--host", "127.0.0.1", "--port", port, "--no-motd"]


SERVERS = [
    (uvicorn, "fastapi"),
    (uvicorn, "litestar"),
    (uvicorn, "quart"),
    (uvicorn, "django"),
    (uvicorn_workers, "fastapi"),
    (hypercorn, "quart"),
    (granian_workers, "fastapi"),
    (granian_workers, "litestar"),
    (daphne, "django"),
    (daphne, "fastapi"),
    (gunicorn_asgi_workers, "fastapi"),
    (gunicorn_uvicorn_workers, "litestar"),
    (sanic, "sanic"),
    (sanic_workers, "sanic"),
]

# What those say that listen after the application is up
LISTENING = {uvicorn: "Uvicorn running on", hypercorn: "Running on", daphne: "Listening on TCP address"}


@pytest.mark.parametrize(("server", "framework"), SERVERS, ids=lambda each: getattr(each, "__name__", each))
def test_every_answer_comes_from_the_loop(run, tmp_path, server, framework):
    pytest.importorskip(framework, reason=f"{framework} is not installed: pip install {framework}")
    package = server.__name__.split("_")[0]
    pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    if server is gunicorn_uvicorn_workers:
        pytest.importorskip("uvicorn_worker", reason="uvicorn-worker is not installed: pip install uvicorn-worker")
    if server is daphne and loops.NAME == "uvloop":
        pytest.skip("daphne makes its loop by asyncio.new_event_loop(), and has no option for another one")
    if server in (sanic, sanic_workers) and loops.NAME == "asyncio":
        pytest.skip("Sanic takes uvloop, without an option, when it is installed")
    port = str(free_port())

    async def main():
        base = f"http://127.0.0.1:{port}"
        async with traffic.session() as http:

            async def one(number):
                async with http.get(f"{base}/square/{number}") as answer:
                    traffic.check(answer)
                    assert await answer.text() == str(number * number)

            await asyncio.gather(*map(one, range(100)))
            if framework != "django":
                async with http.ws_connect(f"{base}/ws") as ws:
                    await ws.send_str("12")
                    assert await ws.receive_str() == "144"

    with Command(server(f"hello_{framework}:app", port), tmp_path) as running:
        if server in LISTENING:
            running.wait_for(LISTENING[server])
        if server is not daphne and framework != "django":  # they have no lifespan
            processes = 2 if server.__name__.endswith("_workers") else 1
            assert running.wait_for(r"app: up on (\S+)", times=processes) == [loops.CLASS] * processes
        run(main())
        if server is sanic_workers:
            return  # its manager hangs if it is told to end before it has seen all workers up, which it tells nobody
        status = running.end(signal.SIGTERM)
        # uvicorn alone raises the signal again at its end
        assert status == (-signal.SIGTERM if server is uvicorn else 0), running.output()
        assert not re.search("Traceback|Exception", running.output()), running.output()
