"""Datagram endpoints for the tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.helpers.recorders import DatagramRecorder

LOCAL = "127.0.0.1", 0


@contextlib.asynccontextmanager
async def endpoint(
    loop: asyncio.AbstractEventLoop, protocol: Any = None, **options: Any
) -> AsyncIterator[tuple[asyncio.DatagramTransport, Any]]:
    """An endpoint, by default on a port of its own, as (transport, protocol); closed in the end."""
    if not options:
        options = {"local_addr": LOCAL}
    recorder = protocol or DatagramRecorder()
    transport, _ = await loop.create_datagram_endpoint(lambda: recorder, **options)
    try:
        yield transport, recorder
    finally:
        recorder.events = recorder.events[:]
        if not transport.is_closing():
            transport.abort()
            await recorder.until("lost")


def name_of(transport: asyncio.BaseTransport) -> Any:
    return transport.get_extra_info("sockname")


def datagrams(recorder: DatagramRecorder) -> list[bytes]:
    """What was received, without senders."""
    return [event[1] for event in recorder.events if event[0] == "datagram"]
