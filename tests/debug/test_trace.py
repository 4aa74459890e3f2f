"""Traces of tasks, goroutines and loops: what is in the file, checked against the format."""

import asyncio
import gc
import os
import threading
import time
import weakref

import pytest

import goloop
from goloop import debug
from tests.debug.trace_format import Document, run_slices, waits
from tests.helpers.waiting import until


@pytest.fixture(autouse=True)
def no_trace_is_left():
    yield
    assert not debug.is_tracing()


def named(lanes, name):
    """The one lane whose name begins so."""
    found = [slices for lane, slices in lanes.items() if lane.startswith(name)]
    assert len(found) == 1, f"{name} among {list(lanes)}"
    return found[0]


def trace_of(path, function, *args):
    """Trace a coroutine function on a new loop."""
    with debug.tracing(path):
        goloop.run(function(*args))
    return Document(path)


def test_tasks_have_lanes_with_their_runs_and_what_they_waited_for(tmp_path):
    async def consumer(queue):
        for _ in range(3):
            await queue.get()

    async def main():
        queue = asyncio.Queue()
        task = asyncio.create_task(consumer(queue))
        for i in range(3):
            await asyncio.sleep(0.001)
            queue.put_nowait(i)
        await task

    lanes = trace_of(tmp_path / "t.json", main).tasks()
    lane = named(lanes, "test_tasks_have_lanes_with_their_runs_and_what_they_waited_for.<locals>.consumer")
    assert len(list(run_slices(lane))) == 4
    assert [name for name in waits(lane) if name != "runnable"] == ["Queue.get"] * 3
    main_waits = waits(named(lanes, "test_tasks_have_lanes_with_their_runs_and_what_they_waited_for.<locals>.main"))
    assert main_waits.count("sleep") == 3
    assert all(each["args"]["kind"] == "coroutine" and "test_trace.py" in each["args"]["file"]
               for each in run_slices(lane))  # fmt: skip


def test_an_arrow_goes_from_what_woke_a_task_to_it(tmp_path):
    async def waiter(event):
        await event.wait()

    async def main():
        event = asyncio.Event()
        task = asyncio.create_task(waiter(event))
        await asyncio.sleep(0)
        event.set()
        await task

    document = trace_of(tmp_path / "t.json", main)
    arrows = [(document.names[s["pid"], s["tid"]], document.names[f["pid"], f["tid"]]) for s, f in document.flows]
    from_main_to_waiter = [
        (source, target) for source, target in arrows if "<locals>.main" in source and "<locals>.waiter" in target
    ]
    assert len(from_main_to_waiter) == 2  # its start, and the event
    assert any("<locals>.waiter" in source and "<locals>.main" in target for source, target in arrows)  # its end


def test_goroutines_have_lanes_and_their_waits_reasons(tmp_path):
    def worker(channel):
        for i in range(2):
            goloop.sleep(0.001)
            channel.send(i)
        channel.close()

    async def main():
        channel = goloop.Chan()
        g = goloop.go(worker, channel)
        assert [value async for value in channel] == [0, 1]
        await g

    document = trace_of(tmp_path / "t.json", main)
    lane = named(document.goroutines(), "test_goroutines_have_lanes_and_their_waits_reasons.<locals>.worker")
    assert waits(lane).count("sleep") == 2
    assert all(each["args"]["kind"] == "goroutine" for each in run_slices(lane))
    targets = {document.names[f["pid"], f["tid"]] for _, f in document.flows}
    assert any("<locals>.worker #" in name for name in targets)
    threads = document.threads()
    assert any(name.startswith("goloop-worker-") for name in threads)


def test_the_lane_of_a_loops_thread_shows_callbacks_sleeps_and_collections(tmp_path):
    def callback():
        gc.collect()

    async def main():
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0.01)

    lane = named(trace_of(tmp_path / "t.json", main).threads(), "MainThread: loop")
    names = [each["name"] for each in lane]
    assert any(name.endswith("<locals>.callback") for name in names)
    assert {"asleep", "garbage collection"} <= set(names)
    (ran,) = (each for each in lane if each["name"].endswith("<locals>.callback"))
    collections = [each for each in lane if each["name"] == "garbage collection" and each["args"]["generation"] == 2]
    assert any(ran["ts"] <= each["ts"] <= ran["ts"] + ran["dur"] for each in collections)


