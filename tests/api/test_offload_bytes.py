"""Every byte arrives, once and in order, whoever does the kernel work: the netpoller, the loop, or both in turns.

Two ends of a connection, both transports of one loop, go through phases that a seed decides: talk in both directions
with pauses, water marks and slow readers, sendfile, an upgrade to TLS, and an end by half closes, close or abort.
What an end sends is a function of its name and of the place in the stream, so a receiver checks each chunk at once.

OFFLOAD_SEEDS=1000:50 takes other seeds (the first one, and how many); a failure names its own.
"""

import asyncio
import os
import random
import socket

import pytest

import goloop
from tests.helpers.certificates import HOST, client_context, server_context
from tests.helpers.sockets import socket_pair
from tests.helpers.waiting import async_until

FIRST, COUNT = map(int, os.environ.get("OFFLOAD_SEEDS", "0:12").split(":"))


class _End:
    """One end of a connection; `peer` is the other."""

    def __init__(self, seed, name, rng):
        self.rng = rng
        self.block = random.Random(f"{seed} {name}").randbytes(65521)  # a prime, unlike all buffers
        self.sent = self.got = 0
        self.news = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.wrong = []  # what must not have happened
        self.eof = False
        self.over = False
        self.secure = self.aborted = False
        self.obliging = True  # pauses and resumes at will
        self.pauses = 0  # those that have not ended yet

    def take(self, n):
        """The next n bytes to send."""
        self.sent += n
        return self.at(self.sent - n, n)

    def at(self, start, n):
        start %= len(self.block)
        return (self.block * ((start + n) // len(self.block) + 1))[start : start + n]

    def check(self, data):
        if bytes(data) != self.peer.at(self.got, len(data)):
            self.wrong.append(f"other bytes in {len(data)} from {self.got} on")
        if self.eof or self.over:
            self.wrong.append("bytes after the end")
        self.got += len(data)
        self.news.set()
        if self.obliging and self.rng.random() < 0.03:
            self.pause()

    def pause(self):
        def resume():
            self.pauses -= 1
            if not self.aborted:  # asyncio's TLS transports fail then
                transport.resume_reading()

        self.pauses += 1
        transport = self.transport
        transport.pause_reading()
        asyncio.get_running_loop().call_later(self.rng.choice((0, 0, 0.001, 0.01)), resume)

    def abort(self):
        self.aborted = True
        self.transport.abort()

    async def until(self, met):
        while not met():
            self.news.clear()
            await self.news.wait()

    # ---------------------------------------------------------------- protocol
    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.room.clear()

    def resume_writing(self):
        self.room.set()

    def eof_received(self):
        self.eof = True  # again after resume_reading()
        self.news.set()
        return not self.secure

    def connection_lost(self, exc):
        if self.over:
            self.wrong.append("lost twice")
        self.over = self.aborted = True
        self.error = exc
        self.room.set()
        self.news.set()


class Plain(_End, asyncio.Protocol):
    def data_received(self, data):
        self.check(data)


class Buffered(_End, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self.buffer = memoryview(bytearray(self.rng.choice((100, 5000, 1 << 17))))
        return self.buffer

    def buffer_updated(self, nbytes):
        self.check(self.buffer[:nbytes])


class Connection:
    def __init__(self, loop, seed):
        self.loop, self.rng = loop, random.Random(seed)
        self.ends = [self.rng.choice((Plain, Buffered))(seed, name, self.rng) for name in "ab"]
        self.ends[0].peer, self.ends[1].peer = self.ends[1], self.ends[0]
        self.secure = False
        self.done = []  # for whoever has to find out what went wrong

    async def live(self):
        files = socket_pair("tcp", small=self.rng.random() < 0.3)
        for end, file in zip(self.ends, files, strict=True):
            file.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.create_connection(lambda end=end: end, sock=file)
        try:
            for _ in range(self.rng.randint(1, 4)):
                await self.phase(self.rng.choice((self.talk, self.talk, self.talk, self.sendfile, self.start_tls)))
            ends = (self.close, self.abort) if self.secure else (self.half_close, self.close, self.abort)
            await self.phase(self.rng.choice(ends))
        finally:
            for end in self.ends:
                end.abort()
        for end in self.ends:
            await end.until(lambda end=end: end.over)
            assert not end.wrong, end.wrong
        self.done.append("over")

    async def phase(self, act):
        self.done.append(act.__name__)
        await act()
        for end in self.ends:
            assert not end.wrong, end.wrong

    def amount(self):
        return int(2 ** self.rng.uniform(0, 20))

    async def send(self, end, amount):
        """Send so many bytes, sometimes with regard to flow control; writing may end early with the connection."""
        rng, until = self.rng, end.sent + amount
        while end.sent < until and not end.over:
            data = end.take(min(until - end.sent, int(2 ** rng.uniform(0, 17.5))))
            form = rng.randrange(4)
            if form == 0:
                cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(0, 5)))
                end.transport.writelines([data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)])
            else:
                end.transport.write((bytes, bytearray, memoryview)[form - 1](data))
            act = rng.random()
            if act < 0.5:
                await end.room.wait()
            elif act < 0.7:
                await asyncio.sleep(rng.choice((0, 0, 0.0005)))
            elif act < 0.75:
                end.transport.set_write_buffer_limits(rng.choice((1, 1000, 1 << 16, 1 << 20)))
            elif act < 0.8 and end.obliging:
                end.pause()

    async def arrived(self):
        for end in self.ends:
            await end.until(lambda end=end: end.got >= end.peer.sent or end.over)
            assert (end.got, end.over) == (end.peer.sent, False)

    async def talk(self):
        await asyncio.gather(*(self.send(end, self.amount()) for end in self.ends))
        if self.rng.random() < 0.7:
            await self.arrived()

    async def sendfile(self):
        """A file from one end, while the other one talks."""
        sender, other = self.rng.sample(self.ends, 2)
        sender.obliging = False  # the fallback pauses and resumes by itself
        await async_until(lambda: not sender.pauses)
        path = self.rng.choice(FILES)
        size = os.path.getsize(path)
        start = self.rng.randrange(size)
        count = self.rng.randint(1, size - start)
        with open(path, "rb") as file:
            file.seek(start)
            before, sender.sent = sender.sent, sender.sent + count
            sender.at = _spliced(sender.at, before, file.read(count))
            _, sent = await asyncio.gather(
                self.send(other, self.amount()), self.loop.sendfile(sender.transport, file, start, count)
            )
        assert sent == count
        sender.obliging = True
        await self.arrived()

    async def start_tls(self):
        """An upgrade wants both directions at rest; there is one at most."""
        if self.secure:
            return
        await self.arrived()
        for end in self.ends:
            end.obliging = False
        await async_until(lambda: not any(end.pauses for end in self.ends))
        client, server = self.rng.sample(self.ends, 2)
        client.transport, server.transport = await asyncio.gather(
            self.loop.start_tls(client.transport, client, client_context(), server_hostname=HOST),
            self.loop.start_tls(server.transport, server, server_context(), server_side=True),
        )
        for end in self.ends:
            end.obliging = end.secure = self.secure = True
            end.room.set()

    async def half_close(self):
        first, second = self.rng.sample(self.ends, 2)

        async def finish(end, amount):
            await self.send(end, amount)
            end.transport.write_eof()

        if self.rng.random() < 0.5:
            await asyncio.gather(finish(first, self.amount()), finish(second, self.amount()))
        else:
            await finish(first, self.amount())
            await second.until(lambda: second.eof)
            await finish(second, self.amount())
        for end in self.ends:
            await end.until(lambda end=end: end.eof or end.over)
            assert (end.got, end.over) == (end.peer.sent, False)

    async def close(self):
        """What was written before arrives; the other end sees the end of the stream behind it."""
        first, second = self.rng.sample(self.ends, 2)
        await self.arrived()
        await self.send(first, self.amount())
        first.transport.close()
        await second.until(lambda: second.eof or second.over)
        assert (second.got, second.eof) == (first.sent, True)
        second.transport.close()
        for end in self.ends:
            await end.until(lambda end=end: end.over)
            assert end.error is None

    async def abort(self):
        """What arrives is a beginning of what was sent, which check() sees to."""
        first = self.rng.choice(self.ends)
        sending = [asyncio.ensure_future(self.send(end, self.amount())) for end in self.ends]
        for _ in range(self.rng.randrange(20)):
            await asyncio.sleep(0)
        first.abort()
        await asyncio.gather(*sending)
        await first.until(lambda: first.over)
        await first.peer.until(lambda: first.peer.over or first.peer.eof)


