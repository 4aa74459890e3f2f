"""Servers: create_server, create_unix_server, Server's life, connect_accepted_socket, running out of descriptors."""

import asyncio
import contextlib
import os
import pathlib
import socket
import sys

import pytest
from looptools import run_script
from recorders import Echo, Recorder, aoutcome_of, condition, decreed, receive, reports, settle, socket_pair

PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


@contextlib.asynccontextmanager
async def serving(loop, factory=Echo, **options):
    """A server on a port of its own, and its address; closed, with its connections, afterwards."""
    server = await loop.create_server(factory, "127.0.0.1", 0, **options)
    try:
        yield server, server.sockets[0].getsockname()
    except BaseException:
        server.close()  # no waiting for connections that a failed scenario left open
        raise
    server.close()
    await server.wait_closed()


async def talks(loop, address, family=socket.AF_INET):
    """Whether somebody at that address echoes."""
    with socket.socket(family) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        sock.send(b"ping")
        return await receive(sock, 4) == b"ping"


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
            return states, (await aoutcome_of(talks(loop, address)))[0]

    assert both(scenario) == ([True, True, False], "ConnectionRefusedError")


def test_start_serving_false_listens_later(both):
    async def scenario(loop):
        async with serving(loop, start_serving=False) as (server, address):
            before = server.is_serving(), (await aoutcome_of(talks(loop, address)))[0]
            await server.start_serving()
            await server.start_serving()
            return before, server.is_serving(), await talks(loop, address)

    assert both(scenario) == ((False, "ConnectionRefusedError"), True, True)


def test_server_is_an_async_context_manager(both):
    async def scenario(loop):
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
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
            kind, text = await aoutcome_of(server.serve_forever())
            twice = kind, text.rpartition("> ")[2]
            task.cancel()
            await asyncio.wait([task])
            kind, text = await aoutcome_of(server.serve_forever())
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
                await condition(lambda: len(recorders) == 2 and all(r.events for r in recorders))
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
        async with await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2", "127.0.0.1"], 0) as server:
            names = sorted(sock.getsockname()[0] for sock in server.sockets)
            return names, [await talks(loop, sock.getsockname()) for sock in server.sockets]

    assert both(scenario) == (["127.0.0.1", "127.0.0.2"], [True, True])


@pytest.mark.parametrize("host", [None, ""], ids=repr)
def test_any_host(both, host):
    async def scenario(loop):
        async with await loop.create_server(Echo, host, 0) as server:
            facts = sorted((sock.family.name, sock.getsockname()[0]) for sock in server.sockets)
            four = next(sock for sock in server.sockets if sock.family == socket.AF_INET)
            return facts, await talks(loop, ("127.0.0.1", four.getsockname()[1]))

    facts, answered = both(scenario)
    assert ("AF_INET", "0.0.0.0") in facts and answered


@needs_ipv6
def test_ipv6_listens_on_ipv6_alone(both):
    async def scenario(loop):
        async with await loop.create_server(Echo, "::1", 0) as server:
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
        async with await loop.create_server(Echo, f"{address}%{device}", 0) as server:
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
            second = await loop.create_server(Echo, *address, reuse_port=True)
            option = second.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            first.close()
            answered = await talks(loop, address)
            second.close()
            await second.wait_closed()
            return option != 0, answered

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
            kind, text = await aoutcome_of(loop.create_server(Echo, *address))
            return kind, text.replace(str(address[1]), "PORT")

    kind, text = both(scenario)
    assert kind == "OSError" and "error while attempting to bind on address ('127.0.0.1', PORT)" in text


def test_given_socket_is_served_and_closed(both):
    async def scenario(loop):
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(True)
        server = await loop.create_server(Echo, sock=sock)
        answered = await talks(loop, sock.getsockname()), sock.getblocking()
        server.close()
        await server.wait_closed()
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
            return await aoutcome_of(bad_servers(loop, sock, datagram)[case]())

        kind, text = both(scenario)
    assert kind in ("ValueError", "TypeError", "OSError", "FileNotFoundError") and text


# Unix servers


@pytest.mark.parametrize("kind", [str, pathlib.Path, os.fsencode])
def test_unix_server_at_a_path(both, tmp_path, kind):
    path = tmp_path / "sock"

    async def scenario(loop):
        async with await loop.create_unix_server(Echo, kind(path)) as server:
            facts = [server.sockets[0].getsockname() == str(path), await talks(loop, str(path), socket.AF_UNIX)]
        facts.append(path.exists())
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return facts

    assert both(scenario) == [True, True, not PY313]


def test_unix_server_in_the_abstract_namespace(both):
    name = f"\0goloop test {os.getpid()}"

    async def scenario(loop):
        async with await loop.create_unix_server(Echo, name) as server:
            return await talks(loop, name, socket.AF_UNIX), server.sockets[0].getsockname() == name.encode()

    assert both(scenario) == (True, True)