def test_a_connection_has_the_name_of_its_protocol(tmp_path):
    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    async def main():
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await writer.wait_closed()
        server.close()

    lane = named(trace_of(tmp_path / "t.json", main).threads(), "MainThread: loop")
    transports = {each["name"] for each in lane if each["args"].get("kind") == "transport"}
    assert any(name.endswith("<locals>.Echo") for name in transports)


def test_a_thread_that_wakes_a_loop_has_an_arrow_to_the_callback(tmp_path):
    def elsewhere(loop, event):
        loop.call_soon_threadsafe(event.set)

    async def main():
        event = asyncio.Event()
        thread = threading.Thread(target=elsewhere, args=(asyncio.get_running_loop(), event), name="elsewhere")
        thread.start()
        await event.wait()
        thread.join()

    document = trace_of(tmp_path / "t.json", main)
    sources = [(s, f) for s, f in document.flows if s["name"] == "wake-up" and s["pid"] == os.getpid()]
    here = threading.main_thread().native_id
    assert any(s["tid"] != here and f["tid"] == here for s, f in sources)


def test_a_loop_that_has_slept_long_is_woken_by_the_netpoller(tmp_path):
    async def main():
        here, there = await asyncio.open_connection(sock=None, host="127.0.0.1", port=port)
        assert await here.read(1) == b"x"
        there.close()
        await there.wait_closed()

    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer_late():
            conn, _ = listener.accept()
            with conn:
                time.sleep(0.4)  # longer than a loop sleeps in its own poll set
                conn.sendall(b"x")

        thread = threading.Thread(target=answer_late)
        thread.start()
        document = trace_of(tmp_path / "t.json", main)
        thread.join()
    assert any(each["name"] == "netpoll" for slices in document.threads().values() for each in slices)


def test_a_span_is_as_long_as_its_block_whatever_runs_meanwhile(tmp_path):
    async def handler(name):
        with debug.span(name):
            await asyncio.sleep(0.02)

    def in_goroutine():
        with debug.span("goroutine's"):
            goloop.sleep(0.02)

    async def main():
        with debug.span('outer "quoted"'):
            await asyncio.gather(handler("first"), handler("second"))
        await goloop.go(in_goroutine)

    document = trace_of(tmp_path / "t.json", main)
    spans = {name: (length, begin) for name, length, begin in document.spans}
    assert set(spans) == {"first", "second", 'outer "quoted"', "goroutine's"}
    assert all(length >= 20_000 for length, _ in spans.values())
    assert "<locals>.handler" in document.names[spans["first"][1]["pid"], spans["first"][1]["tid"]]
    assert "<locals>.in_goroutine" in document.names[spans["goroutine's"][1]["pid"], spans["goroutine's"][1]["tid"]]


def test_a_span_ends_with_an_exception_and_costs_nothing_without_a_trace(tmp_path):
    with debug.tracing(tmp_path / "t.json"):
        with pytest.raises(ZeroDivisionError), debug.span("fails"):
            _ = 1 / 0
        begun = debug.span("goes on")
        begun.__enter__()
    begun.__exit__(None, None, None)  # after the trace
    with debug.span("not seen"):
        pass
    assert [name for name, _, _ in Document(tmp_path / "t.json").spans] == ["fails", "goes on"]
    with pytest.raises(TypeError, match="name of a span is a str, got 3"):
        debug.span(3)


def test_tasks_that_the_program_has_named_keep_their_names(tmp_path):
    async def work():
        await asyncio.sleep(0)

    async def main():
        await asyncio.create_task(work(), name='request "7"')

    assert 'request "7"' in trace_of(tmp_path / "t.json", main).tasks()


def test_two_tasks_at_one_address_have_two_lanes(tmp_path):
    async def one():
        await asyncio.sleep(0)

    async def main():
        for _ in range(50):
            await asyncio.create_task(one())

    lanes = trace_of(tmp_path / "t.json", main).tasks()
    ones = [slices for name, slices in lanes.items() if ".<locals>.one #" in name]
    assert len(ones) == 50
    assert all(len(list(run_slices(lane))) == 2 for lane in ones)


