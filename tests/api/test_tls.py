"""TLS transports: transfer, what they tell about themselves, handshake."""

import asyncio
import contextvars
import hashlib
import socket
import ssl

import pytest

from tests.helpers.certificates import HOST, client_context, server_context, tls_pair, tls_server
from tests.helpers.outcomes import async_outcome_of, outcome_of, reports
from tests.helpers.recorders import BufferedRecorder, Echo, Recorder, decreed
from tests.helpers.servers import ending
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import async_until, settle

VAR = contextvars.ContextVar("VAR", default="unset")

# Transfer


class Asker(asyncio.Protocol):
    """Sends its payload with back-pressure, waits for as much to come back, and closes."""

    def __init__(self, payload):
        self.payload, self.position, self.count, self.paused = payload, 0, 0, False
        self.hash = hashlib.blake2b()
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.go_on()

    def go_on(self):
        while not self.paused and self.position < len(self.payload):
            piece = self.payload[self.position : self.position + 70_001]
            self.position += len(piece)
            self.transport.write(piece)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self.go_on()

    def data_received(self, data):
        self.hash.update(data)
        self.count += len(data)
        if self.count == len(self.payload):
            self.transport.close()

    def connection_lost(self, exc):
        self.lost.set()


def test_eight_connections_echo_three_megabytes_each(both):
    payload = hashlib.shake_256(b"seed").digest(3_000_000)

    async def scenario(loop):
        async with tls_server(loop, Echo) as address:
            context = client_context()
            askers = [Asker(payload) for _ in range(8)]
            await asyncio.gather(
                *(loop.create_connection(lambda a=a: a, *address, ssl=context, server_hostname=HOST) for a in askers)
            )
            await asyncio.gather(*(asker.lost.wait() for asker in askers))
            return {asker.hash.hexdigest() for asker in askers}

    assert both(scenario) == {hashlib.blake2b(payload).hexdigest()}


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_both_kinds_of_protocol(both, kind):
    async def scenario(loop):
        ours, theirs = kind(), kind()
        if kind is BufferedRecorder:
            ours.buffer, theirs.buffer = memoryview(ours.buffer), memoryview(theirs.buffer)
        async with tls_pair(loop, ours, theirs) as (transport, other):
            transport.write(b"question")
            await theirs.until(8)
            other.writelines([b"ans", bytearray(b"w"), memoryview(b"er")])
            await ours.until(6)
            other.close()
            await ours.until("lost")
            await theirs.until("lost")
            return ours.events, theirs.events

    assert both(scenario) == (
        ["made", ("data", b"answer"), "eof", ("lost", None)],
        ["made", ("data", b"question"), "eof", ("lost", None)],
    )


def test_over_a_unix_socket(both, tmp_path):
    path = tmp_path / "sock"

    async def scenario(loop):
        protocol = Recorder()
        async with ending(await loop.create_unix_server(Echo, path, ssl=server_context())):
            connecting = loop.create_unix_connection(lambda: protocol, path, ssl=client_context(), server_hostname=HOST)
            transport, _ = await connecting
            transport.write(b"ping")
            await protocol.until(4)
            transport.close()
            await protocol.until("lost")
        path.unlink(missing_ok=True)
        return protocol.events

    assert both(scenario) == ["made", ("data", b"ping"), "eof", ("lost", None)]


def test_accepted_socket_and_given_socket(both):
    async def scenario(loop):
        a, b = socket_pair("tcp")
        ours, theirs = Recorder(), Recorder()
        await asyncio.gather(
            loop.connect_accepted_socket(lambda: theirs, a, ssl=server_context()),
            loop.create_connection(lambda: ours, sock=b, ssl=client_context(), server_hostname=HOST),
        )
        ours.transport.write(b"ping")
        await theirs.until(4)
        ours.transport.close()
        await ours.until("lost")
        await theirs.until("lost")
        return ours.events, theirs.events

    assert both(scenario) == (["made", "eof", ("lost", None)], ["made", ("data", b"ping"), "eof", ("lost", None)])


# What a transport tells about itself


def test_is_an_asyncio_transport_without_half_close(both):
    async def scenario(loop):
        async with tls_pair(loop, Recorder(), Recorder()) as (transport, _):
            protocol = transport.get_protocol()
            return (
                isinstance(transport, asyncio.Transport),
                transport.can_write_eof(),
                outcome_of(transport.write_eof)[0],
                isinstance(protocol, Recorder),
                transport.is_reading(),
                transport.is_closing(),
                transport.get_write_buffer_size(),
            )

    assert both(scenario) == (True, False, "NotImplementedError", True, True, False, 0)


