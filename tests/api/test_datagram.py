"""Datagram transports over UDP and Unix sockets."""

import asyncio
import contextlib
import contextvars
import os
import socket
import sys

import pytest
from recorders import DatagramRecorder, aoutcome_of, decreed, outcome_of, reports, settle

LOCAL = "127.0.0.1", 0
needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


@contextlib.asynccontextmanager
async def endpoint(loop, protocol=None, **options):
    """An endpoint, by default on a port of its own, as (transport, protocol); closed in the end."""
    if not options:
        options = {"local_addr": LOCAL}
    recorder = protocol or DatagramRecorder()
    transport, _ = await loop.create_datagram_endpoint(lambda: recorder, **options)
    try:
        yield transport, recorder
    finally:
        recorder.events = recorder.events[:]
        if not transport.is_closing():
            transport.abort()
            await recorder.until("lost")


def name_of(transport):
    return transport.get_extra_info("sockname")


def datagrams(recorder):
    """What was received, without senders."""
    return [event[1] for event in recorder.events if event[0] == "datagram"]


def dead_address():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(LOCAL)
        return sock.getsockname()


def test_two_endpoints_talk(both):
    async def scenario(loop):
        async with endpoint(loop) as (a, ours), endpoint(loop) as (b, theirs):
            a.sendto(b"question", name_of(b))
            await theirs.until("datagram")
            sender = theirs.events[-1][2]
            b.sendto(b"answer", sender)
            await ours.until("datagram")
            right = sender == name_of(a), ours.events[-1][2] == name_of(b)
            a.close()
            b.close()
            await ours.until("lost")
            await theirs.until("lost")
            return right, datagrams(ours), datagrams(theirs), ours.names(), ours.events[-1]

    assert both(scenario) == ((True, True), [b"answer"], [b"question"], ["made", "datagram", "lost"], ("lost", None))


@needs_ipv6
def test_ipv6(both):
    async def scenario(loop):
        async with (
            endpoint(loop, local_addr=("::1", 0)) as (a, _),
            endpoint(loop, local_addr=("::1", 0)) as (b, theirs),
        ):
            a.sendto(b"six", name_of(b))
            await theirs.until("datagram")
            return datagrams(theirs), theirs.events[-1][2] == name_of(a), len(name_of(a))

    assert both(scenario) == ([b"six"], True, 4)


def test_connected_endpoint_sends_to_its_peer_only(both):
    async def scenario(loop):
        async with endpoint(loop) as (b, theirs):
            async with endpoint(loop, remote_addr=name_of(b)) as (a, _):
                a.sendto(b"1")
                a.sendto(b"2", None)
                a.sendto(b"3", name_of(b))
                kind, text = outcome_of(a.sendto, b"4", ("127.0.0.1", 9))
                await theirs.until(lambda: len(datagrams(theirs)) == 3)
                peer = a.get_extra_info("peername") == name_of(b), b.get_extra_info("peername")
                return datagrams(theirs), kind, text.replace(repr(name_of(b)), "PEER"), peer

    assert both(scenario) == (
        [b"1", b"2", b"3"],
        "ValueError",
        "Invalid address: must be None or PEER",
        (True, None),
    )


def test_connected_endpoint_hears_its_peer_only(both):
    async def scenario(loop):
        async with endpoint(loop) as (b, _), endpoint(loop) as (stranger, _):
            async with endpoint(loop, remote_addr=name_of(b)) as (a, ours):
                stranger.sendto(b"psst", name_of(a))
                b.sendto(b"hello", name_of(a))
                await ours.until("datagram")
                await settle()
                return datagrams(ours)

    assert both(scenario) == [b"hello"]


def test_local_and_remote_address(both):
    async def scenario(loop):
        async with endpoint(loop) as (b, theirs):
            async with endpoint(loop, local_addr=("127.0.0.2", 0), remote_addr=name_of(b)) as (a, _):
                a.sendto(b"x")
                await theirs.until("datagram")
                return theirs.events[-1][2] == name_of(a), name_of(a)[0]

    assert both(scenario) == (True, "127.0.0.2")


