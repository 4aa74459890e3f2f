"""Pipe transports: reading, both directions, ptys, sockets, what is refused."""

import asyncio
import gc
import hashlib
import os
import socket
import tty
import warnings

import pytest

from tests.helpers.outcomes import async_outcome_of, outcome_of, reports
from tests.helpers.pipetools import pipe_files, reading, take, writing
from tests.helpers.recorders import Recorder
from tests.helpers.waiting import async_until, settle

# Reading


def test_read_pipe_delivers_data_end_and_loss(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        async with reading(loop, reader) as (transport, protocol):
            writer.write(b"hello ")
            writer.write(b"pipe")
            await protocol.until(10)
            writer.close()
            await protocol.until("lost")
            return protocol.events, transport.is_closing(), reader.closed

    assert both(scenario) == (["made", ("data", b"hello pipe"), "eof", ("lost", None)], True, True)


def test_a_read_transport_tells_its_pipe_and_its_state(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with writer:
            async with reading(loop, reader) as (transport, protocol):
                kinds = asyncio.ReadTransport, asyncio.BaseTransport, asyncio.WriteTransport
                return (
                    [isinstance(transport, kind) for kind in kinds],
                    transport.get_extra_info("pipe") is reader,
                    transport.get_extra_info("no such key", "default"),
                    transport.get_protocol() is protocol,
                    transport.is_reading(),
                    transport.is_closing(),
                    os.get_blocking(reader.fileno()),
                    repr(transport)[0] + repr(transport)[-1],
                )

    assert both(scenario) == ([True, True, False], True, "default", True, True, False, False, "<>")


def test_pause_and_resume_reading(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        async with reading(loop, reader, Recorder(made=lambda p: p.transport.pause_reading())) as (transport, protocol):
            transport.pause_reading()
            states = [transport.is_reading()]
            writer.write(b"held")
            writer.close()
            await settle()
            paused = list(protocol.events)
            transport.resume_reading()
            transport.resume_reading()
            states.append(transport.is_reading())
            await protocol.until("lost")
            states.append(transport.is_reading())
            return states, paused, protocol.events

    assert both(scenario) == ([False, True, False], ["made"], ["made", ("data", b"held"), "eof", ("lost", None)])


def test_pausing_in_data_received_stops_delivery(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with writer:
            async with reading(loop, reader, Recorder(data=lambda p, _: p.transport.pause_reading())) as (
                transport,
                protocol,
            ):
                writer.write(b"1")
                await protocol.until(1)
                writer.write(b"2")
                await settle()
                held = protocol.data
                transport.resume_reading()
                await protocol.until(2)
                return held, protocol.data

    assert both(scenario) == (b"1", b"12")


def test_closing_the_reader_breaks_the_pipe(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with writer:
            async with reading(loop, reader) as (transport, protocol):
                transport.close()
                transport.close()
                protocol.note("returned")
                await protocol.until("lost")
                return protocol.events, reader.closed, outcome_of(writer.write, b"x")[0]

    assert both(scenario) == (["made", "returned", ("lost", None)], True, "BrokenPipeError")


def test_no_data_after_close(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with writer:
            async with reading(loop, reader, Recorder(data=lambda p, _: p.transport.close())) as (_, protocol):
                writer.write(b"1")
                await protocol.until("data")
                outcome_of(writer.write, b"2")
                await protocol.until("lost")
                return protocol.events

    assert both(scenario) == ["made", ("data", b"1"), ("lost", None)]


def test_exception_in_data_received_is_reported(both):
    def fail(*_):
        raise ArithmeticError("the protocol failed")

    async def scenario(loop):
        seen = reports(loop)
        reader, writer = pipe_files()
        with writer:
            async with reading(loop, reader, Recorder(data=fail)) as (transport, protocol):
                writer.write(b"x")
                await async_until(lambda: seen)
                return [report[1:3] for report in seen], transport.is_closing()

    assert both(scenario)[0] == [("ArithmeticError", "the protocol failed")]


def test_protocol_may_be_changed(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        async with reading(loop, reader) as (transport, first):
            second = Recorder()
            transport.set_protocol(second)
            writer.write(b"x")
            writer.close()
            await second.until("lost")
            first.note("lost", None)
            return first.events, second.events

    assert both(scenario) == (["made", ("lost", None)], [("data", b"x"), "eof", ("lost", None)])


def test_stream_reader_on_a_pipe(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        stream = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), reader)
        writer.write(b"line\nrest")
        line = await stream.readline()
        writer.close()
        rest = await stream.read()
        await settle()
        return line, rest, reader.closed

    assert both(scenario) == (b"line\n", b"rest", True)


# Both


def test_four_megabytes_through_a_pipe(both):
    payload = hashlib.shake_256(b"seed").digest(4_000_000)

    async def scenario(loop):
        reader, writer = pipe_files()
        async with reading(loop, reader) as (_, source), writing(loop, writer) as (transport, sink):
            position = 0
            while position < len(payload):
                transport.write(payload[position : position + 99_999])
                position += 99_999
                await sink.until(lambda: sink.names().count("pause") == sink.names().count("resume"))
            transport.close()
            await source.until("lost")
            return hashlib.blake2b(source.data).hexdigest(), source.names()

    assert both(scenario) == (hashlib.blake2b(payload).hexdigest(), ["made", "data", "eof", "lost"])


def test_pty_in_both_directions(both):
    async def scenario(loop):
        master, slave = os.openpty()
        tty.setraw(slave)
        reader, writer = open(slave, "rb", 0), open(os.dup(slave), "wb", 0)
        with open(master, "r+b", 0) as other:
            async with reading(loop, reader) as (_, source), writing(loop, writer) as (transport, _):
                other.write(b"question")
                await source.until(8)
                transport.write(b"answer")
                answer = await take(other, 6)
                other.write(b", again")
                await source.until(15)
                transport.write(b", again")
                return source.data, answer + await take(other, 7), transport.is_closing()

    assert both(scenario) == (b"question, again", b"answer, again", False)


def test_pty_whose_other_side_is_gone(both):
    async def scenario(loop):
        seen = reports(loop)
        master, slave = os.openpty()
        async with reading(loop, open(master, "rb", 0)) as (_, protocol):
            os.write(slave, b"bye")
            await protocol.until(3)
            os.close(slave)
            await protocol.until("lost")
            return protocol.events, seen

    assert both(scenario) == (["made", ("data", b"bye"), ("lost", "OSError")], [])


def test_sockets_are_pipes_too(both):
    async def scenario(loop):
        a, b = socket.socketpair()
        async with reading(loop, a) as (_, source), writing(loop, b) as (transport, _):
            transport.write(b"through")
            transport.close()
            await source.until("lost")
            return source.events

    assert both(scenario) == ["made", ("data", b"through"), "eof", ("lost", None)]


def test_character_device(both):
    async def scenario(loop):
        async with writing(loop, open(os.devnull, "wb", 0)) as (transport, protocol):
            transport.write(b"gone")
            transport.close()
            await protocol.until("lost")
            return protocol.events

    assert both(scenario) == ["made", ("lost", None)]


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_files_are_refused(both, method, tmp_path):
    async def scenario(loop):
        protocol = Recorder()
        with open(tmp_path / "file", "w+b", 0) as file:
            outcome = await async_outcome_of(getattr(loop, method)(lambda: protocol, file))
            await settle()
            return outcome, protocol.events, file.closed

    (kind, text), events, closed = both(scenario)
    assert kind == "ValueError" and text.startswith("Pipe transport is ")
    assert (events, closed) == ([], False)


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_failing_protocol_factory(both, method):
    def factory():
        raise ArithmeticError("no protocol")

    async def scenario(loop):
        reader, writer = pipe_files()
        with reader, writer:
            return await async_outcome_of(getattr(loop, method)(factory, reader if "read" in method else writer))

    assert both(scenario) == ("ArithmeticError", "no protocol")


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_unclosed_transport_warns(both, method):
    def scenario(loop):
        reader, writer = pipe_files()
        ours, peer = (reader, writer) if method == "connect_read_pipe" else (writer, reader)
        with peer:
            loop.run_until_complete(getattr(loop, method)(asyncio.Protocol, ours))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loop.close()
                gc.collect()
            return {str(w.message)[:20] for w in caught if w.category is ResourceWarning}, ours.closed

    assert both(scenario) == ({"unclosed transport <"}, True)
