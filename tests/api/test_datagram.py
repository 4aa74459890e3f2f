"""Datagram transports: sending and receiving, errors, their life."""

import asyncio
import contextvars
import os
import socket
import sys

import pytest

from tests.helpers.endpoints import LOCAL, datagrams, endpoint, name_of
from tests.helpers.outcomes import outcome_of, reports
from tests.helpers.recorders import DatagramRecorder, decreed
from tests.helpers.waiting import settle

needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


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


def test_a_transport_tells_its_socket_its_protocol_and_its_state(both):
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


def test_writer_resumes_at_the_low_water_mark_though_the_socket_is_full(both, tmp_path):
    async def scenario(loop):
        name = str(tmp_path / type(loop).__name__)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
            theirs.bind(name)
            async with endpoint(loop, family=socket.AF_UNIX, remote_addr=name) as (a, recorder):
                a.set_write_buffer_limits(high=8000, low=4000)
                for _ in range(1000):
                    a.sendto(bytes(1000))
                    if "pause" in recorder.names():
                        break
                peak = a.get_write_buffer_size()
                while "resume" not in recorder.names():
                    theirs.recv(2000, socket.MSG_DONTWAIT)
                    await settle()
                return peak > 8000, 0 < a.get_write_buffer_size() <= 4000, recorder.names()

    assert both(scenario) == (True, True, ["made", "pause", "resume"])


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
