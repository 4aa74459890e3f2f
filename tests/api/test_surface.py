"""Everything public that asyncio's objects have, goloop's have: the same names, and calls with the same outcome.

The names are taken from asyncio's own objects, so that what a new Python adds is asked for without a change here.
"""

import asyncio
import contextlib
import inspect
import socket

import pytest

import goloop
from tests.helpers.certificates import HOST, client_context, server_context
from tests.helpers.pipetools import pipe_files
from tests.helpers.recorders import Recorder
from tests.helpers.servers import serving
from tests.helpers.sockets import socket_pair
from tests.helpers.waiting import async_until, polled, settle

# create_task() takes what asyncio's takes from Python 3.14 on; time is a clock that can be exchanged.
OTHER_ARGUMENTS = {"create_task", "time"}
# A pipe that is gone: asyncio's abort() raises AttributeError.
BROKEN_ON_ASYNCIO = {("lost", "write_pipe", "abort"), ("lost", "child_stdin", "abort")}
DIFFERENT_EACH_TIME = {"get_pid"}


def abort_unless_closing(transport):
    if not transport.is_closing():
        getattr(transport, "abort", transport.close)()


async def stream(loop, stack):
    ours, peer = socket_pair("unix")
    stack.enter_context(peer)
    transport, _ = await loop.create_unix_connection(Recorder, sock=ours)
    stack.callback(abort_unless_closing, transport)
    return transport


async def tls(loop, stack):
    _, address = await stack.enter_async_context(serving(loop, Recorder, ssl=server_context()))
    transport, _ = await loop.create_connection(Recorder, *address, ssl=client_context(), server_hostname=HOST)
    stack.callback(abort_unless_closing, transport)
    return transport


async def tls_protocol(loop, stack):
    return (await tls(loop, stack))._ssl_protocol


async def datagram(loop, stack):
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    stack.callback(abort_unless_closing, transport)
    return transport


async def read_pipe(loop, stack):
    reader, writer = pipe_files()
    stack.enter_context(writer)
    transport, _ = await loop.connect_read_pipe(Recorder, reader)
    stack.callback(abort_unless_closing, transport)
    return transport


async def write_pipe(loop, stack):
    reader, writer = pipe_files()
    stack.enter_context(reader)
    transport, _ = await loop.connect_write_pipe(Recorder, writer)
    stack.callback(abort_unless_closing, transport)
    return transport


async def server(loop, stack):
    server = await loop.create_server(Recorder, "127.0.0.1", 0)
    stack.callback(server.close)
    return server


async def server_socket(loop, stack):
    return (await server(loop, stack)).sockets[0]


async def transport_socket(loop, stack):
    return (await stream(loop, stack)).get_extra_info("socket")


class Child(asyncio.SubprocessProtocol):
    def __init__(self):
        self.lost = asyncio.Event()

    def connection_lost(self, exc):
        self.lost.set()


async def child(loop, stack):
    transport, protocol = await loop.subprocess_exec(Child, "cat", stderr=None)
    stack.push_async_callback(protocol.lost.wait)
    stack.callback(transport.close)
    return transport


async def child_stdin(loop, stack):
    return (await child(loop, stack)).get_pipe_transport(0)


async def child_stdout(loop, stack):
    return (await child(loop, stack)).get_pipe_transport(1)


async def process(loop, stack):
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    stack.push_async_callback(process.communicate, b"")
    return process


async def reader_and_writer(loop, stack):
    ours, peer = socket.socketpair()
    stack.enter_context(peer)
    reader, writer = await asyncio.open_connection(sock=ours)
    stack.callback(writer.close)
    return reader, writer


async def stream_reader(loop, stack):
    return (await reader_and_writer(loop, stack))[0]


async def stream_writer(loop, stack):
    return (await reader_and_writer(loop, stack))[1]


async def stream_protocol(loop, stack):
    return (await reader_and_writer(loop, stack))[1]._protocol


async def handle(loop, stack):
    return loop.call_soon(int)


async def threadsafe_handle(loop, stack):
    return loop.call_soon_threadsafe(int)


async def timer(loop, stack):
    timer = loop.call_later(1000, int)
    stack.callback(timer.cancel)
    return timer


async def task(loop, stack):
    return loop.create_task(asyncio.sleep(0))


async def future(loop, stack):
    return loop.create_future()


async def loop(loop, stack):
    return loop


OBJECTS = pytest.mark.parametrize(
    "make",
    [
        *(stream, tls, tls_protocol, datagram, read_pipe, write_pipe, server, server_socket, transport_socket, child),
        *(child_stdin, child_stdout, process, stream_reader, stream_writer, stream_protocol, handle),
        *(threadsafe_handle, timer, task, future, loop),
    ],
    ids=lambda make: make.__name__,
)
TRANSPORTS = pytest.mark.parametrize(
    "make",
    [stream, tls, datagram, read_pipe, write_pipe, child, child_stdin, child_stdout],
    ids=lambda make: make.__name__,
)


