"""Datagram transports: flow control, Unix sockets, the arguments of create_datagram_endpoint."""

import asyncio
import os
import socket
import sys

import pytest

from tests.helpers.endpoints import LOCAL, datagrams, endpoint, name_of
from tests.helpers.outcomes import async_outcome_of, outcome_of
from tests.helpers.recorders import DatagramRecorder, decreed
from tests.helpers.waiting import settle

needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


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
                unconnected = await async_outcome_of(loop.create_datagram_endpoint(
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
            return shared, (
                await async_outcome_of(loop.create_datagram_endpoint(DatagramRecorder, local_addr=name_of(a)))
            )[0]

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
            kind, text = await async_outcome_of(loop.create_datagram_endpoint(DatagramRecorder, **options))
            return kind, text.partition(", got <socket")[0]

    assert both(scenario)[0] in ("ValueError", "TypeError", "gaierror")


def test_failing_protocol_factory(both):
    def factory():
        raise ArithmeticError("no protocol")

    async def scenario(loop):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            return await async_outcome_of(loop.create_datagram_endpoint(factory, sock=sock))

    assert both(scenario) == ("ArithmeticError", "no protocol")
