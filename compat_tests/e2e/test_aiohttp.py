"""aiohttp's client against aiohttp's server in one loop, with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")

import aiohttp_app  # noqa: E402
import loops  # noqa: E402
import traffic  # noqa: E402
from aiohttp import web  # noqa: E402


@contextlib.asynccontextmanager
async def serve(tls=None):
    runner = web.AppRunner(aiohttp_app.make(), shutdown_timeout=10, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls, backlog=1024)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture(params=["tls", "plain"])
def server(request, server_tls):
    return serve(server_tls if request.param == "tls" else None)


@pytest.mark.parametrize("traffic_of", [traffic.load, traffic.gate, traffic.child, traffic.websocket])
def test_traffic(run, server, client_tls, traffic_of):
    async def main():
        async with server as base, traffic.session(ssl=client_tls) as http:
            await traffic_of(http, base)

    run(main())


def test_file(run, server, client_tls, tmp_path, monkeypatch):
    """A file of 5 MB, whole and in ranges, to twenty clients: sendfile without TLS, its fallback with it."""
    content = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setenv("E2E_FILE", str(tmp_path / "file"))

    async def one(http, base, start):
        async with http.get(f"{base}/file", headers={"range": f"bytes={start}-"}) as response:
            traffic.check(response, 206)
            digest = hashlib.sha256(await response.read()).hexdigest()
            assert digest == hashlib.sha256(content[start:]).hexdigest()

    async def main():
        async with server as base, traffic.session(ssl=client_tls) as http:
            await asyncio.gather(*(one(http, base, start) for start in range(0, len(content), 256_000)))

    run(main())


def test_shutdown_lets_a_request_end(run, server, client_tls, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("E2E_FOLDER", str(tmp_path))

    async def end_later(held, port):
        await traffic.refused("127.0.0.1", port)
        await held.end()

    async def main():
        async with traffic.session(ssl=client_tls) as http:
            async with server as base:
                held = traffic.Held(http, base, tmp_path)
                await held.begin()
                ended = asyncio.ensure_future(end_later(held, int(base.rpartition(":")[2])))
            await ended

    run(main())
    assert capfd.readouterr().out == f"app: up on {loops.CLASS}\napp: down\n"


def test_tls_is_negotiated_and_verified(run, server_tls, client_tls):
    """The transport tells what was negotiated, and a client that does not trust the authority refuses."""

    async def main():
        async with serve(server_tls) as base:
            async with traffic.session(ssl=client_tls) as http:
                held = traffic.Duplex(http, base)
                await held.echo(b"1")
                transport = held.transport()
                assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
                assert ("IP Address", "127.0.0.1") in transport.get_extra_info("peercert")["subjectAltName"]
                await held.end()
            async with traffic.session(ssl=ssl.create_default_context()) as http:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await http.get(f"{base}/sleep/0")

    run(main())


def test_cancelled_requests_close_their_connections(run, server, client_tls):
    """Clients that give up in the middle leave the server able to serve the next ones."""

    async def main():
        async with server as base, traffic.session(ssl=client_tls) as http:
            held = [asyncio.ensure_future(http.get(f"{base}/gate/1000")) for _ in range(50)]
            done, _ = await asyncio.wait(held, timeout=0.2)
            assert not done
            for task in held:
                task.cancel()
            results = await asyncio.gather(*held, return_exceptions=True)
            assert [type(result) for result in results] == [asyncio.CancelledError] * 50
            await traffic.load(http, base, requests=100)

    run(main())
