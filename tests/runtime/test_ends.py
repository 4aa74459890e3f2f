"""Ends: of the process, of a loop, of the pool; forks; and exceptions that nobody asks for."""

import asyncio
import gc
import logging
import os
import threading

import pytest

import goloop
from goloop import Chan, go
from goloop.runtime import shutdown, workers
from tests.helpers.scripts import run_script


# -------------------------------------------------------------------- the process
def test_at_exit_goroutines_are_cancelled_and_clean_up():
    status, out, err = run_script(
        """
        import asyncio, goloop
        def parked():
            try:
                goloop.Chan().recv()
            finally:
                goloop.sleep(0.01)
                print("goroutine cleaned")
        async def sleeping():
            try:
                begun.append(True)
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0.01)
                print("coroutine cleaned")
        begun = []
        a, b = goloop.go(parked), goloop.go(sleeping)
        while a.state != "chan receive" or not begun:
            goloop.gosched()
        print("main ends")
        """
    )
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "main ends"
    assert sorted(out.splitlines()[1:]) == ["coroutine cleaned", "goroutine cleaned"]


def test_at_exit_what_has_not_started_does_not_start():
    status, out, err = run_script(
        """
        import goloop, os
        goloop.gomaxprocs(1)
        def busy():
            while not late.cancelled():
                pass
            print("busy ends")
        late = None
        def main():
            global late
            late = goloop.go(print, "started late")
            busy()
        goloop.go(main)
        while late is None:
            pass
        """
    )
    assert (status, out, err) == (0, "busy ends\n", "")


@pytest.mark.parametrize("stuck", ["time.sleep(1000)", "forever()", "while True: pass"])
def test_at_exit_one_that_does_not_end_is_reported_and_left(stuck):
    status, out, err = run_script(
        f"""
        import goloop, time
        from goloop.runtime import shutdown, workers
        shutdown.shutdown.__defaults__ = (0.3,)
        def forever():
            while True:
                try:
                    goloop.Chan().recv()
                except BaseException:
                    pass
        begun = []
        def main():
            begun.append(True)
            {stuck}
        g = goloop.go(main)
        while not begun:
            time.sleep(0.001)
        print("main ends")
        """
    )
    assert (status, out) == (0, "main ends\n")
    assert "shutdown: goroutine did not end" in err and "main" in err


def test_go_after_the_pool_was_shut_down():
    assert go(int).result(timeout=10) == 0
    shutdown.shutdown()
    assert not workers._threads
    assert go(int).result(timeout=10) == 0
    shutdown.shutdown()
    shutdown.shutdown()


def test_shutdown_in_a_goroutine_is_refused():
    with pytest.raises(RuntimeError, match="cannot shut down the pool"):
        go(shutdown.shutdown).result(timeout=10)


def test_whoever_waits_for_a_goroutine_that_is_left_behind_is_told(caplog):
    release = Chan()

    def stubborn():
        while True:
            try:
                return release.recv()
            except asyncio.CancelledError:
                pass

    g = go(stubborn)
    while g.state != "chan receive":
        goloop.gosched()
    with caplog.at_level(logging.CRITICAL):
        shutdown.shutdown(timeout=0.2)
    while not g.done():
        goloop.sleep(0.001)
    with pytest.raises(RuntimeError, match="left behind"):
        g.result(timeout=10)
    assert not release.try_send("lost")  # it does not count as a receiver any more


# ------------------------------------------------------------------------- a loop
def test_closing_a_loop_ends_what_was_started_from_it_and_nothing_else():
    cleaned = []

    def body():
        try:
            Chan().recv()
        finally:
            cleaned.append(goloop.current().id)

    other = go(Chan().recv)

    async def main():
        direct = go(body)
        indirect = await go(go, body)
        while direct.state != "chan receive" or indirect.state != "chan receive":
            await asyncio.sleep(0.001)
        return direct, indirect

    direct, indirect = goloop.run(main())
    assert direct.cancelled() and indirect.cancelled()
    assert sorted(cleaned) == [direct.id, indirect.id]
    assert not other.done()
    other.cancel()


