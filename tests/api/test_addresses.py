"""Addresses as protocols and get_extra_info() see them: IPv4, IPv6, Unix sockets with and without names."""

import asyncio
import contextlib
import os
import socket

import pytest

from tests.helpers.endpoints import endpoint
from tests.helpers.recorders import DatagramRecorder
from tests.helpers.servers import ending

needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")
INET = (socket.AF_INET, "127.0.0.1")
FAMILIES = [INET, pytest.param((socket.AF_INET6, "::1"), marks=needs_ipv6)]


class Answering(DatagramRecorder):
    """Sends back what it gets, to the address in the form that `answer_to` makes of it."""

    answer_to = staticmethod(lambda addr: addr)

    def connection_made(self, transport):
        super().connection_made(transport)
        self.endpoint = transport

    def datagram_received(self, data, addr):
        self.seen = addr
        self.endpoint.sendto(data, self.answer_to(addr))


async def ask(loop, sock, data, address):
    await loop.sock_sendto(sock, data, address)
    return await asyncio.wait_for(loop.sock_recvfrom(sock, 100), 30)


def copy(addr):
    return addr[:1] + addr[1:]


@pytest.mark.parametrize(
    "form", [lambda addr: addr, copy, lambda addr: addr[:2]], ids=["itself", "equal", "host, port"]
)
@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_a_datagram_is_answered_to_where_it_came_from(both, family, form):
    async def scenario(loop):
        kind, host = family
        protocol = Answering()
        protocol.answer_to = form
        async with endpoint(loop, protocol, local_addr=(host, 0), family=kind) as (transport, _):
            with socket.socket(kind, socket.SOCK_DGRAM) as one, socket.socket(kind, socket.SOCK_DGRAM) as two:
                name = transport.get_extra_info("sockname")
                seen = []
                for sock in (one, two, one):
                    sock.setblocking(False)
                    data, source = await ask(loop, sock, b"hello", name)
                    seen.append((data, source == name, protocol.seen[1] == sock.getsockname()[1]))
                return seen, len(name), name[0], protocol.seen[0], [type(part) for part in protocol.seen]

    outcome = both(scenario)
    assert outcome[0] == [(b"hello", True, True)] * 3 and outcome[2] == outcome[3] == family[1]


@pytest.mark.parametrize(
    "address",
    [("localhost", 9), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("127.0.0.1",), ("127.0.0.1\0", 9), (b"x", 9), 5, None],
    ids=repr,
)
def test_an_address_that_is_none(both, address):
    async def scenario(loop):
        loop.set_exception_handler(lambda loop, context: seen.append(type(context["exception"]).__name__))
        seen = []
        protocol = DatagramRecorder()
        async with endpoint(loop, protocol, local_addr=("127.0.0.1", 0)) as (transport, _):
            with contextlib.suppress(Exception):
                transport.sendto(b"x", address)
            await asyncio.sleep(0)
            return seen, transport.is_closing()

    seen, closing = both(scenario)
    assert closing == bool(seen)  # what the handler was told of closes it


@pytest.mark.parametrize("name", ["path", "abstract", "none"])
def test_unix_datagram_addresses(both, name, tmp_path):
    async def scenario(loop):
        ours, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        ours.bind(str(tmp_path / f"{loop.time()}"))
        protocol = DatagramRecorder()
        address = {"path": str(tmp_path / f"a{loop.time()}"), "abstract": b"\0goloop-%d" % os.getpid(), "none": None}[
            name
        ]
        with theirs:
            if address is not None:
                theirs.bind(address)
            async with endpoint(loop, protocol, sock=ours) as (transport, _):
                seen = loop.create_future()
                protocol.datagram_received = lambda data, addr: seen.set_result((data, addr))
                theirs.sendto(b"x", transport.get_extra_info("sockname"))
                data, source = await asyncio.wait_for(seen, 30)
                return data, type(source), source == (address if address is not None else source)

    assert both(scenario)[2]


class Keep(asyncio.Protocol):
    def __init__(self, made):
        self.made = made

    def connection_made(self, transport):
        self.made.set_result(transport)


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_both_ends_of_a_tcp_connection_know_the_addresses(both, family):
    async def scenario(loop):
        made = loop.create_future()
        server = await loop.create_server(lambda: Keep(made), family[1], 0)
        async with ending(server):
            name = server.sockets[0].getsockname()
            client, _ = await loop.create_connection(asyncio.Protocol, *name[:2])
            accepted = await asyncio.wait_for(made, 30)
            info = client.get_extra_info, accepted.get_extra_info
            sock = info[1]("socket")
            outcome = (
                info[0]("peername") == info[1]("sockname") == name,
                info[1]("peername") == info[0]("sockname") == sock.getpeername(),
                len(name),
                (sock.gettimeout(), sock.type == socket.SOCK_STREAM, os.get_inheritable(sock.fileno())),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0,
            )
            client.close()
            accepted.close()
        return outcome

    assert both(scenario)[:2] == (True, True)


@pytest.mark.parametrize("name", ["path", "abstract", "none"])
def test_the_name_of_a_unix_client(both, name, tmp_path):
    async def scenario(loop):
        made = loop.create_future()
        path = str(tmp_path / f"s{loop.time()}")
        server = await loop.create_unix_server(lambda: Keep(made), path)
        address = {"path": str(tmp_path / f"c{loop.time()}"), "abstract": b"\0goloop-c%d" % os.getpid(), "none": ""}[
            name
        ]
        async with ending(server):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.setblocking(False)
                if address:
                    client.bind(address)
                await loop.sock_connect(client, path)
                accepted = await asyncio.wait_for(made, 30)
                outcome = accepted.get_extra_info("peername") == address, accepted.get_extra_info("sockname") == path
                accepted.close()
        return outcome

    assert both(scenario) == (True, True)