def test_unbound_endpoint_of_a_family(both):
    async def scenario(loop):
        async with endpoint(loop) as (b, theirs), endpoint(loop, family=socket.AF_INET) as (a, _):
            a.sendto(b"x", name_of(b))
            await theirs.until("datagram")
            return datagrams(theirs), name_of(a)

    assert both(scenario)[0] == [b"x"]


def test_empty_datagrams_are_received(both):
    async def scenario(loop):
        async with endpoint(loop) as (a, ours):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                for data in (b"", b"x", b""):
                    sock.sendto(data, name_of(a))
            await ours.until(lambda: len(datagrams(ours)) == 3)
            return datagrams(ours), a.is_closing()

    assert both(scenario) == ([b"", b"x", b""], False)


def test_empty_datagrams_are_sent_since_3_13(both):
    async def scenario(loop):
        async with endpoint(loop) as (a, _), endpoint(loop) as (b, theirs):
            a.sendto(b"", name_of(b))
            a.sendto(b"end", name_of(b))
            await theirs.until(lambda: b"end" in datagrams(theirs))
            return datagrams(theirs)

    assert both(scenario) == ([b"", b"end"] if sys.version_info >= (3, 13) else [b"end"])


def test_every_bytes_like_object_and_no_other(both):
    async def scenario(loop):
        async with endpoint(loop) as (a, _), endpoint(loop) as (b, theirs):
            for data in (b"bytes", bytearray(b"array"), memoryview(b"view")):
                a.sendto(data, name_of(b))
            errors = [outcome_of(a.sendto, data, name_of(b)) for data in ("text", None, 7)]
            await theirs.until(lambda: len(datagrams(theirs)) == 3)
            return datagrams(theirs), errors

    received, errors = both(scenario)
    assert received == [b"bytes", b"array", b"view"]
    assert [kind for kind, _ in errors] == ["TypeError"] * 3


def test_largest_datagram_and_one_too_large(both):
    async def scenario(loop):
        async with endpoint(loop) as (a, ours), endpoint(loop) as (b, theirs):
            a.sendto(bytes(65507), name_of(b))
            await theirs.until("datagram")
            a.sendto(bytes(65508), name_of(b))
            await ours.until("error")
            a.sendto(b"still alive", name_of(b))
            await theirs.until(lambda: len(datagrams(theirs)) == 2)
            return [len(data) for data in datagrams(theirs)], ours.events

    assert both(scenario) == ([65507, 11], ["made", ("error", "OSError")])


# Errors


def test_refused_datagram_is_an_error_and_not_the_end(both):
    async def scenario(loop):
        async with endpoint(loop, remote_addr=dead_address()) as (a, ours):
            a.sendto(b"anyone?")
            await ours.until("error")
            return ours.events, a.is_closing()

    assert both(scenario) == (["made", ("error", "ConnectionRefusedError")], False)


@pytest.mark.parametrize("address", [None, ("127.0.0.1", "no port"), ("127.0.0.1",), "127.0.0.1"], ids=repr)
def test_sendto_an_impossible_address_is_fatal(both, address):
    async def scenario(loop):
        seen = reports(loop)
        async with endpoint(loop) as (a, ours):
            a.sendto(b"x", address)
            await ours.until("lost")
            return ours.events, [report[:2] for report in seen]

    assert both(scenario) == (
        ["made", ("lost", "TypeError")],
        [("Fatal write error on datagram transport", "TypeError")],
    )


def test_exception_in_datagram_received_is_reported_and_not_the_end(both):
    def fail(*_):
        raise ArithmeticError("the protocol failed")

    async def scenario(loop):
        seen = reports(loop)
        async with endpoint(loop, DatagramRecorder(datagram=fail)) as (a, ours):
            for data in (b"1", b"2"):
                a.sendto(data, name_of(a))
            await ours.until(lambda: len(datagrams(ours)) == 2)
            return [report[1:3] for report in seen], a.is_closing()

    report = "ArithmeticError", "the protocol failed"
    assert both(scenario) == ([report, report], False)


