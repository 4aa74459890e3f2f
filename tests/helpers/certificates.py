"""TLS contexts of an authority made up for the test run, and connections that use them."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import trustme

from tests.helpers.servers import serving
from tests.helpers.waiting import async_until

HOST = "goloop.test"


@functools.cache
def _authority() -> tuple[trustme.CA, trustme.LeafCert]:
    authority = trustme.CA()
    return authority, authority.issue_cert(HOST, "127.0.0.1")


def server_context() -> ssl.SSLContext:
    """A new context for a server called ``HOST``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority()[1].configure_cert(context)
    return context


def client_context(*, trusting: bool = True) -> ssl.SSLContext:
    """A new context for its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusting:
        _authority()[0].configure_trust(context)
    return context


@contextlib.asynccontextmanager
async def tls_server(loop: asyncio.AbstractEventLoop, factory: Callable[[], Any], **options: Any) -> AsyncIterator[Any]:
    """The address of a TLS server; closed without ado if the scenario fails."""
    async with serving(loop, factory, ssl=options.pop("context", None) or server_context(), **options) as (_, address):
        yield address


@contextlib.asynccontextmanager
async def tls_pair(
    loop: asyncio.AbstractEventLoop, ours: Any, theirs: Any, **options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """Two protocols connected over TLS, ours being the client's; yields our transport and theirs."""
    async with tls_server(loop, lambda: theirs) as address:
        options.setdefault("ssl", client_context())
        transport, _ = await loop.create_connection(lambda: ours, *address, server_hostname=HOST, **options)
        await theirs.until("made")
        sockets = [each.transport.get_extra_info("socket") for each in (ours, theirs)]
        yield transport, theirs.transport
        for each in (ours, theirs):
            each.events = each.events[:]
            each.transport.abort()
        await async_until(lambda: all(sock.fileno() == -1 for sock in sockets))
