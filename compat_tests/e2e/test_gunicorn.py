"""gunicorn with aiohttp's worker: forked workers, HUP, the control socket, a graceful end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")
pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")

import loops
import traffic
from commands import Command

STOCK_WORKER = "aiohttp.GunicornWebWorker"
WORKERS = {
    "asyncio": STOCK_WORKER,
    "uvloop": "aiohttp.GunicornUVLoopWebWorker",
    "goloop": "goloop.contrib.gunicorn.AiohttpWorker",
}


@pytest.fixture(params=["launcher", "worker class"] if loops.NAME == "goloop" else ["worker class"])
def start(request, tmp_path):
    """Return a function that starts gunicorn, by each way that the loop under test gets in."""

    def start(workers, *options):
        if request.param == "launcher":  # everything is on goloop, the master's control socket too
            args = [*loops.python("-m", "gunicorn"), "--worker-class", STOCK_WORKER]
        else:
            args = [sys.executable, "-X", "faulthandler", "-m", "gunicorn", "--worker-class", WORKERS[loops.NAME]]
        args += ["--bind", "127.0.0.1:0", "--workers", str(workers), "--control-socket", str(tmp_path / "control")]
        # 2 s by default, which a load on a slow machine is over with connections that wait for their turn
        args += ["--backlog", "1024", "--keep-alive", "60", *options]
        return Command([*args, "aiohttp_app:factory"], tmp_path)

    return start


def address(server, workers):
    (port,) = server.wait_for(r"Listening at: http://127.0.0.1:(\d+)")
    assert server.wait_for(r"app: up on (\S+)", times=workers) == [loops.CLASS] * workers
    return f"http://127.0.0.1:{port}"


def test_load(run, start):
    async def main(base):
        async with traffic.session() as http:
            await traffic.load(http, base)
            await traffic.gate(http, base)
            await traffic.child(http, base)
            await traffic.websocket(http, base)

    with start(1) as server:
        run(main(address(server, 1)))
        assert server.end(signal.SIGTERM) == 0
        assert server.wait_for("app: down") == ["app: down"]
        assert "Traceback (most" not in server.output()


def test_tls(run, start, client_tls, certificate_files):
    certificate, key = certificate_files

    async def main(base):
        async with traffic.session(ssl=client_tls) as http:
            await traffic.load(http, base)

    with start(1, "--certfile", str(certificate), "--keyfile", str(key)) as server:
        (port,) = server.wait_for(r"Listening at: https://127.0.0.1:(\d+)")
        assert server.wait_for(r"app: up on (\S+)") == [loops.CLASS]
        run(main(f"https://127.0.0.1:{port}"))
        assert server.end(signal.SIGTERM) == 0
        assert "Traceback (most" not in server.output()


async def pids(base, wanted):
    """Return the pids of the workers, once connections have been taken by `wanted` of them."""
    found = set()
    while len(found) < wanted:
        async with traffic.session() as http:  # new connections each time

            async def one(http=http):
                async with http.get(f"{base}/pid") as response:
                    traffic.check(response)
                    return int(await response.text())

            found.update(await asyncio.gather(*(one() for _ in range(20))))
    return found


def test_workers_and_reload(run, start):
    """HUP replaces both workers, while requests go on; TERM ends the new ones."""

    async def main(server, base):
        before = await pids(base, 2)
        async with traffic.session() as http:
            await traffic.load(http, base)
        server.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(server.wait_for, "app: down", times=2)
        after = await pids(base, 2)
        assert len(before) == len(after) == 2
        assert before.isdisjoint(after)
        async with traffic.session() as http:
            await traffic.load(http, base)

    with start(2) as server:
        run(main(server, address(server, 2)))
        assert server.end(signal.SIGTERM) == 0
        assert server.wait_for(r"app: up on (\S+)", times=4) == [loops.CLASS] * 4
        assert server.wait_for("app: down", times=4) == ["app: down"] * 4
        assert "Traceback (most" not in server.output()
        assert "did not stop before fork" not in server.output()


def test_a_worker_that_dies_is_replaced(run, start):
    """The master forks while the control socket's loop runs in a thread of its own; the new worker serves."""

    async def main(server, base):
        (old,) = await pids(base, 1)
        for times in (2, 3, 4):
            os.kill(old, signal.SIGKILL)
            await asyncio.to_thread(server.wait_for, "app: up on", times=times)
            (new,) = await pids(base, 1)
            assert new != old
            old = new
        async with traffic.session() as http:
            await traffic.load(http, base, requests=100)

    with start(1) as server:
        run(main(server, address(server, 1)))
        assert server.end(signal.SIGTERM) == 0
        assert "Traceback (most" not in server.output()
        assert "did not stop before fork" not in server.output()


def test_control_socket(start, tmp_path):
    """The master's own loop, in a thread: 27 and later answer there."""
    client = pytest.importorskip("gunicorn.ctl.client", reason="this gunicorn has no control socket")
    with start(2) as server:
        address(server, 2)
        # The thread's loop is stopped and started again around each fork: the last start is the one to ask
        server.wait_for(r"Control socket listening", times=1)
        for _ in range(20):
            with client.ControlClient(str(tmp_path / "control")) as control:
                workers = control.send_command("show workers")
                assert workers["count"] == 2
        # No word on tracebacks: in 3.11 asyncio.streams logs the cancelling of a handler that ends with the master
        assert server.end(signal.SIGTERM) == 0


def test_a_request_in_hand_ends_after_the_signal(run, start, tmp_path, monkeypatch):
    monkeypatch.setenv("E2E_FOLDER", str(tmp_path))

    async def main(server, base):
        async with traffic.session() as http:
            held = traffic.Held(http, base, tmp_path)
            await held.begin()
            server.process.send_signal(signal.SIGTERM)
            await traffic.refused("127.0.0.1", int(base.rpartition(":")[2]))
            assert server.process.poll() is None
            await held.end()

    with start(1) as server:
        run(main(server, address(server, 1)))
        assert server.end() == 0
        assert server.wait_for("app: down") == ["app: down"]
        assert "Traceback (most" not in server.output()
