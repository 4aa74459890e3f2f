"""Stream transports from connection_made to connection_lost: close, abort, half-close, what is freed."""

import gc
import logging
import socket
import weakref

import pytest

from tests.helpers.outcomes import outcome_of
from tests.helpers.recorders import BufferedRecorder, Recorder, decreed, jam
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import settle

MADE_AND_LOST = ["made", ("lost", None)]


def fail(*_):
    raise ArithmeticError("the protocol failed")


# Close and abort


def test_close_flushes_what_was_written(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol, small=True) as (transport, peer):
            transport.write(b"x" * 600_000)
            transport.close()
            early = "lost" in protocol.names()
            got = await receive(peer)
            await protocol.until("lost")
            return early, len(got), [event for event in protocol.events if event not in ("pause", "resume")]

    assert both(scenario) == (False, 600_000, MADE_AND_LOST)


def test_close_is_announced_later_and_once(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            states = [transport.is_closing()]
            transport.close()
            states.append(transport.is_closing())
            protocol.note("close returned")
            transport.close()
            transport.abort()
            await protocol.until("lost")
            transport.close()
            await settle()
            states.append(transport.is_closing())
            return states, protocol.events, await receive(peer)

    assert both(scenario) == ([False, True, True], ["made", "close returned", ("lost", None)], b"")


def test_abort_is_announced_later_and_once(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, _):
            transport.abort()
            protocol.note("abort returned")
            transport.abort()
            transport.close()
            states = [transport.is_closing()]
            await protocol.until("lost")
            await settle()
            return states, protocol.events

    assert both(scenario) == ([True], ["made", "abort returned", ("lost", None)])


def test_abort_drops_what_waits(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            await jam(transport)
            transport.write(b"never sent")
            transport.abort()
            sizes = [transport.get_write_buffer_size()]
            await protocol.until("lost")
            return sizes, protocol.events, set(await receive(peer))

    assert both(scenario) == ([0], MADE_AND_LOST, {0})


def test_abort_overtakes_a_close_that_waits_for_its_buffer(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, _):
            await jam(transport)
            transport.close()
            await settle()
            waiting = list(protocol.events)
            transport.abort()
            await protocol.until("lost")
            return waiting, protocol.events

    assert both(scenario) == (["made"], MADE_AND_LOST)


def test_abort_after_the_end_of_a_slow_close_is_harmless(both, link):
    @decreed(None, because="asyncio forgets to mark a transport as lost when its buffer drained after close()")
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            await jam(transport)
            transport.close()
            await receive(peer)
            await protocol.until("lost")
            return outcome_of(transport.abort)

    assert both(scenario) is None


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_ending_in_connection_made(both, link, ending):
    async def scenario(loop):
        protocol = Recorder(made=lambda p: getattr(p.transport, ending)())
        async with link(loop, protocol) as (transport, peer):
            closing = transport.is_closing()
            await protocol.until("lost")
            return closing, protocol.events, await receive(peer)

    assert both(scenario) == (True, MADE_AND_LOST, b"")


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_no_data_after_the_end(both, link, ending):
    async def scenario(loop):
        protocol = Recorder(data=lambda p, _: getattr(p.transport, ending)())
        async with link(loop, protocol) as (_, peer):
            peer.send(b"1")
            await protocol.until("data")
            outcome_of(peer.send, b"2")
            await protocol.until("lost")
            await settle()
            return protocol.events

    assert both(scenario) == ["made", ("data", b"1"), ("lost", None)]


def test_write_in_connection_made_then_close(both, link):
    def greet(protocol):
        protocol.transport.write(b"hello")
        protocol.transport.close()

    async def scenario(loop):
        async with link(loop, Recorder(made=greet)) as (_, peer):
            return await receive(peer)

    assert both(scenario) == b"hello"


def test_writes_after_the_end_are_ignored_and_soon_logged(both, link, caplog):
    async def scenario(loop):
        caplog.clear()
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            transport.close()
            for _ in range(4):
                transport.write(b"x")
            quiet = len(caplog.records)
            await protocol.until("lost")
            for _ in range(4):
                transport.write(b"x")
            return quiet, {(r.name, r.levelno, r.getMessage()) for r in caplog.records}, await receive(peer)

    assert both(scenario) == (0, {("asyncio", logging.WARNING, "socket.send() raised exception.")}, b"")


def test_close_in_connection_lost_is_harmless(both, link):
    async def scenario(loop):
        protocol = Recorder(lost=lambda p, _: p.transport.close())
        async with link(loop, protocol) as (transport, _):
            transport.close()
            await protocol.until("lost")
            await settle()
            return protocol.events

    assert both(scenario) == MADE_AND_LOST


# Half-closed connections


def test_write_eof_after_the_buffer_drained_leaves_the_reader_open(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol, small=True) as (transport, peer):
            able = transport.can_write_eof()
            transport.write(b"x" * 600_000)
            transport.write_eof()
            transport.write_eof()
            got = await receive(peer)
            peer.send(b"answer")
            await protocol.until(6)
            return able, len(got), transport.is_closing(), protocol.data

    assert both(scenario) == (True, 600_000, False, b"answer")


def test_write_after_write_eof_is_a_runtime_error(both, link):
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            transport.write_eof()
            errors = outcome_of(transport.write, b"x"), outcome_of(transport.writelines, [b"x"])
            return [error[0] for error in errors], errors[0][1], await receive(peer)

    assert both(scenario) == (["RuntimeError"] * 2, "Cannot call write() after write_eof()", b"")


def test_write_eof_after_close_is_harmless(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, _):
            transport.close()
            transport.write_eof()
            await protocol.until("lost")
            transport.write_eof()
            return protocol.events

    assert both(scenario) == MADE_AND_LOST


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_eof_received_closes_unless_it_returns_true(both, link, kind):
    async def scenario(loop):
        outcomes = []
        for keep_open in (False, True):
            protocol = kind(keep_open=keep_open)
            async with link(loop, protocol) as (transport, peer):
                peer.send(b"last words")
                peer.shutdown(socket.SHUT_WR)
                await protocol.until("eof")
                closing = transport.is_closing()
                if keep_open:
                    await settle()
                    transport.write(b"still here")
                    transport.close()
                outcomes.append((closing, await receive(peer)))
                await protocol.until("lost")
                outcomes.append(protocol.events)
        return outcomes

    events = ["made", ("data", b"last words"), "eof", ("lost", None)]
    assert both(scenario) == [(True, b""), events, (False, b"still here"), events]


def test_answer_written_in_eof_received_is_flushed(both, link):
    async def scenario(loop):
        protocol = Recorder(eof=lambda p: p.transport.write(b"a" * 600_000))
        async with link(loop, protocol, small=True) as (_, peer):
            peer.shutdown(socket.SHUT_WR)
            return len(await receive(peer))

    assert both(scenario) == 600_000


def test_eof_waits_behind_a_paused_reader(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            transport.pause_reading()
            peer.send(b"before")
            peer.shutdown(socket.SHUT_WR)
            await settle()
            paused = list(protocol.events)
            transport.resume_reading()
            await protocol.until("lost")
            return paused, protocol.events

    assert both(scenario) == (["made"], ["made", ("data", b"before"), "eof", ("lost", None)])


def test_eof_is_reported_once_while_the_writer_goes_on(both, link):
    async def scenario(loop):
        protocol = Recorder(keep_open=True)
        async with link(loop, protocol) as (transport, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until("eof")
            for i in range(5):
                transport.write(b"%d" % i)
                await settle()
            return protocol.names(), await receive(peer, 5)

    assert both(scenario) == (["made", "eof"], b"01234")


def test_both_halves_closed_one_after_the_other(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            transport.write_eof()
            ended = await receive(peer)
            peer.send(b"reply")
            peer.close()
            await protocol.until("lost")
            return ended, protocol.events

    assert both(scenario) == (b"", ["made", ("data", b"reply"), "eof", ("lost", None)])


# Nothing stays behind


def test_descriptors_are_closed_and_may_be_used_again(both, link):
    """Late events of a closed connection never reach the next one on the same descriptor."""

    async def scenario(loop):
        outcomes, numbers = [], set()
        for i in range(40):
            protocol = Recorder()
            async with link(loop, protocol) as (transport, peer):
                numbers.add(transport.get_extra_info("socket").fileno())
                peer.send(b"%d" % i)
                if i % 3 == 0:
                    peer.shutdown(socket.SHUT_WR)
                else:
                    await protocol.until("data")
                    transport.close() if i % 3 == 1 else transport.abort()
                await protocol.until("lost")
            outcomes.append(
                protocol.events == ["made", ("data", b"%d" % i), *(["eof"] if i % 3 == 0 else []), ("lost", None)]
            )
        return all(outcomes), len(numbers) < 40

    assert both(scenario) == (True, True)


def test_lost_transport_and_protocol_are_freed(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            peer.send(b"x")
            await protocol.until("data")
            transport.close()
            await protocol.until("lost")
            released = transport.get_extra_info("socket").fileno()
            ref = weakref.ref(protocol)
            protocol.transport = None
            await settle()
            del transport
        del protocol
        await settle()
        gc.collect()
        return released, ref()

    assert both(scenario) == (-1, None)


def test_handing_over_a_blocking_socket_makes_it_non_blocking(both):
    async def scenario(loop):
        ours, peer = socket_pair("tcp")
        ours.setblocking(True)
        with peer:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            transport.abort()
            blocking = ours.getblocking()
            await protocol.until("lost")
            return blocking, ours.fileno()

    assert both(scenario) == (False, -1)
