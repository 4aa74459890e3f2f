"""Context variables of accepted connections: each connection starts from the context in which its server was made."""

import asyncio
import contextlib
import contextvars
import inspect
import socket

import pytest

from tests.helpers.certificates import client_context, server_context
from tests.helpers.recorders import Recorder
from tests.helpers.servers import ending
from tests.helpers.sockets import socket_pair
from tests.helpers.waiting import async_until

VAR = contextvars.ContextVar("var", default="unset")

KINDS = ["tcp", "unix", "tls"]


@contextlib.asynccontextmanager
async def server_of(loop, kind, path, serve):
    """A server made by `serve`, a factory or a callback of streams; yields how to connect to it."""
    streams = inspect.iscoroutinefunction(serve)
    options = {"ssl": server_context()} if kind == "tls" else {}
    if kind == "unix":
        make = asyncio.start_unix_server if streams else loop.create_unix_server
        server = await make(serve, path)
        connect = lambda: asyncio.open_unix_connection(path)  # noqa: E731
    else:
        make = asyncio.start_server if streams else loop.create_server
        server = await make(serve, "127.0.0.1", 0, **options)
        address = server.sockets[0].getsockname()
        secure = {"ssl": client_context()} if kind == "tls" else {}
        connect = lambda: asyncio.open_connection(*address, **secure)  # noqa: E731
    async with ending(server):
        yield connect


@pytest.mark.parametrize("kind", KINDS)
def test_a_factory_does_not_see_what_the_one_before_set(both, kind, tmp_path):
    async def scenario(loop):
        seen = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                seen.append(VAR.get())
                VAR.set("connection")
                transport.close()

        def factory():
            seen.append(VAR.get())
            VAR.set("factory")
            return Protocol()

        VAR.set("server")
        async with server_of(loop, kind, tmp_path / loop_name(loop), factory) as connect:
            VAR.set("later")
            for _ in range(3):
                reader, writer = await connect()
                await reader.read()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return seen, VAR.get()

    assert both(scenario) == (["server", "factory"] * 3, "later")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_servers_callback_does_not_see_what_the_one_before_set(both, kind, tmp_path):
    async def scenario(loop):
        seen = []

        async def serve(reader, writer):
            seen.append(VAR.get())
            VAR.set("connection")
            await asyncio.sleep(0)
            seen.append(VAR.get())
            writer.close()

        VAR.set("server")
        async with server_of(loop, kind, tmp_path / loop_name(loop), serve) as connect:
            VAR.set("later")
            for _ in range(3):
                reader, writer = await connect()
                await reader.read()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return seen, VAR.get()

    assert both(scenario) == (["server", "connection"] * 3, "later")


def test_connections_of_one_batch_do_not_see_each_other(both):
    async def scenario(loop):
        seen, recorders = [], []

        def factory():
            seen.append(VAR.get())
            VAR.set("factory")
            recorders.append(Recorder())
            return recorders[-1]

        listener = socket.create_server(("127.0.0.1", 0))
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            server = await loop.create_server(factory, sock=listener)
            await async_until(lambda: len(seen) == 5)
        for recorder in recorders:
            await recorder.until("lost")
        server.close()
        await server.wait_closed()
        return seen

    assert both(scenario) == ["unset"] * 5


def test_an_accepted_sockets_protocol_has_a_context_of_its_own(both):
    async def scenario(loop):
        seen = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                seen.append(VAR.get())
                VAR.set("connection")

        VAR.set("caller")
        for _ in range(2):
            ours, peer = socket_pair("tcp")
            with peer:
                transport, _ = await loop.connect_accepted_socket(Protocol, ours)
                transport.close()
                await asyncio.sleep(0)
        return seen, VAR.get()

    assert both(scenario) == (["caller"] * 2, "caller")


def loop_name(loop):
    """A name that the two loops do not share: asyncio's leaves its socket behind up to Python 3.12."""
    return type(loop).__module__
