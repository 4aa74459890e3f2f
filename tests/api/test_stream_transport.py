"""Stream transports over TCP and Unix sockets: writing, water marks, pausing, what they tell of themselves."""

import array
import asyncio
import functools
import gc
import socket
import sys
import warnings

import pytest
from recorders import Recorder, connected, decreed, drain, jam, outcome_of, receive, settle, socket_pair


@pytest.fixture(params=["tcp", "unix"])
def link(request):
    """``async with link(loop, protocol) as (transport, peer)``, over both kinds of socket."""
    return functools.partial(connected, kind=request.param)


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


# Pausing the reader


def test_pause_and_resume_reading_may_be_repeated(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            states = [transport.is_reading()]
            transport.resume_reading()
            transport.pause_reading()
            transport.pause_reading()
            states.append(transport.is_reading())
            peer.send(b"a")
            await settle()
            paused = list(protocol.events)
            transport.resume_reading()
            transport.resume_reading()
            states.append(transport.is_reading())
            await protocol.until("data")
            return states, paused, protocol.events

    assert both(scenario) == ([True, False, True], ["made"], ["made", ("data", b"a")])


def test_pause_reading_in_connection_made(both, link):
    async def scenario(loop):
        protocol = Recorder(made=lambda p: p.transport.pause_reading())
        async with link(loop, protocol) as (transport, peer):
            peer.send(b"early")
            await settle()
            paused = list(protocol.events)
            transport.resume_reading()
            await protocol.until(5)
            return paused, protocol.events

    assert both(scenario) == (["made"], ["made", ("data", b"early")])


def test_pause_and_resume_in_connection_made_reads_at_once(both, link):
    def blink(protocol):
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()

    async def scenario(loop):
        protocol = Recorder(made=blink)
        async with link(loop, protocol) as (_, peer):
            peer.send(b"data")
            await protocol.until(4)
            return protocol.events

    assert both(scenario) == ["made", ("data", b"data")]


def test_resume_reading_delivers_what_came_meanwhile_without_new_traffic(both, link):
    async def scenario(loop):
        protocol = Recorder(data=lambda p, _: p.transport.pause_reading())
        async with link(loop, protocol) as (transport, peer):
            peer.send(b"1")
            await protocol.until(1)
            peer.send(b"2")
            await settle()
            held = protocol.data
            transport.resume_reading()
            await protocol.until(2)
            return held, protocol.data

    assert both(scenario) == (b"1", b"12")


def test_pausing_in_the_middle_of_much_data_stops_delivery_at_once(both, link):
    async def scenario(loop):
        protocol = Recorder(data=lambda p, _: p.transport.pause_reading())
        payload = bytes(range(256)) * 4000
        async with link(loop, protocol) as (transport, peer):
            sent, calls = 0, 0
            while len(protocol.data) < len(payload):
                if sent < len(payload):
                    try:
                        sent += peer.send(payload[sent:])
                    except BlockingIOError:
                        pass
                before = len(protocol.data)
                transport.resume_reading()
                await protocol.until(before + 1)
                after = len(protocol.data)
                await asyncio.sleep(0)
                calls += len(protocol.data) != after
            return calls, protocol.data == payload, protocol.names()

    assert both(scenario) == (0, True, ["made", "data"])


def test_reading_a_closing_transport_cannot_be_resumed(both, link):
    async def scenario(loop):
        protocol = Recorder()
        async with link(loop, protocol) as (transport, peer):
            transport.pause_reading()
            peer.send(b"unseen")
            transport.close()
            transport.resume_reading()
            states = [transport.is_reading()]
            await protocol.until("lost")
            transport.pause_reading()
            transport.resume_reading()
            states.append(transport.is_reading())
            return states, protocol.events

    assert both(scenario) == ([False, False], ["made", ("lost", None)])


# What a transport tells about itself


def test_is_an_asyncio_transport(both, link):
    kinds = (
        asyncio.Transport,
        asyncio.ReadTransport,
        asyncio.WriteTransport,
        asyncio.BaseTransport,
        asyncio.DatagramTransport,
    )

    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, _):
            return [isinstance(transport, kind) for kind in kinds]

    assert both(scenario) == [True, True, True, True, False]