# Life


def test_is_an_asyncio_datagram_transport(both):
    @decreed(True, because="asyncio's own became one in 3.12", when=sys.version_info < (3, 12))
    async def scenario(loop):
        async with endpoint(loop) as (a, _):
            return isinstance(a, asyncio.DatagramTransport)

    assert both(scenario) is True


def test_what_a_transport_tells_about_itself(both):
    async def scenario(loop):
        async with endpoint(loop) as (a, ours):
            sock = a.get_extra_info("socket")
            return (
                type(sock).__name__,
                sock.type == socket.SOCK_DGRAM,
                a.get_protocol() is ours,
                a.is_closing(),
                a.get_write_buffer_size(),
                a.get_write_buffer_limits(),
                repr(a)[0] + repr(a)[-1],
            )

    assert both(scenario) == ("TransportSocket", True, True, False, 0, (16384, 65536), "<>")


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_end_is_announced_later_and_once(both, ending):
    async def scenario(loop):
        async with endpoint(loop) as (a, ours):
            sock = a.get_extra_info("socket")
            getattr(a, ending)()
            getattr(a, ending)()
            ours.note("returned")
            await ours.until("lost")
            a.close()
            a.abort()
            await settle()
            return ours.events, a.is_closing(), sock.fileno()

    assert both(scenario) == (["made", "returned", ("lost", None)], True, -1)


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_ending_in_connection_made(both, ending):
    async def scenario(loop):
        async with endpoint(loop, DatagramRecorder(made=lambda p: getattr(p.transport, ending)())) as (_, ours):
            await ours.until("lost")
            return ours.events

    assert both(scenario) == ["made", ("lost", None)]


def test_no_datagram_after_close(both):
    async def scenario(loop):
        async with endpoint(loop, DatagramRecorder(datagram=lambda p, *_: p.transport.close())) as (a, ours):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                for i in range(10):
                    sock.sendto(b"%d" % i, name_of(a))
            await ours.until("lost")
            return datagrams(ours), ours.names()

    assert both(scenario) == ([b"0"], ["made", "datagram", "lost"])


def test_sendto_after_close_of_a_connected_endpoint_is_harmless(both):
    async def scenario(loop):
        async with endpoint(loop) as (b, theirs), endpoint(loop, remote_addr=name_of(b)) as (a, ours):
            a.close()
            a.sendto(b"1")
            await ours.until("lost")
            for _ in range(10):
                a.sendto(b"2")
            await settle()
            return ours.events, datagrams(theirs)

    assert both(scenario) == (["made", ("lost", None)], [])


def test_sendto_after_the_end_of_an_unconnected_endpoint_is_harmless(both):
    @decreed((["made", ("lost", None)], None), because="asyncio trips over its own attributes, None by then")
    async def scenario(loop):
        async with endpoint(loop) as (b, _), endpoint(loop) as (a, ours):
            a.close()
            await ours.until("lost")
            outcome = outcome_of(a.sendto, b"x", name_of(b))
            await settle()
            return ours.events, outcome

    assert both(scenario) == (["made", ("lost", None)], None)


def test_protocol_methods_run_in_the_context_of_whoever_made_the_endpoint(both):
    var = contextvars.ContextVar("var", default="unset")

    async def scenario(loop):
        found = []
        look = lambda *_: found.append(var.get())  # noqa: E731
        var.set("making")
        async with endpoint(loop, DatagramRecorder(made=look, datagram=look)) as (a, ours):
            var.set("later")
            a.sendto(b"x", name_of(a))
            await ours.until("datagram")
            return found

    assert both(scenario) == ["making"] * 2


