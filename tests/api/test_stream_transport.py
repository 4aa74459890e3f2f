"""Stream transports over TCP and Unix sockets: pausing the reader, what they tell about themselves."""

import asyncio
import contextlib
import gc
import socket
import warnings

import pytest

import goloop
from tests.helpers.recorders import Recorder, connected, jam
from tests.helpers.sockets import socket_pair
from tests.helpers.waiting import settle

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


@pytest.mark.parametrize("proto", [0, socket.IPPROTO_TCP])
def test_small_pieces_are_sent_at_once_whatever_way_the_socket_was_made(proto):
    def nodelay(transport):
        return transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0

    async def scenario(loop):
        listener = socket.socket(proto=proto)
        listener.bind(("127.0.0.1", 0))
        protocol = Recorder()
        server = await loop.create_server(lambda: protocol, sock=listener)
        client = socket.socket(proto=proto)
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        transport, _ = await loop.create_connection(Recorder, sock=client)
        await protocol.until("made")
        seen = nodelay(transport), nodelay(protocol.transport)
        transport.abort()
        await protocol.until("lost")
        server.close()
        return seen

    with contextlib.closing(goloop.new_event_loop()) as loop:
        assert loop.run_until_complete(scenario(loop)) == (True, True)


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