def test_extra_info(both):
    async def scenario(loop):
        context = client_context()
        async with tls_pair(loop, Recorder(), Recorder(), ssl=context) as (transport, other):
            info = transport.get_extra_info
            return (
                type(info("socket")).__name__,
                info("peername") == other.get_extra_info("sockname"),
                info("sslcontext") is context,
                type(info("ssl_object")).__name__,
                info("ssl_object").version() in ("TLSv1.2", "TLSv1.3"),
                info("ssl_object").server_hostname,
                dict(info("peercert")["subjectAltName"]).get("DNS"),
                other.get_extra_info("peercert"),
                info("cipher") == info("ssl_object").cipher(),
                info("compression"),
                info("no such key", "default"),
            )

    assert both(scenario) == ("TransportSocket", True, True, "SSLObject", True, HOST, HOST, None, True, None, "default")


@pytest.mark.parametrize("data", ["text", None, 7], ids=repr)
def test_write_of_another_type_is_a_type_error(both, data):
    async def scenario(loop):
        async with tls_pair(loop, Recorder(), Recorder()) as (transport, _):
            return outcome_of(transport.write, data)

    assert both(scenario)[0] == "TypeError"


def test_water_marks_pause_and_resume_the_writer(both):
    async def scenario(loop):
        ours, theirs = Recorder(), Recorder(made=lambda p: p.transport.pause_reading())
        async with tls_pair(loop, ours, theirs) as (transport, other):
            default = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(low=1000, high=2000)
            limits = transport.get_write_buffer_limits()
            count = 0
            while "pause" not in ours.events:
                transport.write(bytes(100_000))
                count += 100_000
            size = transport.get_write_buffer_size() > 2000
            other.resume_reading()
            await ours.until("resume")
            drained = transport.get_write_buffer_size() <= 1000
            await theirs.until(count)
            return default, limits, size, drained, ours.events

    outcome = both(scenario)
    assert outcome[1:] == ((1000, 2000), True, True, ["made", "pause", "resume"])


def test_messages_of_one_write_arrive_in_order_whatever_their_sizes(both):
    sizes = [0, 1, 16_383, 16_384, 16_385, 2, 300_000, 5]
    pieces = [bytes([n]) * size for n, size in enumerate(sizes)]

    async def scenario(loop):
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, other):
            transport.writelines(pieces)
            other.writelines(memoryview(piece) for piece in pieces)
            await theirs.until(sum(sizes))
            await ours.until(sum(sizes))
            return bytes(ours.data) == bytes(theirs.data) == b"".join(pieces)

    assert both(scenario)


def test_an_sslobject_of_the_applications_own_is_asked(both):
    calls = set()

    class Mine(ssl.SSLObject):
        def read(self, *args):
            calls.add("read")
            return super().read(*args)

        def write(self, data):
            calls.add("write")
            return super().write(data)

    async def scenario(loop):
        calls.clear()
        context = client_context()
        context.sslobject_class = Mine
        ours, theirs = Recorder(), Recorder()
        async with tls_pair(loop, ours, theirs, ssl=context) as (transport, other):
            transport.write(b"hello")
            await theirs.until(5)
            other.write(b"world")
            await ours.until(5)
            return bytes(theirs.data), bytes(ours.data), sorted(calls)

    assert both(scenario) == (b"hello", b"world", ["read", "write"])


# Handshake


def test_untrusted_certificate_fails_create_connection(both):
    async def scenario(loop):
        protocol = Recorder()
        async with tls_server(loop, Echo) as address:
            connecting = loop.create_connection(
                lambda: protocol, *address, ssl=client_context(trusting=False), server_hostname=HOST
            )
            return (await async_outcome_of(connecting))[0], protocol.events

    assert both(scenario) == ("SSLCertVerificationError", [])


def test_wrong_host_name_fails_create_connection(both):
    async def scenario(loop):
        async with tls_server(loop, Echo) as address:
            connecting = loop.create_connection(
                Recorder, *address, ssl=client_context(), server_hostname="elsewhere.test"
            )
            return (await async_outcome_of(connecting))[0]

    assert both(scenario) == "SSLCertVerificationError"


