"""Upgrading a connection to TLS: loop.start_tls on either side, TLS inside TLS, StreamWriter.start_tls."""

import asyncio
import contextlib
import contextvars
import gc
import socket
import ssl
import weakref

import pytest

from tests.helpers.certificates import HOST, client_context, server_context
from tests.helpers.outcomes import async_outcome_of, reports
from tests.helpers.recorders import BufferedRecorder, Recorder, connected, decreed
from tests.helpers.servers import ending
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import async_until, settle

VAR = contextvars.ContextVar("VAR", default="unset")


class LineBuffered(BufferedRecorder):
    """A buffered protocol whose buffer is a view, so that TLS may fill it piecewise."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.buffer = memoryview(self.buffer)


KINDS = pytest.mark.parametrize("kind", [Recorder, LineBuffered], ids=["protocol", "buffered"])


async def plain_pair(loop, ours, theirs):
    """Two transports of this loop, connected to each other, without TLS yet."""
    a, b = socket_pair("tcp")
    (client, _), (server, _) = await asyncio.gather(
        loop.create_connection(lambda: ours, sock=a), loop.connect_accepted_socket(lambda: theirs, b)
    )
    return client, server


async def upgrade(loop, client, server):
    """Start TLS on both; return the new transports."""
    return await asyncio.gather(
        loop.start_tls(client, client.get_protocol(), client_context(), server_hostname=HOST),
        loop.start_tls(server, server.get_protocol(), server_context(), server_side=True),
    )


async def part(transport, *protocols):
    transport.close()
    for protocol in protocols:
        await protocol.until("lost")


@KINDS
def test_both_sides_upgrade(both, kind):
    async def scenario(loop):
        ours, theirs = kind(), kind()
        client, server = await plain_pair(loop, ours, theirs)
        client.write(b"plain")
        await theirs.until(5)
        secured, other = await upgrade(loop, client, server)
        secured.write(b" and secret")
        await theirs.until(16)
        other.write(b"reply")
        await ours.until(5)
        facts = [
            isinstance(secured, asyncio.Transport),
            secured is client,
            secured.get_protocol() is ours,
            secured.get_extra_info("ssl_object") is not None,
            secured.get_extra_info("peername") == other.get_extra_info("sockname"),
            secured.can_write_eof(),
        ]
        await part(secured, ours, theirs)
        return facts, ours.events, theirs.events

    assert both(scenario) == (
        [True, False, True, True, True, False],
        ["made", ("data", b"reply"), "eof", ("lost", None)],
        ["made", ("data", b"plain and secret"), "eof", ("lost", None)],
    )


@KINDS
def test_server_upgrades_with_the_hello_waiting_in_the_kernel(both, kind):
    """The client does not wait for an answer; the server pauses reading when it sees the request."""

    async def scenario(loop):
        ours, theirs = kind(), kind(data=lambda p, _: p.transport.pause_reading() if p.data == b"STARTTLS\n" else None)
        client, server = await plain_pair(loop, ours, theirs)
        client.write(b"STARTTLS\n")
        await theirs.until(9)
        starting = loop.create_task(loop.start_tls(client, ours, client_context(), server_hostname=HOST))
        await settle()
        held = theirs.data
        await loop.start_tls(server, theirs, server_context(), server_side=True)
        secured = await starting
        secured.write(b"secret")
        await theirs.until(15)
        await part(secured, ours, theirs)
        return held, theirs.data

    assert both(scenario) == (b"STARTTLS\n", b"STARTTLS\nsecret")


def test_data_right_behind_the_handshake_is_not_lost(both):
    """The upgraded server talks at once, before the client's start_tls() has returned."""

    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        client, server = await plain_pair(loop, ours, theirs)

        async def serve():
            other = await loop.start_tls(server, theirs, server_context(), server_side=True)
            other.write(b"w" * 200_000)

        secured, _ = await asyncio.gather(loop.start_tls(client, ours, client_context(), server_hostname=HOST), serve())
        await ours.until(200_000)
        await part(secured, ours, theirs)
        return len(ours.data), ours.names()

    assert both(scenario) == (200_000, ["made", "data", "eof", "lost"])


def test_upgrade_from_within_data_received(both):
    async def scenario(loop):
        upgraded = loop.create_future()

        def start(protocol, data):
            protocol.transport.write(b"go on")
            task = loop.create_task(loop.start_tls(protocol.transport, protocol, server_context(), server_side=True))
            task.add_done_callback(lambda t: upgraded.set_result(t.result()))

        ours, theirs = Recorder(), Recorder(data=start)
        client, _ = await plain_pair(loop, ours, theirs)
        client.write(b"STARTTLS")
        await ours.until(5)
        secured = await loop.start_tls(client, ours, client_context(), server_hostname=HOST)
        other = await upgraded
        other.write(b", secretly")
        await ours.until(15)
        await part(secured, ours, theirs)
        return ours.events, theirs.events

    assert both(scenario) == (
        ["made", ("data", b"go on, secretly"), "eof", ("lost", None)],
        ["made", ("data", b"STARTTLS"), "eof", ("lost", None)],
    )