def test_the_newest_events_are_kept_and_the_file_is_still_valid(tmp_path):
    async def spin(n):
        for _ in range(n):
            await asyncio.sleep(0)

    with debug.tracing(tmp_path / "t.json", events=1024) as tracing:
        goloop.run(spin(5000))
        goloop.run(spin(10))
    assert tracing.trace.events == 1024
    assert tracing.trace.dropped >= 10_000 - 1024
    document = Document(tmp_path / "t.json")
    assert document.top["otherData"]["dropped"] == tracing.trace.dropped
    lanes = document.tasks()
    assert max(len(slices) for slices in lanes.values()) > 300
    assert min(len(list(run_slices(slices))) for name, slices in lanes.items() if "spin" in name) == 11  # the last one


def test_a_callback_that_is_stuck_when_the_trace_ends_is_in_it(tmp_path):
    release = threading.Event()
    stuck = threading.Event()

    def blocks():
        stuck.set()
        assert release.wait(60)

    async def main():
        asyncio.get_running_loop().call_soon(blocks)
        await asyncio.sleep(0)

    debug.start_trace()
    thread = threading.Thread(target=goloop.run, args=(main(),), name="stuck one")
    thread.start()
    assert stuck.wait(60)
    made = debug.stop_trace(tmp_path / "t.json")
    release.set()
    thread.join()
    assert made.events > 0
    lane = named(Document(tmp_path / "t.json").threads(), "stuck one: loop")
    (unfinished,) = (each for each in lane if each["args"].get("unfinished"))
    assert unfinished["name"].endswith("<locals>.blocks")


def test_a_trace_keeps_no_task_alive(tmp_path):
    async def work():
        await asyncio.sleep(0)

    async def main():
        task = asyncio.create_task(work())
        await task
        alive = weakref.ref(task)
        del task
        await asyncio.sleep(0)
        gc.collect()
        return alive()

    with debug.tracing(tmp_path / "t.json"):
        assert goloop.run(main()) is None


def test_handing_off_a_loop_is_in_the_trace(tmp_path):
    async def blocks():
        time.sleep(0.3)

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        while not task.done():
            await asyncio.sleep(0.01)
        return loop.stats().handoffs

    with debug.tracing(tmp_path / "t.json"):
        handoffs = goloop.run(main(), handoff=True)
    assert handoffs >= 1
    document = Document(tmp_path / "t.json")
    names = [event["name"] for event in document.of("i")]
    assert names.count("handoff") == names.count("handback") == handoffs
    assert any(name.startswith("goloop-substitute-") for name in document.threads())


def test_a_callback_whose_attributes_raise_is_traced_all_the_same(tmp_path):
    asked = []

    class Odd:
        def __getattribute__(self, name):
            asked.append(name)
            raise AssertionError(name)

        def __call__(self):
            pass

    loop = goloop.new_event_loop()
    with debug.tracing(tmp_path / "t.json"):
        loop.call_soon(Odd())
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    assert asked == []
    lane = named(Document(tmp_path / "t.json").threads(), "MainThread: loop")
    assert any(each["name"].endswith("<locals>.Odd") for each in lane)


def test_a_trace_is_on_and_off_while_loops_and_workers_run(tmp_path):
    stop = threading.Event()

    async def busy():
        while not stop.is_set():
            await asyncio.sleep(0)

    def busy_goroutine():
        while not stop.is_set():
            goloop.gosched()

    threads = [threading.Thread(target=goloop.run, args=(busy(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    goroutines = [goloop.go(busy_goroutine) for _ in range(3)]
    until(lambda: all(g.state != "not started" for g in goroutines))
    for i in range(5):
        debug.start_trace(events=4096)
        until(lambda: len(debug.stats().loops) >= 3)
        time.sleep(0.01)
        debug.stop_trace(tmp_path / f"{i}.json")
    stop.set()
    for thread in threads:
        thread.join()
    for g in goroutines:
        g.join()
    for i in range(5):
        document = Document(tmp_path / f"{i}.json")
        assert [name for name in document.tasks() if "busy" in name], i
