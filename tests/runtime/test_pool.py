"""The worker pool: who starts what where, blocking calls, idle workers, limits, and what must not starve."""

import asyncio
import statistics
import threading
import time

import pytest

import goloop
from goloop import Chan, go
from goloop.core.sched import scheduler
from goloop.runtime import shutdown, workers
from goloop.testing import bubble
from tests.helpers.scripts import run_script
from tests.helpers.waiting import SECONDS, async_until, until


def thread_of_this():
    return threading.get_ident()


# ----------------------------------------------------------------------- placement
def test_one_worker_is_filled_first(one_worker):
    def main():
        gs = [go(thread_of_this) for _ in range(200)]
        return {g.result() for g in gs} == {thread_of_this()}

    assert go(main).result(timeout=10)


def test_a_started_goroutine_stays_on_its_thread():
    def body():
        threads = set()
        for i in range(30):
            threads.add(thread_of_this())
            goloop.gosched() if i % 2 else goloop.sleep(0.0005)
        return len(threads)

    assert [g.result(timeout=20) for g in [go(body) for _ in range(50)]] == [1] * 50


def test_sixty_blocking_calls_overlap_and_the_loop_goes_on():
    """Calls that nobody patched: none returns before all are under way and the main loop has seen that."""
    inside, go_on = [], threading.Event()

    def blocks():
        inside.append(thread_of_this())
        return go_on.wait(SECONDS)

    async def main():
        gs = [go(blocks) for _ in range(60)]
        await async_until(lambda: len(inside) == 60)
        go_on.set()
        return await asyncio.gather(*gs)

    assert goloop.run(main()) == [True] * 60
    assert len(set(inside)) == 60


def test_a_computing_goroutine_leaves_the_loop_its_turn():
    """It delays the loop by less than 100 ms, or, on a machine that has too much to do, as a plain thread does."""

    async def worst_delay(start):
        stop = False

        def computes():
            n = 0
            while not stop:
                n += 1

        running = start(computes)
        delays = []
        for _ in range(10):
            before = time.monotonic()
            await asyncio.sleep(0.001)
            delays.append(time.monotonic() - before - 0.001)
        stop = True
        await running
        return max(delays)

    async def main():
        loop, worst, of_thread = asyncio.get_running_loop(), [], []
        while len(worst) < 10 and min(worst, default=1) >= 0.1:
            worst.append(await worst_delay(go))
            of_thread.append(await worst_delay(lambda computes: loop.run_in_executor(None, computes)))
        return worst, of_thread

    worst, of_thread = goloop.run(main())
    assert min(worst) < 0.1 or statistics.median(worst) < 2 * statistics.median(of_thread), (worst, of_thread)


def test_blocking_brings_in_another_worker_without_the_monitor():
    def main():
        other = []
        with goloop.blocking():
            go(lambda: other.append(thread_of_this()))
            while not other:
                time.sleep(0.001)  # a call that blocks this thread
        return other[0] != thread_of_this()

    scheduler.stop_monitor()
    g = go(main)
    scheduler.stop_monitor()
    assert g.result(timeout=10)


def test_blocking_says_so_for_what_waits_already():
    def main():
        ran = []
        go(lambda: ran.append(thread_of_this()))
        with goloop.blocking():
            while not ran:
                time.sleep(0.001)
        return ran[0] != thread_of_this()

    assert go(main).result(timeout=10)


def test_parking_in_a_blocking_region_does_not_keep_the_worker_out(one_worker):
    def main():
        chan = Chan()

        def waits():
            with goloop.blocking():
                chan.recv()

        g = go(waits)
        goloop.gosched()
        threads = {go(thread_of_this).result() for _ in range(20)}
        chan.send(None)
        g.join()
        return threads == {thread_of_this()}

    assert go(main).result(timeout=10)


def test_blocking_outside_of_a_goroutine_does_nothing():
    before = workers.thread_count()
    with goloop.blocking(), goloop.blocking():
        assert workers.thread_count() == before
    assert workers.thread_count() == before


# --------------------------------------------------------------------- fairness
def test_goroutines_that_keep_each_other_busy_do_not_starve_new_ones(one_worker):
    def main():
        a, b, stop = Chan(), Chan(), []

        def ping():
            while not stop:
                a.send(1)
                b.recv()
            a.close()

        def pong():
            for v in a:
                b.send(v)

        gs = [go(ping), go(pong)]
        goloop.gosched()
        goloop.gosched()
        new = go(lambda: stop.append(thread_of_this()))
        for g in [*gs, new]:
            g.join()
        return stop == [thread_of_this()]

    assert go(main).result(timeout=20)


