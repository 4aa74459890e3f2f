"""The first data of a connection: its protocol gets it behind the caller that waits for the connection."""

import asyncio
import contextlib
import os
import socket
import ssl

import pytest

from tests.helpers.certificates import HOST, client_context, server_context, tls_server
from tests.helpers.pipetools import pipe_files
from tests.helpers.recorders import DatagramRecorder, Recorder, decreed
from tests.helpers.servers import ending, serving
from tests.helpers.sockets import listening, socket_pair
from tests.helpers.waiting import async_until, settle

ROUNDS = 20
ORDER = ["made", "returned", "data"]


async def rounds(connect):
    """What happened in what order when the peer spoke before `connect(protocol)` returned, of each of some rounds."""
    seen = set()
    for _ in range(ROUNDS):
        protocol = Recorder(keep_open=True)
        async with connect(protocol) as transport:
            protocol.note("returned")
            await protocol.until("data")
            seen.add(tuple(protocol.names()))
            transport.abort() if hasattr(transport, "abort") else transport.close()
            await protocol.until("lost")
    return [list(names) for names in seen]


@contextlib.contextmanager
def speaking_pair(kind="tcp"):
    """Two connected sockets, of which the other has spoken."""
    ours, peer = socket_pair(kind)
    peer.send(b"banner")
    with peer:
        yield ours


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("how", ["create_connection", "connect_accepted_socket"])
def test_over_a_given_socket(both, kind, how):
    async def scenario(loop):
        @contextlib.asynccontextmanager
        async def connect(protocol):
            with speaking_pair(kind) as sock:
                if how == "connect_accepted_socket":
                    made = loop.connect_accepted_socket(lambda: protocol, sock)
                elif kind == "unix":
                    made = loop.create_unix_connection(lambda: protocol, sock=sock)
                else:
                    made = loop.create_connection(lambda: protocol, sock=sock)
                yield (await made)[0]

        return await rounds(connect)

    assert both(scenario) == [ORDER]


def test_over_tcp_to_a_server_that_speaks_first(both):
    async def scenario(loop):
        async with serving(loop, lambda: Recorder(made=lambda p: p.transport.write(b"banner"))) as (_, address):

            @contextlib.asynccontextmanager
            async def connect(protocol):
                yield (await loop.create_connection(lambda: protocol, *address))[0]

            return await rounds(connect)

    assert both(scenario) == [ORDER]


def test_through_another_task_as_many_callbacks_later_as_on_asyncio(both):
    """The data is there when the connection is made; how far a chain of tasks gets before it comes is the same."""

    async def scenario(loop):
        async def through(depth, protocol, sock):
            if depth:
                made = await asyncio.create_task(through(depth - 1, protocol, sock))
            else:
                made = await loop.create_connection(lambda: protocol, sock=sock)
            protocol.note(f"depth {depth}")
            return made

        protocol = Recorder(keep_open=True)
        with speaking_pair() as sock:
            transport, _ = await through(4, protocol, sock)
            await protocol.until("data")
            events = protocol.names()
            transport.abort()
            await protocol.until("lost")
        return events

    assert both(scenario)[:3] == ["made", "depth 0", "data"]


@pytest.mark.parametrize("paused", [False, True])
def test_callbacks_scheduled_by_connection_made_come_before_the_first_data(both, paused):
    async def scenario(loop):
        def made(protocol):
            loop.call_soon(protocol.note, "soon")
            if paused:
                protocol.transport.pause_reading()
                loop.call_soon(protocol.transport.resume_reading)

        protocol = Recorder(keep_open=True, made=made)
        with speaking_pair() as sock:
            transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
            await protocol.until("data")
            events = protocol.names()
            transport.abort()
            await protocol.until("lost")
        return events

    assert both(scenario) == ["made", "soon", "data"]


def test_a_servers_handler_begins_before_its_reader_gets_data(both):
    async def scenario(loop):
        seen = loop.create_future()

        async def handle(reader, writer):
            if not seen.done():
                seen.set_result(bytes(reader._buffer))
            writer.close()

        async with ending(await asyncio.start_server(handle, "127.0.0.1", 0)) as server:
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.send(b"request")
                return await seen

    assert both(scenario) == b""


def test_bytes_written_before_reading_begins_go_out_when_there_is_room(both):
    async def scenario(loop):
        size = 1 << 20
        protocol = Recorder(made=lambda p: p.transport.write(bytes(size)))
        ours, peer = socket_pair("tcp", small=True)
        with peer:
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            got = 0
            while got < size:
                with contextlib.suppress(BlockingIOError):
                    got += len(peer.recv(1 << 16))
                await asyncio.sleep(0)
            transport.close()
            await protocol.until("lost")
        return got, protocol.events

    assert both(scenario) == (1 << 20, ["made", "pause", "resume", ("lost", None)])


def test_closing_in_connection_made_flushes_and_reads_nothing(both):
    def end(protocol):
        protocol.transport.write(b"bye")
        protocol.transport.close()

    async def scenario(loop):
        protocol = Recorder(made=end)
        ours, peer = socket_pair("tcp")
        with peer:
            peer.send(b"banner")
            await loop.create_connection(lambda: protocol, sock=ours)
            await protocol.until("lost")
            return peer.recv(10), protocol.events

    assert both(scenario) == (b"bye", ["made", ("lost", None)])


def test_from_a_pipe(both):
    async def scenario(loop):
        @contextlib.asynccontextmanager
        async def connect(protocol):
            reader, writer = pipe_files()
            with writer:
                writer.write(b"banner")
                yield (await loop.connect_read_pipe(lambda: protocol, reader))[0]

        return await rounds(connect)

    assert both(scenario) == [ORDER]


