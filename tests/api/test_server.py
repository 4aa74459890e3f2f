"""Servers: create_server, Server's life, where it listens, wrong arguments."""

import asyncio
import contextlib
import os
import socket
import sys

import pytest

from tests.helpers.outcomes import async_outcome_of
from tests.helpers.recorders import Echo, Recorder
from tests.helpers.servers import ending, serving, talks
from tests.helpers.sockets import receive
from tests.helpers.waiting import async_until, settle

PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


# Life of a server


def test_sockets_are_a_tuple_of_transport_sockets_and_empty_once_closed(both):
    async def scenario(loop):
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        before = (
            type(server.sockets).__name__,
            [type(sock).__name__ for sock in server.sockets],
            server.sockets[0].getsockname()[0],
        )
        server.close()
        after = server.sockets
        await server.wait_closed()
        return before, after, server.sockets

    assert both(scenario) == (("tuple", ["TransportSocket"], "127.0.0.1"), (), ())


def test_server_belongs_to_asyncio_and_to_its_loop(both):
    async def scenario(loop):
        async with serving(loop) as (server, _):
            return isinstance(server, asyncio.AbstractServer), server.get_loop() is loop, type(server).__name__

    assert both(scenario) == (True, True, "Server")


def test_server_echoes_until_closed(both):
    async def scenario(loop):
        async with serving(loop) as (server, address):
            states = [server.is_serving(), await talks(loop, address)]
            server.close()
            server.close()
            states.append(server.is_serving())
            return states, (await async_outcome_of(talks(loop, address)))[0]

    assert both(scenario) == ([True, True, False], "ConnectionRefusedError")


def test_start_serving_false_listens_later(both):
    async def scenario(loop):
        async with serving(loop, start_serving=False) as (server, address):
            before = server.is_serving(), (await async_outcome_of(talks(loop, address)))[0]
            await server.start_serving()
            await server.start_serving()
            return before, server.is_serving(), await talks(loop, address)

    assert both(scenario) == ((False, "ConnectionRefusedError"), True, True)


def test_server_is_an_async_context_manager(both):
    async def scenario(loop):
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        async with ending(server):
            async with server:
                served = await talks(loop, server.sockets[0].getsockname())
            return served, server.is_serving(), server.sockets

    assert both(scenario) == (True, False, ())


def test_serve_forever_cancelled_closes_the_server(both):
    async def scenario(loop):
        async with serving(loop, start_serving=False) as (server, address):
            task = loop.create_task(server.serve_forever())
            await settle()
            serving_now = server.is_serving(), await talks(loop, address)
            task.cancel()
            await asyncio.wait([task])
            return serving_now, task.cancelled(), server.is_serving(), server.sockets

    assert both(scenario) == ((True, True), True, False, ())


def test_close_ends_serve_forever(both):
    async def scenario(loop):
        async with serving(loop) as (server, _):
            task = loop.create_task(server.serve_forever())
            await settle()
            server.close()
            await asyncio.wait([task])
            return task.cancelled()

    assert both(scenario) is True


def test_serve_forever_twice_or_after_close_is_a_runtime_error(both):
    async def scenario(loop):
        async with serving(loop) as (server, _):
            task = loop.create_task(server.serve_forever())
            await settle()
            kind, text = await async_outcome_of(server.serve_forever())
            twice = kind, text.rpartition("> ")[2]
            task.cancel()
            await asyncio.wait([task])
            kind, text = await async_outcome_of(server.serve_forever())
            return twice, (kind, text.rpartition("> ")[2])

    assert both(scenario) == (
        ("RuntimeError", "is already being awaited on serve_forever()"),
        ("RuntimeError", "is closed"),
    )


def test_wait_closed_with_an_open_connection(both):
    """From 3.12 on it waits for the connections, before that it did not."""

    async def scenario(loop):
        async with serving(loop) as (server, address):
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                sock.send(b"x")
                await receive(sock, 1)
                server.close()
                task = loop.create_task(server.wait_closed())
                await settle()
                early = task.done()
                sock.send(b"still served")
                answer = await receive(sock, 12)
            await task
            return early, answer

    assert both(scenario) == (not PY312, b"still served")


def test_wait_closed_before_close(both):
    async def scenario(loop):
        async with serving(loop) as (server, _):
            tasks = [loop.create_task(server.wait_closed()) for _ in range(3)]
            await settle()
            early = [task.done() for task in tasks]
            server.close()
            await asyncio.wait(tasks)
            return early

    assert both(scenario) == [False] * 3


