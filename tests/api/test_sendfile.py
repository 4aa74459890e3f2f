"""loop.sendfile() over plain and TLS transports: ranges, fallback, what else happens on the connection meanwhile."""

import asyncio
import contextlib
import hashlib
import io
import os
import socket
import sys

import pytest

from tests.helpers.certificates import HOST, client_context, server_context
from tests.helpers.outcomes import async_outcome_of, outcome_of
from tests.helpers.recorders import BufferedRecorder, Recorder, connected, decreed
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import settle

CONTENT = hashlib.shake_256(b"seed").digest(1_000_000)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@contextlib.asynccontextmanager
async def tls_link(loop):
    """Our TLS transport and the protocol at the other end."""
    a, b = socket_pair("tcp")
    ours, theirs = Recorder(), Recorder()
    (transport, _), _ = await asyncio.gather(
        loop.create_connection(lambda: ours, sock=a, ssl=client_context(), server_hostname=HOST),
        loop.connect_accepted_socket(lambda: theirs, b, ssl=server_context()),
    )
    yield transport, theirs
    transport.close()
    theirs.transport.close()
    await ours.until("lost")
    await theirs.until("lost")


RANGES = pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (1000, None), (0, 5000), (1000, 5000), (999_990, 100), (1_000_000, None), (2_000_000, None), (5, 1)],
)


def expected(offset, count):
    return CONTENT[offset : None if count is None else offset + count]


@RANGES
def test_part_of_a_file(both, link, path, offset, count):
    outcome = (len(expected(offset, count)), True, offset + len(expected(offset, count)))

    @decreed(outcome, because="asyncio up to 3.13 leaves the file alone if it sent nothing", when=not outcome[0])
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            with path.open("rb") as file:
                file.seek(77)
                reading = loop.create_task(receive(peer))
                sent = await loop.sendfile(transport, file, offset, count)
                position = file.tell()
            transport.close()
            return sent, await reading == expected(offset, count), position

    assert both(scenario) == outcome


@RANGES
def test_part_of_a_file_over_tls(both, path, offset, count):
    async def scenario(loop):
        async with tls_link(loop) as (transport, theirs):
            with path.open("rb") as file:
                sent = await loop.sendfile(transport, file, offset, count)
                await theirs.until(sent)
                return sent, theirs.data == expected(offset, count), file.tell() == offset + sent or not sent

    assert both(scenario) == (len(expected(offset, count)), True, True)


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_empty_file(both, tmp_path, kind):
    (tmp_path / "empty").touch()

    async def scenario(loop):
        with open(tmp_path / "empty", "rb") as file:
            if kind == "tls":
                async with tls_link(loop) as (transport, _):
                    return await loop.sendfile(transport, file), file.tell()
            async with connected(loop, Recorder()) as (transport, _):
                return await loop.sendfile(transport, file), file.tell()

    assert both(scenario) == (0, 0)


def test_offset_zero_is_the_beginning_wherever_the_file_stands(both, path):
    @decreed(CONTENT[:100], because="asyncio's fallback starts where the file stands if the offset is zero")
    async def scenario(loop):
        async with tls_link(loop) as (transport, theirs):
            with path.open("rb") as file:
                file.seek(77)
                await loop.sendfile(transport, file, 0, 100)
            await theirs.until(100)
            return theirs.data

    assert both(scenario) == CONTENT[:100]


def test_file_object_without_descriptor_falls_back(both, link):
    @decreed(
        (900_000, True, 900_010),
        because="asyncio's fallback reads into a buffer that, from 3.12 on, the transport still holds",
        when=sys.version_info >= (3, 12),
    )
    async def scenario(loop):
        async with link(loop, Recorder(), small=True) as (transport, peer):
            file = io.BytesIO(CONTENT)
            reading = loop.create_task(receive(peer))
            sent = await loop.sendfile(transport, file, 10, 900_000)
            transport.close()
            return sent, await reading == CONTENT[10:900_010], file.tell()

    assert both(scenario) == (900_000, True, 900_010)


