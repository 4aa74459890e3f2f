"""TLS and buffers of all kinds: sizes count bytes, and the protocol's own buffer may be of any type."""

import array
import asyncio
import contextlib
import socket
import ssl

import pytest

from tests.helpers.certificates import HOST, client_context, server_context, tls_pair, tls_server
from tests.helpers.outcomes import outcome_of, reports
from tests.helpers.recorders import BufferedRecorder, Recorder, connected, decreed
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import settle

ITEMS = array.array("d", range(1000))


def table():
    """A view with two dimensions."""
    return memoryview(bytes(range(200))).cast("B", (10, 20))


PIECES = {
    "bytes": lambda: b"payload" * 10,
    "bytearray": lambda: bytearray(b"payload" * 10),
    "doubles": lambda: memoryview(ITEMS),
    "some doubles": lambda: memoryview(ITEMS)[100:300],
    "table": table,
    "every other": lambda: memoryview(bytes(range(200)))[::2],
    "scalar": lambda: memoryview(array.array("d", [1.5])).cast("B").cast("d", ()),
    "nothing": lambda: memoryview(b""),
}
KINDS = pytest.mark.parametrize("kind", PIECES)
ITEMS_COUNTED = "asyncio counts items where it means bytes"


@KINDS
@pytest.mark.parametrize("call", ["write", "writelines"])
def test_a_view_of_anything_is_sent_as_its_bytes(both, kind, call):
    wanted = PIECES[kind]().tobytes() if isinstance(PIECES[kind](), memoryview) else bytes(PIECES[kind]())

    @decreed((wanted + b"end", 0), because=ITEMS_COUNTED)
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, _):
            transport.write(PIECES[kind]()) if call == "write" else transport.writelines([PIECES[kind]()])
            transport.write(b"end")
            await theirs.until(len(wanted) + 3)
            return theirs.data, transport.get_write_buffer_size()

    assert both(scenario) == (wanted + b"end", 0)


@KINDS
@pytest.mark.parametrize("call", ["write", "writelines"])
def test_a_view_of_anything_is_sent_as_its_bytes_without_tls(both, kind, call):
    wanted = PIECES[kind]().tobytes() if isinstance(PIECES[kind](), memoryview) else bytes(PIECES[kind]())

    @decreed((wanted + b"end", 0), because="asyncio's writelines() counts items, and its write() takes no gaps")
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, peer):
            transport.write(PIECES[kind]()) if call == "write" else transport.writelines([PIECES[kind]()])
            transport.write(b"end")
            return await receive(peer, len(wanted) + 3), transport.get_write_buffer_size()

    assert both(scenario) == (wanted + b"end", 0)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_writer_is_paused_at_the_same_byte_for_views_and_for_bytes(both, tls):
    """Bytes, and doubles: asyncio counts the latter eight times too few over TLS."""
    wanted = [True, True, True]

    @decreed(wanted, because=ITEMS_COUNTED)
    async def scenario(loop):
        seen = []
        for convert in (bytes, lambda view: view):
            ours, theirs = Recorder(), Recorder(made=lambda p: p.transport.pause_reading())
            a, b = socket_pair("tcp", small=True)
            options = {"ssl": client_context(), "server_hostname": HOST} if tls else {}
            (transport, _), (other, _) = await asyncio.gather(
                loop.create_connection(lambda p=ours: p, sock=a, **options),
                loop.connect_accepted_socket(lambda p=theirs: p, b, ssl=server_context() if tls else None),
            )
            written, low = 0, 0
            while "pause" not in ours.names():
                transport.write(convert(memoryview(ITEMS)))
                written += memoryview(ITEMS).nbytes
                low = min(low, transport.get_write_buffer_size())
                await asyncio.sleep(0)
            seen.append((written, low, transport.get_write_buffer_size()))
            transport.abort()
            other.abort()
            await ours.until("lost")
            await theirs.until("lost")
        (plain, _, _), (views, low, size) = seen
        return [abs(plain - views) <= 400_000, low == 0, size > 0]

    assert both(scenario) == wanted


@pytest.mark.parametrize("state", ["while the peer is slow", "before the handshake has ended"])
def test_bytes_written_do_not_change_with_the_callers_buffer(both, state):
    """A bytearray that the caller goes on using."""

    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, other):
            if state == "while the peer is slow":
                other.pause_reading()
                while not transport.get_write_buffer_size():
                    transport.write(bytes(1 << 16))
                    await asyncio.sleep(0)
            buffer = bytearray(b"as it was")
            transport.write(buffer)
            transport.writelines([memoryview(buffer)])
            buffer[:] = b"no longer"
            buffer.extend(b"!")
            other.resume_reading()
            await theirs.until(lambda: theirs.data.endswith(b"as it was" * 2))
            return theirs.data.lstrip(b"\0")

    assert both(scenario) == b"as it was" * 2


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]])
def test_a_piece_that_is_no_bytes_fails_the_call_and_nothing_is_sent(both, data):
    @decreed(("TypeError", b"sent", []), because="asyncio sends the pieces before it, and gives up the connection")
    async def scenario(loop):
        seen = reports(loop)
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, _):
            error = outcome_of(transport.writelines, [b"not this", data])[0]
            transport.write(b"sent")
            await theirs.until(4)
            return error, theirs.data, seen

    assert both(scenario) == ("TypeError", b"sent", [])