@pytest.mark.parametrize("busy", ["gosched", "channels"])
def test_timers_and_descriptors_do_not_starve(busy):
    def main():
        stop = []

        def yields():
            while not stop:
                goloop.gosched()

        a, b = Chan(), Chan()

        def ping():
            while not stop:
                a.send(1)
                b.recv()
            a.close()

        def pong():
            for v in a:
                b.send(v)

        gs = [go(yields), go(yields)] if busy == "gosched" else [go(ping), go(pong)]

        async def io():
            reader, writer = await asyncio.open_connection(sock=left)
            writer.write(b"x")
            writer.close()
            return True

        import socket

        left, right = socket.socketpair()
        goloop.sleep(0.01)
        assert goloop.wait(io())
        assert right.recv(1) == b"x"
        right.close()
        stop.append(True)
        for g in gs:
            g.join()

    go(main).join(timeout=30)


def test_a_crowd_made_ready_by_another_thread_shares_a_turn():
    """2000 goroutines readied at once from outside; a timer that is due in between is not the last thing to happen."""
    chan, out = Chan(), []

    def body():
        chan.recv()
        for _ in range(50):
            goloop.gosched()
        out.append(1)

    gs = [go(body) for _ in range(2000)]
    until(lambda: "2000 receiving" in repr(chan))

    def timer():
        goloop.sleep(0.001)
        return len(out)

    chan.close()
    seen = go(timer).result(timeout=30)
    for g in gs:
        with pytest.raises(goloop.ChannelClosed):
            g.result(timeout=30)
    assert seen < 2000


def test_thousands_with_random_yields():
    import random

    rng = random.Random(5)
    chan, done = Chan(10), Chan(10)

    def body(seed):
        mine = random.Random(seed)
        for _ in range(3):
            roll = mine.random()
            if roll < 0.5:
                goloop.gosched()
            elif roll < 0.6:
                goloop.sleep(mine.random() / 500)
            elif roll < 0.8:
                goloop.wait(asyncio.sleep(0))
            chan.send(seed)
            done.send(chan.recv())

    def main():
        gs = [go(body, rng.random()) for _ in range(3000)]
        got = sorted(done.recv() for _ in range(9000))
        for g in gs:
            g.join()
        return got

    got = go(main).result(timeout=100)
    assert len(got) == 9000 and len(set(got)) == 3000


# ------------------------------------------------------------- lock_os_thread
def test_lock_os_thread_keeps_others_away_until_the_end(one_worker):
    def locked():
        goloop.lock_os_thread()
        others = {go(thread_of_this).result() for _ in range(5)}
        return thread_of_this(), others

    me, others = go(locked).result(timeout=10)
    assert me not in others

    def after():
        return {go(thread_of_this).result() for _ in range(5)} == {thread_of_this()}

    assert go(after).result(timeout=10)  # no worker has stayed locked


def test_lock_os_thread_nests_and_unlocks_once(one_worker):
    def body():
        me = thread_of_this()
        with goloop.lock_os_thread(), goloop.lock_os_thread() as inner:
            inner.unlock()
            inner.unlock()
            locked = go(thread_of_this).result() != me
        return locked, any(go(thread_of_this).result() == me for _ in range(100))

    # While locked once more than unlocked others run elsewhere; after that they may run here again.
    assert go(body).result(timeout=10) == (True, True)
    with pytest.raises(RuntimeError, match="no goroutine"):
        goloop.lock_os_thread()


# ------------------------------------------------------------------- gomaxprocs
@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError)])
def test_bad_gomaxprocs(n, error):
    with pytest.raises(error, match="gomaxprocs"):
        goloop.gomaxprocs(n)


def test_gomaxprocs():
    before = goloop.gomaxprocs()
    assert goloop.gomaxprocs(3) == before
    assert goloop.gomaxprocs(before) == 3


# ------------------------------------------------------------- idle, and limits
def test_an_idle_worker_retires(monkeypatch):
    monkeypatch.setattr(workers, "IDLE", 0.02)
    assert go(int).result(timeout=10) == 0
    until(lambda: not workers._threads)
    assert not scheduler.all_workers()
    assert go(int).result(timeout=10) == 0  # and another one comes on demand


def test_a_worker_does_not_retire_under_what_goroutines_left_on_its_loop(monkeypatch):
    retire_if_idle, looks = workers._retire_if_idle, []

    def look(worker, rounds):
        retire_if_idle(worker, rounds)
        looks.append(worker)

    monkeypatch.setattr(workers, "IDLE", 0.02)
    monkeypatch.setattr(workers, "_retire_if_idle", look)

    async def serve():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            writer.close()

        return await asyncio.start_server(echo, "127.0.0.1", 0), asyncio.get_running_loop(), scheduler.this_worker()

    server, loop, worker = go(serve).result(timeout=10)
    until(lambda: looks.count(worker) == 5)

    async def client():
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"still here\n")
        answer = await reader.read()
        writer.close()
        return answer

    assert goloop.run(client()) == b"still here\n"
    loop.call_soon_threadsafe(server.close)


