"""Pipes for the tests, and transports on their ends."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from io import FileIO
from typing import Any

from tests.helpers.recorders import Recorder
from tests.helpers.waiting import PAUSE


def pipe_files() -> tuple[FileIO, FileIO]:
    """The two ends of a new pipe as unbuffered files."""
    reader, writer = os.pipe()
    return open(reader, "rb", 0), open(writer, "wb", 0)


@contextlib.asynccontextmanager
async def reading(
    loop: asyncio.AbstractEventLoop, file: Any, protocol: Any = None
) -> AsyncIterator[tuple[asyncio.ReadTransport, Any]]:
    """A read transport on the file, as (transport, protocol)."""
    recorder = protocol or Recorder()
    transport, _ = await loop.connect_read_pipe(lambda: recorder, file)
    try:
        yield transport, recorder
    finally:
        await part(transport, recorder)


@contextlib.asynccontextmanager
async def writing(
    loop: asyncio.AbstractEventLoop, file: Any, protocol: Any = None
) -> AsyncIterator[tuple[asyncio.WriteTransport, Any]]:
    """A write transport on the file, as (transport, protocol)."""
    recorder = protocol or Recorder()
    transport, _ = await loop.connect_write_pipe(lambda: recorder, file)
    try:
        yield transport, recorder
    finally:
        await part(transport, recorder)


async def part(transport: asyncio.BaseTransport, recorder: Any) -> None:
    recorder.events = recorder.events[:]
    if "lost" not in recorder.names():
        getattr(transport, "abort", transport.close)()
        await recorder.until("lost")


async def take(file: FileIO, nbytes: int = 1 << 30) -> bytes:
    """Read that many bytes, or all up to the end, from a raw file."""
    os.set_blocking(file.fileno(), False)
    got = bytearray()
    while len(got) < nbytes:
        chunk = file.read(min(nbytes - len(got), 1 << 16))
        if chunk is None:
            await asyncio.sleep(PAUSE)
        elif not chunk:
            break
        else:
            got += chunk
    return bytes(got)


async def jam(transport: asyncio.WriteTransport) -> int:
    """Write until the pipe is full; return the size of what waits."""
    transport.set_write_buffer_limits(high=1 << 30)
    while not transport.get_write_buffer_size():
        transport.write(bytes(1 << 14))
        await asyncio.sleep(0)
    return transport.get_write_buffer_size()
