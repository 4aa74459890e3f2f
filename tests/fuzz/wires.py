"""Interprets the programs of kind "wires": one actor for each end of a connection.

A step performs its operations in one callback; then the loop comes to rest, and the state of every end is
written down. What arrives is counted and summed up, since where the kernel cuts a stream is no promise;
datagrams are written down one by one. Ends called "raw" are plain sockets or pipes, worked on by sock_*
coroutines and by a thread, so that the loop is also woken from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import random
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fuzz.program import Block, Op, Program
from tests.fuzz.tracing import Oops, Trace, plain

REST = 0.001  # seconds between two looks at whether everything is at rest
CALM = 2  # looks without an event after which it is; one of them after a real sleep
BLOCK = random.Random(1).randbytes(65521)  # what is sent, over and over; a prime, unlike all buffers
ROUNDS = 2000  # looks at most: a loop that never comes to rest makes a difference, too. TCP may take 200 ms


def interpret(program: Program, loop: asyncio.AbstractEventLoop, trace: Trace) -> None:
    table = _Table(loop, trace)
    try:
        loop.run_until_complete(table.play(program))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        table.clear()
        loop.close()


def limited(*socks: socket.socket) -> None:
    """Let the kernel keep little for these, and send it at once: by itself it takes megabytes, or does not."""
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)


class _Thread:
    """Does what it is told a moment later, in a thread of its own."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[tuple[Callable[[], object], Any, asyncio.Future[None]] | None]
        self.orders = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self) -> None:
        while (order := self.orders.get()) is not None:
            time.sleep(0.0005)
            call, loop, done = order
            with contextlib.suppress(OSError, ValueError):  # the other side may have closed the file
                call()
            loop.call_soon_threadsafe(done.set_result, None)

    def stop(self) -> None:
        self.orders.put(None)
        self.thread.join()