def test_going_and_coming_of_workers_loses_no_goroutine(monkeypatch):
    monkeypatch.setattr(workers, "IDLE", 0.0005)
    for i in range(150):
        assert go(divmod, i, 7).result(timeout=10) == divmod(i, 7)
        time.sleep((i % 5) * 0.0005)


def test_the_limit_of_threads():
    status, out, err = run_script(
        """
        import time, threading, goloop
        from goloop.runtime import shutdown, workers
        gs = [goloop.go(time.sleep, 0.05) for _ in range(12)]
        most = 0
        while not all(g.done() for g in gs):
            most = max(most, len(workers._threads))
            time.sleep(0.002)
        for g in gs:
            g.join()
        print(most)
        """,
        GOLOOP_MAXTHREADS="3",
    )
    assert (status, out) == (0, "3\n") and "GOLOOP_MAXTHREADS is reached: 3 threads" in err


@pytest.mark.parametrize("setting", ["0", "-1", "many", "3.0"])
def test_a_bad_limit_is_named(setting):
    status, _, err = run_script("import goloop", GOLOOP_MAXTHREADS=setting)
    assert status == 1 and f"GOLOOP_MAXTHREADS is a number of threads, at least 1, not {setting!r}" in err


def test_go_fails_when_no_worker_can_be_started(monkeypatch):
    def no_threads(self):
        raise RuntimeError("can't start new thread")

    shutdown.shutdown()
    ran = []
    monkeypatch.setattr(threading.Thread, "start", no_threads)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        go(ran.append, 1)
    monkeypatch.undo()
    assert go(int).result(timeout=10) == 0  # a later one is started, that one is not
    assert ran == [] and goloop.num_goroutine() == 0


def test_one_worker_is_enough_when_no_other_can_be_started(monkeypatch):
    def main():
        def no_threads(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", no_threads)
        with goloop.blocking():
            g = go(int)
        return g.result()

    monkeypatch.setattr(threading, "excepthook", lambda args: None)  # where the monitor complains, once
    assert go(main).result(timeout=10) == 0


# --------------------------------------------------------------------- sleeping
def test_sleep_and_gosched_everywhere():
    goloop.sleep(0.001)
    goloop.sleep(0)
    goloop.sleep(-1)
    goloop.gosched()

    def body():
        begun = time.monotonic()
        goloop.sleep(0.02)
        return time.monotonic() - begun

    assert go(body).result(timeout=10) >= 0.02

    async def main():
        with pytest.raises(RuntimeError, match=r"use await asyncio.sleep\(\)"):
            goloop.sleep(1)
        with pytest.raises(RuntimeError, match=r"use await asyncio.sleep\(0\)"):
            goloop.gosched()

    goloop.run(main())


@pytest.mark.parametrize(("wrong", "error"), [(None, TypeError), ("1", TypeError), (float("nan"), ValueError)])
def test_bad_sleeps(wrong, error):
    with pytest.raises(error):
        goloop.sleep(wrong)


def test_sleepers_wake_in_the_order_of_their_times():
    woken = []

    def body(n):
        goloop.sleep(n)
        woken.append(n)

    with bubble():
        for n in (3, 1, 2, 5, 4):
            go(body, n)
    assert woken == [1, 2, 3, 4, 5]


# ------------------------------------------------------------------------- wait
def test_wait():
    async def answer():
        await asyncio.sleep(0.001)
        return 42

    async def fails():
        await asyncio.sleep(0)
        raise KeyError("x")

    assert go(goloop.wait, answer()).result(timeout=10) == 42
    with pytest.raises(KeyError):
        go(goloop.wait, fails()).result(timeout=10)

    async def done():
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        return future

    def body():
        future = goloop.wait(done)
        return goloop.wait(future), goloop.wait(go(int)), goloop.wait(lambda: asyncio.gather(answer(), answer()))

    assert go(body).result(timeout=10) == (1, 0, [42, 42])


def test_wait_timeout_cancels_and_waits_for_the_cleanup():
    cleaned = []

    async def slow():
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(10)
            cleaned.append(asyncio.get_running_loop().time())

    with bubble(), pytest.raises(TimeoutError):
        goloop.wait(slow(), 20)
    assert cleaned == [1 + 20 + 10]


def test_cancelling_one_that_waits_cancels_what_it_waits_for_again_and_again():
    trace, started = [], Chan(1)

    async def stubborn():
        started.try_send(1)
        for i in range(3):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                trace.append(i)

    g = go(goloop.wait, stubborn())
    started.recv(timeout=10)
    until(lambda: not g.cancel())
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=0)
    assert trace == [0, 1, 2]