@pytest.mark.skipif(not PY313, reason="Server.close_clients() came with 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_clients_closed_by_the_server(both, method):
    async def scenario(loop):
        recorders = []

        def factory():
            recorders.append(Recorder())
            return recorders[-1]

        async with serving(loop, factory) as (server, address):
            with socket.create_connection(address) as first, socket.create_connection(address) as second:
                await async_until(lambda: len(recorders) == 2 and all(r.events for r in recorders))
                for each in recorders:
                    each.transport.write(b"bye")
                server.close()
                getattr(server, method)()
                for each in recorders:
                    await each.until("lost")
                await server.wait_closed()
                first.setblocking(False)
                second.setblocking(False)
                return [r.events for r in recorders], await receive(first), await receive(second)

    assert both(scenario) == ([["made", ("lost", None)]] * 2, b"bye", b"bye")


# Where it listens


def test_several_hosts_and_repeated_ones(both):
    async def scenario(loop):
        async with ending(await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2", "127.0.0.1"], 0)) as server:
            names = sorted(sock.getsockname()[0] for sock in server.sockets)
            return names, [await talks(loop, sock.getsockname()) for sock in server.sockets]

    assert both(scenario) == (["127.0.0.1", "127.0.0.2"], [True, True])


@pytest.mark.parametrize("host", [None, ""], ids=repr)
def test_any_host(both, host):
    async def scenario(loop):
        async with ending(await loop.create_server(Echo, host, 0)) as server:
            facts = sorted((sock.family.name, sock.getsockname()[0]) for sock in server.sockets)
            four = next(sock for sock in server.sockets if sock.family == socket.AF_INET)
            return facts, await talks(loop, ("127.0.0.1", four.getsockname()[1]))

    facts, answered = both(scenario)
    assert ("AF_INET", "0.0.0.0") in facts and answered


@needs_ipv6
def test_ipv6_listens_on_ipv6_alone(both):
    async def scenario(loop):
        async with ending(await loop.create_server(Echo, "::1", 0)) as server:
            sock = server.sockets[0]
            only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            return sock.family.name, only, await talks(loop, sock.getsockname(), socket.AF_INET6)

    assert both(scenario) == ("AF_INET6", 1, True)


def link_local():
    """A link-local address and its interface, if there is one."""
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as lines:
        for line in lines:
            digits, *_, device = line.split()
            if digits.startswith("fe80"):
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), device
    return None


@pytest.mark.skipif(link_local() is None, reason="no interface with a link-local address")
def test_link_local_address_keeps_its_scope_id(both):
    address, device = link_local()

    async def scenario(loop):
        async with ending(await loop.create_server(Echo, f"{address}%{device}", 0)) as server:
            name = server.sockets[0].getsockname()
            recorder = Recorder()
            transport, _ = await loop.create_connection(lambda: recorder, f"{address}%{device}", name[1])
            transport.write(b"scoped")
            await recorder.until(6)
            peer = transport.get_extra_info("peername")
            transport.close()
            await recorder.until("lost")
            return name[3], peer[3], len(peer), recorder.data

    index = socket.if_nametoindex(device)
    assert both(scenario) == (index, index, 4, b"scoped")


def test_reuse_port_lets_two_servers_share(both):
    async def scenario(loop):
        async with serving(loop, reuse_port=True) as (first, address):
            async with ending(await loop.create_server(Echo, *address, reuse_port=True)) as second:
                option = second.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
                first.close()
                return option != 0, await talks(loop, address)

    assert both(scenario) == (True, True)


@pytest.mark.skipif(not PY313, reason="keep_alive came with 3.13")
def test_keep_alive(both):
    async def scenario(loop):
        async with serving(loop, keep_alive=True) as (server, _):
            return server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    assert both(scenario) == 1


def test_address_in_use(both):
    async def scenario(loop):
        async with serving(loop) as (_, address):
            kind, text = await async_outcome_of(loop.create_server(Echo, *address))
            return kind, text.replace(str(address[1]), "PORT")

    kind, text = both(scenario)
    assert kind == "OSError" and "error while attempting to bind on address ('127.0.0.1', PORT)" in text


def test_given_socket_is_served_and_closed(both):
    async def scenario(loop):
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(True)
        async with ending(await loop.create_server(Echo, sock=sock)):
            answered = await talks(loop, sock.getsockname()), sock.getblocking()
        await settle()
        return answered, sock.fileno()

    assert both(scenario) == ((True, False), -1)


def bad_servers(loop, sock, datagram):
    return {
        "nothing": lambda: loop.create_server(Echo),
        "both": lambda: loop.create_server(Echo, "127.0.0.1", 0, sock=sock),
        "datagram": lambda: loop.create_server(Echo, sock=datagram),
        "ssl": lambda: loop.create_server(Echo, "127.0.0.1", 0, ssl=True),
        "handshake": lambda: loop.create_server(Echo, "127.0.0.1", 0, ssl_handshake_timeout=1),
        "shutdown": lambda: loop.create_server(Echo, "127.0.0.1", 0, ssl_shutdown_timeout=1),
        "foreign": lambda: loop.create_server(Echo, "192.0.2.99", 0),
        "unix nothing": lambda: loop.create_unix_server(Echo),
        "unix both": lambda: loop.create_unix_server(Echo, "/nowhere", sock=sock),
        "unix family": lambda: loop.create_unix_server(Echo, sock=sock),
        "unix ssl": lambda: loop.create_unix_server(Echo, "/nowhere", ssl=True),
        "unix handshake": lambda: loop.create_unix_server(Echo, "/nowhere", ssl_handshake_timeout=1),
        "unix directory": lambda: loop.create_unix_server(Echo, "/nowhere/at/all"),
        "accepted datagram": lambda: loop.connect_accepted_socket(Echo, datagram),
        "accepted handshake": lambda: loop.connect_accepted_socket(Echo, sock, ssl_handshake_timeout=1),
        "accepted shutdown": lambda: loop.connect_accepted_socket(Echo, sock, ssl_shutdown_timeout=1),
    }


@pytest.mark.parametrize("case", list(bad_servers(None, None, None)))
def test_wrong_arguments(both, case):
    with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagram:

        async def scenario(loop):
            return await async_outcome_of(bad_servers(loop, sock, datagram)[case]())

        kind, text = both(scenario)
    assert kind in ("ValueError", "TypeError", "OSError", "FileNotFoundError") and text
