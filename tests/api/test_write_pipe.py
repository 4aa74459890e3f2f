"""Pipe transports: writing, flow control, the reader's end going away."""

import array
import asyncio
import os

import pytest

from tests.helpers.outcomes import reports
from tests.helpers.pipetools import jam, pipe_files, take, writing
from tests.helpers.recorders import decreed
from tests.helpers.waiting import settle

# Writing


def test_write_pipe_sends_every_kind_of_bytes(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, protocol):
                transport.write(b"one ")
                transport.write(bytearray(b"two "))
                transport.write(memoryview(b"three "))
                transport.write(b"")
                transport.writelines([b"four ", b"five"])
                transport.close()
                got = await take(reader)
                await protocol.until("lost")
                return got, protocol.events, writer.closed

    assert both(scenario) == (b"one two three four five", ["made", ("lost", None)], True)


def test_view_of_wide_items(both):
    numbers = array.array("I", range(100_000))

    @decreed(True, because="asyncio counts the items of a wide view, not its bytes")
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, _):
                transport.write(memoryview(numbers))
                transport.close()
                return await take(reader) == numbers.tobytes()

    assert both(scenario)


def test_bytearray_may_be_changed_after_write(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, _):
                data = bytearray(b"a" * 200_000)
                transport.write(data)
                data[:] = b"b" * len(data)
                data.clear()
                transport.close()
                return await take(reader) == b"a" * 200_000

    assert both(scenario)


def test_a_write_transport_tells_its_pipe_and_its_state(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, protocol):
                kinds = asyncio.WriteTransport, asyncio.BaseTransport
                return (
                    [isinstance(transport, kind) for kind in kinds],
                    transport.get_extra_info("pipe") is writer,
                    transport.get_protocol() is protocol,
                    transport.can_write_eof(),
                    transport.is_closing(),
                    transport.get_write_buffer_size(),
                    transport.get_write_buffer_limits(),
                    os.get_blocking(writer.fileno()),
                )

    assert both(scenario) == ([True, True], True, True, True, False, 0, (16384, 65536), False)


@pytest.mark.parametrize("ending", ["close", "write_eof"])
def test_close_and_write_eof_flush_what_waits(both, ending):
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, protocol):
                transport.write(b"x" * 1_000_000)
                getattr(transport, ending)()
                getattr(transport, ending)()
                states = [transport.is_closing(), "lost" in protocol.names()]
                got = len(await take(reader))
                await protocol.until("lost")
                return states, got, protocol.events[-1]

    assert both(scenario) == ([True, False], 1_000_000, ("lost", None))


def test_abort_drops_what_waits(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, protocol):
                await jam(transport)
                transport.write(b"never sent")
                transport.abort()
                protocol.note("returned")
                await protocol.until("lost")
                return protocol.events, set(await take(reader)), transport.get_write_buffer_size()

    assert both(scenario) == (["made", "returned", ("lost", None)], {0}, 0)


def test_writer_is_paused_above_the_high_mark_and_resumed(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, protocol):
                stuck = await jam(transport)
                transport.set_write_buffer_limits(high=stuck + 10, low=0)
                transport.write(bytes(10))
                at = list(protocol.events)
                transport.write(bytes(1))
                above = list(protocol.events)
                grown = transport.get_write_buffer_size() - stuck
                while "resume" not in protocol.events:
                    await take(reader, 1)
                    reader.read(1 << 16)
                    await asyncio.sleep(0)
                return at, above, grown, protocol.events, transport.get_write_buffer_size()

    assert both(scenario) == (["made"], ["made", "pause"], 11, ["made", "pause", "resume"], 0)


def test_writes_after_close_are_ignored(both):
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, protocol):
                transport.write(b"before")
                transport.close()
                for _ in range(10):
                    transport.write(b"after")
                await protocol.until("lost")
                transport.write(b"after")
                return await take(reader), protocol.events

    assert both(scenario) == (b"before", ["made", ("lost", None)])


def test_idle_writer_sees_its_reader_go(both):
    async def scenario(loop):
        seen = reports(loop)
        reader, writer = pipe_files()
        async with writing(loop, writer) as (transport, protocol):
            transport.write(b"read me")
            await take(reader, 7)
            reader.close()
            await protocol.until("lost")
            return protocol.events, transport.is_closing(), writer.closed, seen

    assert both(scenario) == (["made", ("lost", None)], True, True, [])


def test_waiting_writer_sees_its_reader_go(both):
    async def scenario(loop):
        seen = reports(loop)
        reader, writer = pipe_files()
        async with writing(loop, writer) as (transport, protocol):
            await jam(transport)
            reader.close()
            await protocol.until("lost")
            return protocol.events, seen

    assert both(scenario) == (["made", ("lost", "BrokenPipeError")], [])


def test_write_to_a_reader_that_is_gone(both):
    async def scenario(loop):
        seen = reports(loop)
        reader, writer = pipe_files()
        async with writing(loop, writer) as (transport, protocol):
            reader.close()
            transport.write(b"anyone?")
            await protocol.until("lost")
            await settle()
            return protocol.names(), protocol.events[-1], seen

    assert both(scenario) == (["made", "lost"], ("lost", "BrokenPipeError"), [])


def test_lines_may_be_views_of_any_shape(both):
    numbers = array.array("I", range(1000))

    @decreed(True, because="asyncio joins views only if they lie in one piece")
    async def scenario(loop):
        reader, writer = pipe_files()
        with reader:
            async with writing(loop, writer) as (transport, _):
                transport.writelines([memoryview(numbers), memoryview(b"abcdef")[::2], memoryview(b"")])
                transport.close()
                return await take(reader) == numbers.tobytes() + b"ace"

    assert both(scenario)