def test_a_system_exit_in_a_coroutine_ends_neither_its_worker_nor_others():
    waits = go(Chan().recv)

    async def exits():
        raise SystemExit(3)

    for _ in range(3):
        with pytest.raises(SystemExit):
            go(exits).result(timeout=10)
    assert go(int).result(timeout=10) == 0
    assert not waits.done()
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        waits.result(timeout=10)


# ------------------------------------------------------------------------- forks
def in_child(function):
    """Fork; return what function() returned there, a str, and the child's exit status."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = function()
        except BaseException as exc:
            answer = repr(exc)
        os.write(writable, answer.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as file:
        answer = file.read()
    return answer, os.waitpid(pid, 0)[1]


FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@FORKS
def test_a_child_has_a_pool_of_its_own():
    chan = Chan()
    g = go(chan.recv)
    while g.state != "chan receive":
        goloop.gosched()

    def child():
        assert goloop.num_goroutine() == 0
        assert not chan.try_send(1)  # the receiver is in the parent
        for ask in (g.result, g.join):
            with pytest.raises(RuntimeError, match="belongs to the parent process"):
                ask(timeout=1)
        assert not g.cancel()
        return str(go(sum, [1, 2]).result(timeout=10))

    assert in_child(child) == ("3", 0)
    chan.send("v")
    assert g.result(timeout=10) == "v"


@FORKS
def test_a_fork_in_a_goroutine():
    """In the child its code goes on as a plain thread's."""

    def child():
        assert goloop.current() is None
        goloop.sleep(0.001)
        with pytest.raises(TimeoutError):
            Chan().recv(timeout=0.01)
        return str(go(sum, [1, 2]).result(timeout=10))

    def body():
        others = [go(ran.append, 1) for _ in range(3)]
        answer = in_child(child)
        for g in others:
            g.join()
        return answer

    ran = []
    assert go(body).result(timeout=30) == ("3", 0)
    assert ran == [1, 1, 1]


def test_a_child_whose_goroutine_returns_ends_without_running_the_others():
    status, out, err = run_script(
        """
        import os, sys, warnings, goloop
        warnings.simplefilter("ignore")
        def forks(other):
            pid = os.fork()
            if pid == 0:
                print("child", goloop.go(divmod, 7, 2).result(timeout=10))
                return
            print("parent", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        def main():
            other = [goloop.go(lambda: (goloop.gosched(), print("other"))) for _ in range(3)]
            goloop.gosched()
            forks(other)
            for g in other:
                g.join()
        goloop.go(main).result(timeout=30)
        """
    )
    assert (status, err) == (0, "")
    assert sorted(out.splitlines()) == ["child (3, 1)", "other", "other", "other", "parent 0"]