def test_bytes_written_before_and_after_keep_their_place(both, link, path):
    async def scenario(loop):
        async with link(loop, Recorder(), small=True) as (transport, peer):
            with path.open("rb") as file:
                reading = loop.create_task(receive(peer))
                transport.write(b"b" * 300_000)
                sent = await loop.sendfile(transport, file)
                transport.write(b"after")
                sent += await loop.sendfile(transport, file, 0, 10)
            transport.close()
            return sent, await reading == b"b" * 300_000 + CONTENT + b"after" + CONTENT[:10]

    assert both(scenario) == (1_000_010, True)


def test_bytes_written_before_and_after_keep_their_place_over_tls(both, path):
    async def scenario(loop):
        async with tls_link(loop) as (transport, theirs):
            transport.write(b"before")
            with path.open("rb") as file:
                await loop.sendfile(transport, file)
            transport.write(b"after")
            await theirs.until(1_000_011)
            return theirs.data == b"before" + CONTENT + b"after"

    assert both(scenario) is True


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_data_that_comes_meanwhile_is_delivered(both, link, path, kind):
    async def scenario(loop):
        protocol = kind()
        async with link(loop, protocol, small=True) as (transport, peer):
            with path.open("rb") as file:
                sending = loop.create_task(loop.sendfile(transport, file))
                got = len(await receive(peer, 100_000))
                peer.send(b"incoming")
                got += len(await receive(peer, 900_000))
                sent = await sending
            await protocol.until(8)
            return sent, got, protocol.data, transport.is_reading()

    assert both(scenario) == (1_000_000, 1_000_000, b"incoming", True)


def test_paused_reader_stays_paused(both, path):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol) as (transport, peer):
            transport.pause_reading()
            peer.send(b"x")
            with path.open("rb") as file:
                await loop.sendfile(transport, file, 0, 100)
            reading = transport.is_reading()
            transport.resume_reading()
            await protocol.until(1)
            return reading, protocol.data

    assert both(scenario)[1] == b"x"


# What is refused


async def stuck(loop, link, path):
    """Stop in the middle of a transfer; yields the transport, its peer and the transfer."""
    async with link(loop, Recorder(), small=True) as (transport, peer):
        with path.open("rb") as file:
            sending = loop.create_task(loop.sendfile(transport, file))
            await receive(peer, 1000)
            yield transport, peer, sending
            if not sending.done():
                await receive(peer, len(CONTENT) - 1000)
                await sending


def test_writing_while_one_runs_is_a_runtime_error(both, link, path):
    async def scenario(loop):
        async with contextlib.aclosing(stuck(loop, link, path)) as steps:
            async for transport, peer, sending in steps:
                errors = [
                    outcome_of(transport.write, b"x"),
                    outcome_of(transport.writelines, [b"x"]),
                ]
                got = 1000 + len(await receive(peer, len(CONTENT) - 1000))
                outcome = errors, got, await sending
        return outcome

    errors, got, sent = both(scenario)
    assert errors[0] == ("RuntimeError", "unable to write; sendfile is in progress")
    assert errors[1][0] == "RuntimeError"
    assert got == sent == len(CONTENT)


def test_second_one_while_one_runs_is_a_runtime_error(both, path):
    @decreed(("RuntimeError", len(CONTENT), len(CONTENT)), because="asyncio raises a KeyError from its tables")
    async def scenario(loop):
        async with contextlib.aclosing(stuck(loop, connected, path)) as steps:
            async for transport, peer, sending in steps:
                with path.open("rb") as file:
                    kind, _ = await async_outcome_of(loop.sendfile(transport, file))
                got = 1000 + len(await receive(peer, len(CONTENT) - 1000))
                outcome = kind, got, await sending
        return outcome

    assert both(scenario) == ("RuntimeError", len(CONTENT), len(CONTENT))


