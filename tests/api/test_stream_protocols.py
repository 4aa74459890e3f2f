"""Protocols on stream transports: buffered ones, changing kinds, contexts, asyncio's streams, bulk."""

import asyncio
import contextlib
import contextvars
import hashlib
import socket
import sys

import pytest

from tests.helpers.outcomes import async_outcome_of, reports
from tests.helpers.recorders import BufferedRecorder, Echo, Recorder, connected, decreed
from tests.helpers.servers import ending, serving
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import settle

VAR = contextvars.ContextVar("VAR", default="unset")


# BufferedProtocol


@pytest.mark.parametrize("size", [1, 5, 1 << 16])
def test_buffered_protocol_gets_its_data_in_its_own_buffer(both, link, size):
    async def scenario(loop):
        protocol, calls = BufferedRecorder(size), []
        protocol.hooks["data"] = lambda _, data: calls.append(len(data) <= size)
        async with link(loop, protocol) as (_, peer):
            peer.send(b"thirteen char")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until("lost")
            return protocol.events, all(calls)

    assert both(scenario) == (["made", ("data", b"thirteen char"), "eof", ("lost", None)], True)


@pytest.mark.parametrize("wrap", [bytearray, memoryview], ids=["bytearray", "memoryview"])
def test_get_buffer_may_return_part_of_a_larger_buffer(both, wrap):
    async def scenario(loop):
        protocol = BufferedRecorder(64)
        protocol.hooks["get_buffer"] = lambda p: memoryview(p.buffer)[:3] if wrap is memoryview else p.buffer
        async with connected(loop, protocol) as (_, peer):
            peer.send(b"abcdefgh")
            await protocol.until(8)
            return protocol.data

    assert both(scenario) == b"abcdefgh"


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (b"", "Fatal error: protocol.get_buffer() call failed."),
        (bytearray(), "Fatal error: protocol.get_buffer() call failed."),
        (None, "Fatal error: protocol.get_buffer() call failed."),
        (b"read-only", "Fatal read error on socket transport"),
        ("text", "Fatal read error on socket transport"),
    ],
    ids=repr,
)
def test_unusable_buffer_closes(both, link, buffer, message):
    async def scenario(loop):
        seen, protocol = reports(loop), BufferedRecorder(get_buffer=lambda _: buffer)
        async with link(loop, protocol) as (_, peer):
            peer.send(b"x")
            await protocol.until("lost")
            return [(report[0], report[1]) for report in seen], protocol.events

    seen, events = both(scenario)
    kind = "RuntimeError" if buffer is not None and not buffer else "TypeError"
    assert seen == [(message, kind)]
    assert events == ["made", ("lost", kind)]


def test_buffered_protocol_may_pause_in_buffer_updated(both, link):
    async def scenario(loop):
        protocol = BufferedRecorder(4, data=lambda p, _: p.transport.pause_reading())
        async with link(loop, protocol) as (transport, peer):
            peer.send(b"12345678")
            await protocol.until(4)
            await settle()
            held = protocol.data
            transport.resume_reading()
            await protocol.until(8)
            return held, protocol.data

    assert both(scenario) == (b"1234", b"12345678")


def test_protocol_needs_no_base_class(both, link):
    class Plain:
        def __init__(self):
            self.calls = []

        def connection_made(self, transport):
            self.calls.append("made")

        def data_received(self, data):
            self.calls.append(data)

        def eof_received(self):
            self.calls.append("eof")

        def connection_lost(self, exc):
            self.calls.append("lost")
            self.lost.set()

    async def scenario(loop):
        protocol = Plain()
        protocol.lost = asyncio.Event()
        async with link(loop, protocol) as (_, peer):
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            await protocol.lost.wait()
            return protocol.calls

    assert both(scenario) == ["made", b"x", "eof", "lost"]


# Changing the protocol in the middle of a stream