def _spliced(at, place, data):
    """Like at(), but that those bytes stand in that place."""

    def spliced(start, n):
        before = at(start, n)
        first, last = max(start, place), min(start + n, place + len(data))
        if first >= last:
            return before
        return before[: first - start] + data[first - place : last - place] + before[last - start :]

    return spliced


FILES = [asyncio.base_events.__file__, __file__]


async def switch(loop, rng):
    """Have the streams offloaded, and take them back, at random moments."""
    while True:
        loop._use_io(rng.choice(("inline", "offload", "offload", "auto")))
        for _ in range(rng.choice((1, 2, 5, 20, 100))):
            await asyncio.sleep(0)
        await asyncio.sleep(rng.choice((0, 0, 0, 0.002)))


@pytest.mark.parametrize("mode", ["inline", "offload", "switching"])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_every_byte_arrives_in_order(monkeypatch, mode, seed):
    monkeypatch.setenv("GOLOOP_IO", "offload" if mode == "switching" else mode)

    async def scenario():
        loop = asyncio.get_running_loop()
        connections = [Connection(loop, seed * 10 + n) for n in range(3)]
        switching = mode == "switching" and asyncio.ensure_future(switch(loop, random.Random(seed)))
        tasks = [asyncio.ensure_future(each.live()) for each in connections]
        await asyncio.wait(tasks, timeout=30)
        stacks = [str(task.get_stack(limit=1)) for task in tasks]
        for task in tasks:
            task.cancel()  # that hangs
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if switching:
            switching.cancel()
        failed = [
            (repr(result), stack, each.done, [(end.sent, end.got, end.eof, end.over) for end in each.ends])
            for result, stack, each in zip(results, stacks, connections, strict=True)
            if result is not None
        ]
        assert not failed, f"OFFLOAD_SEEDS={seed}:1, {mode}: {failed}"
        return loop._stats()

    loop = goloop.new_event_loop()
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    try:
        stats = loop.run_until_complete(scenario())
    finally:
        loop.close()
    assert not reports, f"OFFLOAD_SEEDS={seed}:1, {mode}: {reports}"
    if mode != "switching":  # there, the moments may be such that nothing gets offloaded
        assert (stats["offloads"] > 0) == (mode == "offload")
