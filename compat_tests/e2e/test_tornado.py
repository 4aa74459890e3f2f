"""Tornado: its own streams on add_reader and add_writer, TLS, WebSockets, its HTTP client, forked servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

pytest.importorskip("tornado", reason="Tornado is not installed: pip install tornado")
pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")

import loops
import tornado.httpclient
import tornado.httpserver
import tornado.ioloop
import tornado.iostream
import tornado.netutil
import tornado.tcpclient
import tornado.tcpserver
import tornado.web
import tornado.websocket
import traffic
from commands import APPS, Command


class Echo(tornado.web.RequestHandler):
    async def post(self):
        self.set_header("x-loop", loops.class_name())
        self.write(self.request.body)


class Stream(tornado.web.RequestHandler):
    async def get(self, count):
        self.set_header("x-loop", loops.class_name())
        for i in range(int(count)):
            self.write(b"%06d" % i * 1000)
            await self.flush()


class Thread(tornado.web.RequestHandler):
    async def get(self, number):
        square = await tornado.ioloop.IOLoop.current().run_in_executor(None, pow, int(number), 2)
        self.set_header("x-loop", loops.class_name())
        self.write(str(square))


class Socket(tornado.websocket.WebSocketHandler):
    async def on_message(self, message):
        if message == "bye":
            self.close(4000, loops.class_name())
        else:
            await self.write_message(message, binary=isinstance(message, bytes))


@contextlib.asynccontextmanager
async def serve(tls):
    routes = [("/echo", Echo), (r"/stream/(\d+)", Stream), (r"/thread/(\d+)", Thread), ("/ws", Socket)]
    server = tornado.httpserver.HTTPServer(tornado.web.Application(routes), ssl_options=tls)
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1", backlog=1024)
    server.add_sockets(sockets)
    assert tornado.ioloop.IOLoop.current().asyncio_loop is asyncio.get_running_loop()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.fixture(params=["plain", "tls"])
def tls(request, server_tls):
    return server_tls if request.param == "tls" else None


@pytest.fixture
def fetch(client_tls):
    """Return a context manager that gives the fetch() of a client without a limit worth the name."""

    @contextlib.contextmanager
    def fetch():
        client = tornado.httpclient.AsyncHTTPClient(force_instance=True, max_clients=400)

        async def one(url, **options):
            options = {"ssl_options": client_tls, "request_timeout": 50, "connect_timeout": 50, **options}
            response = await client.fetch(url, **options)
            assert response.headers["x-loop"] == loops.CLASS
            return response.body

        try:
            yield one
        finally:
            client.close()

    return fetch


def test_load_with_its_own_client(run, tls, fetch):
    async def main():
        async with serve(tls) as base:
            with fetch() as one:

                async def mixed(number):
                    body = os.urandom(number * 500)
                    assert await one(f"{base}/echo", method="POST", body=body) == body
                    if number % 4 == 0:
                        got = await one(f"{base}/stream/{number % 50}")
                        assert got == b"".join(b"%06d" % i * 1000 for i in range(number % 50))
                    assert await one(f"{base}/thread/{number}") == b"%d" % number**2

                await asyncio.gather(*(mixed(number) for number in range(300)))

    run(main())


def test_load_with_aiohttp(run, tls, client_tls):
    """The client is on transports, the server on watched descriptors, both in one loop."""

    async def main():
        async with serve(tls) as base, traffic.session(ssl=client_tls) as http:

            async def one(number):
                body = os.urandom(number * 500)
                async with http.post(f"{base}/echo", data=body) as response:
                    traffic.check(response)
                    assert await response.read() == body

            await asyncio.gather(*(one(number) for number in range(400)))

    run(main())


def test_websockets(run, tls, client_tls):
    async def main():
        async with serve(tls) as base:

            async def one(number):
                url = base.replace("http", "ws", 1) + "/ws"
                ws = await tornado.websocket.websocket_connect(
                    tornado.httpclient.HTTPRequest(url, ssl_options=client_tls)
                )
                for size in (0, 1, 126, 70_000):
                    for message in ("t" * size, bytes([number]) * size):
                        await ws.write_message(message, binary=isinstance(message, bytes))
                        assert await ws.read_message() == message
                await ws.write_message("bye")
                assert await ws.read_message() is None
                assert (ws.close_code, ws.close_reason) == (4000, loops.CLASS)
                ws.close()

            await asyncio.gather(*(one(number) for number in range(50)))

    run(main())


def test_streams(run):
    """IOStream against IOStream: delimiters, a large body both ways at once, and a close that both ends see."""
    size = 8_000_000

    class Server(tornado.tcpserver.TCPServer):
        async def handle_stream(self, stream, address):
            assert await stream.read_until(b"\n") == b"hello\n"
            sending = stream.write(b"s" * size)
            assert await stream.read_bytes(size) == b"c" * size
            await sending
            stream.close()

    async def main():
        server = Server()
        server.listen(0, "127.0.0.1")
        (sock,) = server._sockets.values()

        async def client():
            stream = await tornado.tcpclient.TCPClient().connect("127.0.0.1", sock.getsockname()[1])
            await stream.write(b"hello\n")
            sending = stream.write(b"c" * size)
            assert await stream.read_bytes(size) == b"s" * size
            await sending
            with pytest.raises(tornado.iostream.StreamClosedError):
                await stream.read_bytes(1)

        await asyncio.gather(*(client() for _ in range(5)))
        server.stop()

    run(main())


def test_periodic_and_callbacks(run):
    """Tornado's own timers and calls between threads end at the loop's."""

    async def main():
        ioloop = tornado.ioloop.IOLoop.current()
        ticks = asyncio.Queue()
        periodic = tornado.ioloop.PeriodicCallback(lambda: ticks.put_nowait("tick"), 1)
        periodic.start()
        assert [await ticks.get() for _ in range(20)] == ["tick"] * 20
        periodic.stop()
        got = asyncio.Queue()
        await asyncio.to_thread(lambda: [ioloop.add_callback(got.put_nowait, i) for i in range(1000)])
        assert [await got.get() for _ in range(1000)] == list(range(1000))

    run(main())


@pytest.mark.parametrize("processes", [1, 2])
def test_forked_servers(run, tmp_path, processes):
    """The program forks before it makes its loops, as Tornado's guide has it; SIGTERM ends each process."""

    async def main(base):
        seen = set()
        async with traffic.session() as http:

            async def one(number):
                body = b"%d" % number * 1000
                async with http.post(f"{base}/echo", data=body) as response:
                    traffic.check(response)
                    assert await response.read() == body

            await asyncio.gather(*(one(number) for number in range(300)))
        while len(seen) < processes:
            async with traffic.session() as http, http.get(f"{base}/pid") as response:
                traffic.check(response)
                seen.add(int(await response.text()))
        return seen

    args = [sys.executable, "-X", "faulthandler", str(APPS / "tornado_app.py"), str(processes)]
    with Command(args, tmp_path) as server:
        (port,) = server.wait_for(r"port: (\d+)\n")
        up = server.wait_for(r"up: (\d+) (\S+)\n", times=processes)
        assert {name for _, name in up} == {loops.CLASS}
        pids = {int(pid) for pid, _ in up}
        assert run(main(f"http://127.0.0.1:{port}")) == pids
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        assert server.end() == 0
        assert {int(pid) for pid in server.wait_for(r"down: (\d+)\n", times=processes)} == pids
        assert "Traceback (most" not in server.output()