def test_unix_server_replaces_a_stale_socket_but_nothing_else(both, tmp_path):
    stale, file = tmp_path / "stale", tmp_path / "file"

    async def scenario(loop):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(stale))
        file.write_text("precious")
        async with await loop.create_unix_server(Echo, stale):
            answered = await talks(loop, str(stale), socket.AF_UNIX)
        kind, text = await aoutcome_of(loop.create_unix_server(Echo, file))
        stale.unlink(missing_ok=True)
        return answered, kind, text.replace(str(file), "FILE"), file.read_text()

    assert both(scenario) == (True, "OSError", "[Errno 98] Address 'FILE' is already in use", "precious")


def test_unix_server_does_not_unlink_its_successors_socket(both, tmp_path):
    path = tmp_path / "sock"

    async def scenario(loop):
        first = await loop.create_unix_server(Echo, path)
        second = await loop.create_unix_server(Echo, path)
        first.close()
        await first.wait_closed()
        answered = await talks(loop, str(path), socket.AF_UNIX)
        second.close()
        await second.wait_closed()
        left = path.exists()
        path.unlink(missing_ok=True)
        return answered, left

    assert both(scenario) == (True, not PY313)


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
def test_unix_server_leaves_its_socket_when_told_so(both, tmp_path):
    path = tmp_path / "sock"

    async def scenario(loop):
        server = await loop.create_unix_server(Echo, path, cleanup_socket=False)
        server.close()
        await server.wait_closed()
        return path.exists()

    assert both(scenario) is True


def test_unix_server_whose_socket_is_gone_closes_quietly(both, tmp_path):
    path = tmp_path / "sock"

    async def scenario(loop):
        seen = reports(loop)
        server = await loop.create_unix_server(Echo, path)
        path.unlink()
        server.close()
        await server.wait_closed()
        return seen, path.exists()

    assert both(scenario) == ([], False)


# Accepting


def test_connect_accepted_socket(both):
    async def scenario(loop):
        ours, peer = socket_pair("tcp")
        with peer:
            recorder = Recorder()
            transport, protocol = await loop.connect_accepted_socket(lambda: recorder, ours)
            peer.send(b"x")
            await recorder.until("data")
            peername = transport.get_extra_info("peername") == peer.getsockname()
            transport.close()
            await recorder.until("lost")
            return protocol is recorder, peername, recorder.events

    assert both(scenario) == (True, True, ["made", ("data", b"x"), ("lost", None)])


def failing_first():
    """A factory whose first protocol is none."""
    calls = iter([True])

    def factory():
        if next(calls, False):
            raise ArithmeticError("no protocol")
        return Echo()

    return factory


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio leaves the accepted socket to the garbage collector
def test_failing_protocol_factory_is_reported_and_the_server_goes_on(both):
    async def scenario(loop):
        seen = reports(loop)
        async with serving(loop, failing_first()) as (_, address):
            with socket.create_connection(address):
                await condition(lambda: seen)
            return [report[:3] for report in seen], await talks(loop, address)

    error = ("Error on transport creation for incoming connection", "ArithmeticError", "no protocol")
    assert both(scenario, debug=True) == ([error], True)


def test_failing_protocol_factory_closes_its_connection(both):
    @decreed(b"", because="asyncio leaves the accepted socket to the garbage collector")
    async def scenario(loop):
        reports(loop)
        async with serving(loop, failing_first()) as (_, address):
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                return await receive(sock)

    assert both(scenario) == b""


def test_five_hundred_connections_leave_no_descriptors(both):
    async def scenario(loop):
        async with serving(loop) as (_, address):
            await talks(loop, address)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                recorders = [Recorder() for _ in range(50)]
                pairs = await asyncio.gather(*(loop.create_connection(lambda r=r: r, *address) for r in recorders))
                for transport, recorder in pairs:
                    transport.write(b"hello")
                    await recorder.until(5)
                    transport.close()
                for recorder in recorders:
                    await recorder.until("lost")
            await condition(lambda: len(os.listdir("/proc/self/fd")) <= before)
            return {recorder.data for recorder in recorders}

    assert both(scenario) == {b"hello"}


def test_accepting_goes_on_after_running_out_of_descriptors(both):
    def scenario(loop):
        return run_script(
            loop,
            """
            import resource

            asyncio.constants.ACCEPT_RETRY_DELAY = 0.05

            async def main():
                reported, accepted = loop.create_future(), loop.create_future()

                def handler(loop, context):
                    if not reported.done():
                        kind = type(context["socket"]).__name__
                        reported.set_result((context["message"], context["exception"].errno, kind))

                def factory():
                    accepted.set_result("accepted")
                    return asyncio.Protocol()

                loop.set_exception_handler(handler)
                server = await loop.create_server(factory, "127.0.0.1", 0)
                client = socket.socket()
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
                fillers = []
                while True:
                    try:
                        fillers.append(os.dup(0))
                    except OSError:
                        break
                client.connect(server.sockets[0].getsockname())
                print(*await reported)
                for fd in fillers:
                    os.close(fd)
                print(await accepted)
                client.close()
                server.close()
                await asyncio.sleep(0.01)

            loop.run_until_complete(main())
            loop.close()
            """,
        )

    code, output = both(scenario)
    assert code == 0
    assert output == "socket.accept() out of system resource 24 TransportSocket\naccepted\n"
