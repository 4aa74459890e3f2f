"""What the transport tests share: protocols that write down what happens to them, connected sockets, waiting.

Everything a scenario returns must compare equal on two loops, so recorded events hold no addresses, no
descriptors, no class names of transports, and neighbouring chunks of data are merged: where the kernel cuts
a stream is not behaviour.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.helpers.sockets import socket_pair
from tests.helpers.waiting import PAUSE, settle

Scenario = Callable[[asyncio.AbstractEventLoop], Awaitable[Any]]


class _Notes:
    """Events in order of arrival; a hook named like the event runs inside the protocol method itself."""

    def __init__(self, keep_open: bool = False, **hooks: Callable[..., Any]) -> None:
        self.keep_open = keep_open  # what eof_received() returns
        self.hooks = hooks
        self.events: list[Any] = []  # names, or tuples that begin with one
        self.transport: Any = None
        self._news = asyncio.Event()

    def note(self, name: str, *details: Any) -> Any:
        if name == "data" and self.events and self.events[-1][0] == "data":
            self.events[-1] = ("data", self.events[-1][1] + details[0])
        else:
            self.events.append((name, *details) if details else name)
        self._news.set()
        if name in self.hooks:
            return self.hooks[name](self, *details)
        return None

    def names(self) -> list[str]:
        return [event if isinstance(event, str) else event[0] for event in self.events]

    @property
    def data(self) -> bytes:
        """All bytes received so far."""
        return b"".join(event[1] for event in self.events if event[0] == "data")

    async def until(self, wanted: str | int | Callable[[], object]) -> None:
        """Wait for an event of that name, for that many bytes, or for a condition (a callable)."""
        met: Callable[[], object]
        if isinstance(wanted, str):
            met = lambda: wanted in self.names()  # noqa: E731
        elif isinstance(wanted, int):
            met = lambda: len(self.data) >= wanted  # noqa: E731
        else:
            met = wanted
        while not met():
            self._news.clear()
            await self._news.wait()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost", exc and type(exc).__name__)

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")


class Recorder(_Notes, asyncio.Protocol):
    """A streaming protocol that records ``made``, ``data``, ``eof``, ``lost``, ``pause`` and ``resume``."""

    def data_received(self, data: bytes) -> None:
        self.note("data", bytes(data))

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open


class BufferedRecorder(_Notes, asyncio.BufferedProtocol):
    """The same with a buffer of its own, of ``size`` bytes."""

    def __init__(self, size: int = 4096, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        if "get_buffer" in self.hooks:
            return self.hooks["get_buffer"](self)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.note("data", bytes(self.buffer[:nbytes]))

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open


class DatagramRecorder(_Notes, asyncio.DatagramProtocol):
    """Records ``datagram`` (data, sender) and ``error`` events."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.note("datagram", data, addr)

    def error_received(self, exc: Exception) -> None:
        self.note("error", type(exc).__name__)


class Echo(asyncio.Protocol):
    """Sends back what it gets, with back-pressure; half-closes when the peer does."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


def stock(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is asyncio's own loop."""
    return type(loop) is asyncio.SelectorEventLoop


def decreed(outcome: Any, *, because: str, when: bool = True) -> Callable[[Scenario], Scenario]:
    """Decorate a scenario whose outcome released versions of asyncio get wrong, for the reason given.

    asyncio's own loop is then not asked; the outcome is decreed, and the other loop is held to it.
    """
    assert because

    def decorate(scenario: Scenario) -> Scenario:
        @functools.wraps(scenario)
        async def asked(loop: asyncio.AbstractEventLoop) -> Any:
            return outcome if when and stock(loop) else await scenario(loop)

        return asked

    return decorate


@contextlib.asynccontextmanager
async def connected(
    loop: asyncio.AbstractEventLoop, protocol: Any, kind: str = "tcp", *, small: bool = False
) -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """A transport driven by ``protocol`` and, as its peer, a plain non-blocking socket."""
    ours, peer = socket_pair(kind, small=small)
    with peer:
        connect: Any = loop.create_unix_connection if kind == "unix" else loop.create_connection
        transport, _ = await connect(lambda: protocol, sock=ours)
        try:
            yield transport, peer
        finally:
            last = transport.get_protocol()
            for each in (protocol, last):
                if isinstance(each, _Notes):
                    each.events = each.events[:]  # so that the outcome of a scenario ends with this block
            if isinstance(last, _Notes) and "lost" not in last.names():
                transport.abort()
                await last.until("lost")
            elif not transport.is_closing():
                transport.abort()
                await settle()


async def drain(sock: socket.socket, transport: asyncio.WriteTransport, size: int = 0) -> int:
    """Read from a transport's peer until the transport buffers at most ``size`` bytes; return how many came."""
    count = 0
    while transport.get_write_buffer_size() > size:
        try:
            count += len(sock.recv(1 << 14))
        except BlockingIOError:
            await asyncio.sleep(PAUSE)
        else:
            await asyncio.sleep(0)
    return count


async def jam(transport: asyncio.WriteTransport) -> int:
    """Write until the kernel takes no more; return the size of what stays in the transport's buffer.

    The high-water mark is out of reach afterwards, so that the test can put it where it wants it.
    """
    transport.set_write_buffer_limits(high=1 << 30)
    while transport.get_write_buffer_size() == 0:
        transport.write(bytes(1 << 16))
        await asyncio.sleep(0)
        if transport.get_write_buffer_size():
            await settle()
    return transport.get_write_buffer_size()