def test_a_fork_after_the_goroutines_is_one_of_a_single_thread():
    status, out, err = run_script(
        """
        import os, goloop, time, warnings
        from goloop.runtime import workers
        warnings.simplefilter("error")
        workers.IDLE = 0.01
        goloop.go(int).join()
        while workers._threads:
            goloop.sleep(0.001)
        while len(os.listdir("/proc/self/task")) > 2:  # this thread and the monitor's, which ends before a fork
            time.sleep(0.001)
        pid = os.fork()
        if pid == 0:
            os._exit(goloop.go(int, "7").result(timeout=10))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert (status, out, err) == (0, "7\n", "")


# ----------------------------------------------------- exceptions nobody asks for
def test_an_unobserved_exception_goes_to_the_loop_with_the_creators_stack():
    async def main():
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        loop.set_exception_handler(lambda loop, context: told.set_result(context))

        def creates():
            go(lambda: 1 / 0)

        creates()
        return await told

    context = goloop.run(main())
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"] == "Goroutine exception was never retrieved"
    assert [frame.name for frame in context["source_traceback"]][-2:] == ["main", "creates"]


@pytest.mark.parametrize("ask", ["result", "exception", "await"])
def test_an_observed_exception_is_nobody_elses(ask, caplog):
    async def waits(g):
        await g

    def main():
        g = go(lambda: 1 / 0)
        try:
            g.result() if ask != "await" else goloop.wait(waits(g))
        except ZeroDivisionError:
            pass
        g.exception()

    go(main).join(timeout=10)
    gc.collect()
    assert caplog.records == []


def test_an_unobserved_exception_of_a_plain_program_is_logged():
    status, out, err = run_script(
        """
        import goloop, gc
        def bad():
            raise KeyError("nobody asked")
        def creator():
            goloop.go(bad)
        creator()
        while goloop.num_goroutine():
            goloop.sleep(0.001)
        gc.collect()
        """
    )
    assert (status, out) == (0, "")
    assert "Goroutine exception was never retrieved" in err and "KeyError: 'nobody asked'" in err
    assert "<Goroutine 1 bad [done]>" in err and "in creator" in err


def test_an_exception_that_is_still_held_at_exit_is_reported_too():
    status, out, err = run_script(
        """
        import goloop
        def bad():
            raise KeyError("held")
        g = goloop.go(bad)
        while not g.done():
            goloop.gosched()
        """
    )
    assert (status, out) == (1, "")
    assert "Goroutine exception was never retrieved" in err and "KeyError: 'held'" in err
    assert 'raise KeyError("held")' in err or "in bad" in err


@pytest.mark.parametrize(("ends", "status"), [("pass", 1), ("sys.exit(0)", 1), ("sys.exit(3)", 3), ("1 / 0", 1)])
def test_an_exception_that_is_held_makes_the_exit_status_nonzero_and_loses_no_other(ends, status):
    assert run_script(
        f"""
            import atexit, sys, goloop
            atexit.register(print, "the other functions at exit run")
            g = goloop.go(int, "x")
            while not g.done():
                goloop.gosched()
            {ends}
            """
    )[:2] == (status, "the other functions at exit run\n")


def test_a_forked_child_leaves_the_report_to_its_parent():
    status, out, err = run_script(
        """
        import os, sys, warnings, goloop
        warnings.simplefilter("ignore")
        g = goloop.go(int, "x")
        while not g.done():
            goloop.gosched()
        pid = os.fork()
        if pid:
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert (status, out) == (1, "0\n")
    assert err.count("Goroutine exception was never retrieved") == 1


def test_an_exception_that_was_asked_for_leaves_the_exit_status_alone():
    status, out, err = run_script(
        """
        import goloop
        g = goloop.go(int, "x")
        try:
            g.result()
        except ValueError as exc:
            held = exc
        cancelled = goloop.go(goloop.Chan().recv)
        cancelled.cancel()
        """
    )
    assert (status, out, err) == (0, "", "")


def test_a_cancellation_is_no_failure(caplog):
    g = go(Chan().recv)
    while g.state != "chan receive":
        goloop.gosched()
    g.cancel()
    while not g.done():
        goloop.gosched()
    del g
    gc.collect()
    assert caplog.records == []


def test_a_failing_done_callback_is_reported(caplog):
    g = go(int)
    g.join(timeout=10)
    with pytest.raises(ZeroDivisionError):
        g.add_done_callback(lambda g: 1 / 0)  # at once: the caller's own
    chan = Chan()
    g = go(chan.recv)
    g.add_done_callback(lambda g: 1 / 0)
    chan.send(1)
    g.join(timeout=10)
    while not caplog.records:
        goloop.sleep(0.001)
    assert "Exception in a goroutine's done callback" in caplog.text


def test_panic():
    status, out, err = run_script(
        """
        import goloop
        def waits():
            goloop.Chan().recv()
        def bad():
            raise KeyError("unheard")
        g = goloop.go(waits)
        while g.state != "chan receive":
            goloop.gosched()
        print("out", flush=False)
        goloop.go(bad)
        goloop.sleep(30)
        """,
        GOLOOP_PANIC="crash",
    )
    assert (status, out) == (2, "out\n")
    assert err.startswith("panic: ") and "KeyError: 'unheard'" in err
    assert "created at" in err and "waits [chan receive]" in err


def test_panic_comes_at_once_also_while_the_handle_is_held():
    status, out, err = run_script(
        """
        import goloop, time
        def bad():
            raise KeyError("unheard")
        g = goloop.go(bad)
        time.sleep(30)
        print("too late")
        """,
        GOLOOP_PANIC="crash",
    )
    assert (status, out) == (2, "")
    assert err.startswith("panic: ") and "KeyError: 'unheard'" in err and "in bad" in err


def test_an_exception_that_somebody_waits_for_is_no_panic():
    status, out, err = run_script(
        """
        import asyncio, goloop
        from goloop import errgroup
        def bad(chan):
            chan.recv()
            raise KeyError("heard")
        def waits(g):
            try:
                g.result()
            except KeyError:
                return "goroutine"
        async def main():
            chan = goloop.Chan()
            g = goloop.go(bad, chan)
            task = asyncio.create_task(g._join())
            await asyncio.sleep(0)
            await chan.async_send(1)
            try:
                await task
            except KeyError:
                print("coroutine")
        chan = goloop.Chan()
        g = goloop.go(bad, chan)
        w = goloop.go(waits, g)
        while w.state != "goroutine join":
            goloop.gosched()
        chan.send(1)
        print(w.result())
        goloop.run(main())
        group = errgroup.Group()
        group.go(bad, chan)
        chan.send(1)
        try:
            group.wait()
        except KeyError:
            print("group")
        """,
        GOLOOP_PANIC="crash",
    )
    assert (status, out, err) == (0, "goroutine\ncoroutine\ngroup\n", "")


# --------------------------------------------------------------------- the wait at exit
STUCK = """
    import goloop, time
    def stuck():
        time.sleep(1000)
    async def main():
        global g
        g = goloop.go(stuck)
        while g.state == "not started":
            time.sleep(0.001)
    {run}
    """


def test_the_wait_at_exit_names_the_goroutines_and_the_time_that_is_left():
    status, out, err = run_script(
        STUCK.format(run="import asyncio; asyncio.run(main())"), GOLOOP_SHUTDOWN_TIMEOUT="1.5"
    )
    assert (status, out) == (0, "")
    assert "shutdown waits for cancelled goroutines, 0." in err and "s more at most:" in err
    assert "stuck [running]" in err and "in stuck" in err
    assert err.count("did not end in 1.5 s after its cancellation") == 1


def test_exit_does_not_wait_again_for_goroutines_that_the_close_of_a_loop_has_waited_for():
    status, out, err = run_script(STUCK.format(run="goloop.run(main())"), GOLOOP_SHUTDOWN_TIMEOUT="1.2")
    assert (status, out) == (0, "")
    assert err.count("waits for cancelled goroutines") == err.count("did not end in 1.2 s") == 1
    assert "closing <Loop" in err and "shutdown" not in err


@pytest.mark.parametrize("setting", ["-1", "x", "nan", "inf"])
def test_a_patience_that_is_none_is_refused(setting):
    status, out, err = run_script("import goloop", GOLOOP_SHUTDOWN_TIMEOUT=setting)
    assert status == 1 and "GOLOOP_SHUTDOWN_TIMEOUT is a number of seconds, at least 0" in err


def test_an_end_at_which_no_thread_can_be_started_any_more_makes_no_noise():
    """From Python 3.12 on: while the other threads are waited for, goroutines go on, on the workers that there are."""
    status, out, err = run_script(
        """
        import threading, time, goloop
        goloop.gomaxprocs(2)
        over = threading.Event()
        def blocks():
            time.sleep(0.05)  # long enough for the monitor to want another worker
        def starts():
            while threading.main_thread().is_alive():
                time.sleep(0.001)
            for g in [goloop.go(blocks) for _ in range(10)]:
                g.join()
            over.set()
        gs = [goloop.go(blocks) for _ in range(4)]
        threading.Thread(target=over.wait).start()
        goloop.go(starts)
        """
    )
    assert (status, out, err) == (0, "", "")


def test_shutdown_waits_for_a_worker_that_is_being_started(monkeypatch):
    making, go_on = threading.Event(), threading.Event()

    def slowly(**options):
        making.set()
        assert go_on.wait(10)
        return goloop.Loop(**options)

    monkeypatch.setattr(workers, "Loop", slowly)
    starter = threading.Thread(target=workers.start_worker)
    starter.start()
    assert making.wait(10)
    ender = threading.Thread(target=shutdown.shutdown)
    ender.start()
    ender.join(0.1)
    waits = ender.is_alive()
    go_on.set()
    starter.join(10)
    ender.join(10)
    assert waits and not ender.is_alive() and workers.thread_count() == 0
