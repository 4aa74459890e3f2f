"""A server for a test, and somebody who talks to it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.helpers.recorders import Echo
from tests.helpers.sockets import receive


@contextlib.asynccontextmanager
async def ending(server: asyncio.Server) -> AsyncIterator[asyncio.Server]:
    """Close the server afterwards, and wait for the end of all connections that it has accepted.

    That a client is gone, its server learns when its loop looks again. A loop that is closed before that leaves the
    connection open: asyncio warns of it then, whenever the garbage is collected.
    """
    closed = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)  # it waits from here on: on Python 3.11 it waits for nobody if it begins after close()
    try:
        yield server
    except BaseException:
        closed.cancel()  # no waiting for connections that a failed scenario left open
        server.close()
        raise
    server.close()
    await closed
    await server.wait_closed()


@contextlib.asynccontextmanager
async def serving(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol] = Echo, **options: Any
) -> AsyncIterator[tuple[asyncio.Server, Any]]:
    """A server on a port of its own, and its address; closed, with its connections, afterwards."""
    async with ending(await loop.create_server(factory, "127.0.0.1", 0, **options)) as server:
        yield server, server.sockets[0].getsockname()


async def talks(loop: asyncio.AbstractEventLoop, address: Any, family: socket.AddressFamily = socket.AF_INET) -> bool:
    """Whether somebody at that address echoes."""
    with socket.socket(family) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        sock.send(b"ping")
        return await receive(sock, 4) == b"ping"
