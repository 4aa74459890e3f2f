"""uvicorn, started as a command, serving Starlette: loads of requests, WebSockets, subprocesses, a graceful end."""

from __future__ import annotations

import signal
import sys

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install uvicorn")
pytest.importorskip("starlette", reason="Starlette is not installed: pip install starlette")

import loops
import traffic
from commands import Command

LOOP = {"goloop": "goloop:new_event_loop"}.get(loops.NAME, loops.NAME)


def command(folder, *options):
    args = [sys.executable, "-X", "faulthandler", "-m", "uvicorn", "starlette_app:app", "--loop", LOOP, "--port", "0"]
    return Command([*args, "--backlog", "1024", "--timeout-keep-alive", "60", *options], folder)


def address(server):
    scheme, port = server.wait_for(r"Uvicorn running on (https?)://127.0.0.1:(\d+)")[0]
    assert server.wait_for(r"app: up on (\S+)") == [loops.CLASS]
    return f"{scheme}://127.0.0.1:{port}"


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_load(run, tmp_path, client_tls, certificate_files, parser, tls):
    pytest.importorskip(parser, reason=f"{parser} is not installed: pip install {parser}")
    certificate, key = certificate_files
    options = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)] if tls else []

    async def main(base):
        async with traffic.session(ssl=client_tls) as http:
            await traffic.load(http, base)
            await traffic.gate(http, base)
            await traffic.child(http, base)

    with command(tmp_path, "--http", parser, *options) as server:
        run(main(address(server)))
        assert server.end(signal.SIGTERM) == -signal.SIGTERM  # uvicorn raises the signal again at its end
        assert server.output().count("200 OK") == traffic.REQUESTS * 4 // 5 + traffic.GATE + 10
        assert server.wait_for("app: down") == ["app: down"]
        assert "Traceback (most" not in server.output()


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
def test_websockets(run, tmp_path, implementation):
    module = implementation.partition("-")[0]
    pytest.importorskip(module, reason=f"{module} is not installed: pip install {module}")

    async def main(base):
        async with traffic.session() as http:
            await traffic.websocket(http, base)

    with command(tmp_path, "--ws", implementation) as server:
        run(main(address(server)))
        assert server.end(signal.SIGTERM) == -signal.SIGTERM
        assert "Traceback (most" not in server.output()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_a_request_in_hand_ends_after_the_signal(run, tmp_path, signum, status):
    async def main(server, base):
        async with traffic.session() as http:
            held = traffic.Duplex(http, base)
            await held.echo(b"before" * 10_000)
            server.process.send_signal(signum)
            await traffic.refused("127.0.0.1", int(base.rpartition(":")[2]))
            await held.echo(b"after" * 10_000)
            assert server.process.poll() is None
            await held.end()

    with command(tmp_path) as server:
        run(main(server, address(server)))
        assert server.end() == status
        assert server.wait_for("app: down") == ["app: down"]
        assert "Traceback (most" not in server.output()


def test_workers(run, tmp_path):
    """Two worker processes, each with its own loop; SIGTERM ends them and their parent."""

    async def main(base):
        async with traffic.session() as http:
            await traffic.load(http, base)

    with command(tmp_path, "--workers", "2") as server:
        assert server.wait_for(r"app: up on (\S+)", times=2) == [loops.CLASS] * 2
        (port,) = server.wait_for(r"Uvicorn running on http://127.0.0.1:(\d+)")
        run(main(f"http://127.0.0.1:{port}"))
        assert server.end(signal.SIGTERM) == 0
        assert server.wait_for("app: down", times=2) == ["app: down"] * 2
        assert "Traceback (most" not in server.output()


@pytest.mark.skipif(loops.NAME != "goloop", reason="only goloop has a launcher")
@pytest.mark.parametrize("choice", ["auto", "uvloop", "asyncio"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_launcher_whatever_loop_uvicorn_chooses(run, tmp_path, choice, workers):
    async def main(base):
        async with traffic.session() as http:
            await traffic.load(http, base)

    args = loops.python("-m", "uvicorn", "starlette_app:app", "--port", "0", "--loop", choice)
    with Command([*args, "--workers", str(workers), "--backlog", "1024"], tmp_path) as server:
        assert server.wait_for(r"app: up on (\S+)", times=workers) == [loops.CLASS] * workers
        (port,) = server.wait_for(r"Uvicorn running on http://127.0.0.1:(\d+)")
        run(main(f"http://127.0.0.1:{port}"))
        assert server.end(signal.SIGTERM) == (0 if workers > 1 else -signal.SIGTERM)
        assert "python -m goloop:" not in server.output()
        assert "Traceback (most" not in server.output()
