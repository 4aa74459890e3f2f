"""hypercorn serving the Starlette application: HTTP/1, HTTP/2 over TLS, WebSockets, processes, a graceful end."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")
pytest.importorskip("hypercorn", reason="hypercorn is not installed: pip install hypercorn")
pytest.importorskip("starlette", reason="Starlette is not installed: pip install starlette")

import loops
import traffic
from commands import Command

KIND = "uvloop" if loops.NAME == "uvloop" else "asyncio"


def command(folder, workers, *options):
    """Start hypercorn. workers 0: in the process itself, on the launcher's loop; otherwise in spawned ones."""
    start = loops.python("-m", "hypercorn") if workers == 0 else [sys.executable, "-m", "hypercorn"]
    args = [*start, "--worker-class", KIND, "--workers", str(workers), "--bind", "127.0.0.1:0", "--backlog", "1024"]
    return Command([*args, "--keep-alive", "60", "--access-logfile", "-", *options, "starlette_app:app"], folder)


def address(server, workers):
    found = server.wait_for(r"Running on (https?)://127.0.0.1:(\d+)", times=max(workers, 1))
    assert len(set(found)) == 1
    assert server.wait_for(r"app: up on (\S+)", times=max(workers, 1)) == [loops.CLASS] * max(workers, 1)
    return "{}://127.0.0.1:{}".format(*found[0])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_load(run, tmp_path, client_tls, certificate_files, workers, tls):
    certificate, key = certificate_files
    options = ["--certfile", str(certificate), "--keyfile", str(key)] if tls else []

    async def main(base):
        async with traffic.session(ssl=client_tls) as http:
            await traffic.load(http, base)
            if workers == 0:
                await traffic.gate(http, base)
            await traffic.child(http, base)
            await traffic.websocket(http, base)

    with command(tmp_path, workers, *options) as server:
        run(main(address(server, workers)))
        assert server.end(signal.SIGTERM) == 0
        server.wait_for("app: down")  # once: hypercorn terminates the other workers as soon as the first has ended
        assert "Traceback (most" not in server.output()


def test_http2(run, tmp_path, authority, certificate_files):
    """A hundred streams at once on one TLS connection; h2 is the client."""
    connection = pytest.importorskip("h2.connection", reason="h2 is not installed: pip install h2")
    events = pytest.importorskip("h2.events")
    certificate, key = certificate_files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    bodies = {1 + 2 * i: bytes([i]) * (i * 150) for i in range(100)}

    async def main(base):
        port = int(base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        h2 = connection.H2Connection()
        h2.initiate_connection()
        h2.increment_flow_control_window(2**24)
        received = {}
        pending = list(bodies.items())
        unanswered = set(bodies)
        while unanswered:
            while pending and h2.open_outbound_streams < 50 and len(pending[0][1]) <= h2.outbound_flow_control_window:
                stream, body = pending.pop(0)
                headers = [(":method", "POST"), (":path", "/echo"), (":scheme", "https"), (":authority", "localhost")]
                h2.send_headers(stream, headers)
                h2.send_data(stream, body, end_stream=True)
            writer.write(h2.data_to_send())
            await writer.drain()
            data = await reader.read(65_536)
            assert data
            for event in h2.receive_data(data):
                if isinstance(event, events.ResponseReceived):
                    headers = dict(event.headers)
                    assert headers[b":status"] == b"200"
                    assert headers[b"x-loop"] == loops.CLASS.encode()
                    received[event.stream_id] = b""
                elif isinstance(event, events.DataReceived):
                    received[event.stream_id] += event.data
                    h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, events.StreamEnded):
                    unanswered.remove(event.stream_id)
        assert received == bodies
        h2.close_connection()
        writer.write(h2.data_to_send())
        writer.close()
        await writer.wait_closed()

    with command(tmp_path, 0, "--certfile", str(certificate), "--keyfile", str(key)) as server:
        run(main(address(server, 0)))
        assert server.end(signal.SIGTERM) == 0
        assert server.output().count("POST /echo 2") == len(bodies)
        assert "Traceback (most" not in server.output()


def test_a_request_in_hand_ends_after_the_signal(run, tmp_path):
    async def main(server, base):
        async with traffic.session() as http:
            held = traffic.Duplex(http, base)
            await held.echo(b"before" * 10_000)
            server.process.send_signal(signal.SIGTERM)
            await traffic.refused("127.0.0.1", int(base.rpartition(":")[2]))
            await held.echo(b"after" * 10_000)
            assert server.process.poll() is None
            await held.end()

    with command(tmp_path, 0, "--graceful-timeout", "20") as server:
        run(main(server, address(server, 0)))
        assert server.end() == 0
        assert server.wait_for("app: down") == ["app: down"]
        assert "Traceback (most" not in server.output()