def test_of_a_datagram_endpoint(both):
    async def scenario(loop):
        seen = set()
        for _ in range(ROUNDS):
            protocol = DatagramRecorder()
            ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            with peer:
                ours.setblocking(False)
                peer.send(b"banner")
                transport, _ = await loop.create_datagram_endpoint(lambda p=protocol: p, sock=ours)
                protocol.note("returned")
                await protocol.until("datagram")
                seen.add(tuple(protocol.names()))
                transport.abort()
                await protocol.until("lost")
        return seen

    assert both(scenario) == {("made", "returned", "datagram")}


def test_of_a_child_process_in_the_order_of_asyncio(both):
    """What the child has written by the time its pipes are connected: data is delivered when they are read first."""

    async def scenario(loop):
        class Child(asyncio.SubprocessProtocol):
            def __init__(self):
                self.events, self.exited = [], loop.create_future()

            def connection_made(self, transport):
                self.events.append("made")

            def pipe_data_received(self, fd, data):
                self.events.append("data")

            def process_exited(self):
                self.events.append("exited")

            def connection_lost(self, exc):
                self.exited.set_result(None)

        transport, protocol = await loop.subprocess_exec(Child, "cat", stderr=None)
        protocol.events.append("returned")
        stdin = transport.get_pipe_transport(0)
        stdin.write(b"x")
        await async_until(lambda: "data" in protocol.events)
        stdin.close()
        await protocol.exited
        transport.close()
        return protocol.events

    assert both(scenario) == ["made", "returned", "data", "exited"]


# TLS: asyncio delivers what came with the end of the handshake before it lets the caller go on. TLS 1.2 makes that
# certain, as the server's part of the handshake is the last one there.


def old_contexts():
    server, client = server_context(), client_context()
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    return server, client


EARLY = "asyncio delivers what came with the end of the handshake at once"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_over_tls(both, version):
    @decreed([ORDER], because=EARLY)
    async def scenario(loop):
        context = server_context()
        context.maximum_version = ssl.TLSVersion[version]
        speaker = lambda: Recorder(made=lambda p: p.transport.write(b"banner"))  # noqa: E731
        async with tls_server(loop, speaker, context=context) as address:

            @contextlib.asynccontextmanager
            async def connect(protocol):
                made = loop.create_connection(lambda: protocol, *address, ssl=client_context(), server_hostname=HOST)
                yield (await made)[0]

            return await rounds(connect)

    assert both(scenario) == [ORDER]


def test_after_start_tls(both):
    """The caller of start_tls() has the new transport before the protocol gets the first data through it."""

    @decreed([ORDER], because=EARLY)
    async def scenario(loop):
        server_side, client_side = old_contexts()
        speaker = lambda: Recorder(made=lambda p: p.transport.write(b"banner"))  # noqa: E731
        async with tls_server(loop, speaker, context=server_side) as address:

            @contextlib.asynccontextmanager
            async def connect(protocol):
                transport, _ = await loop.create_connection(lambda: protocol, *address)
                yield await loop.start_tls(transport, protocol, client_side, server_hostname=HOST)

            return await rounds(connect)

    assert both(scenario) == [ORDER]


def test_pausing_right_after_a_tls_connection_holds_the_first_data_back(both):
    @decreed((b"", b"banner"), because=EARLY)
    async def scenario(loop):
        server_side, client_side = old_contexts()
        speaker = lambda: Recorder(made=lambda p: p.transport.write(b"banner"))  # noqa: E731
        async with tls_server(loop, speaker, context=server_side) as address:
            ours = Recorder()
            transport, _ = await loop.create_connection(lambda: ours, *address, ssl=client_side, server_hostname=HOST)
            transport.pause_reading()
            await settle()
            held = ours.data
            transport.resume_reading()
            await ours.until(6)
            transport.abort()
            await ours.until("lost")
            return held, ours.data

    assert both(scenario) == (b"", b"banner")


# What can go wrong


def test_a_descriptor_that_cannot_be_watched_ends_the_connection(both):
    """Nobody waits for ever for data that cannot come."""

    @decreed(["made", ("lost", "PermissionError")], because="asyncio reports it, and leaves the connection open")
    async def scenario(loop):
        def steal(protocol):
            """Put a regular file, which epoll does not take, in the place of the socket."""
            with open(os.__file__) as file:
                os.dup2(file.fileno(), protocol.transport.get_extra_info("socket").fileno())

        protocol = Recorder(made=steal)
        ours, peer = socket_pair("tcp")
        with peer:
            await loop.create_connection(lambda: protocol, sock=ours)
            await protocol.until("lost")
        return protocol.events

    assert both(scenario) == ["made", ("lost", "PermissionError")]


def test_accepting_while_data_waits_loses_nothing(both):
    """Connections that have sent everything, and their end, before they were accepted."""

    async def scenario(loop):
        with listening() as listener:
            clients = []
            for i in range(8):
                client = socket.create_connection(listener.getsockname())
                client.send(b"%d" % i)
                client.shutdown(socket.SHUT_WR)
                clients.append(client)
            got, done = [], loop.create_future()

            def lost(protocol, _):
                got.append(int(protocol.data))
                if len(got) == 8:
                    done.set_result(None)

            async with ending(await loop.create_server(lambda: Recorder(lost=lost), sock=listener.dup())):
                await done
            for client in clients:
                client.close()
            return sorted(got)

    assert both(scenario) == list(range(8))
