"""A server for a test, and somebody who talks to it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.helpers.recorders import Echo
from tests.helpers.sockets import receive


async def ended(server: asyncio.Server) -> None:
    """Close a server, and wait for the end of the connections that it has accepted: also of those whose client is gone
    and whose loop has not seen it yet. On Python 3.11 wait_closed() waits for them only if it began before close().
    """
    closed = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)
    server.close()
    await closed
    await server.wait_closed()


@contextlib.asynccontextmanager
async def serving(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol] = Echo, **options: Any
) -> AsyncIterator[tuple[asyncio.Server, Any]]:
    """A server on a port of its own, and its address; closed, with its connections, afterwards."""
    server = await loop.create_server(factory, "127.0.0.1", 0, **options)
    try:
        yield server, server.sockets[0].getsockname()
    except BaseException:
        server.close()  # no waiting for connections that a failed scenario left open
        raise
    await ended(server)


async def talks(loop: asyncio.AbstractEventLoop, address: Any, family: socket.AddressFamily = socket.AF_INET) -> bool:
    """Whether somebody at that address echoes."""
    with socket.socket(family) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        sock.send(b"ping")
        return await receive(sock, 4) == b"ping"
