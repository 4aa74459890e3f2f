"""Streams whose kernel work the netpoller does (GOLOOP_IO), and the switch that decides when it should.

That they behave as others do is what the rest of tests/ shows when it runs with GOLOOP_IO=offload.
"""

import asyncio
import gc
import os
import socket
import struct
import warnings

import pytest

import goloop
from goloop.core.loop.offload_policy import OffloadPolicy
from goloop.core.poll import pollset
from tests.helpers.certificates import HOST, client_context, server_context
from tests.helpers.recorders import BufferedRecorder, Recorder, connected
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import settle

SECOND = 1_000_000_000


@pytest.fixture
def run(monkeypatch):
    """Run a scenario on a loop that offloads whatever it can."""
    monkeypatch.setenv("GOLOOP_IO", "offload")

    def run(scenario):
        loop = goloop.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(scenario(loop), 60))
        finally:
            loop.close()

    return run


async def offloaded(loop, n):
    """Wait until that many streams are offloaded."""
    while loop._stats()["offloaded"] != n:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("mode", ["on", " inline", "1"])
def test_another_mode_is_a_value_error(monkeypatch, mode):
    monkeypatch.setenv("GOLOOP_IO", mode)
    with pytest.raises(ValueError, match="GOLOOP_IO must be one of inline, offload, auto"):
        goloop.new_event_loop()


def test_inline_leaves_streams_alone(monkeypatch):
    monkeypatch.setenv("GOLOOP_IO", "inline")
    loop = goloop.new_event_loop()

    async def scenario():
        async with connected(loop, Recorder()) as (transport, peer):
            peer.send(b"x")
            await transport.get_protocol().until(1)
            return loop._stats()["offloads"]

    try:
        assert loop.run_until_complete(scenario()) == 0
    finally:
        loop.close()


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_the_netpoller_receives_and_sends(run, kind):
    before = pollset.stats()

    async def scenario(loop):
        async with connected(loop, kind()) as (transport, peer):
            await offloaded(loop, 1)
            peer.send(b"question")
            await transport.get_protocol().until(8)
            transport.write(b"ans")
            transport.writelines([b"w", bytearray(b"e"), b"r"])
            answer = await receive(peer, 6)
            return transport.get_protocol().data, answer, transport.get_write_buffer_size()

    assert run(scenario) == (b"question", b"answer", 0)
    after = pollset.stats()
    assert after["received"] - before["received"] == 8 and after["sent"] - before["sent"] == 6
    assert after["offloaded"] == 0


def test_tls_shakes_hands_and_ends_without_the_netpoller(run):
    async def scenario(loop):
        async def echo(reader, writer):
            writers.append(writer)
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        writers, counts = [], []
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context())
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(), server_hostname=HOST)
        for n in range(100):
            writer.write(b"%02d" % n)
            assert await reader.readexactly(2) == b"%02d" % n
            if n == 2:
                counts.append(loop._stats()["offloads"])
        await offloaded(loop, 2)
        writer.close()
        counts.append(loop._stats()["offloaded"])
        writers[0].close()
        counts.append(loop._stats()["offloaded"])
        await writer.wait_closed()
        await writers[0].wait_closed()
        server.close()
        return counts

    assert run(scenario) == [0, 1, 0]


def test_a_use_that_is_not_reading_or_writing_takes_the_stream_back(run):
    async def scenario(loop):
        seen = []
        for act in ("pause_reading", "write_eof", "close", "abort", "_make_empty_waiter"):
            async with connected(loop, Recorder()) as (transport, peer):
                await offloaded(loop, 1)
                transport.write(b"before")
                getattr(transport, act)()
                seen.append((act, loop._stats()["offloaded"], await receive(peer, 6)))
                if act == "_make_empty_waiter":
                    transport._reset_empty_waiter()
        return seen

    assert {outcome[1:] for outcome in run(scenario)} == {(0, b"before")}


def test_data_received_before_a_pause_comes_after_it_in_order(run):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, peer):
            await offloaded(loop, 1)
            peer.send(b"one ")
            while pollset.stats()["received"] == received:
                pass  # the loop does not see it yet
            transport.pause_reading()
            peer.send(b"two")
            await settle()
            paused = transport.get_protocol().data
            transport.resume_reading()
            await transport.get_protocol().until(7)
            return paused, transport.get_protocol().data

    received = pollset.stats()["received"]
    assert run(scenario) == (b"", b"one two")


def test_a_callback_may_wait_for_the_answer_to_what_it_wrote(run):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, peer):
            await offloaded(loop, 1)
            peer.setblocking(True)
            transport.write(b"at once")
            return peer.recv(7)

    assert run(scenario) == b"at once"


def test_a_loop_that_does_not_read_pushes_back(run):
    async def scenario(loop):
        async with connected(loop, Recorder(), small=True) as (transport, peer):
            await offloaded(loop, 1)
            sent = 0
            try:
                while sent < 1 << 26:
                    sent += peer.send(bytes(1 << 14))  # the loop stands still meanwhile
            except BlockingIOError:
                pass
            await transport.get_protocol().until(sent)
            return sent < 1 << 26, transport.get_protocol().data == bytes(sent)

    assert run(scenario) == (True, True)


def test_a_peer_that_does_not_read_pauses_the_writer_and_gets_everything(run):
    payload = os.urandom(1 << 20)

    async def scenario(loop):
        async with connected(loop, Recorder(), small=True) as (transport, peer):
            await offloaded(loop, 1)
            for at in range(0, len(payload), 1000):
                transport.write(payload[at : at + 1000])
            paused = "pause" in transport.get_protocol().names()
            got = await receive(peer, len(payload))
            await transport.get_protocol().until("resume")
            return paused, got == payload

    assert run(scenario) == (True, True)


