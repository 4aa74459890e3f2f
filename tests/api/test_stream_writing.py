"""Writing to stream transports over TCP and Unix sockets, and their water marks."""

import array
import sys

import pytest

from tests.helpers.outcomes import outcome_of, reports
from tests.helpers.recorders import Recorder, connected, decreed, drain, jam
from tests.helpers.sockets import receive
from tests.helpers.waiting import settle

# Writing


def test_write_takes_any_bytes_like_object(both, link):
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            for data in (b"ab", bytearray(b"cd"), memoryview(b"ef"), memoryview(bytearray(b"xghx"))[1:3]):
                transport.write(data)
            return await receive(peer, 8)

    assert both(scenario) == b"abcdefgh"


@pytest.mark.parametrize("data", ["text", None, 7, [b"list"], array.array("b", b"array")], ids=repr)
def test_write_of_another_type_is_a_type_error(both, data):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, _):
            return outcome_of(transport.write, data)

    kind, text = both(scenario)
    assert kind == "TypeError" and type(data).__name__ in text


def test_write_of_nothing_sends_nothing(both, link):
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            for data in (b"", bytearray(), memoryview(b"")):
                transport.write(data)
            transport.write(b"end")
            return transport.get_write_buffer_size(), await receive(peer, 3)

    assert both(scenario)[1] == b"end"


def test_small_view_of_wide_items_is_sent_as_its_bytes(both, link):
    numbers = array.array("I", range(100))

    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            transport.write(memoryview(numbers))
            return await receive(peer, 400)

    assert both(scenario) == numbers.tobytes()


def test_buffered_view_of_wide_items_counts_in_bytes(both, link):
    numbers = array.array("I", range(250_000))

    @decreed((1_000_000, True), because="asyncio slices and counts a wide view by items, and so corrupts the stream")
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            stuck = await jam(transport)
            transport.write(memoryview(numbers))
            grown = transport.get_write_buffer_size() - stuck
            transport.close()
            return grown, (await receive(peer)).lstrip(b"\0") == numbers.tobytes().lstrip(b"\0")

    assert both(scenario) == (1_000_000, True)


def test_partial_write_of_a_view_of_wide_items_loses_nothing(both, link):
    numbers = array.array("Q", range(80_000))

    @decreed(True, because="asyncio goes on after a partial send as if it had sent items, not bytes")
    async def scenario(loop):
        async with link(loop, Recorder(), small=True) as (transport, peer):
            transport.write(memoryview(numbers))
            transport.close()
            return await receive(peer) == numbers.tobytes()

    assert both(scenario)


def test_bytearray_may_be_changed_after_write(both, link):
    """Both what was sent at once and what had to wait are the bytes of the moment of the call."""

    @decreed(
        (True, True), because="from 3.12 on asyncio keeps a view of the bytearray", when=sys.version_info >= (3, 12)
    )
    async def scenario(loop):
        async with link(loop, Recorder(), small=True) as (transport, peer):
            data = bytearray(b"a" * 600_000)
            transport.write(data)
            data[:] = b"b" * len(data)
            data.clear()  # a BufferError while the transport holds on to it
            waiting = bytearray(b"c" * 1000)
            transport.write(waiting)
            waiting[:] = b"d" * len(waiting)
            waiting.clear()
            transport.close()
            got = await receive(peer)
            return got[:-1000] == b"a" * 600_000, got[-1000:] == b"c" * 1000

    assert both(scenario) == (True, True)


def test_writes_arrive_in_order_whatever_their_size(both, link):
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            expected = bytearray()
            for i in range(300):
                piece = bytes([i % 256]) * (i * 53 % 7000 + 1)
                expected += piece
                transport.write(piece)
            transport.close()
            return await receive(peer) == expected

    assert both(scenario)


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_writelines_joins(both, link, kind):
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            transport.writelines([])
            transport.writelines(kind([b"one ", bytearray(b"two "), memoryview(b"three"), b""]))
            transport.write(b"|")
            return await receive(peer, 14)

    assert both(scenario) == b"one two three|"


def test_writelines_of_more_buffers_than_one_system_call_takes(both, link):
    pieces = [b"%06d" % i for i in range(5000)]

    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            transport.writelines(pieces)
            transport.close()
            return await receive(peer)

    assert both(scenario) == b"".join(pieces)


def test_writelines_honours_the_high_water_mark(both, link):
    @decreed(
        ["made", "pause"],
        because="from 3.12 on asyncio's writelines() forgets pause_writing()",
        when=sys.version_info >= (3, 12),
    )
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, _):
            await jam(transport)
            transport.set_write_buffer_limits(high=transport.get_write_buffer_size() + 1000)
            transport.writelines([bytes(1000), bytes(1000)])
            return list(transport.get_protocol().events)

    assert both(scenario) == ["made", "pause"]