def test_bytes_written_before_go_out_first_and_in_the_clear(both):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol, small=True) as (transport, peer):
            transport.set_write_buffer_limits(high=1 << 20)
            transport.write(b"p" * 500_000)
            task = loop.create_task(loop.start_tls(transport, protocol, client_context(), server_hostname=HOST))
            plain = await receive(peer, 500_000)
            hello = await receive(peer, 1)
            task.cancel()
            await asyncio.wait([task])
            return plain == b"p" * 500_000, hello == b"\x16"

    assert both(scenario) == (True, True)


@KINDS
@pytest.mark.parametrize("ending", ["close", "abort"])
def test_end_reaches_the_upgraded_protocol(both, kind, ending):
    async def scenario(loop):
        ours, theirs = kind(), kind()
        secured, other = await upgrade(loop, *await plain_pair(loop, ours, theirs))
        secured.write(b"x")
        await theirs.until(1)
        getattr(other, ending)()
        await ours.until("lost")
        await theirs.until("lost")
        return ours.names(), secured.is_closing()

    names, closing = both(scenario)
    assert names[-2:] == ["eof", "lost"] and names.count("lost") == 1 and closing


def test_reading_may_be_paused_after_the_upgrade(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        secured, other = await upgrade(loop, *await plain_pair(loop, ours, theirs))
        secured.pause_reading()
        other.write(b"later")
        other.close()
        await settle()
        paused = list(ours.events)
        secured.resume_reading()
        await ours.until("lost")
        await theirs.until("lost")
        return paused, ours.events

    assert both(scenario) == (["made"], ["made", ("data", b"later"), "eof", ("lost", None)])


def test_tls_inside_tls(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        once = await upgrade(loop, *await plain_pair(loop, ours, theirs))
        twice, other = await upgrade(loop, *once)
        twice.write(b"doubly secret" * 50_000)
        await theirs.until(650_000)
        other.write(b"reply")
        await ours.until(5)
        await part(twice, ours, theirs)
        return len(theirs.data), ours.data, ours.names().count("lost"), theirs.names().count("lost")

    assert both(scenario) == (650_000, b"reply", 1, 1)


# What goes wrong


def test_untrusted_certificate(both):
    async def scenario(loop):
        reports(loop)
        ours, theirs = Recorder(), Recorder()
        client, server = await plain_pair(loop, ours, theirs)
        failed, _ = await asyncio.gather(
            async_outcome_of(loop.start_tls(client, ours, client_context(trusting=False), server_hostname=HOST)),
            async_outcome_of(loop.start_tls(server, theirs, server_context(), server_side=True)),
        )
        await settle()
        client.abort()
        server.abort()
        await settle()
        return failed[0], client.is_closing(), ours.names()

    kind, closing, _ = both(scenario)
    assert (kind, closing) == ("SSLCertVerificationError", True)


def test_answer_that_is_no_tls(both):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder()
        async with connected(loop, protocol) as (transport, peer):
            task = loop.create_task(loop.start_tls(transport, protocol, client_context(), server_hostname=HOST))
            await receive(peer, 5)
            peer.send(b"502 not implemented\r\n")
            kind, _ = await async_outcome_of(task)
            await async_until(lambda: transport.get_extra_info("socket").fileno() == -1)
            return kind, protocol.names().count("lost") < 2, [report[:2] for report in seen]

    assert both(scenario)[:2] == ("SSLError", True)


def test_peer_that_hangs_up(both):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol) as (transport, peer):
            task = loop.create_task(loop.start_tls(transport, protocol, client_context(), server_hostname=HOST))
            await receive(peer, 5)
            peer.shutdown(socket.SHUT_WR)
            kind, _ = await async_outcome_of(task)
            return kind, transport.is_closing(), protocol.names().count("lost") < 2

    assert both(scenario) == ("ConnectionResetError", True, True)


def test_handshake_timeout(both):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol) as (transport, _):
            starting = loop.start_tls(
                transport, protocol, client_context(), server_hostname=HOST, ssl_handshake_timeout=0.02
            )
            return await async_outcome_of(starting), transport.is_closing()

    outcome = "ConnectionAbortedError", "SSL handshake is taking longer than 0.02 seconds: aborting the connection"
    assert both(scenario) == (outcome, True)


