"""The watch of workers as the environment sets it, in programs of their own."""

from tests.helpers.scripts import run_script


def test_the_environment_has_workers_watched_without_any_loop():
    status, out, err = run_script(
        """
        import goloop, goloop.debug, time
        from goloop.core.sched import scheduler
        scheduler.start_monitor()
        goloop.gomaxprocs(1)
        def computes():
            until = time.monotonic() + 30
            while time.monotonic() < until and not seen:
                pass
        seen = []
        @goloop.debug.on_slow
        def hook(report):
            seen.append(report)
        gs = [goloop.go(computes), goloop.go(int)]
        for g in gs:
            g.join()
        print(seen[0].callback)
        """,
        GOLOOP_WATCH="1",
    )
    assert (status, out) == (0, "computes\n")
    assert "computes since" in err and "others wait behind it" in err


def test_that_there_are_no_more_threads_is_said_once():
    status, out, err = run_script(
        """
        import goloop, time
        gs = [goloop.go(time.sleep, 0.2) for _ in range(8)]
        for g in gs:
            g.join()
        """,
        GOLOOP_MAXTHREADS="2",
    )
    assert (status, out) == (0, "")
    assert err.count("GOLOOP_MAXTHREADS is reached: 2 threads") == 1
