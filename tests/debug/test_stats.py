"""The numbers: stats() of the process and of a loop, and the line of GOLOOP_SCHEDTRACE."""

import asyncio
import contextlib
import json
import os
import re
import socket
import threading
import time

import pytest

import goloop
from goloop import debug
from goloop.core.net import net_handle
from goloop.debug import Histogram
from tests.helpers.scripts import run_script
from tests.helpers.waiting import async_until, until

EVERY = 251  # of so many callbacks one is timed


def stats_after(function, *args):
    """Run a coroutine function on a new loop, and return the loop's numbers afterwards."""
    with asyncio.Runner(loop_factory=goloop.new_event_loop) as runner:
        runner.run(function(*args))
        return runner.get_loop().stats()


# ----------------------------------------------------------------------------- histograms
def test_a_histogram_tells_count_mean_and_quantiles():
    histogram = Histogram((0.001, 0.002, 0.004), (90, 0, 9, 1), 0.5, 2.5)
    assert histogram.count == 100
    assert histogram.mean == 0.005
    assert [histogram.quantile(q) for q in (0, 0.5, 0.9, 0.91, 0.99, 1)] == [0.001, 0.001, 0.001, 0.004, 0.004, 2.5]
    assert Histogram((1.0,), (1, 0), 0.2, 0.2).quantile(0.5) == 0.2  # no more than the longest
    assert Histogram((1.0,), (0, 0), 0.0, 0.0).quantile(1) == Histogram((1.0,), (0, 0), 0.0, 0.0).mean == 0.0
    with pytest.raises(ValueError, match=r"a quantile is between 0 and 1, got 1\.5"):
        histogram.quantile(1.5)


def test_the_difference_of_two_histograms_is_what_came_between():
    earlier, later = Histogram((1.0,), (2, 1), 5.0, 3.0), Histogram((1.0,), (5, 1), 6.5, 3.0)
    assert later - earlier == Histogram((1.0,), (3, 0), 1.5, 3.0)
    with pytest.raises(TypeError):
        later - 1


# ----------------------------------------------------------------------------- loops
def test_a_loop_counts_iterations_and_callbacks_and_what_waits():
    async def main():
        loop = asyncio.get_running_loop()
        before = loop.stats()
        for _ in range(10):
            await asyncio.sleep(0)
        after = loop.stats()
        assert after.iterations - before.iterations == after.callbacks - before.callbacks == 10
        timer = loop.call_later(1000, print)
        loop.call_soon(int)
        loop.call_soon(int)
        here, there = socket.socketpair()
        loop.add_reader(here, int)
        now = loop.stats()
        assert (now.ready, now.timers) == (2, 1)
        assert now.descriptors == before.descriptors + 1
        assert now.thread == threading.current_thread().name
        assert not now.worker
        loop.remove_reader(here)
        here.close()
        there.close()
        timer.cancel()

    after = stats_after(main)
    assert after.thread is None and after.ready == 0 and after.behind == 0


def test_a_loop_tells_for_how_long_it_was_busy_and_asleep():
    async def main():
        await asyncio.sleep(0.1)
        time.sleep(0.05)

    after = stats_after(main)
    assert after.asleep >= 0.09
    assert after.busy >= 0.05
    assert after.sleeps >= 1
    assert after.lag.longest >= 0.05
    assert after.lag.count >= 2


def test_a_timer_that_is_late_shows_how_late():
    async def main():
        loop = asyncio.get_running_loop()
        fired = loop.create_future()
        loop.call_later(0.01, fired.set_result, None)
        time.sleep(0.06)
        await fired

    after = stats_after(main)
    assert after.timer_lag.count == 1
    assert 0.05 <= after.timer_lag.longest == pytest.approx(after.timer_lag.total)


def test_a_loop_that_is_stuck_falls_behind_and_its_numbers_are_read_elsewhere():
    release, stuck = threading.Event(), threading.Event()

    def blocks():
        stuck.set()
        assert release.wait(60)

    async def main():
        asyncio.get_running_loop().call_soon(blocks)
        await asyncio.sleep(0)

    thread = threading.Thread(target=goloop.run, args=(main(),), name="stuck one")
    thread.start()
    assert stuck.wait(60)
    try:
        (loop,) = (loop for loop in debug.stats().loops if loop.thread == "stuck one")
        until(lambda: next(s for s in debug.stats().loops if s.number == loop.number).behind > 0.05)
        now = next(s for s in debug.stats().loops if s.number == loop.number)
        assert now.busy >= 0.05
    finally:
        release.set()
        thread.join()
    assert loop.number not in [each.number for each in debug.stats().loops]  # it is closed