# Flow control, over a Unix socket, whose queue of a few datagrams is soon full


@pytest.fixture
def unix_pair(tmp_path):
    """A function that makes a socket and the peer that it is connected to."""

    def make():
        ours, peer = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        path = tmp_path / "peer"
        path.unlink(missing_ok=True)
        peer.bind(str(path))
        peer.setblocking(False)
        ours.connect(str(path))
        return ours, peer

    return make


async def fill(transport):
    """Send until a datagram has to wait; return how many have been sent."""
    count = 0
    while not transport.get_write_buffer_size():
        transport.sendto(b"%06d" % count)
        count += 1
        await asyncio.sleep(0)
    return count


async def take(sock):
    """The next datagram that arrives at a plain socket."""
    while True:
        try:
            return sock.recv(1 << 16)
        except BlockingIOError:
            await asyncio.sleep(0)


def test_waiting_datagrams_go_out_in_order_and_unchanged(both, unix_pair):
    async def scenario(loop):
        sock, peer = unix_pair()
        with peer:
            async with endpoint(loop, sock=sock) as (transport, _):
                count = await fill(transport)
                data = bytearray(b"waiting")
                transport.sendto(data)
                data[:] = b"changed"
                numbers = [int(await take(peer)) for _ in range(count)]
                return numbers == list(range(count)), await take(peer)

    assert both(scenario) == (True, b"waiting")


def test_writer_is_paused_above_the_high_mark_and_resumed_at_the_low_one(both, unix_pair):
    async def scenario(loop):
        sock, peer = unix_pair()
        with peer:
            async with endpoint(loop, sock=sock) as (transport, protocol):
                count = await fill(transport)
                transport.set_write_buffer_limits(high=5000, low=500)
                size = transport.get_write_buffer_size()
                transport.sendto(bytes(1000))
                before = list(protocol.events)
                transport.sendto(bytes(5000))
                paused = list(protocol.events)
                grown = transport.get_write_buffer_size() - size
                for _ in range(count + 2):
                    await take(peer)
                await protocol.until("resume")
                return before, paused, grown, protocol.events

    outcome = both(scenario)
    assert outcome[:2] == (["made"], ["made", "pause"])
    assert outcome[3] == ["made", "pause", "resume"]


def test_nothing_waits_when_all_is_sent(both, unix_pair):
    @decreed(
        0, because="asyncio 3.13 forgets 8 bytes of each datagram that had to wait", when=sys.version_info >= (3, 13)
    )
    async def scenario(loop):
        sock, peer = unix_pair()
        with peer:
            async with endpoint(loop, sock=sock) as (transport, _):
                for _ in range(await fill(transport)):
                    await take(peer)
                await settle()
                return transport.get_write_buffer_size()

    assert both(scenario) == 0


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_close_waits_for_what_waits_and_abort_does_not(both, unix_pair, ending):
    async def scenario(loop):
        sock, peer = unix_pair()
        with peer:
            async with endpoint(loop, sock=sock) as (transport, protocol):
                count = await fill(transport)
                getattr(transport, ending)()
                await settle()
                early = "lost" in protocol.names()
                got = [await take(peer) for _ in range(count if ending == "close" else count - 1)]
                await protocol.until("lost")
                return early, len(set(got)) == len(got), outcome_of(peer.recv, 100)[0]

    assert both(scenario) == (ending == "abort", True, "BlockingIOError")


# Unix sockets


def test_unix_endpoints(both, tmp_path):
    a_path, b_path = str(tmp_path / "a"), str(tmp_path / "b")

    async def scenario(loop):
        unix = socket.AF_UNIX
        for _ in range(2):  # the second time over the stale sockets of the first
            async with endpoint(loop, local_addr=b_path, family=unix) as (b, theirs):
                async with endpoint(loop, local_addr=a_path, remote_addr=b_path, family=unix) as (a, ours):
                    a.sendto(b"question")
                    await theirs.until("datagram")
                    b.sendto(b"answer", theirs.events[-1][2])
                    await ours.until("datagram")
                    outcome = theirs.events[-1][2] == a_path, name_of(a) == a_path, datagrams(ours), datagrams(theirs)
        return outcome

    assert both(scenario) == (True, True, [b"answer"], [b"question"])