def public(obj):
    return [name for name in dir(obj) if not name.startswith("_")]


def names_on_asyncio(make):
    """The public names of the object that asyncio's own loop makes."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            found = public(await make(asyncio.get_running_loop(), stack))
        await settle()
        return found

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main())


def kind_of(obj, name):
    """What an attribute is: missing, a value, or a method with these arguments (kind, whether it may be left out)."""
    try:
        value = getattr(obj, name)
    except AttributeError:
        return "missing"
    except NotImplementedError:
        return "not implemented"
    if not callable(value):
        return "value"
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return "callable"
    return [(p.kind.name, p.default is not p.empty) for p in parameters]


@OBJECTS
def test_every_public_name_is_there_and_takes_the_same_arguments(both, make):
    names = names_on_asyncio(make)

    async def scenario(loop):
        async with contextlib.AsyncExitStack() as stack:
            obj = await make(loop, stack)
            found = {name: kind_of(obj, name) for name in names}
            assert set(names) <= set(dir(obj))
        for name in OTHER_ARGUMENTS & found.keys():
            found[name] = found[name] != "missing"
        await settle()
        return found

    assert "missing" not in both(scenario).values()


def test_arguments_of_a_loops_methods_have_asyncios_names():
    def names(function):
        return [(p.name, p.kind) for p in list(inspect.signature(function).parameters.values())[1:]]

    of_asyncio = {name: getattr(asyncio.SelectorEventLoop, name) for name in public(asyncio.SelectorEventLoop)}
    compared = {name: names(value) for name, value in of_asyncio.items() if name not in OTHER_ARGUMENTS}
    assert "sock_recv" in compared
    assert {name: names(getattr(goloop.Loop, name)) for name in compared} == compared


def outcome(obj, name):
    """What the attribute says, if it says something plain, or what a call without arguments raises or returns."""
    try:
        value = getattr(obj, name)
        value = value() if callable(value) else value
        if inspect.iscoroutine(value):
            value.close()
    except Exception as exc:
        return type(exc).__name__
    return value if isinstance(value, (bool, int, float, str, bytes, tuple, type(None))) else type(value).__name__


@TRANSPORTS
@pytest.mark.parametrize("state", ["open", "paused", "closing", "lost"])
def test_calls_have_the_outcome_that_they_have_on_asyncio(both, make, state):
    """One method after another, each of a transport of its own, as calls change what the next one would say."""
    broken = {name for at, kind, name in BROKEN_ON_ASYNCIO if at == state and kind == make.__name__}
    names = set(names_on_asyncio(make)) - DIFFERENT_EACH_TIME - broken

    async def scenario(loop):
        found = {}
        for name in names:
            async with contextlib.AsyncExitStack() as stack:
                transport = await make(loop, stack)
                if state == "paused":
                    with contextlib.suppress(NotImplementedError):
                        getattr(transport, "pause_reading", bool)()
                elif state != "open":
                    transport.close()
                    if state == "lost":
                        await async_until(lambda t=transport: t.get_protocol() is None)
                found[name] = outcome(transport, name)
            await settle()
        return found

    assert both(scenario)


# The single ones, by name


def test_a_writing_pipe_cannot_read(both):
    async def scenario(loop):
        async with contextlib.AsyncExitStack() as stack:
            transport = await write_pipe(loop, stack)
            return [outcome(transport, name) for name in ("pause_reading", "resume_reading", "is_reading")]

    assert both(scenario) == ["NotImplementedError"] * 3


def test_a_datagram_endpoint_can_pause_and_go_on(both):
    async def scenario(loop):
        got = []

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                got.append(data)
                if data == b"2":
                    transport.pause_reading()

        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        with peer:
            transport, _ = await loop.create_datagram_endpoint(Protocol, sock=ours)
            for data in (b"1", b"2", b"3"):
                peer.send(data)
            await polled()
            held = got[:], transport.is_reading()
            transport.pause_reading()
            transport.resume_reading()
            transport.resume_reading()
            while len(got) < 3:
                await asyncio.sleep(0)
            after = got[:], transport.is_reading()
            transport.close()
            transport.resume_reading()
            await polled()
        return held, after, transport.is_reading()

    assert both(scenario) == (([b"1", b"2"], False), ([b"1", b"2", b"3"], True), False)


def test_a_datagram_endpoint_paused_in_connection_made_gets_nothing_before_it_goes_on(both):
    async def scenario(loop):
        got = []

        class Protocol(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                transport.pause_reading()

            def datagram_received(self, data, addr):
                got.append(data)

        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        with peer:
            peer.send(b"early")
            transport, _ = await loop.create_datagram_endpoint(Protocol, sock=ours)
            await polled()
            held = got[:]
            transport.resume_reading()
            while not got:
                await asyncio.sleep(0)
            transport.close()
            await polled()
        return held, got

    assert both(scenario) == ([], [b"early"])