def test_cancelled_upgrade_closes_the_connection(both):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol) as (transport, peer):
            task = loop.create_task(loop.start_tls(transport, protocol, client_context(), server_hostname=HOST))
            await receive(peer, 5)
            task.cancel()
            await asyncio.wait([task])
            await async_until(lambda: transport.get_extra_info("socket").fileno() == -1)
            return task.cancelled(), transport.is_closing()

    assert both(scenario) == (True, True)


@pytest.mark.parametrize("context", [None, True, "context"], ids=repr)
def test_something_else_than_a_context(both, context):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol) as (transport, peer):
            outcome = await async_outcome_of(loop.start_tls(transport, protocol, context))
            transport.write(b"unharmed")
            return outcome, await receive(peer, 8)

    (kind, text), unharmed = both(scenario)
    assert kind == "TypeError" and text.startswith("sslcontext is expected to be an instance of ssl.SSLContext, got ")
    assert unharmed == b"unharmed"


def test_something_else_than_a_stream(both):
    async def scenario(loop):
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        kind, text = await async_outcome_of(loop.start_tls(transport, asyncio.Protocol(), client_context()))
        transport.abort()
        await settle()
        return kind, text.startswith("transport <") and text.endswith("> is not supported by start_tls()")

    assert both(scenario) == ("TypeError", True)


def test_context_and_protocol_are_freed_after_an_unclean_end(both):
    async def scenario(loop):
        context, ours, theirs = client_context(), Recorder(), Recorder()
        client, server = await plain_pair(loop, ours, theirs)
        secured, other = await asyncio.gather(
            loop.start_tls(client, ours, context, server_hostname=HOST),
            loop.start_tls(server, theirs, server_context(), server_side=True),
        )
        other.abort()
        await ours.until("lost")
        await theirs.until("lost")
        refs = weakref.ref(context), weakref.ref(ours)
        del context, ours, theirs, client, server, secured, other
        await settle()
        gc.collect()
        return [ref() is None for ref in refs]

    assert both(scenario) == [True, True]


# asyncio's streams


@contextlib.asynccontextmanager
async def stream_server(handler, **options):
    """The address of a stream server whose handler runs once; its outcome is awaited at the end."""
    done = asyncio.get_running_loop().create_future()

    async def handle(reader, writer):
        try:
            await handler(reader, writer)
        except Exception as exc:
            done.set_exception(exc)
        else:
            done.set_result(None)
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

    async with ending(await asyncio.start_server(handle, "127.0.0.1", 0, **options)) as server:
        yield server.sockets[0].getsockname()
        await done


async def echo_lines(reader, writer):
    async for line in reader:
        writer.write(line.upper())
        await writer.drain()


async def ask(reader, writer):
    """Ask over an open TLS stream; close it."""
    writer.write(b"question\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


def test_streams_over_tls(both):
    async def scenario(loop):
        async with stream_server(echo_lines, ssl=server_context()) as address:
            return await ask(*await asyncio.open_connection(*address, ssl=client_context(), server_hostname=HOST))

    assert both(scenario) == b"QUESTION\n"


def test_stream_writer_start_tls_on_both_sides(both):
    async def upgrading(reader, writer):
        await reader.readline()
        writer.write(b"ready\n")
        await writer.drain()
        await writer.start_tls(server_context())
        await echo_lines(reader, writer)

    async def scenario(loop):
        async with stream_server(upgrading) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\n")
            ready = await reader.readline()
            await writer.start_tls(client_context(), server_hostname=HOST)
            secured = writer.get_extra_info("sslcontext") is not None
            return ready, secured, await ask(reader, writer)

    assert both(scenario) == (b"ready\n", True, b"QUESTION\n")


@pytest.mark.parametrize("layers", [1, 2])
def test_data_that_waited_for_resume_reading_comes_in_the_context_of_the_first_connection(both, layers):
    @decreed("connecting", because="it comes in the context of whoever called resume_reading()")
    async def scenario(loop):
        found = []
        ours, theirs = Recorder(data=lambda *_: found.append(VAR.get())), Recorder()
        VAR.set("connecting")
        client, server = await plain_pair(loop, ours, theirs)
        for _ in range(layers):
            VAR.set("upgrading")
            client, server = await upgrade(loop, client, server)
        VAR.set("later")
        client.pause_reading()
        server.write(b"x")
        await settle()
        client.resume_reading()
        await ours.until(1)
        await part(client, ours, theirs)
        return found[0]

    assert both(scenario) == "connecting"


def test_a_transport_closed_before_gives_none(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        client, _ = await plain_pair(loop, ours, theirs)
        client.close()
        upgraded = await loop.start_tls(client, asyncio.Protocol(), client_context(), server_hostname=HOST)
        await theirs.until("lost")
        return upgraded

    assert both(scenario) is None