def test_unix_endpoint_whose_peer_is_gone(both, tmp_path):
    path = str(tmp_path / "b")

    async def scenario(loop):
        async with endpoint(loop, local_addr=path, family=socket.AF_UNIX):
            async with endpoint(loop, remote_addr=path, family=socket.AF_UNIX) as (a, ours):
                os.unlink(path)
                await settle()
                unconnected = await aoutcome_of(loop.create_datagram_endpoint(
                    DatagramRecorder, remote_addr=path, family=socket.AF_UNIX))  # fmt: skip
                return unconnected[0], ours.events

    assert both(scenario) == ("FileNotFoundError", ["made"])


# Arguments


def test_given_socket(both):
    async def scenario(loop):
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind(LOCAL)
        async with endpoint(loop, sock=sock) as (a, ours):
            a.sendto(b"x", name_of(a))
            await ours.until("datagram")
            number = a.get_extra_info("socket").fileno() == sock.fileno()
            outcome = number, sock.getblocking(), datagrams(ours)
        await settle()
        return outcome, sock.fileno()

    assert both(scenario) == ((True, False, [b"x"]), -1)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"reuse_port": True}, socket.SO_REUSEPORT),
        ({"allow_broadcast": True}, socket.SO_BROADCAST),
        ({}, socket.SO_REUSEPORT),
    ],
)
def test_socket_options(both, option, name):
    async def scenario(loop):
        async with endpoint(loop, local_addr=LOCAL, **option) as (a, _):
            return a.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, name) != 0

    assert both(scenario) is bool(option)


def test_reuse_port_lets_two_share(both):
    async def scenario(loop):
        async with endpoint(loop, local_addr=LOCAL, reuse_port=True) as (a, _):
            async with endpoint(loop, local_addr=name_of(a), reuse_port=True) as (b, _):
                shared = name_of(a) == name_of(b)
            return shared, (await aoutcome_of(loop.create_datagram_endpoint(DatagramRecorder, local_addr=name_of(a))))[
                0
            ]

    assert both(scenario) == (True, "OSError")


BAD = {
    "nothing": {},
    "families": {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 9)},
    "family of another": {"local_addr": ("127.0.0.1", 0), "family": socket.AF_INET6},
    "no tuple": {"local_addr": "127.0.0.1"},
    "three of them": {"remote_addr": ("127.0.0.1", 9, 0)},
    "unix tuple": {"local_addr": ("127.0.0.1", 0), "family": socket.AF_UNIX},
    "unix bytes": {"remote_addr": b"/nowhere", "family": socket.AF_UNIX},
    "socket and address": {"sock": "datagram", "local_addr": ("127.0.0.1", 0)},
    "socket and options": {"sock": "datagram", "reuse_port": True, "allow_broadcast": True},
    "socket and family": {"sock": "datagram", "family": socket.AF_INET},
    "stream socket": {"sock": "stream"},
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_arguments(both, case):
    options = dict(BAD[case])

    async def scenario(loop):
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            if "sock" in options:
                options["sock"] = stream if BAD[case]["sock"] == "stream" else datagram
            kind, text = await aoutcome_of(loop.create_datagram_endpoint(DatagramRecorder, **options))
            return kind, text.partition(", got <socket")[0]

    assert both(scenario)[0] in ("ValueError", "TypeError", "gaierror")


def test_failing_protocol_factory(both):
    def factory():
        raise ArithmeticError("no protocol")

    async def scenario(loop):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            return await aoutcome_of(loop.create_datagram_endpoint(factory, sock=sock))

    assert both(scenario) == ("ArithmeticError", "no protocol")