def test_extra_info(both, link):
    async def scenario(loop):
        async with link(loop, Recorder()) as (transport, peer):
            sock = transport.get_extra_info("socket")
            facts = [
                type(sock).__name__,
                sock.fileno() >= 0,
                sock.type == socket.SOCK_STREAM,
                sock.gettimeout(),
                transport.get_extra_info("sockname") == peer.getpeername(),
                transport.get_extra_info("peername") == peer.getsockname(),
                transport.get_extra_info("sslcontext"),
                transport.get_extra_info("no such key"),
                transport.get_extra_info("no such key", "default"),
            ]
            if sock.family == socket.AF_INET:
                facts.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            return facts

    facts = both(scenario)
    assert facts[:9] == ["TransportSocket", True, True, 0.0, True, True, None, None, "default"]
    assert all(facts[9:])


def test_extra_info_outlives_the_connection(both):
    async def scenario(loop):
        protocol = Recorder()
        async with connected(loop, protocol) as (transport, peer):
            names = peer.getpeername(), peer.getsockname()
            transport.close()
            await protocol.until("lost")
            kept = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
            return kept == names, transport.get_extra_info("socket").fileno()

    assert both(scenario) == (True, -1)


def test_attributes_and_methods_can_be_replaced(both, link):
    async def scenario(loop):
        written = []
        async with link(loop, Recorder()) as (transport, _):
            transport.write = written.append
            transport.get_extra_info = lambda name, default=None: name.upper()
            transport.note_of_a_debugger = 1
            transport.write(b"caught")
            return written, transport.get_extra_info("peername"), transport.note_of_a_debugger

    assert both(scenario) == ([b"caught"], "PEERNAME", 1)


def test_protocol_can_be_read_and_set(both, link):
    async def scenario(loop):
        first, second = Recorder(), Recorder()
        async with link(loop, asyncio.Protocol()) as (transport, peer):
            transport.set_protocol(first)
            same = transport.get_protocol() is first
            transport.set_protocol(second)
            peer.send(b"x")
            await second.until("data")
            swapped = transport.get_protocol() is second
            transport.close()
            await second.until("lost")
            return same, swapped, first.events, second.events

    assert both(scenario) == (True, True, [], [("data", b"x"), ("lost", None)])


def test_repr_at_every_stage(both, link):
    def scenario(loop):
        async def talk():
            protocol = Recorder()
            async with link(loop, protocol) as (transport, _):
                stages = [repr(transport)]
                await jam(transport)
                transport.close()
                stages.append(repr(transport))
                transport.abort()
                await protocol.until("lost")
                stages.append(repr(transport))
            return transport, stages

        transport, stages = loop.run_until_complete(talk())
        loop.close()
        stages.append(repr(transport))
        return [("closing" in text, "closed" in text, text[0] + text[-1], "fd=" in text) for text in stages]

    assert both(scenario) == [
        (False, False, "<>", True),
        (True, False, "<>", True),
        (False, True, "<>", True),
        (False, True, "<>", True),
    ]


def test_unclosed_transport_warns_and_closes_its_socket(both, link):
    def scenario(loop):
        ours, peer = socket_pair("tcp")
        with peer:
            loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
            del ours
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loop.close()
                gc.collect()
            found = {(w.category.__name__, str(w.message)[:20]) for w in caught if "transport" in str(w.message)}
            peer.setblocking(True)
            peer.settimeout(10)
            return found, peer.recv(1)

    found, ending = both(scenario)
    assert found == {("ResourceWarning", "unclosed transport <")}
    assert ending == b""
