"""Connecting: create_connection and create_unix_connection, their arguments, addresses, failures and cancellation."""

import asyncio
import contextlib
import os
import pathlib
import re
import socket
import ssl
import sys

import pytest

from tests.helpers.outcomes import async_outcome_of, outcome_of
from tests.helpers.recorders import Echo, Recorder, decreed
from tests.helpers.servers import ending
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import async_until, settle

PY312 = sys.version_info >= (3, 12)
needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


@contextlib.asynccontextmanager
async def echo_server(loop, host="127.0.0.1"):
    """The port of a server on that host."""
    async with ending(await loop.create_server(Echo, host, 0)) as server:
        yield server.sockets[0].getsockname()[1]


async def echoes(transport, protocol):
    """Whether what is written comes back; closes the connection."""
    transport.write(b"ping")
    await protocol.until(4)
    transport.close()
    await protocol.until("lost")
    return protocol.data == b"ping"


def dead_port():
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def without_numbers(outcome):
    """The outcome without ports and descriptors."""
    kind, text = outcome
    return kind, re.sub(r"\b(fd=)?\d{4,5}\b|fd=\d+", "N", text)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_connect_to_a_host(both, host):
    async def scenario(loop):
        async with echo_server(loop) as port:
            transport, protocol = await loop.create_connection(Recorder, host, port, family=socket.AF_INET)
            peer = transport.get_extra_info("peername") == ("127.0.0.1", port)
            return peer, await echoes(transport, protocol), protocol.names()

    assert both(scenario) == (True, True, ["made", "data", "lost"])


def test_connection_made_precedes_the_return(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port)
            outcome = list(protocol.events), protocol.transport is transport
            await echoes(transport, protocol)
            return outcome

    assert both(scenario) == (["made"], True)


@needs_ipv6
def test_connect_over_ipv6(both):
    async def scenario(loop):
        async with echo_server(loop, "::1") as port:
            transport, protocol = await loop.create_connection(Recorder, "::1", port)
            peer = transport.get_extra_info("peername") == ("::1", port, 0, 0)
            return peer, await echoes(transport, protocol)

    assert both(scenario) == (True, True)


def test_local_address(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port, local_addr=("127.0.0.3", 0))
            name = transport.get_extra_info("sockname")[0]
            return name, await echoes(transport, protocol)

    assert both(scenario) == ("127.0.0.3", True)


