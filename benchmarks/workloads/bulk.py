"""Much data one way: a server that sends as fast as flow control lets it, and one that receives."""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import Any

from workloads import keep
from workloads.echo import port_of
from workloads.listening import listener

BLOCK = random.Random(0).randbytes(1 << 16)
TURN = 16  # blocks that the protocol writes before it lets the loop work, if nobody pauses it


class Source(asyncio.Protocol):
    """Sends BLOCK over and over."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.sending = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        for _ in range(TURN):
            if not self.sending:
                return
            self.transport.write(BLOCK)
        self.loop.call_soon(self.send)

    def pause_writing(self) -> None:
        self.sending = False

    def resume_writing(self) -> None:
        if not self.sending:
            self.sending = True
            self.loop.call_soon(self.send)

    def connection_lost(self, exc: Exception | None) -> None:
        self.sending = False


class Sink(asyncio.Protocol):
    """Takes everything; with `digest` it answers at the end with length and CRC-32 of what came."""

    def __init__(self, digest: bool) -> None:
        self.digest = digest
        self.length = self.crc = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.length += len(data)
        if self.digest:
            self.crc = zlib.crc32(data, self.crc)

    def eof_received(self) -> None:
        if self.digest:
            self.transport.write(b"%d %d" % (self.length, self.crc))


async def source_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            writer.write(BLOCK)
            await writer.drain()
    except ConnectionError:
        writer.close()


async def sink_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, digest: bool) -> None:
    length = crc = 0
    while data := await reader.read(1 << 18):
        length += len(data)
        if digest:
            crc = zlib.crc32(data, crc)
    if digest:
        writer.write(b"%d %d" % (length, crc))
    writer.close()


async def source(loop: Any, streams: bool) -> int:
    if streams:
        server = await asyncio.start_server(source_stream, sock=listener())
    else:
        server = await loop.create_server(lambda: Source(loop), sock=listener())
    keep(server)
    return port_of(server)


async def sink(loop: Any, streams: bool, digest: bool = False) -> int:
    if streams:
        server = await asyncio.start_server(lambda r, w: sink_stream(r, w, digest), sock=listener())
    else:
        server = await loop.create_server(lambda: Sink(digest), sock=listener())
    keep(server)
    return port_of(server)