def test_host_is_the_default_server_name(both):
    async def scenario(loop):
        names, context = [], server_context()
        context.sni_callback = lambda _, name, __: names.append(name)
        async with tls_server(loop, Echo, context=context) as address:
            transport, _ = await loop.create_connection(Recorder, *address, ssl=client_context())
            transport.close()
            other, _ = await loop.create_connection(Recorder, *address, ssl=client_context(), server_hostname=HOST)
            other.close()
        return names

    assert both(scenario) == [None, HOST]  # addresses are verified but not sent


def test_garbage_from_a_client_costs_its_connection_only(both):
    async def scenario(loop):
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        seen = reports(loop)
        async with tls_server(loop, factory) as address:
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                sock.send(b"GET / HTTP/1.0\r\n\r\n" * 10)
                ending = (await async_outcome_of(receive(sock)))[:1]
                await settle()
            first = list(protocols[0].events)
            transport, ours = await loop.create_connection(
                Recorder, *address, ssl=client_context(), server_hostname=HOST
            )
            transport.write(b"x")
            await async_until(lambda: protocols[-1].data == b"x")
            transport.close()
            await ours.until("lost")
            return first, [report[:2] for report in seen], bool(ending)

    first, _, _ = both(scenario)
    assert first == []


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b""], ids=["garbage", "end of stream"])
def test_server_that_speaks_no_tls_fails_create_connection(both, answer):
    async def scenario(loop):
        seen, protocol = reports(loop), Recorder()
        ours, peer = socket_pair("tcp")
        with peer:
            connecting = loop.create_task(
                loop.create_connection(lambda: protocol, sock=ours, ssl=client_context(), server_hostname=HOST)
            )
            await receive(peer, 5)
            peer.send(answer)
            peer.shutdown(socket.SHUT_WR)
            kind, _ = await async_outcome_of(connecting)
            await async_until(lambda: ours.fileno() == -1)
            return kind, protocol.events, [report[:2] for report in seen]

    kind, events, _ = both(scenario)
    assert kind in ("SSLError", "ConnectionResetError") and events == []


def test_handshake_timeout(both):
    async def scenario(loop):
        ours, peer = socket_pair("tcp")
        with peer:
            connecting = loop.create_connection(
                Recorder, sock=ours, ssl=client_context(), server_hostname=HOST, ssl_handshake_timeout=0.02
            )
            outcome = await async_outcome_of(connecting)
            await async_until(lambda: ours.fileno() == -1)
            return outcome

    assert both(scenario) == (
        "ConnectionAbortedError",
        "SSL handshake is taking longer than 0.02 seconds: aborting the connection",
    )


def test_handshake_timeout_of_a_server(both):
    async def scenario(loop):
        protocol = Recorder()
        async with tls_server(loop, lambda: protocol, ssl_handshake_timeout=0.02) as address:
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                return await async_outcome_of(receive(sock)), protocol.events

    assert both(scenario) == (b"", [])


def test_cancelled_handshake_closes_the_socket(both):
    async def scenario(loop):
        ours, peer = socket_pair("tcp")
        with peer:
            task = loop.create_task(
                loop.create_connection(Recorder, sock=ours, ssl=client_context(), server_hostname=HOST)
            )
            await receive(peer, 5)
            task.cancel()
            await asyncio.wait([task])
            peer.close()
            await async_until(lambda: ours.fileno() == -1)
            return task.cancelled()

    assert both(scenario) is True


# Contexts


def test_data_that_waited_for_resume_reading_comes_in_the_context_of_the_connection(both):
    found = ["connecting", "connecting", "set by the protocol"]

    @decreed(found, because="it comes in the context of whoever called resume_reading()")
    async def scenario(loop):
        seen = []

        def look(*_):
            seen.append(VAR.get())
            if len(seen) == 2:
                VAR.set("set by the protocol")  # and there it stays

        VAR.set("connecting")
        ours, theirs = Recorder(data=look), Recorder()
        async with tls_pair(loop, ours, theirs) as (transport, other):
            VAR.set("later")
            for data in (b"1", b"2"):
                transport.pause_reading()
                other.write(data)
                await settle()
                transport.resume_reading()
                await ours.until(int(data))
            other.write(b"3")
            await ours.until(3)
        return seen

    assert both(scenario) == found
