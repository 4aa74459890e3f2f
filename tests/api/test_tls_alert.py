"""TLS that fails: the peer is sent OpenSSL's alert, and so learns why, instead of seeing the stream end."""

import asyncio
import contextlib
import ssl

import pytest

from tests.helpers.certificates import HOST, client_context, server_context, tls_pair, tls_server
from tests.helpers.outcomes import async_outcome_of, reports
from tests.helpers.recorders import Recorder, decreed
from tests.helpers.servers import ending
from tests.helpers.sockets import socket_pair, stream_pair
from tests.helpers.waiting import async_until

VERSIONS = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
NO_ALERT = "asyncio closes the connection without it"


def demanding_context():
    """A server's context that wants a certificate of the client, too."""
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_default_certs()
    return context


@VERSIONS
@pytest.mark.parametrize("streams", [False, True], ids=["protocol", "streams"])
def test_a_client_without_the_certificate_that_the_server_wants_is_told(both, version, streams):
    """TLS 1.2: the connection is not made. TLS 1.3: it is, as the client cannot know yet, and reading fails."""

    @decreed(("alert", []), because=NO_ALERT)
    async def scenario(loop):
        made = []
        server_side = lambda: Recorder(made=made.append)  # noqa: E731
        context = client_context()
        context.maximum_version = ssl.TLSVersion[version]
        async with tls_server(loop, server_side, context=demanding_context()) as address:
            try:
                if streams:
                    reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=HOST)
                    try:
                        await reader.read()
                    finally:
                        writer.close()
                        with contextlib.suppress(OSError):
                            await writer.wait_closed()
                else:
                    lost = loop.create_future()
                    protocol = Recorder()
                    protocol.connection_lost = lambda exc: lost.set_exception(exc) if exc else lost.set_result(None)
                    await loop.create_connection(lambda: protocol, *address, ssl=context, server_hostname=HOST)
                    await lost
            except ssl.SSLError as exc:
                return "alert" if "ALERT" in exc.reason else exc.reason, made
            return "no error", made

    assert both(scenario) == ("alert", [])


@VERSIONS
def test_a_server_is_told_that_the_client_does_not_trust_it(both, version):
    """By a raw server, which sees what the client sends."""

    @decreed("TLSV1_ALERT_UNKNOWN_CA", because=NO_ALERT)
    async def scenario(loop):
        a, b = socket_pair("tcp")
        context = server_context()
        context.maximum_version = ssl.TLSVersion[version]
        with b:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            server = context.wrap_bio(incoming, outgoing, server_side=True)
            connecting = loop.create_connection(
                Recorder, sock=a, ssl=client_context(trusting=False), server_hostname=HOST
            )
            task = loop.create_task(async_outcome_of(connecting))
            while True:
                try:
                    server.do_handshake()
                    server.read(1)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as exc:
                    assert (await task)[0] == "SSLCertVerificationError"
                    return exc.reason
                if outgoing.pending:
                    b.send(outgoing.read())
                with contextlib.suppress(BlockingIOError):
                    data = b.recv(1 << 16)
                    if not data:
                        await task
                        return "end of the stream"
                    incoming.write(data)
                await asyncio.sleep(0)

    assert both(scenario) == "TLSV1_ALERT_UNKNOWN_CA"


def test_start_tls_that_fails_tells_the_peer(both):
    @decreed(["SSLCertVerificationError", "SSLError"], because=NO_ALERT)
    async def scenario(loop):
        a, b = socket_pair("tcp")
        ours, theirs = Recorder(), Recorder()
        (client, _), (server, _) = await asyncio.gather(
            loop.create_connection(lambda: ours, sock=a), loop.connect_accepted_socket(lambda: theirs, b)
        )
        server_side = server_context()
        server_side.maximum_version = ssl.TLSVersion.TLSv1_2  # where the server waits for the client's last word
        outcomes = await asyncio.gather(
            async_outcome_of(loop.start_tls(client, ours, client_context(trusting=False), server_hostname=HOST)),
            async_outcome_of(loop.start_tls(server, theirs, server_side, server_side=True)),
        )
        await async_until(lambda: a.fileno() == b.fileno() == -1)
        return [name for name, _ in outcomes]

    assert both(scenario) == ["SSLCertVerificationError", "SSLError"]


def test_tls_inside_of_tls_tells_the_peer_through_the_outer_one(both):
    @decreed(["SSLCertVerificationError", "SSLError"], because=NO_ALERT)
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (client, server):
            inner = server_context()
            inner.maximum_version = ssl.TLSVersion.TLSv1_2
            outcomes = await asyncio.gather(
                async_outcome_of(loop.start_tls(client, ours, client_context(trusting=False), server_hostname=HOST)),
                async_outcome_of(loop.start_tls(server, theirs, inner, server_side=True)),
            )
            return [name for name, _ in outcomes]

    assert both(scenario) == ["SSLCertVerificationError", "SSLError"]