# Receiving into the protocol's own buffer


BUFFERS = {
    "bytearray": lambda: bytearray(100),
    "view": lambda: memoryview(bytearray(100)),
    "part": lambda: memoryview(bytearray(1000))[500:600],
    "doubles": lambda: memoryview(array.array("d", bytes(104))),
    "array": lambda: array.array("B", bytes(100)),
    "tiny": lambda: bytearray(3),
}


class Raw(BufferedRecorder):
    """A buffered protocol over a buffer of any type."""

    def __init__(self, buffer, **hooks):
        super().__init__(**hooks)
        self.buffer = buffer

    def buffer_updated(self, nbytes):
        with memoryview(self.buffer) as view:
            data = view.tobytes()[:nbytes]
        self.note("data", data)


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_any_writable_buffer_receives(both, tls, kind):
    payload = bytes(range(256)) * 8

    @decreed(payload, because="over TLS asyncio fills a copy of a bytearray")
    async def scenario(loop):
        ours, theirs = Raw(BUFFERS[kind]()), Recorder()
        if tls:
            async with tls_pair(loop, ours, theirs) as (_, other):
                other.write(payload[:1000])
                other.write(payload[1000:])
                await ours.until(len(payload))
                return ours.data
        async with connected(loop, ours) as (_, peer):
            peer.send(payload)
            await ours.until(len(payload))
            return ours.data

    assert both(scenario) == payload


def test_the_buffer_may_be_resized_once_it_was_filled(both):
    async def scenario(loop):
        def grow(protocol, data):
            protocol.buffer.extend(bytes(10))

        ours, theirs = Raw(bytearray(10), data=grow), Recorder()
        async with tls_pair(loop, ours, theirs) as (_, other):
            for _ in range(5):
                other.write(b"0123456789")
                await settle()
            await ours.until(50)
            return len(ours.buffer) > 10, len(ours.data)

    assert both(scenario) == (True, 50)


@pytest.mark.parametrize("buffer", [b"", bytearray(), memoryview(b"read only"), memoryview(bytearray(20))[::2], None])
def test_a_buffer_that_cannot_receive_ends_the_connection_with_an_error(both, buffer):
    error = "RuntimeError" if buffer is not None and len(buffer) == 0 else "TypeError"

    @decreed([("lost", error), ("Fatal error on SSL protocol", error)], because="asyncio takes some for the end")
    async def scenario(loop):
        seen = reports(loop)
        ours, theirs = Raw(bytearray(10), get_buffer=lambda p: buffer), Recorder()
        async with tls_server(loop, lambda: theirs) as address:
            await loop.create_connection(lambda: ours, *address, ssl=client_context(), server_hostname=HOST)
            await theirs.until("made")
            theirs.transport.write(b"data")
            await ours.until("lost")
            await theirs.until("lost")
            return [ours.events[-1], seen[0][:2]]

    assert both(scenario) == [("lost", error), ("Fatal error on SSL protocol", error)]


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_data_before_an_error_is_delivered(both, kind):
    """A record, and behind it in the same piece something that is none."""

    @decreed((b"before", "SSLError"), because="asyncio drops what it has decrypted already")
    async def scenario(loop):
        ours = kind()
        a, b = socket_pair("tcp")
        with b:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            server = server_context().wrap_bio(incoming, outgoing, server_side=True)
            making = loop.create_task(
                loop.create_connection(lambda: ours, sock=a, ssl=client_context(), server_hostname=HOST)
            )
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    server.do_handshake()
                    break
                if outgoing.pending:
                    b.send(outgoing.read())
                with contextlib.suppress(BlockingIOError):
                    incoming.write(b.recv(1 << 16))
                await asyncio.sleep(0)
            b.send(outgoing.read())
            await making
            server.write(b"before")
            b.send(outgoing.read() + b"\x17\x03\x03\x00\x10" + bytes(16))
            await ours.until("lost")
        return ours.data, ours.events[-1][1]

    assert both(scenario) == (b"before", "SSLError")


# The loop's own methods


def test_sock_methods_count_bytes(both):
    @decreed((True, 80, True), because="asyncio's sock_sendall() waits for as many items as were sent bytes")
    async def scenario(loop):
        a, b = socket_pair("unix")
        with a, b:
            receiving = loop.create_task(receive(b, len(ITEMS) * 8))
            await loop.sock_sendall(a, memoryview(ITEMS))
            whole = await receiving == ITEMS.tobytes()
            room = array.array("d", bytes(80))
            b.send(bytes(range(80)))
            count = await loop.sock_recv_into(a, room)
        return whole, count, room.tobytes() == bytes(range(80))

    assert both(scenario) == (True, 80, True)


def test_a_datagram_fills_a_view_of_larger_items(both):
    @decreed((80, True), because="asyncio takes the number of items for that of bytes")
    async def scenario(loop):
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with a, b:
            a.setblocking(False)
            room = array.array("d", bytes(80))
            b.send(bytes(range(80)))
            count, _ = await loop.sock_recvfrom_into(a, room)
        return count, room.tobytes() == bytes(range(80))

    assert both(scenario) == (80, True)
