"""Pipe transports: the two ends of os.pipe(), ptys, sockets, and what is refused."""

import array
import asyncio
import contextlib
import gc
import hashlib
import os
import socket
import tty
import warnings

import pytest
from recorders import PATIENCE, Recorder, aoutcome_of, condition, decreed, outcome_of, reports, settle


def pipe_files():
    """The two ends of a new pipe as unbuffered files."""
    reader, writer = os.pipe()
    return open(reader, "rb", 0), open(writer, "wb", 0)


@contextlib.asynccontextmanager
async def reading(loop, file, protocol=None):
    """A read transport on the file, as (transport, protocol)."""
    recorder = protocol or Recorder()
    transport, _ = await loop.connect_read_pipe(lambda: recorder, file)
    try:
        yield transport, recorder
    finally:
        await part(transport, recorder)


@contextlib.asynccontextmanager
async def writing(loop, file, protocol=None):
    """A write transport on the file, as (transport, protocol)."""
    recorder = protocol or Recorder()
    transport, _ = await loop.connect_write_pipe(lambda: recorder, file)
    try:
        yield transport, recorder
    finally:
        await part(transport, recorder)


async def part(transport, recorder):
    recorder.events = recorder.events[:]
    if "lost" not in recorder.names():
        getattr(transport, "abort", transport.close)()
        await recorder.until("lost")


async def take(file, nbytes=1 << 30):
    """Read that many bytes, or all up to the end, from a raw file."""
    os.set_blocking(file.fileno(), False)
    got = bytearray()
    while len(got) < nbytes:
        chunk = file.read(min(nbytes - len(got), 1 << 16))
        if chunk is None:
            await asyncio.sleep(PATIENCE)
        elif not chunk:
            break
        else:
            got += chunk
    return bytes(got)


async def jam(transport):
    """Write until the pipe is full; return the size of what waits."""
    transport.set_write_buffer_limits(high=1 << 30)
    while not transport.get_write_buffer_size():
        transport.write(bytes(1 << 14))
        await asyncio.sleep(0)
    return transport.get_write_buffer_size()


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


def test_what_a_read_transport_tells_about_itself(both):
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
                await condition(lambda: seen)
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


def test_what_a_write_transport_tells_about_itself(both):
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
            outcome = await aoutcome_of(getattr(loop, method)(lambda: protocol, file))
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
            return await aoutcome_of(getattr(loop, method)(factory, reader if "read" in method else writer))

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