@pytest.mark.parametrize("io", ["inline", "offload"])
def test_bytes_and_accepts_are_counted_to_the_last_one(io, monkeypatch):
    monkeypatch.setenv("GOLOOP_IO", io)
    sizes = [1, 100, 70_000, 5]

    ended = []

    async def answer(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        ended.append(writer)

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*address)
            for size in sizes:
                writer.write(b"x" * size)
                await reader.readexactly(size)
            writer.writelines([b"ab", bytearray(b"cde"), b""])
            await reader.readexactly(5)
            writer.close()
            await writer.wait_closed()
        await async_until(lambda: len(ended) == 2)
        server.close()

    after = stats_after(main)
    each_way = 2 * (sum(sizes) + 5)
    assert (after.received, after.written, after.accepts) == (2 * each_way, 2 * each_way, 2)


def test_datagrams_and_pipes_are_counted_too():
    class Peer(asyncio.DatagramProtocol):
        def __init__(self):
            self.got = []

        def datagram_received(self, data, address):
            self.got.append(data)

    async def main():
        loop = asyncio.get_running_loop()
        receiver, peer = await loop.create_datagram_endpoint(Peer, ("127.0.0.1", 0))
        sender, _ = await loop.create_datagram_endpoint(Peer, remote_addr=receiver.get_extra_info("sockname"))
        sender.sendto(b"12345")
        await async_until(lambda: peer.got)
        sender.close()
        receiver.close()
        source, target = os.pipe()
        reader = asyncio.StreamReader()
        reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0)
        )
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(target, "wb", 0))
        writing.write(b"123")
        assert await reader.readexactly(3) == b"123"
        writing.close()
        reading.close()

    after = stats_after(main)
    assert (after.received, after.written) == (8, 8)