@pytest.mark.parametrize("first", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("second", [Recorder, BufferedRecorder])
def test_protocol_switched_while_it_receives(both, link, first, second):
    async def scenario(loop):
        successor = second()
        protocol = first(data=lambda p, _: p.transport.set_protocol(successor))
        async with link(loop, protocol) as (transport, peer):
            peer.send(b"first")
            await protocol.until("data")
            peer.send(b"second")
            await successor.until(6)
            current = transport.get_protocol() is successor
            peer.close()
            await successor.until("lost")
            return current, protocol.events, successor.events

    assert both(scenario) == (
        True,
        ["made", ("data", b"first")],
        [("data", b"second"), "eof", ("lost", None)],
    )


def test_switch_in_the_middle_of_a_chunk_gives_the_rest_to_the_new_protocol(both, link):
    async def scenario(loop):
        successor = Recorder()
        protocol = BufferedRecorder(5, data=lambda p, _: p.transport.set_protocol(successor))
        async with link(loop, protocol) as (_, peer):
            peer.send(b"HEAD:and a body")
            await successor.until(10)
            return protocol.data, successor.data

    assert both(scenario) == (b"HEAD:", b"and a body")


def test_switch_while_reading_is_paused(both, link):
    async def scenario(loop):
        protocol, successor = Recorder(), BufferedRecorder()
        async with link(loop, protocol) as (transport, peer):
            transport.pause_reading()
            peer.send(b"x")
            await settle()
            transport.set_protocol(successor)
            transport.resume_reading()
            await successor.until("data")
            return protocol.names(), successor.events

    assert both(scenario) == (["made"], [("data", b"x")])


# Contexts


def test_protocol_methods_run_in_the_context_of_whoever_connected(both, link):
    async def scenario(loop):
        found = []
        look = lambda *_: found.append(VAR.get())  # noqa: E731
        VAR.set("connecting")
        protocol = Recorder(made=look, data=look, eof=look, lost=look)
        async with link(loop, protocol) as (_, peer):
            VAR.set("later")
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until("lost")
            return found

    assert both(scenario) == ["connecting"] * 4


def test_protocol_methods_do_not_change_the_context_of_others(both, link):
    async def scenario(loop):
        change = lambda *_: VAR.set("protocol")  # noqa: E731
        protocol = Recorder(made=change, data=change, eof=change, lost=change)
        async with link(loop, protocol) as (_, peer):
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until("lost")
            plain = loop.create_future()
            loop.call_soon(lambda: plain.set_result(VAR.get()))
            return VAR.get(), await plain

    assert both(scenario) == ("unset", "unset")


def test_accepted_connections_run_in_the_context_of_whoever_served(both):
    async def scenario(loop):
        found, lost = [], asyncio.Event()

        def look(protocol, *_):
            found.append(VAR.get())

        def last(protocol, *_):
            look(protocol)
            lost.set()

        VAR.set("serving")
        server = await loop.create_server(lambda: Recorder(made=look, data=look, lost=last), "127.0.0.1", 0)
        VAR.set("later")
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        transport.write(b"x")
        transport.close()
        await lost.wait()
        server.close()
        await server.wait_closed()
        return found

    assert both(scenario) == ["serving"] * 3


def test_a_context_that_is_given_is_the_transports(both):
    """As asyncio gives it from Python 3.15 on: to what makes transports, and to what makes them of accepted sockets."""

    @decreed(["given"] * 3, because="it takes none before 3.15", when=sys.version_info < (3, 15))
    async def scenario(loop):
        found = []
        look = lambda *_: found.append(VAR.get())  # noqa: E731
        context = contextvars.copy_context()
        context.run(VAR.set, "given")
        VAR.set("making")
        ours, peer = socket_pair("tcp")
        with peer:
            protocol = Recorder(made=look, data=look, lost=look)
            loop._make_socket_transport(ours, protocol, context=context)
            peer.send(b"x")
            await protocol.until("data")
            protocol.transport.close()
            await protocol.until("lost")
        return found

    assert both(scenario) == ["given"] * 3


# asyncio's streams


@contextlib.asynccontextmanager
async def served(loop, handler):
    """A connection to a server for ``handler(reader, writer)``, and the future for what that returns."""
    done = loop.create_future()

    async def handle(reader, writer):
        try:
            outcome = await handler(reader, writer)
            writer.close()
            await async_outcome_of(writer.wait_closed())
            done.set_result(outcome)
        except Exception as exc:
            done.set_exception(exc)

    async with ending(await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 10)) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield reader, writer, done
        writer.close()
        await async_outcome_of(writer.wait_closed())


def test_stream_reader_readuntil_readexactly_readline(both):
    async def handler(reader, writer):
        got = [await reader.readuntil(b"||"), await reader.readline(), await reader.readexactly(4)]
        got.append(await async_outcome_of(reader.readexactly(10)))
        return [*got, reader.at_eof()]

    async def scenario(loop):
        async with served(loop, handler) as (_, writer, done):
            for piece in (b"head", b"er|", b"|li", b"ne\nbo", b"dyrest"):
                writer.write(piece)
                await writer.drain()
                await settle()
            writer.write_eof()
            return await done

    assert both(scenario) == [
        b"header||",
        b"line\n",
        b"body",
        ("IncompleteReadError", "4 bytes read on a total of 10 expected bytes"),
        True,
    ]


