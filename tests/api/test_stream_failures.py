"""Stream transports whose peer or protocol fails."""

import asyncio
import socket
import struct

import pytest

from tests.helpers.outcomes import reports
from tests.helpers.recorders import BufferedRecorder, Recorder, connected, drain, jam
from tests.helpers.sockets import receive
from tests.helpers.waiting import settle

MADE_AND_LOST = ["made", ("lost", None)]


def fail(*_):
    raise ArithmeticError("the protocol failed")


# Failing peers


def test_reset_by_the_peer(both):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder()
        async with connected(loop, protocol) as (_, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await protocol.until("lost")
            return protocol.events, seen

    assert both(scenario) == (["made", ("lost", "ConnectionResetError")], [])


def test_reset_by_a_peer_that_left_data_unread(both, link):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder()
        async with link(loop, protocol) as (transport, peer):
            transport.write(b"never read")
            await settle()
            peer.close()
            await protocol.until("lost")
            return protocol.events, seen

    assert both(scenario) == (["made", ("lost", "ConnectionResetError")], [])


def test_write_to_a_peer_that_is_gone(both):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder(keep_open=True)
        async with connected(loop, protocol, "unix") as (transport, peer):
            peer.close()
            await protocol.until("eof")
            await settle()
            before = list(protocol.events)
            transport.write(b"anyone?")
            await protocol.until("lost")
            transport.write(b"anyone?")
            return before, protocol.events, seen

    assert both(scenario) == (["made", "eof"], ["made", "eof", ("lost", "BrokenPipeError")], [])


def test_peer_goes_away_while_the_writer_waits(both, link):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder()
        async with link(loop, protocol) as (transport, peer):
            transport.pause_reading()
            await jam(transport)
            peer.close()
            await protocol.until("lost")
            return protocol.events[-1][1] in ("ConnectionResetError", "BrokenPipeError"), len(protocol.events), seen

    assert both(scenario) == (True, 2, [])


# Failing protocols


CONTEXT = ["exception", "message", "protocol", "transport"]
FAILED = ("ArithmeticError", "the protocol failed")


@pytest.mark.parametrize(
    ("kind", "hook", "method"),
    [
        (Recorder, "data", "data_received"),
        (Recorder, "eof", "eof_received"),
        (BufferedRecorder, "data", "buffer_updated"),
        (BufferedRecorder, "get_buffer", "get_buffer"),
        (BufferedRecorder, "eof", "eof_received"),
    ],
)
def test_exception_in_a_reading_method_closes(both, link, kind, hook, method):
    async def scenario(loop):
        seen, protocol = reports(loop), kind(**{hook: fail})
        async with link(loop, protocol) as (_, peer):
            if hook != "eof":
                peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until("lost")
            return seen, protocol.events[-1], await receive(peer) if hook == "eof" else None

    seen, last, _ = both(scenario)
    assert seen == [(f"Fatal error: protocol.{method}() call failed.", *FAILED, CONTEXT)]
    assert last == ("lost", "ArithmeticError")


def test_exception_in_connection_made_is_reported_and_the_connection_lives(both, link):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder(made=fail)
        async with link(loop, protocol) as (transport, peer):
            peer.send(b"x")
            await protocol.until("data")
            return seen, protocol.events, transport.is_closing()

    seen, events, closing = both(scenario)
    assert [report[:3] for report in seen] == [("Exception in callback", *FAILED)]
    assert (events, closing) == (["made", ("data", b"x")], False)


def test_exception_in_connection_lost_is_reported_and_the_socket_closed(both, link):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder(lost=fail)
        async with link(loop, protocol) as (transport, peer):
            transport.close()
            return await receive(peer), seen, protocol.events

    ending, seen, events = both(scenario)
    assert [report[:3] for report in seen] == [("Exception in callback", *FAILED)]
    assert (ending, events) == (b"", MADE_AND_LOST)


def test_exception_in_pause_writing_and_resume_writing_is_reported(both, link):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder(pause=fail, resume=fail)
        async with link(loop, protocol) as (transport, peer):
            stuck = await jam(transport)
            transport.set_write_buffer_limits(high=stuck, low=0)
            transport.write(b"x")
            await drain(peer, transport)
            await protocol.until("resume")
            return seen, protocol.events, transport.is_closing()

    seen, events, closing = both(scenario)
    assert seen == [(f"protocol.{method}() failed", *FAILED, CONTEXT) for method in ("pause_writing", "resume_writing")]
    assert (events, closing) == (["made", "pause", "resume"], False)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_data_received_stops_the_loop(both, kind):
    def interrupt(protocol, _):
        raise kind("stop")

    def scenario(loop):
        seen = reports(loop)

        async def talk():
            async with connected(loop, Recorder(data=interrupt)) as (_, peer):
                peer.send(b"x")
                await loop.create_future()

        task = loop.create_task(talk())
        try:
            loop.run_until_complete(task)
        except kind as exc:
            raised = type(exc).__name__, str(exc)
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        return raised, task.cancelled(), seen

    assert both(scenario) == ((kind.__name__, "stop"), True, [])