def test_local_address_that_is_not_ours(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            address = "192.0.2.99", 0
            return await async_outcome_of(loop.create_connection(Recorder, "127.0.0.1", port, local_addr=address))

    kind, text = both(scenario)
    assert kind == "OSError" and "error while attempting to bind on address ('192.0.2.99', 0)" in text


def test_local_address_in_use_names_it(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            connecting = loop.create_connection(Recorder, "127.0.0.1", port, local_addr=("127.0.0.1", port))
            return without_numbers(await async_outcome_of(connecting))

    kind, text = both(scenario)
    assert kind == "OSError" and "error while attempting to bind on address ('127.0.0.1', N)" in text


def test_local_address_of_another_family(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            connecting = loop.create_connection(Recorder, "127.0.0.1", port, local_addr=("::1", 0))
            return without_numbers(await async_outcome_of(connecting))

    assert both(scenario)[0] in ("OSError", "gaierror")


def test_refused(both):
    async def scenario(loop):
        return without_numbers(await async_outcome_of(loop.create_connection(Recorder, "127.0.0.1", dead_port())))

    kind, text = both(scenario)
    assert kind == "ConnectionRefusedError" and "Connect call failed ('127.0.0.1', N)" in text


def test_unknown_host(both):
    async def scenario(loop):
        return (await async_outcome_of(loop.create_connection(Recorder, "no-such-host.invalid", 80)))[0]

    assert both(scenario) == "gaierror"


def two_addresses(loop, *addresses):
    """Make the loop resolve every name to these."""

    async def getaddrinfo(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]

    loop.getaddrinfo = getaddrinfo


def test_second_address_is_tried_when_the_first_fails(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            two_addresses(loop, ("127.0.0.1", dead_port()), ("127.0.0.1", port))
            return await echoes(*await loop.create_connection(Recorder, "name", 1))

    assert both(scenario) is True


def test_all_addresses_fail(both):
    async def scenario(loop):
        two_addresses(loop, ("127.0.0.1", dead_port()), ("127.0.0.2", dead_port()))
        return without_numbers(await async_outcome_of(loop.create_connection(Recorder, "name", 1)))

    kind, text = both(scenario)
    assert kind == "OSError" and text.startswith("Multiple exceptions: ")
    assert "('127.0.0.1', N)" in text and "('127.0.0.2', N)" in text


@pytest.mark.skipif(not PY312, reason="all_errors came with 3.12")
def test_all_errors_in_a_group(both):
    async def scenario(loop):
        two_addresses(loop, ("127.0.0.1", dead_port()), ("127.0.0.2", dead_port()))
        try:
            await loop.create_connection(Recorder, "name", 1, all_errors=True)
        except ExceptionGroup as group:
            return group.message, [type(exc).__name__ for exc in group.exceptions]

    assert both(scenario) == ("create_connection failed", ["ConnectionRefusedError"] * 2)


@pytest.mark.parametrize(
    "options",
    [{"happy_eyeballs_delay": 0.05}, {"interleave": 1}, {"happy_eyeballs_delay": 5, "interleave": 2}],
    ids=repr,
)
def test_happy_eyeballs(both, options):
    async def scenario(loop):
        async with echo_server(loop) as port:
            two_addresses(loop, ("127.0.0.1", dead_port()), ("127.0.0.1", port))
            good = await echoes(*await loop.create_connection(Recorder, "name", 1, **options))
        two_addresses(loop, ("127.0.0.1", dead_port()), ("127.0.0.2", dead_port()))
        return good, without_numbers(await async_outcome_of(loop.create_connection(Recorder, "name", 1, **options)))

    good, (kind, _) = both(scenario)
    assert good and kind == "OSError"


def test_resolver_is_asked_through_the_loop(both):
    async def scenario(loop):
        asked = []

        async def getaddrinfo(host, port, **options):
            asked.append((host, port, sorted(options), options["type"] == socket.SOCK_STREAM))
            return []

        loop.getaddrinfo = getaddrinfo
        return await async_outcome_of(loop.create_connection(Recorder, "name", "service")), asked

    assert both(scenario) == (
        ("OSError", "getaddrinfo() returned empty list"),
        [("name", "service", ["family", "flags", "proto", "type"], True)],
    )


def test_given_socket(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            sock = socket.create_connection(("127.0.0.1", port))
            transport, protocol = await loop.create_connection(Recorder, sock=sock)
            number = transport.get_extra_info("socket").fileno() == sock.fileno()
            return number, await echoes(transport, protocol), sock.fileno()

    assert both(scenario) == (True, True, -1)


def test_given_unix_socket_is_taken_by_create_connection_too(both):
    async def scenario(loop):
        ours, peer = socket_pair("unix")
        with peer:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            transport.write(b"x")
            transport.close()
            return await receive(peer)

    assert both(scenario) == b"x"


def test_second_transport_on_a_descriptor_is_refused(both):
    @decreed(
        ("RuntimeError", True, True),
        because="asyncio checks it since 3.12, and since 3.14.8 closes the socket under the first transport",
        when=not PY312 or sys.version_info >= (3, 14),
    )
    async def scenario(loop):
        async with echo_server(loop) as port:
            sock = socket.create_connection(("127.0.0.1", port))
            transport, protocol = await loop.create_connection(Recorder, sock=sock)
            kind, text = await async_outcome_of(loop.create_connection(Recorder, sock=sock))
            return kind, "is used by transport" in text, await echoes(transport, protocol)

    assert both(scenario) == ("RuntimeError", True, True)


def bad_connections(loop, sock, datagram, wrapped):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    connect, unix = loop and loop.create_connection, loop and loop.create_unix_connection
    return {
        "nothing": lambda: connect(Recorder),
        "host and socket": lambda: connect(Recorder, "127.0.0.1", 80, sock=sock),
        "port and socket": lambda: connect(Recorder, port=80, sock=sock),
        "datagram": lambda: connect(Recorder, sock=datagram),
        "server_hostname": lambda: connect(Recorder, "127.0.0.1", 80, server_hostname="x"),
        "no server_hostname": lambda: connect(Recorder, sock=sock, ssl=context),
        "no server_hostname for an empty host": lambda: connect(Recorder, "", 80, ssl=context),
        "handshake": lambda: connect(Recorder, "127.0.0.1", 80, ssl_handshake_timeout=1),
        "shutdown": lambda: connect(Recorder, "127.0.0.1", 80, ssl_shutdown_timeout=1),
        "handshake of zero seconds": lambda: connect(
            Recorder, sock=sock, ssl=context, server_hostname="", ssl_handshake_timeout=0
        ),
        "shutdown of negative seconds": lambda: connect(
            Recorder, sock=sock, ssl=context, server_hostname="", ssl_shutdown_timeout=-1
        ),
        "TLS socket": lambda: connect(Recorder, sock=wrapped),
        "unix nothing": lambda: unix(Recorder),
        "unix both": lambda: unix(Recorder, "/nowhere", sock=sock),
        "unix family": lambda: unix(Recorder, sock=sock),
        "unix missing": lambda: unix(Recorder, "/nowhere/at/all"),
        "unix server_hostname": lambda: unix(Recorder, "/nowhere", server_hostname="x"),
        "unix no server_hostname": lambda: unix(Recorder, "/nowhere", ssl=context),
        "unix handshake": lambda: unix(Recorder, "/nowhere", ssl_handshake_timeout=1),
        "unix shutdown": lambda: unix(Recorder, "/nowhere", ssl_shutdown_timeout=1),
    }


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("case", list(bad_connections(None, None, None, None)))
def test_wrong_arguments(both, case):
    async def scenario(loop):
        with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            with context.wrap_socket(socket.socket()) as wrapped:
                outcome = await async_outcome_of(bad_connections(loop, sock, datagram, wrapped)[case]())
        return without_numbers(outcome)

    kind, _ = both(scenario)
    assert kind in ("ValueError", "TypeError", "FileNotFoundError")


@pytest.mark.parametrize("kind", [str, pathlib.Path, os.fsencode])
def test_unix_connection(both, tmp_path, kind):
    path = tmp_path / "sock"

    async def scenario(loop):
        async with ending(await loop.create_unix_server(Echo, path)):
            transport, protocol = await loop.create_unix_connection(Recorder, kind(path))
            peer = transport.get_extra_info("peername") == str(path)
            outcome = peer, transport.get_extra_info("sockname"), await echoes(transport, protocol)
        path.unlink(missing_ok=True)
        return outcome

    assert both(scenario) == (True, "", True)


def test_unix_connection_refused(both, tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))

    async def scenario(loop):
        return await async_outcome_of(loop.create_unix_connection(Recorder, tmp_path / "sock"))

    assert both(scenario) == ("ConnectionRefusedError", "[Errno 111] Connection refused")


def failing_factory():
    raise ArithmeticError("no protocol")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio leaves the connected socket to the garbage collector
def test_failing_protocol_factory(both):
    async def scenario(loop):
        async with echo_server(loop) as port:
            return await async_outcome_of(loop.create_connection(failing_factory, "127.0.0.1", port))

    assert both(scenario) == ("ArithmeticError", "no protocol")


def full_backlog():
    """A listener that accepts nobody, so that another connection to it never gets through."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        outcome_of(sock.connect, listener.getsockname())
        waiting.append(sock)
    return listener, waiting


def test_cancelled_while_connecting_closes_the_socket(both):
    listener, waiting = full_backlog()

    async def scenario(loop):
        await settle()
        before = len(os.listdir("/proc/self/fd"))
        task = loop.create_task(loop.create_connection(Recorder, *listener.getsockname()))
        await async_until(lambda: len(os.listdir("/proc/self/fd")) > before or task.done())
        task.cancel()
        await asyncio.wait([task])
        await settle()
        return task.cancelled(), len(os.listdir("/proc/self/fd")) - before

    try:
        assert both(scenario) == (True, 0)
    finally:
        for sock in (listener, *waiting):
            sock.close()


def test_cancelled_right_after_connecting_closes_the_transport(both):
    """The waiter is cancelled between connection_made and the return of create_connection."""

    async def scenario(loop):
        ours, peer = socket_pair("tcp")
        with peer:
            protocol = Recorder(made=lambda p: loop.call_soon(task.cancel))
            task = loop.create_task(loop.create_connection(lambda: protocol, sock=ours))
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()[0].close()
            await protocol.until("lost")
            return protocol.events, await receive(peer), ours.fileno()

    assert both(scenario) == (["made", ("lost", None)], b"", -1)