class _Table:
    """The connections of a program."""

    def __init__(self, loop: asyncio.AbstractEventLoop, trace: Trace) -> None:
        self.loop, self.trace, self.calm = loop, trace, CALM
        self.ends: list[list[_End] | None] = []
        self.files: list[Any] = []
        self.servers: list[asyncio.Server] = []
        self.orders: list[Callable[[], object]] = []
        self.thread: _Thread | None = None
        loop.set_exception_handler(self.report)

    def report(self, _: object, context: dict[str, Any]) -> None:
        message = context["message"]
        if "never retrieved" in message:
            return
        protocol = context.get("protocol") or getattr(context.get("transport"), "get_protocol", lambda: None)()
        actor = getattr(getattr(protocol, "end", None), "actor", "reports")
        if message.startswith("Exception in callback"):
            actor = "reports"  # asyncio does not say whose it is
        # Independent connections' reports come in no particular order, so each end has its own.
        self.trace.note(f"{actor} reports", plain(message), type(context.get("exception")).__name__)

    async def play(self, program: Program) -> None:
        early, steps = program["body"]
        if any(wire and wire[0] == "tcp" and wire[2] for wire in program["wires"]):
            self.calm *= 4  # the kernel takes its time
        for number, wire in enumerate(program["wires"]):
            if wire is None:  # minimised away
                self.ends.append(None)
            else:
                await self.connect(number, wire, [(side, op) for at, side, op in early if at == number])
        for step, burst in enumerate([[], *steps]):
            for at, side, op in burst:
                if self.ends[at]:
                    self.ends[at][side].perform(op)
            await self.rest()
            for end in self.all_ends():
                end.snapshot(step)
        for end in self.all_ends():
            end.finish()
        for server in self.servers:
            server.close()
        await self.rest()
        for server in self.servers:
            await server.wait_closed()
        for end in self.all_ends():
            end.snapshot("end")

    def all_ends(self) -> list[_End]:
        return [end for pair in self.ends for end in pair or ()]

    async def rest(self) -> None:
        """Wait until nothing happens any more, let the thread do what it was told, and wait again."""
        calm, before = 0, None
        for n in range(ROUNDS):
            if n % 2:
                await asyncio.sleep(REST)
            else:
                for _ in range(5):
                    await asyncio.sleep(0)
            now = self.trace.activity, [end.transport_size() for end in self.all_ends()]
            calm, before = calm + 1 if now == before and not any(end.awaits() for end in self.all_ends()) else 0, now
            if calm < self.calm:
                continue
            if not self.orders:
                return
            orders, self.orders, calm = self.orders, [], 0
            self.thread = self.thread or _Thread()
            for call in orders:
                done = self.loop.create_future()
                self.thread.orders.put((call, self.loop, done))
                await done  # nothing else to do: the loop parks
        self.trace.note("table", "no rest")

    def clear(self) -> None:
        if self.thread:
            self.thread.stop()
        for file in self.files:
            with contextlib.suppress(OSError):
                file.close()

    # -------------------------------------------------------------- connecting
    async def connect(self, number: int, wire: Op, early: list[tuple[int, Op]]) -> None:
        kind, how, bulk, *roles = wire
        kinds: list[type[_End]] = [_Raw if role == "raw" else _Stream if role == "streams" else _Wire for role in roles]
        ends = [
            cls(self, f"{number}{'ab'[i]}", role, bulk) for i, (cls, role) in enumerate(zip(kinds, roles, strict=True))
        ]
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        self.ends.append(ends)
        for side, op in early:
            if kind != "pipe":  # closed in connection_made(), they fail in asyncio's debug messages
                ends[side].perform(op)
        files: Any
        if kind == "pipe":
            files = [os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True)]
            for file in files:
                os.set_blocking(file.fileno(), False)
        elif how == "serve" and roles[1] != "raw":
            await self.serve(kind, *ends)
            return
        elif kind == "tcp":
            files = self.tcp_pair()
        elif kind == "udp":
            files = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            for sock in files:
                sock.bind(("127.0.0.1", 0))
            files[0].connect(files[1].getsockname())
            files[1].connect(files[0].getsockname())
        elif kind == "datagram":
            files = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
            for sock in files:
                sock.bind("")  # the kernel finds a name; asyncio needs one
            files[0].connect(files[1].getsockname())
            files[1].connect(files[0].getsockname())
        else:
            files = socket.socketpair()
        self.files += files
        for i, (end, file) in enumerate(zip(ends, files, strict=True)):
            if kind != "pipe":
                file.setblocking(False)
            await end.open(kind, how if i else "pair", file)

    async def serve(self, kind: str, client: _End, server: _End) -> None:
        """The second end is a connection that a server of the loop accepts."""
        address = ("127.0.0.1", 0) if kind == "tcp" else ""
        listener = socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX)
        sock = socket.socket(listener.family)
        if kind == "tcp":
            limited(listener, sock)
        listener.bind(address)
        listener.setblocking(False)
        listener.listen()
        self.files.append(listener)
        self.servers.append(await server.listen(kind, listener))
        sock.setblocking(False)
        self.files.append(sock)
        await self.loop.sock_connect(sock, listener.getsockname())
        await client.open(kind, "pair", sock)
        await self.rest()

    @staticmethod
    def tcp_pair() -> list[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            files = [client, listener.accept()[0]]
        limited(*files)
        return files


class _End:
    """One end: what it has sent and got, and its reactions to events."""

    stream = False  # whether it is driven by a transport for a socket that is a stream of bytes
    peer: _End
    transport: Any = None

    def __init__(self, table: _Table, actor: str, role: str, bulk: bool) -> None:
        self.table, self.loop, self.actor, self.role, self.bulk = table, table.loop, actor, role, bulk
        self.sent = self.total = self.sum = 0
        self.ended = False  # write_eof() was called: a write fails
        self.masked = False  # how much arrives is no promise any more
        self.reactions: dict[str, Block] = {}
        self.keep = False
        self.resuming = False
        self.fatal = False  # an exception closes the transport
        self.over = False  # connection_lost() has begun
        self.aborted = False  # asyncio still counts then what waited to be sent
        self.rush = False  # many datagrams are under way: closing one end would make errors of some of them

    async def open(self, kind: str, how: str, file: Any) -> None:
        raise NotImplementedError

    async def listen(self, kind: str, listener: socket.socket) -> asyncio.Server:
        raise NotImplementedError

    def note(self, *event: object) -> None:
        self.table.trace.note(self.actor, *event)

    def perform(self, op: Op) -> None:
        try:
            result = getattr(self, f"op_{op[0]}")(*op[1:])
        except Exception as exc:
            if op[0] == "raise":
                raise
            self.note(op[0], "raised", type(exc).__name__)
        else:
            if result is not None:
                self.note(op[0], result)

    def payload(self, n: int) -> bytes:
        """The next n bytes of what this end sends: no two stretches within a block are alike."""
        start, self.sent = self.sent % len(BLOCK), self.sent + n
        return (BLOCK * ((start + n) // len(BLOCK) + 1))[start : start + n]

    def got(self, data: bytes | bytearray) -> None:
        self.total += len(data)
        self.sum = zlib.crc32(data, self.sum)
        self.table.trace.activity += 1

    def kind_of(self, exc: BaseException) -> str:
        """With both directions busy, whether the read or the write finds out first is no promise."""
        return "ConnectionError" if self.bulk and isinstance(exc, ConnectionError) else type(exc).__name__

    def count(self) -> object:
        return "some" if self.masked else (self.total, self.sum)

    def loses(self) -> None:
        """What is buffered is about to be thrown away: how much of it the kernel had taken is no promise."""
        if self.transport is not None and self.transport_size():
            self.peer.masked = True

    def transport_size(self) -> int:
        return getattr(self.transport, "get_write_buffer_size", int)()

    def come(self) -> int:
        """How many bytes have come, whether the program has seen them or not."""
        return self.total

    def awaits(self) -> bool:
        """Whether bytes are on their way that the peer's loop has given to the kernel and this end is ready to read.

        TCP takes its time: with both directions full, a late window update delays ten bytes more than all looks last.
        """
        peer = self.peer
        for end in self, peer:
            if not end.stream or end.transport is None or end.transport.is_closing():
                return False
        if self.masked or peer.ended or not self.transport.is_reading():
            return False
        return self.come() < peer.sent - peer.transport_size()

    def snapshot(self, step: int | str) -> None:
        pass

    def finish(self) -> None:
        pass


def _reset(transport: Any) -> bool:
    """Whether a TCP connection is no more. asyncio's write_eof() then raises, goloop's closes with the error."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_INET or transport.is_closing():
        return False
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in (1, 8)  # established, close-wait


class _Wire(_End):
    """A transport driven by a protocol."""

    def kinds(self, kind: str, file: Any) -> None:
        self.stream = kind in ("unix", "tcp")
        self.reads = self.stream or (kind == "pipe" and file.readable())
        self.writes = self.stream or (kind == "pipe" and not file.readable())
        self.aborts = self.writes or not self.reads

    async def listen(self, kind: str, listener: socket.socket) -> asyncio.Server:
        self.kinds(kind, listener)
        serve = self.loop.create_server if kind == "tcp" else self.loop.create_unix_server
        return await serve(lambda: self.protocol(self.role), sock=listener)

    async def open(self, kind: str, how: str, file: Any) -> None:
        self.kinds(kind, file)
        protocol = self.protocol(self.role if kind not in ("datagram", "udp") else "datagram")
        if kind in ("datagram", "udp"):
            await self.loop.create_datagram_endpoint(lambda: protocol, sock=file)
        elif kind == "pipe":
            connect = self.loop.connect_read_pipe if self.reads else self.loop.connect_write_pipe
            await connect(lambda: protocol, file)
        elif how == "accepted":
            await self.loop.connect_accepted_socket(lambda: protocol, file)
        else:
            await self.loop.create_connection(lambda: protocol, sock=file)

    def protocol(self, kind: str) -> Any:
        return {"buffered": _Buffered, "datagram": _Datagrams}.get(kind, _Plain)(self)

    def event(self, name: str, *details: object) -> bool:
        self.note(name, *details)
        return self.react(name)

    def react(self, name: str) -> bool:
        self.keep, resuming, fatal = False, self.resuming, self.fatal
        self.fatal = name in ("data", "eof")
        self.resuming = resuming or name == "resume"  # asyncio's transports can close twice when they are closed there
        try:
            for op in self.reactions.pop(name, ()):
                self.perform(op)
        finally:
            self.resuming, self.fatal = resuming, fatal
        return self.keep

    def data(self, data: bytes | bytearray) -> None:
        self.got(data)
        self.react("data")

    def lost(self, exc: Exception | None) -> None:
        self.over = True
        if isinstance(exc, OSError) and self.bulk:
            self.masked = self.peer.masked = True  # a reset throws away what was under way
        self.event("lost", exc and self.kind_of(exc), self.count())

    def snapshot(self, step: int | str) -> None:
        self.rush = False
        t = self.transport
        if t is not None:
            state = [t.is_closing(), self.count(), type(t.get_protocol()).__name__]
            if self.stream:
                state.append(t.is_reading())
            if (not self.reads or self.writes) and t.get_protocol() is not None:
                state += ["full" if t.get_write_buffer_size() else "empty", t.get_write_buffer_limits()]
            self.note("at rest", step, *state)

    def gone(self) -> bool:
        """Some of asyncio's transports still send in connection_lost(), and fail at write() or abort() after it;
        pipes and datagrams fail as soon as it is scheduled."""
        t = self.transport
        if t is None or self.over:
            return True
        closed = t.is_closing() and (self.aborted or not self.transport_size())
        return not self.stream and (self.resuming or closed)

    def finish(self) -> None:
        self.reactions.clear()
        if not self.gone():
            self.loses()
            if self.aborts:
                self.transport.abort()
            else:
                self.transport.close()

    def op_write(self, n: int) -> None:
        if self.writes and not self.gone():
            self.transport.write(self.payload(n))

    def op_writelines(self, sizes: list[int]) -> None:
        # Released versions of asyncio fail at writelines() while something waits, or after close().
        if self.writes and not self.gone() and not self.transport.is_closing() and not self.transport_size():
            # From 3.12 on an empty piece stays in asyncio's buffer, and close() waits for it.
            self.transport.writelines([self.payload(n) for n in sizes if n])

    def op_pause(self) -> None:
        if self.reads and not self.gone():
            self.transport.pause_reading()

    def op_resume(self) -> None:
        if self.reads and not self.gone():
            self.transport.resume_reading()

    def op_eof(self) -> None:
        if self.writes and not self.gone() and not _reset(self.transport):
            self.ended = True
            self.transport.write_eof()

    def op_close(self) -> object:
        if not self.gone() and not self.rush and not (self.resuming and not self.transport_size()):
            self.transport.close()
            return self.transport.is_closing()
        return None

    def op_abort(self) -> object:
        if self.aborts and not self.gone() and not self.rush and not self.resuming:
            self.loses()
            self.aborted = True
            self.transport.abort()
            return self.transport.is_closing()
        return None

    def op_protocol(self, kind: str) -> None:
        if self.transport.get_protocol() is not None:
            self.transport.set_protocol(self.protocol(kind if self.stream else "protocol"))

    def op_limits(self, high: int | None, low: int | None) -> None:
        if self.aborts and not self.gone():
            self.transport.set_write_buffer_limits(high, low)

    def op_react(self, event: str, ops: Block) -> None:
        self.reactions[event] = ops

    def op_raise(self) -> None:
        if self.fatal:
            self.loses()  # now, and not in connection_lost(): what the peer sees may come before that, or after
        raise Oops

    def op_keep(self) -> None:
        self.keep = True

    def op_sendto(self, n: int, times: int) -> None:
        self.rush = self.peer.rush = times > 10 or self.rush
        for _ in range(times):
            # After close(), asyncio sends until connection_lost() and fails then; what waits goes first on any loop.
            if not self.gone():
                self.transport.sendto(self.payload(n))


class _Notes:
    def __init__(self, end: _Wire) -> None:
        self.end = end

    def connection_made(self, transport: Any) -> None:
        self.end.transport = transport
        self.end.event("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end.lost(exc)

    def pause_writing(self) -> None:
        self.end.event("pause")

    def resume_writing(self) -> None:
        self.end.event("resume")

    def eof_received(self) -> bool:
        return self.end.event("eof", self.end.count())


class _Plain(_Notes, asyncio.Protocol):
    def data_received(self, data: bytes | bytearray) -> None:
        self.end.data(data)


class _Buffered(_Notes, asyncio.BufferedProtocol):
    def __init__(self, end: _Wire) -> None:
        super().__init__(end)
        self.buffer = bytearray(1 << 16)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.end.data(self.buffer[:nbytes])


class _Datagrams(_Notes, asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes | bytearray, addr: object) -> None:
        self.end.got(data)
        # With flow control in the other direction, which event comes first is no promise.
        self.end.table.trace.note(f"{self.end.actor} datagrams", len(data), zlib.crc32(data))
        self.end.react("datagram")

    def error_received(self, exc: BaseException) -> None:
        self.end.event("error", type(exc).__name__)


class _Tasks(_End):
    """Ends whose operations wait: at most one at a time for each direction."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def spawn(self, name: str, wait: Callable[..., Awaitable[Any]], *args: Any) -> None:
        if name not in self.tasks or self.tasks[name].done():
            self.tasks[name] = self.loop.create_task(self.watch(name, wait, *args))

    async def watch(self, name: str, wait: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            result = await wait(*args)
        except (Exception, asyncio.CancelledError) as exc:
            self.done(name, "raised", self.kind_of(exc))
        else:
            if isinstance(result, bytes):
                self.got(result)
                result = "some" if self.masked else (len(result), zlib.crc32(result))
            self.done(name, result)

    def done(self, name: str, *outcome: object) -> None:
        """The two directions are independent, so each has events of its own."""
        self.table.trace.note(f"{self.actor} {name}", *outcome)

    def cancel(self) -> None:
        for task in self.tasks.values():
            task.cancel()

    def snapshot(self, step: int | str) -> None:
        self.note("at rest", step, self.count(), sorted(name for name, task in self.tasks.items() if not task.done()))

    def busy(self) -> bool:
        return any(not task.done() for task in self.tasks.values())


class _Stream(_Tasks):
    """asyncio's streams."""

    stream = True

    async def open(self, kind: str, how: str, file: Any) -> None:
        self.opened(*await asyncio.open_connection(sock=file, limit=1 << 16))

    async def listen(self, kind: str, listener: socket.socket) -> asyncio.Server:
        serve = asyncio.start_server if kind == "tcp" else asyncio.start_unix_server
        return await serve(self.opened, sock=listener, limit=1 << 16)

    def opened(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.transport = reader, writer, writer.transport
        self.fed, feed = len(reader._buffer), reader.feed_data

        def feed_data(data: bytes | bytearray) -> None:
            self.fed += len(data)
            feed(data)

        reader.feed_data = feed_data

    def snapshot(self, step: int | str) -> None:
        super().snapshot(step)
        self.note(self.transport.is_closing(), "full" if self.transport_size() else "empty")

    def finish(self) -> None:
        self.cancel()
        if self.transport.get_protocol() is not None:
            self.loses()
            self.transport.abort()

    def come(self) -> int:
        return self.fed

    def op_stream_write(self, n: int) -> None:
        if self.transport.get_protocol() is not None:  # asyncio fails later on
            self.writer.write(self.payload(n))

    def op_stream_drain(self) -> None:
        self.spawn("drain", self.writer.drain)

    def op_stream_read(self, n: int) -> None:
        # Of a stream that is longer than the reader's buffer, read() returns what there is.
        self.spawn("read", self.reader.readexactly if n > 0 and self.peer.bulk else self.reader.read, n)

    def op_stream_readline(self) -> None:
        if not self.peer.bulk:  # where it runs into the limit would depend on the chunks
            self.spawn("read", self.reader.readline)

    def op_stream_exactly(self, n: int) -> None:
        self.spawn("read", self.reader.readexactly, n)

    def op_stream_eof(self) -> None:
        if not _reset(self.transport):
            self.ended = True
            self.writer.write_eof()

    def op_stream_close(self) -> None:
        self.writer.close()

    def op_stream_wait_closed(self) -> None:
        self.spawn("wait_closed", self.writer.wait_closed)

    def op_stream_cancel(self) -> None:
        self.cancel()


class _Raw(_Tasks):
    """A non-blocking socket, or a pipe's descriptor."""

    async def open(self, kind: str, how: str, file: Any) -> None:
        self.kind, self.file = kind, file
        self.closed = self.shut = False
        self.crammed = False  # whether there is room to send is the kernel's matter

    def send(self, data: bytes | bytearray) -> int | str:
        try:
            return os.write(self.file.fileno(), data)
        except OSError as exc:
            return type(exc).__name__

    def drain(self) -> str:
        """Read what there is."""
        while True:
            try:
                data = os.read(self.file.fileno(), 1 << 16)
            except OSError as exc:
                return type(exc).__name__
            if not data and self.kind not in ("datagram", "udp"):
                return "end"
            self.got(data)

    def finish(self) -> None:
        self.cancel()

    def loses(self) -> None:
        pass

    def op_raw_send(self, n: int) -> int | str | None:
        if not self.closed and not self.busy():
            result = self.send(self.payload(n))
            return None if self.crammed else result
        return None

    def op_raw_drain(self) -> None:
        if not self.closed and not self.busy():
            self.spawn("drain", self.drain_all)

    async def drain_all(self) -> str:
        """Read until nothing comes any more."""
        calm = 0
        while calm < 3:
            before = self.total
            self.table.trace.activity += 1
            result = self.drain()
            if result != "BlockingIOError":
                return result
            calm = calm + 1 if self.total == before else 0
            await asyncio.sleep(REST)
        return "dry"

    def op_raw_shut(self) -> None:
        if not self.closed and self.kind in ("unix", "tcp"):
            self.file.shutdown(socket.SHUT_WR)

    def op_raw_close(self) -> None:
        if not self.closed and not self.busy() and not self.table.orders:
            self.closed = True
            self.file.close()

    def op_raw_recv(self, n: int) -> None:
        if not self.closed and self.kind in ("unix", "tcp"):
            self.spawn("recv", self.loop.sock_recv, self.file, min(n, 50) if self.bulk else n)

    def op_raw_recvfrom(self, n: int) -> None:
        if not self.closed:
            self.spawn("recv", self.received, n)

    async def received(self, n: int) -> bytes:
        return (await self.loop.sock_recvfrom(self.file, n))[0]

    def op_raw_sendall(self, n: int) -> None:
        if not self.closed and self.kind in ("unix", "tcp"):
            self.spawn("send", self.loop.sock_sendall, self.file, self.payload(n))

    def op_raw_cancel(self) -> None:
        if "send" in self.tasks and not self.tasks["send"].done():
            self.peer.masked = self.crammed = True
        self.cancel()

    def op_raw_thread(self, what: str, n: int) -> None:
        if self.closed or self.busy() or self.table.orders:
            return
        if what == "send":
            data = self.payload(n)
            self.table.orders.append(lambda: self.send(data))
        elif what == "drain":
            if self.bulk:
                return  # how much there is depends on the moment
            self.table.orders.append(self.drain)
        elif what == "shut":
            if self.kind in ("unix", "tcp"):
                self.table.orders.append(lambda: self.file.shutdown(socket.SHUT_WR))
        else:
            self.closed = True
            self.table.orders.append(self.file.close)