def test_writing_works_again_after_one_was_cancelled(both, link, path):
    async def scenario(loop):
        async with link(loop, Recorder(), small=True) as (transport, peer):
            with path.open("rb") as file:
                sending = loop.create_task(loop.sendfile(transport, file))
                await receive(peer, 1000)
                sending.cancel()
                await asyncio.wait([sending])
            transport.write(b"the end")
            transport.close()
            rest = await receive(peer)
            return sending.cancelled(), rest.endswith(b"the end"), CONTENT[1000:].startswith(rest[:-7])

    assert both(scenario) == (True, True, True)


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_closing_transport_is_a_runtime_error(both, path, ending):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol) as (transport, _):
            getattr(transport, ending)()
            with path.open("rb") as file:
                closing = await async_outcome_of(loop.sendfile(transport, file))
                await protocol.until("lost")
                return closing, await async_outcome_of(loop.sendfile(transport, file))

    assert both(scenario) == (("RuntimeError", "Transport is closing"),) * 2


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        ((-1,), "ValueError"),
        (("0",), "TypeError"),
        ((0, -1), "ValueError"),
        ((0, 0), "ValueError"),
        ((0, "1"), "TypeError"),
        ((1.5,), "TypeError"),
    ],
    ids=repr,
)
def test_wrong_ranges(both, path, args, kind):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, peer):
            with path.open("rb") as file:
                outcome = await async_outcome_of(loop.sendfile(transport, file, *args))
            transport.write(b"unharmed")
            return outcome, await receive(peer, 8)

    outcome, unharmed = both(scenario)
    assert outcome[0] == kind and unharmed == b"unharmed"


def test_text_file(both, path):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, _):
            with path.open("r") as file:
                return await async_outcome_of(loop.sendfile(transport, file))

    assert both(scenario) == ("ValueError", "file should be opened in binary mode")


def test_without_fallback(both, path):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, peer):
            plain = await async_outcome_of(loop.sendfile(transport, io.BytesIO(b"x"), fallback=False))
            with path.open("rb") as file:
                native = await loop.sendfile(transport, file, 0, 100, fallback=False)
            received = await receive(peer, 100) == CONTENT[:100]
        async with tls_link(loop) as (transport, _):
            with path.open("rb") as file:
                kind, text = await async_outcome_of(loop.sendfile(transport, file, fallback=False))
        return plain, native, received, kind, text.partition("transport <")[0]

    assert both(scenario) == (
        ("SendfileNotAvailableError", "not a regular file"),
        100,
        True,
        "RuntimeError",
        "fallback is disabled and native sendfile is not supported for ",
    )


def test_other_kinds_of_transport(both, path):
    async def scenario(loop):
        outcomes = []
        datagram, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        reader, writer = os.pipe()
        pipe, _ = await loop.connect_write_pipe(asyncio.Protocol, open(writer, "wb", 0))
        with path.open("rb") as file:
            for transport in (datagram, pipe):
                kind, text = await async_outcome_of(loop.sendfile(transport, file))
                outcomes.append((kind, text.partition("<")[0]))
                transport.abort()
        os.close(reader)
        await settle()
        return outcomes

    assert both(scenario) == [("RuntimeError", "sendfile is not supported for transport ")] * 2


# Peers that go away


@pytest.mark.parametrize("source", ["file", "memory"])
def test_peer_that_goes_away(both, path, source):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol, small=True) as (transport, peer):
            with path.open("rb") if source == "file" else io.BytesIO(CONTENT) as file:
                sending = loop.create_task(loop.sendfile(transport, file))
                await receive(peer, 1000)
                peer.close()
                kind, _ = await async_outcome_of(sending)
                await protocol.until("lost")
                moved = 0 <= file.tell() <= len(CONTENT)
            return kind in ("BrokenPipeError", "ConnectionResetError", "ConnectionError"), moved, transport.is_closing()

    assert both(scenario) == (True, True, True)


def test_abort_in_the_middle(both, path):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol, small=True) as (transport, peer):
            with path.open("rb") as file:
                sending = loop.create_task(loop.sendfile(transport, io.BytesIO(CONTENT)))
                await receive(peer, 1000)
                transport.abort()
                await protocol.until("lost")
                kind, _ = await async_outcome_of(sending)
                return kind, protocol.events, file.tell()

    assert both(scenario)[1] == ["made", ("lost", None)]


def test_half_closed_peer_still_gets_the_file(both, link, path):
    async def scenario(loop):
        protocol = Recorder(keep_open=True)
        async with link(loop, protocol, small=True) as (transport, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until("eof")
            with path.open("rb") as file:
                reading = loop.create_task(receive(peer))
                sent = await loop.sendfile(transport, file)
            transport.close()
            return sent, len(await reading)

    assert both(scenario) == (1_000_000, 1_000_000)
