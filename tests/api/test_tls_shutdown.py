"""TLS transports: how connections end, and what goes wrong with them on the way."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import struct
import weakref

import pytest

from tests.helpers.certificates import HOST, client_context, tls_pair, tls_server
from tests.helpers.outcomes import reports
from tests.helpers.recorders import Echo, Recorder
from tests.helpers.waiting import settle

# TLS 1.3 lets a client believe in a connection before the server has seen its certificate or last words, so
# what a client learns first would depend on timing; where that matters, the scenarios look at one side only.
# Whichever side closes first: both see the other's close_notify as an end of the stream before connection_lost.


# Shutdown


def test_close_flushes_what_was_written(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, _):
            transport.write(b"x" * 3_000_000)
            transport.close()
            states = [transport.is_closing(), "lost" in ours.names()]
            await theirs.until("lost")
            await ours.until("lost")
            return states, len(theirs.data), theirs.names(), ours.events[-1]

    assert both(scenario) == ([True, False], 3_000_000, ["made", "data", "eof", "lost"], ("lost", None))


def test_data_that_came_while_paused_is_delivered_before_connection_lost(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, other):
            transport.pause_reading()
            other.write(b"y" * 100_000)
            other.close()
            await settle()
            paused = list(ours.events)
            transport.resume_reading()
            await ours.until("lost")
            return paused, len(ours.data), ours.names()

    assert both(scenario) == (["made"], 100_000, ["made", "data", "eof", "lost"])


def test_pausing_in_data_received_holds_back_what_is_decrypted_already(both):
    async def scenario(loop):
        ours = Recorder(data=lambda p, _: p.transport.pause_reading())
        theirs = Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, other):
            other.write(bytes(range(256)) * 2000)
            calls = 0
            while len(ours.data) < 512_000:
                before = len(ours.data)
                transport.resume_reading()
                await ours.until(before + 1)
                after = len(ours.data)
                await asyncio.sleep(0)
                calls += len(ours.data) != after
            return calls, ours.data == bytes(range(256)) * 2000

    assert both(scenario) == (0, True)


def test_connection_lost_comes_once_and_later_than_close(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, _):
            transport.close()
            ours.note("close returned")
            transport.close()
            await ours.until("lost")
            await theirs.until("lost")
            transport.close()
            transport.abort()
            await settle()
            return ours.events, theirs.events

    assert both(scenario) == (["made", "close returned", "eof", ("lost", None)], ["made", "eof", ("lost", None)])


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_ending_in_connection_made(both, ending):
    async def scenario(loop):
        ours = Recorder(made=lambda p: getattr(p.transport, ending)())
        async with tls_server(loop, Echo) as address:
            transport, _ = await loop.create_connection(
                lambda: ours, *address, ssl=client_context(), server_hostname=HOST
            )
            await ours.until("lost")
            return ours.events, transport.is_closing()

    events, closing = both(scenario)
    assert events[0] == "made" and events[-1] == ("lost", None) and closing


@pytest.mark.skipif(
    os.environ.get("GOLOOP_IO") == "offload",
    reason="the peer sees a reset only if its session tickets are unread, which the netpoller's pace decides",
)
def test_abort_drops_the_connection(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, _):
            transport.abort()
            ours.note("abort returned")
            await ours.until("lost")
            await theirs.until("lost")
            return ours.events, theirs.events

    ours, theirs = both(scenario)
    assert ours == ["made", "abort returned", ("lost", None)] and theirs[-1][0] == "lost"


class SilentPeer:
    """A TLS client that speaks only when told so, on a socket in the hands of the test."""

    def __init__(self, address):
        self.sock = socket.create_connection(address)
        self.sock.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    async def do(self, operation, *args):
        while True:
            try:
                return operation(*args)
            except ssl.SSLWantReadError:
                self.flush()
                while True:
                    with contextlib.suppress(BlockingIOError):
                        self.incoming.write(self.sock.recv(1 << 16))
                        break
                    await asyncio.sleep(0.002)
            finally:
                self.flush()

    def flush(self):
        if data := self.outgoing.read():
            self.sock.send(data)


@contextlib.asynccontextmanager
async def silent_client(loop, protocol, **options):
    async with tls_server(loop, lambda: protocol, **options) as address:
        peer = SilentPeer(address)
        with peer.sock:
            await peer.do(peer.tls.do_handshake)
            await protocol.until("made")
            yield peer


def test_shutdown_timeout(both):
    async def scenario(loop):
        protocol = Recorder()
        async with silent_client(loop, protocol, ssl_shutdown_timeout=0.02):
            protocol.transport.close()
            await protocol.until("lost")
            return protocol.names()

    assert both(scenario) == ["made", "lost"]


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_end_without_close_notify(both, how):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder()
        async with silent_client(loop, protocol) as peer:
            await peer.do(peer.tls.write, b"last words")
            await protocol.until("data")
            if how == "reset":
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.sock.close()
            else:
                peer.sock.shutdown(socket.SHUT_WR)
            await protocol.until("lost")
            return protocol.events, seen

    events, seen = both(scenario)
    assert events[-1] == ("lost", None if how == "fin" else "ConnectionResetError") and seen == []


def test_garbage_on_an_established_connection(both):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder()
        async with silent_client(loop, protocol) as peer:
            peer.sock.send(b"this is no TLS record")
            await protocol.until("lost")
            return protocol.events, [report[:2] for report in seen]

    events, _ = both(scenario)
    assert events == ["made", ("lost", "SSLError")]


def test_exception_in_data_received_is_reported_and_closes(both):
    def fail(*_):
        raise ArithmeticError("the protocol failed")

    async def scenario(loop):
        seen, protocol = reports(loop), Recorder(data=fail)
        async with silent_client(loop, protocol) as peer:
            await peer.do(peer.tls.write, b"x")
            await protocol.until("lost")
            return protocol.events, [report[:3] for report in seen]

    events, seen = both(scenario)
    assert events[-1] == ("lost", "ArithmeticError")
    assert [report[1:] for report in seen] == [("ArithmeticError", "the protocol failed")]


def test_context_is_freed_after_an_unclean_end(both):
    async def scenario(loop):
        context = client_context()
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs, ssl=context) as (transport, other):
            other.abort()
            await ours.until("lost")
        refs = weakref.ref(context), weakref.ref(ours)
        del context, ours, theirs, transport, other
        await settle()
        gc.collect()
        return [ref() is None for ref in refs]

    assert both(scenario) == [True, True]