# Water marks


@pytest.mark.parametrize(
    "marks",
    [{}, {"high": 100}, {"low": 100}, {"high": 0}, {"low": 0}, {"high": 10, "low": 10}, {"high": 7}],
    ids=repr,
)
def test_water_marks_not_given_follow_from_the_other(both, marks):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, _):
            default = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(**marks)
            return default, transport.get_write_buffer_limits()

    default, limits = both(scenario)
    assert default == (16 * 1024, 64 * 1024)
    assert limits[0] <= limits[1]


@pytest.mark.parametrize("marks", [{"high": 5, "low": 10}, {"high": -1}, {"low": -1}, {"high": 5, "low": -5}], ids=repr)
def test_water_marks_out_of_order_are_a_value_error(both, marks):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, _):
            return outcome_of(transport.set_write_buffer_limits, **marks), transport.get_write_buffer_limits()

    (kind, text), limits = both(scenario)
    assert kind == "ValueError" and "must be >=" in text
    assert limits == (16 * 1024, 64 * 1024)


def test_writer_is_paused_above_the_high_mark_not_at_it(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, _):
            stuck = await jam(transport)
            transport.set_write_buffer_limits(high=stuck + 100)
            transport.write(bytes(100))
            at = list(protocol.events)
            transport.write(b"!")
            above = list(protocol.events)
            transport.write(bytes(100))
            return at, above, list(protocol.events), transport.get_write_buffer_size() - stuck

    assert both(scenario) == (["made"], ["made", "pause"], ["made", "pause"], 201)


def test_writer_is_resumed_only_at_the_low_mark(both, link):
    async def scenario(loop):
        seen = []
        protocol = Recorder(resume=lambda p: seen.append(p.transport.get_write_buffer_size() <= low))
        async with link(loop, protocol) as (transport, peer):
            low = await jam(transport)
            transport.set_write_buffer_limits(low=low, high=low + 1)
            transport.write(bytes(1_000_000))
            await drain(peer, transport, low + 1)
            early = "resume" in protocol.events and not seen[0]
            await drain(peer, transport, low)
            await protocol.until("resume")
            return early, seen, protocol.events

    assert both(scenario) == (False, [True], ["made", "pause", "resume"])


def test_zero_water_marks_pause_for_a_single_waiting_byte(both, link):
    async def scenario(loop):
        protocol = Recorder(resume=lambda p: sizes.append(p.transport.get_write_buffer_size()))
        sizes = []
        async with link(loop, protocol) as (transport, peer):
            await jam(transport)
            transport.set_write_buffer_limits(0)
            transport.write(b"x")
            paused = list(protocol.events)
            await drain(peer, transport)
            await protocol.until("resume")
            return paused, protocol.events, sizes

    assert both(scenario) == (["made", "pause"], ["made", "pause", "resume"], [0])


def test_lowering_the_high_mark_below_the_buffer_pauses(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, _):
            await jam(transport)
            before = list(protocol.events)
            transport.set_write_buffer_limits(high=0)
            return before, list(protocol.events)

    assert both(scenario) == (["made"], ["made", "pause"])


def test_write_from_resume_writing_pauses_again(both, link):
    async def scenario(loop):
        protocol = Recorder(
            resume=lambda p: p.transport.write(bytes(600_000)) if p.names().count("resume") == 1 else None
        )
        async with link(loop, protocol, small=True) as (transport, peer):
            transport.write(bytes(600_000))
            got = await receive(peer, 1_200_000)
            await protocol.until(lambda: protocol.names().count("resume") == 2)
            return len(got), protocol.events

    assert both(scenario) == (1_200_000, ["made", "pause", "resume", "pause", "resume"])


@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_end_in_resume_writing_loses_the_connection_once(both, link, end):
    @decreed(
        (["pause", "resume", "lost"], []),
        because="a second connection_lost() is scheduled, which fails without protocol",
    )
    async def scenario(loop):
        failures = reports(loop)
        recorder = Recorder(resume=lambda recorder: getattr(recorder.transport, end)())
        async with link(loop, recorder) as (transport, peer):
            await jam(transport)
            transport.set_write_buffer_limits(0)
            await drain(peer, transport)
            await recorder.until("lost")
            await settle()
            return recorder.names()[1:], failures

    assert both(scenario) == (["pause", "resume", "lost"], [])


def test_write_buffer_size_is_what_waits(both, link):
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            sizes = [transport.get_write_buffer_size()]
            stuck = await jam(transport)
            transport.write(b"12345")
            sizes.append(transport.get_write_buffer_size() - stuck)
            transport.write(bytearray(b"67"))
            sizes.append(transport.get_write_buffer_size() - stuck)
            await drain(peer, transport)
            sizes.append(transport.get_write_buffer_size())
            return sizes

    assert both(scenario) == [0, 5, 7, 0]