def test_a_close_with_something_unread_resets_the_peer(run):
    async def scenario(loop):
        recorder = Recorder()
        async with connected(loop, recorder) as (transport, peer):
            await offloaded(loop, 1)
            peer.send(b"never read")
            while pollset.stats()["received"] == received:
                pass
            transport.close()
            await recorder.until("lost")
            with pytest.raises(ConnectionResetError):
                await receive(peer)

    received = pollset.stats()["received"]
    run(scenario)


def test_a_reset_ends_the_connection_with_its_error(run):
    async def scenario(loop):
        recorder = Recorder()
        async with connected(loop, recorder) as (_, peer):
            await offloaded(loop, 1)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await recorder.until("lost")
            return recorder.events[-1], loop._stats()["offloaded"]

    assert run(scenario) == (("lost", "ConnectionResetError"), 0)


def test_a_loop_that_closes_leaves_nothing_unsent(run):
    peers = []

    async def scenario(loop):
        ours, peer = socket_pair("tcp")
        peers.append(peer)
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        await offloaded(loop, 1)
        transport.write(b"last words")
        return transport

    transport = run(scenario)
    with peers[0] as peer:
        peer.setblocking(True)
        assert peer.recv(10) == b"last words"
        assert pollset.stats()["offloaded"] == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the test left it open
            del transport
            gc.collect()


def test_after_a_fork_the_parent_goes_on_and_the_child_sends_nothing(run):
    async def scenario(loop):
        async with connected(loop, Recorder()) as (transport, peer):
            await offloaded(loop, 1)
            transport.write(b"1")
            if (pid := os.fork()) == 0:
                os._exit(pollset.stats()["offloaded"])
            status = await loop.run_in_executor(None, os.waitpid, pid, 0)
            transport.write(b"2")
            peer.send(b"3")
            await transport.get_protocol().until(1)
            await settle()
            return status[1], await receive(peer, 2), transport.get_protocol().data

    assert run(scenario) == (0, b"12", b"3")


# The switch


class Windows:
    """An OffloadPolicy in mode auto, and a clock."""

    def __init__(self, monkeypatch):
        monkeypatch.setenv("GOLOOP_IO", "auto")
        self.switch, self.now = OffloadPolicy(), 0

    def __call__(self, n=1, *, turns=1000, slept=0.0, spare=1.0, kernel=0.3, price=None):
        """Let n windows go by; say whether streams are offloaded then. price: seconds of processor time a turn."""
        for _ in range(n):
            self.now += SECOND // 10
            cpu = price * turns if price else 0.0
            on = self.switch.decide(self.now, 0.1, turns, slept, spare, kernel, cpu)
        return on


@pytest.fixture
def windows(monkeypatch):
    return Windows(monkeypatch)


@pytest.mark.parametrize(
    "load",
    [{"slept": 0.3}, {"turns": 3}, {"spare": 0.1, "kernel": 0}, {"spare": 0.3, "kernel": 0.6}],
    ids=["rests", "computes", "contended", "outdone"],
)
def test_stays_inline_where_it_cannot_help(windows, load):
    assert not windows(100, **load)


def test_stays_offloaded_when_more_gets_done(windows):
    assert not windows()
    assert windows(turns=1000)
    assert windows(50, turns=1200)


def test_stays_offloaded_when_the_loop_has_rest_then(windows):
    assert windows(2, turns=1000)
    assert windows(50, turns=1000, slept=0.3)


def test_goes_back_at_once_when_less_gets_done_and_the_loop_waits_for_it(windows):
    assert windows(2, turns=1000)
    assert windows(turns=600, slept=0.7)
    assert not windows(turns=600, slept=0.7)


def test_goes_back_when_a_little_less_gets_done(windows):
    assert windows(2, turns=1000)
    assert windows(3, turns=950, slept=0.7)
    assert not windows(turns=950, slept=0.7)


def test_goes_back_when_it_does_not_help_and_waits_longer_each_time(windows):
    waits = []
    for _ in range(8):
        n = 0
        while not windows():
            n += 1
        waits.append(n)
        while windows():
            pass
    assert waits[1:] == sorted(waits[1:]) and waits[2] >= 1.5 * waits[1]
    assert waits[-1] <= 610


def test_goes_back_when_the_load_is_gone(windows):
    assert windows(2, turns=1000)
    assert windows(4, turns=1300)
    assert not windows(4, turns=100, slept=0.9)


def test_goes_back_when_it_costs_more_than_it_brings(windows):
    assert windows(2, turns=1000, price=1e-4)
    assert windows(3, turns=1100, price=1.2e-4)
    assert not windows(turns=1100, price=1.2e-4)


def test_stays_offloaded_for_a_price_that_is_worth_it(windows):
    assert windows(2, turns=1000, price=1e-4)
    assert windows(50, turns=1300, price=1.1e-4)


def test_goes_back_when_the_machine_becomes_busy_and_offloading_dear(windows):
    assert windows(2, turns=1000, price=1e-4)
    assert windows(10, turns=1300, price=1e-4)
    assert windows(2, turns=900, price=1.3e-4)
    assert not windows(turns=900, price=1.3e-4)


def test_looks_again_after_ten_seconds(windows):
    assert windows(2, turns=1000)
    assert windows(50, turns=1300)
    on = [True]
    for _ in range(100):
        on.append(windows(turns=1300 if on[-1] else 1000))
    assert False in on and on.count(False) < 5