def test_garbage_on_an_established_connection_is_answered_with_an_alert(both):
    @decreed(("SSLError", "SSLV3_ALERT_BAD_RECORD_MAC"), because=NO_ALERT)
    async def scenario(loop):
        ours = Recorder()
        a, b = socket_pair("tcp")
        with b:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            server = server_context().wrap_bio(incoming, outgoing, server_side=True)
            making = loop.create_task(
                loop.create_connection(lambda: ours, sock=a, ssl=client_context(), server_hostname=HOST)
            )

            async def exchange(step):
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        pass
                    finally:
                        if outgoing.pending:
                            b.send(outgoing.read())
                    with contextlib.suppress(BlockingIOError):
                        data = b.recv(1 << 16)
                        incoming.write(data) if data else incoming.write_eof()
                    await asyncio.sleep(0)

            await exchange(server.do_handshake)
            await making
            b.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            await ours.until("lost")
            try:
                await exchange(lambda: server.read(1))
            except ssl.SSLError as exc:
                return ours.events[-1][1], exc.reason

    assert both(scenario) == ("SSLError", "SSLV3_ALERT_BAD_RECORD_MAC")


def test_an_alert_to_a_peer_that_is_gone_hurts_nobody(both):
    async def scenario(loop):
        seen = reports(loop)
        with stream_pair() as (sock, peer):
            connecting = loop.create_connection(Recorder, sock=sock.dup(), ssl=client_context(), server_hostname=HOST)
            task = loop.create_task(async_outcome_of(connecting))
            await loop.sock_recv(peer, 1)  # of the hello
            peer.send(b"this is no TLS, and the peer does not wait")
            peer.close()
            sock.close()
            return (await task)[0] in ("SSLError", "BrokenPipeError", "ConnectionResetError"), seen

    assert both(scenario) == (True, [])


# Read ahead


def hello(context):
    """A client's TLS object and what it says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return client, incoming, outgoing


@pytest.mark.parametrize("limit", [2**16, 16], ids=["", "paused by the reader's limit"])
def test_the_hello_may_come_in_one_piece_with_the_line_before(both, limit):
    """As a proxy sends it: a header in plain text, and TLS right behind it."""

    @decreed((b"PROXY\r\n", b"hi data"), because="up to 3.14 asyncio leaves the hello in the reader's buffer")
    async def scenario(loop):
        line = loop.create_future()

        async def handle(reader, writer):
            first = await reader.readline()
            await async_until(lambda: reader._buffer)  # what came behind the line
            await writer.start_tls(server_context())
            writer.write(b"hi " + await reader.readexactly(4))
            await writer.drain()
            line.set_result(first)
            writer.close()

        client, incoming, outgoing = hello(client_context())
        async with ending(await asyncio.start_server(handle, "127.0.0.1", 0, limit=limit)) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"PROXY\r\n" + outgoing.read())
            sent, got = False, b""
            while len(got) < 7:
                try:
                    if not sent:
                        client.do_handshake()
                        client.write(b"data")
                        sent = True
                    got += client.read(100)
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(1 << 16))
            first = await line
            writer.close()
            await writer.wait_closed()
        return first, got

    assert both(scenario) == (b"PROXY\r\n", b"hi data")


@pytest.mark.parametrize("side", ["server", "client"])
def test_plain_text_sent_ahead_is_no_secret_text(both, side):
    """What an attacker puts behind the line that asks for TLS fails the handshake; nobody reads it as if secret."""

    @decreed(("SSLError", b""), because="up to 3.14 asyncio hands it over as if it had come through TLS")
    async def scenario(loop):
        outcome = loop.create_future()

        async def use(reader, writer, context):
            await reader.readline()
            await async_until(lambda: reader._buffer)  # what came behind the line
            name = HOST if side == "client" else None
            result = await async_outcome_of(writer.start_tls(context, server_hostname=name))
            outcome.set_result((result and result[0], bytes(reader._buffer)))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        a, b = socket_pair("unix")
        with b:
            b.send(b"STARTTLS\n" + b"MAIL FROM: attacker\r\n" * 2)
            if side == "client":
                await use(*await asyncio.open_connection(sock=a), client_context(trusting=False))
            else:
                reader = asyncio.StreamReader(loop=loop)
                protocol = asyncio.StreamReaderProtocol(reader, lambda r, w: use(r, w, server_context()), loop=loop)
                await loop.connect_accepted_socket(lambda: protocol, a)
            return await outcome

    assert both(scenario) == ("SSLError", b"")
