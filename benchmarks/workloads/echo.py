"""Echo servers over TCP, Unix sockets, UDP and TLS, in every style that asyncio offers."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from workloads import keep
from workloads.listening import listener


class Echo(asyncio.Protocol):
    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoPieces(Echo):
    """Answers with writelines(), in pieces of 64 bytes."""

    def data_received(self, data: bytes) -> None:
        self.transport.writelines([data[at : at + 64] for at in range(0, len(data), 64)])


class EchoWrites(Echo):
    """Answers with many calls of write() in one turn."""

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), 64):
            self.transport.write(data[at : at + 64])


class EchoTwice(Echo):
    """Answers in two writes, as a head and a body are written."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:100])
        self.transport.write(data[100:])


class EchoOnce(Echo):
    """Answers and closes."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


class EchoBuffered(asyncio.BufferedProtocol):
    transport: Any

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(1 << 18))

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(self.buffer[:nbytes])


class EchoDatagrams(asyncio.DatagramProtocol):
    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.close()


PROTOCOLS: dict[str, Any] = {
    "protocol": Echo,
    "buffered": EchoBuffered,
    "writelines": EchoPieces,
    "writes": EchoWrites,
    "two": EchoTwice,
    "once": EchoOnce,
}


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def tcp(loop: Any, style: str) -> int:
    """One of PROTOCOLS, or "streams", or "sock" for sock_recv and sock_sendall; returns the port."""
    if style == "sock":
        return await tcp_sock(loop)
    if style == "streams":
        server = await asyncio.start_server(echo_stream, sock=listener(), backlog=1024)
    else:
        server = await loop.create_server(PROTOCOLS[style], sock=listener(), backlog=1024)
    keep(server)
    return port_of(server)


async def tcp_sock(loop: Any) -> int:
    server = listener()
    clients = set()

    async def serve(conn: socket.socket) -> None:
        with conn:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := await loop.sock_recv(conn, 1 << 18):
                await loop.sock_sendall(conn, data)

    async def accept() -> None:
        while True:
            conn, _ = await loop.sock_accept(server)
            client = loop.create_task(serve(conn))
            clients.add(client)
            client.add_done_callback(clients.discard)

    keep(loop.create_task(accept()))
    port: int = server.getsockname()[1]
    return port


async def unix(loop: Any, path: str) -> str:
    keep(await loop.create_unix_server(Echo, path, backlog=1024))
    return path


async def udp(loop: Any) -> int:
    transport, _ = await loop.create_datagram_endpoint(EchoDatagrams, local_addr=("127.0.0.1", 0))
    port: int = transport.get_extra_info("sockname")[1]
    return port


async def tls(loop: Any, certificate: str, key: str) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await loop.create_server(Echo, sock=listener(), ssl=context, backlog=1024)
    keep(server)
    return port_of(server)