def test_stream_reader_over_its_limit(both):
    async def handler(reader, writer):
        kind, text = await async_outcome_of(reader.readuntil(b"|"))
        return kind, text, (await reader.readexactly(5000)).count(b"x")

    async def scenario(loop):
        async with served(loop, handler) as (_, writer, done):
            writer.write(b"x" * 5000 + b"|")
            kind, _, count = await done
            return kind, count

    assert both(scenario) == ("LimitOverrunError", 5000)


def test_stream_writer_drain_waits_for_a_slow_reader(both):
    async def handler(reader, writer):
        await started.wait()
        return len(await reader.read())

    async def scenario(loop):
        nonlocal started
        started = asyncio.Event()
        async with served(loop, handler) as (_, writer, done):
            writer.transport.set_write_buffer_limits(high=1 << 16)
            writer.write(bytes(20_000_000))
            drain = loop.create_task(writer.drain())
            await settle()
            waited = not drain.done()
            started.set()
            await drain
            size = writer.transport.get_write_buffer_size()
            writer.write_eof()
            return waited, size <= 1 << 14, await done

    started = None
    assert both(scenario) == (True, True, 20_000_000)


def test_stream_writer_drain_after_a_lost_connection(both):
    async def handler(reader, writer):
        writer.transport.abort()

    async def scenario(loop):
        async with served(loop, handler) as (reader, writer, done):
            await done
            rest = await reader.read()
            writer.write(b"x")
            await settle()
            writer.transport.abort()
            closed = await async_outcome_of(writer.wait_closed())
            return rest, closed, await async_outcome_of(writer.drain())

    rest, _, (kind, _) = both(scenario)
    assert (rest, kind) == (b"", "ConnectionResetError")


def test_streams_echo_lines(both):
    async def handler(reader, writer):
        count = 0
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
            count += 1
        return count

    async def scenario(loop):
        async with served(loop, handler) as (reader, writer, done):
            answers = []
            for i in range(200):
                writer.write(b"line %d\n" % i)
                answers.append(await reader.readline())
            writer.write_eof()
            return await done, await reader.read(), answers

    count, rest, answers = both(scenario)
    assert (count, rest) == (200, b"")
    assert answers == [b"LINE %d\n" % i for i in range(200)]


# Bulk


class Sender(asyncio.Protocol):
    """Writes its payload piece by piece as fast as the transport takes it; hashes what comes back."""

    def __init__(self, payload):
        self.payload = payload
        self.position = 0
        self.paused = False
        self.hash = hashlib.blake2b()
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.go_on()

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self.go_on()

    def go_on(self):
        while not self.paused and self.position < len(self.payload):
            piece = self.payload[self.position : self.position + 100_001]
            self.position += len(piece)
            self.transport.write(piece)
            if self.position == len(self.payload):
                self.transport.write_eof()

    def data_received(self, data):
        self.hash.update(data)

    def connection_lost(self, exc):
        self.lost.set()


def test_twenty_connections_echo_three_megabytes_each(both):
    payload = hashlib.shake_256(b"seed").digest(3_000_000)

    async def scenario(loop):
        senders = [Sender(payload) for _ in range(20)]
        async with serving(loop) as (_, address):
            await asyncio.gather(*(loop.create_connection(lambda s=sender: s, *address) for sender in senders))
            await asyncio.gather(*(sender.lost.wait() for sender in senders))
        return {sender.hash.hexdigest() for sender in senders}

    assert both(scenario) == {hashlib.blake2b(payload).hexdigest()}


def test_messages_of_all_sizes_arrive_whole_and_stay_as_they_were(both, link):
    sizes = [1, 32_767, 32_768, 36_864, 36_865, 100, 150_000, 149_000, 40_000, 262_144, 258_048, 262_143, 70_000, 1]
    messages = [hashlib.shake_256(b"%d" % i).digest(size) for i, size in enumerate(sizes)]

    async def scenario(loop):
        protocol = Recorder()
        kept = []
        protocol.hooks["data"] = lambda _, data: kept.append(data)
        async with link(loop, protocol) as (_, peer):
            for message in messages:
                already = sum(map(len, kept))
                await loop.sock_sendall(peer, message)
                while sum(map(len, kept)) < already + len(message):
                    await asyncio.sleep(0)
        return {type(data) for data in kept}, b"".join(kept) == b"".join(messages)

    assert both(scenario) == ({bytes}, True)


def test_peers_see_every_byte_of_many_small_messages(both, link):
    async def scenario(loop):
        async with link(loop, Echo()) as (_, peer):
            count = sum(peer.send(b"%05d" % i) for i in range(150))
            got = await receive(peer, count)
            return count, [int(got[i : i + 5]) for i in range(0, count, 5)] == list(range(count // 5))

    assert both(scenario)[1]