def test_wait_outside_of_a_goroutine_says_what_to_do():
    async def never():
        pass

    with pytest.raises(RuntimeError, match=r"call it with `await go\(f, ...\)`"):
        goloop.wait(never())

    async def main():
        with pytest.raises(RuntimeError, match="await it in a coroutine"):
            goloop.wait(never())

    goloop.run(main())
    go(main).result(timeout=10)


def test_wait_runs_an_awaitable_on_the_loop_that_it_belongs_to():
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        queue, answers, lock = asyncio.Queue(), asyncio.Queue(), asyncio.Lock()

        async def critical():
            async with lock:
                seen.append(asyncio.get_running_loop() is loop)

        def body():
            assert goloop.wait(queue.get(), loop=loop) == "first"
            goloop.wait(critical(), loop=loop)
            goloop.wait(answers.put("second"), 10, loop=loop)
            future = loop.create_future()
            loop.call_soon_threadsafe(future.set_result, "a future")
            return goloop.wait(future, loop=loop)

        g = go(body)
        queue.put_nowait("first")
        assert await answers.get() == "second"
        return await g

    assert goloop.run(main()) == "a future" and seen == [True]
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main()) == "a future"


def test_wait_on_another_loop_raises_times_out_and_is_cancelled_as_on_the_worker_s():
    trace, begun = [], []

    async def fails():
        raise KeyError("there")

    async def cleans():
        try:
            begun.append(True)
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.005)
            trace.append("cleaned up")

    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(KeyError, match="there"):
            await go(goloop.wait, fails(), loop=loop)
        with pytest.raises(TimeoutError, match="wait: timed out"):
            await go(goloop.wait, cleans(), 0.02, loop=loop)
        before = len(begun)  # it may be that there was no time to begin
        assert trace == ["cleaned up"] * before
        g = go(goloop.wait, cleans(), loop=loop)
        await async_until(lambda: g.state == "wait" and len(begun) > before)
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            await g
        assert trace == ["cleaned up"] * len(begun)

    goloop.run(main())


@pytest.mark.parametrize("make", [goloop.new_event_loop, asyncio.SelectorEventLoop])
def test_wait_on_a_loop_that_was_closed_meanwhile_can_be_cancelled(make):
    loop = make()
    began = goloop.Chan(1)

    async def never():
        began.try_send(None)
        await loop.create_future()

    runs = threading.Thread(target=loop.run_forever, daemon=True)
    runs.start()
    until(loop.is_running)
    g = go(goloop.wait, never(), loop=loop)
    began.recv(timeout=20)
    (task,) = asyncio.all_tasks(loop)
    task._log_destroy_pending = False
    loop.call_soon_threadsafe(loop.stop)
    runs.join()
    loop.close()
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(20)


def test_wait_on_a_loop_that_does_not_run_is_an_error():
    loop = goloop.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="needs a loop that runs, and this one does not: <Loop"):
            go(lambda: goloop.wait(asyncio.sleep(0), loop=loop)).result(10)
    finally:
        loop.close()


class Session:
    """As aiohttp's: it belongs to a loop, and what its methods return is awaited."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()

    async def _request(self):
        return "answer"

    def get(self):
        return Request(self._request())


class Request:
    def __init__(self, coroutine):
        self._coro = coroutine

    def __await__(self):
        return self._coro.__await__()

    def close(self):
        self._coro.close()


def test_in_debug_mode_an_object_of_another_loop_is_an_error_that_names_both():
    async def main():
        loop = asyncio.get_running_loop()
        queue, session = asyncio.Queue(), Session()
        waits = asyncio.create_task(queue.get())  # from here on it belongs to this loop
        await asyncio.sleep(0)
        queue.put_nowait(1)
        await waits
        queue.put_nowait(2)
        for make in (queue.get, session._request):
            with pytest.raises(RuntimeError, match=r"belongs to a different loop, <Loop .*, than the worker's, <Loop"):
                await go(lambda make=make: goloop.wait(make()))
        request = session.get()
        with pytest.raises(RuntimeError, match=r"use wait\(..., loop=...\)"):
            await go(goloop.wait, request)
        request.close()
        assert await go(lambda: goloop.wait(queue.get(), loop=loop)) == 2
        assert await go(lambda: goloop.wait(session.get(), loop=loop)) == "answer"

    goloop.run(main(), debug=True)