def test_the_time_of_a_coroutine_function_is_found_by_its_name():
    def burn(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    async def heavy():
        for _ in range(2 * EVERY):
            burn(0.0005)
            await asyncio.sleep(0)

    async def light():
        for _ in range(2 * EVERY):
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(heavy(), light())

    after = stats_after(main)
    by_name = {f.name.rpartition(".")[2]: f for f in after.functions}
    heavy_time = by_name["heavy"]
    assert after.functions[0] is heavy_time
    assert heavy_time.kind == "coroutine"
    assert heavy_time.file == __file__ and heavy_time.line == heavy.__code__.co_firstlineno
    assert heavy_time.calls == heavy_time.samples * EVERY
    assert sum(f.seconds for f in after.functions) <= after.busy * 1.0001
    assert after.callback_time.count == sum(f.calls for f in after.functions)


def test_one_callback_of_so_many_is_timed_and_stands_for_them():
    def callback():
        pass

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(10 * EVERY):
            loop.call_soon(callback)
        await asyncio.sleep(0)

    after = stats_after(main)
    (found,) = (f for f in after.functions if f.name.endswith("<locals>.callback"))
    assert 9 <= found.samples <= 10
    assert found.calls == found.samples * EVERY
    assert found.kind == "callback"


def test_a_method_a_partial_and_a_compiled_function_have_names(tmp_path):
    import functools

    class Service:
        def tick(self):
            pass

        def __call__(self):
            pass

    async def main():
        loop = asyncio.get_running_loop()
        queue = asyncio.Queue()
        for callback in (
            Service().tick,
            functools.partial(functools.partial(Service.tick), Service()),
            functools.partial(queue.put_nowait, 1),
            [].clear,
            int,
            Service(),
        ):
            loop.call_soon(callback)
        await asyncio.sleep(0)

    with debug.tracing(tmp_path / "t.json"):  # all are timed
        after = stats_after(main)
    names = {f.name.split("<locals>.")[-1]: f for f in after.functions if f.kind == "callback"}
    assert {"Service.tick", "Queue.put_nowait", "list", "int", "Service"} <= {
        name.rpartition(f"{__name__}.")[2] for name in names
    }
    assert names["Service.tick"].calls >= 2


def test_functions_beyond_a_thousand_share_an_entry(tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        for i in range(1500):
            loop.call_soon(eval(f"lambda: {i}"))
        await asyncio.sleep(0)

    with debug.tracing(tmp_path / "t.json"):
        after = stats_after(main)
    assert len(after.functions) == 1001
    assert {f.name: f for f in after.functions}["(others)"].calls >= 500


def test_numbers_are_json():
    async def main():
        return json.dumps(asyncio.get_running_loop().stats().to_dict()), json.dumps(debug.stats().to_dict())

    one, all_ = map(json.loads, goloop.run(main()))
    assert one["lag"]["counts"] and all_["loops"]


# ----------------------------------------------------------------------------- the process
def test_goroutines_are_counted_by_what_they_wait_for():
    channel = goloop.Chan()
    gate = goloop.sync.Event()
    before = debug.stats()
    started = [goloop.go(channel.recv) for _ in range(3)] + [goloop.go(gate.wait) for _ in range(2)]
    until(lambda: debug.stats().goroutines.get("chan receive") == 3)
    until(lambda: sum(debug.stats().goroutines.values()) == 5 and len(debug.stats().goroutines) == 2)
    now = debug.stats()
    assert now.started - before.started == 5
    assert 1 <= now.workers <= now.max_workers
    assert now.gomaxprocs == goloop.gomaxprocs()
    assert any(loop.worker for loop in now.loops)
    channel.close()
    gate.set()
    for g in started:
        with contextlib.suppress(goloop.ChannelClosed):
            g.join()
    assert debug.stats().goroutines == {}


def test_goroutines_that_no_worker_has_started_grow_old(monkeypatch):
    before = goloop.gomaxprocs(1)
    release = threading.Event()
    begun = threading.Event()

    def computes():  # it never parks, so the others wait
        begun.set()
        while not release.is_set():
            pass

    try:
        first = goloop.go(computes)
        assert begun.wait(60)
        others = [goloop.go(int) for _ in range(4)]
        until(lambda: debug.stats().backlog_age > 0.03)
        now = debug.stats()
        assert now.backlog == now.goroutines["not started"] == 4
    finally:
        release.set()
        goloop.gomaxprocs(before)
    for g in (first, *others):
        g.join()
    now = debug.stats()
    assert (now.backlog, now.backlog_age) == (0, 0.0)


def test_the_turns_of_goroutines_are_timed():
    def spins():
        for _ in range(3 * EVERY):
            goloop.gosched()

    async def main():
        await goloop.go(spins)
        return debug.stats()

    now = goloop.run(main())
    functions = [f for loop in now.loops if loop.worker for f in loop.functions]
    found = [f for f in functions if f.name.endswith("test_the_turns_of_goroutines_are_timed.<locals>.spins")]
    assert found and found[0].kind == "goroutine"
    assert found[0].calls >= 2 * EVERY


def test_connections_of_goloop_net_are_counted():
    before = debug.stats()
    assert net_handle.counts() == (before.received, before.written, before.accepts)

    def serve(listener):
        with listener.accept() as conn:
            conn.write(conn.read())

    def main():
        with goloop.net.listen("tcp", "127.0.0.1:0") as listener:
            server = goloop.go(serve, listener)
            with goloop.net.dial("tcp", listener.addr) as conn:
                conn.write(b"12345")
                assert conn.read_exactly(5) == b"12345"
            server.join()

    goloop.go(main).join()
    after = debug.stats()
    counts = after.received - before.received, after.written - before.written, after.accepts - before.accepts
    assert counts == (10, 10, 1)


def test_a_forked_child_has_none_of_its_parents_loops():
    async def main():
        child = os.fork()
        if child == 0:
            os._exit(0 if not debug.stats().loops else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), debug.stats().loops

    status, loops = goloop.run(main())
    assert status == 0 and loops


# ----------------------------------------------------------------------------- GOLOOP_SCHEDTRACE
LINE = re.compile(
    r"SCHED \d+ms: pid=\d+ gomaxprocs=\d+ workers=\d+/512 threads=\d+ goroutines=\d+ parked=\d+ runnable=\d+ "
    r"backlog=\d+/\d+ms handoffs=\d+(?: \[loop \d+ [^:\]]+: busy=\d+% callbacks=\d+ lag=[\d.e+-]+ms ready=\d+ "
    r"timers=\d+ fds=\d+\])*"
)


def test_schedtrace_prints_a_line_now_and_then_also_while_the_loop_is_stuck():
    status, output, errors = run_script(
        """
        import asyncio, time, goloop

        async def main():
            g = goloop.go(goloop.sleep, 0.2)
            time.sleep(0.3)
            await g

        goloop.run(main())
        """,
        GOLOOP_SCHEDTRACE="20",
    )
    assert status == 0, errors
    lines = [line for line in errors.splitlines() if line.startswith("SCHED ")]  # debug mode has its own
    assert len(lines) >= 5
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert any("goroutines=1 parked=1" in line for line in lines)
    lags = [float(lag) for line in lines for lag in re.findall(r"MainThread: busy=\d+% .*?lag=([\d.]+)ms", line)]
    assert max(lags) > 50


def test_schedtrace_ends_when_nobody_reads_and_refuses_nonsense():
    status, output, errors = run_script(
        """
        import os, threading, time, goloop
        os.close(2)
        while any(thread.name == "goloop-schedtrace" for thread in threading.enumerate()):
            time.sleep(0.001)
        """,
        GOLOOP_SCHEDTRACE="1",
    )
    assert status == 0
    status, _, errors = run_script("import goloop", GOLOOP_SCHEDTRACE="soon")
    assert status == 1 and "GOLOOP_SCHEDTRACE is a number of milliseconds, at least 1, not 'soon'" in errors
