"""The pytest plugin: its marker, its options, and other plugins beside it."""

import importlib.metadata

import pytest

pytest_plugins = ["pytester"]

# An installation from before the plugin was there has no entry point for it.
INSTALLED = any(point.name == "goloop" for point in importlib.metadata.entry_points(group="pytest11"))


@pytest.fixture
def outcomes(pytester):
    """Run a file of tests; returns its outcomes and its output."""

    def run(source, *arguments):
        pytester.makepyfile(source)
        plugin = () if INSTALLED else ("-p", "goloop.testing.pytest_plugin")
        quiet = ("-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")
        done = pytester.runpytest_subprocess(*plugin, *quiet, *arguments)
        return done.parseoutcomes(), done.stdout.str()

    return run


MARKED = """
    import asyncio, threading, time
    import pytest
    import goloop

    @pytest.mark.goloop
    def test_a_goroutine():
        assert goloop.current() is not None
        goloop.sleep(0)

    @pytest.mark.goloop
    async def test_a_coroutine():
        assert type(asyncio.get_running_loop()) is goloop.Loop
        await asyncio.sleep(0)

    @pytest.mark.goloop(bubble=True)
    def test_a_goroutine_in_a_bubble():
        goloop.sleep(3600)
        assert goloop.current() is not None

    @pytest.mark.goloop(bubble=True, start=100.0)
    async def test_a_coroutine_in_a_bubble():
        begun = time.monotonic()
        await asyncio.sleep(36000)
        assert time.monotonic() - begun < 300
        assert asyncio.get_running_loop()._wall_clock() == 36100

    @pytest.mark.goloop(bubble=True, seeds=20)
    class TestSeeds:
        runs = []

        @pytest.fixture
        def three(self):
            return 3

        async def test_one(self, three):
            self.runs.append(three)

        @pytest.mark.parametrize("n", [1, 2])
        def test_two(self, n):
            goloop.sleep(n)

        def test_the_number_of_runs(self):
            assert len(self.runs) == 21
            goloop.gosched()

    @pytest.mark.goloop(bubble=True)
    async def test_a_skip():
        pytest.skip("on purpose")

    @pytest.mark.goloop(bubble=True, seeds=3)
    @pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
    def test_a_failure():
        1 / 0

    def test_without_a_marker():
        assert goloop.current() is None
"""


def test_the_marker_says_how_a_test_runs(outcomes):
    found, text = outcomes(MARKED, "--strict-markers", "-W", "error")
    assert found == {"passed": 9, "skipped": 1, "xfailed": 1}, text


def test_it_runs_beside_xdist(outcomes):
    found, text = outcomes(MARKED.replace("test_the_number_of_runs", "no"), "-n", "2")
    assert found == {"passed": 8, "skipped": 1, "xfailed": 1}, text


RACE = """
    import pytest
    import goloop
    from goloop import sync

    @pytest.mark.goloop(bubble=True, seeds=200)
    def test_race():
        total, mutex = 0, sync.Mutex()

        def add():
            nonlocal total
            with mutex:
                seen = total
            with mutex:
                total = seen + 1

        for g in [goloop.go(add) for _ in range(2)]:
            g.join()
        assert total == 2
"""


def test_a_failing_schedule_prints_the_line_that_replays_it(outcomes):
    found, text = outcomes(RACE)
    assert found == {"failed": 1}
    (line,) = {line.partition("replay: ")[2] for line in text.splitlines() if "replay: " in line}
    seed = line.partition("--goloop-seed=")[2]
    found, again = outcomes(RACE, f"--goloop-seed={seed}")
    assert found == {"failed": 1} and "assert 1 == 2" in again
    found, _ = outcomes(RACE, "--goloop-seed=0:0")
    assert found == {"passed": 1}


def test_leaks_are_failures(outcomes):
    found, text = outcomes("""
        import asyncio
        import pytest
        import goloop

        kept = []

        @pytest.mark.goloop(leaks=True)
        def test_goroutine():
            kept.append(goloop.Chan())
            goloop.go(kept[-1].recv)

        @pytest.mark.goloop(leaks=True)
        async def test_task():
            kept.append(asyncio.create_task(asyncio.sleep(1000)))

        @pytest.mark.goloop(bubble=True, leaks=True)
        def test_goroutine_in_a_bubble():
            goloop.go(goloop.sleep, 10)

        @pytest.mark.goloop(bubble=True, leaks=True)
        async def test_task_in_a_bubble():
            kept.append(asyncio.create_task(asyncio.sleep(10)))

        @pytest.mark.goloop(bubble=True, leaks=True)
        def test_nothing():
            goloop.go(goloop.sleep, 10).join()
    """)
    assert found == {"passed": 1, "failed": 4}
    assert text.count("LeakError: 1 left behind") >= 4


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("goloop(True)", "the marker goloop is"),
        ("goloop(bubbles=True)", "the marker goloop is"),
        ("goloop(seeds=3)", "goes with bubble=True"),
        ("goloop(bubble=True, seeds=0)", "at least 1"),
    ],
)
def test_a_wrong_marker_is_an_error_of_use(pytester, marker, message):
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.{marker}
        def test_it():
            pass
    """)
    plugin = () if INSTALLED else ("-p", "goloop.testing.pytest_plugin")
    done = pytester.runpytest_subprocess(*plugin)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr.str()


def test_a_wrong_seed_is_an_error_of_use(pytester):
    plugin = () if INSTALLED else ("-p", "goloop.testing.pytest_plugin")
    done = pytester.runpytest_subprocess(*plugin, "--goloop-seed=later")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--goloop-seed: a seed is a number, or choices*"])


ASYNCIO = """
    import asyncio
    import pytest
    import pytest_asyncio
    import goloop

    @pytest_asyncio.fixture
    async def fixture():
        return type(asyncio.get_running_loop())

    @pytest.mark.asyncio
    async def test_plain(fixture):
        assert fixture is type(asyncio.get_running_loop()) is KIND

    @pytest.mark.asyncio
    @pytest.mark.goloop(bubble=True, seeds=5)
    async def test_in_a_bubble():
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(7200)
        assert loop.time() - begun == 7200

    @pytest.mark.asyncio
    @pytest.mark.goloop(leaks=True)
    async def test_leaks(fixture):
        assert type(asyncio.get_running_loop()) is KIND
        await asyncio.sleep(0)
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_tests_of_pytest_asyncio(outcomes, mode):
    found, text = outcomes(ASYNCIO.replace("KIND", "asyncio.SelectorEventLoop"), f"--asyncio-mode={mode}")
    assert found == {"passed": 3}, text
    found, text = outcomes(ASYNCIO.replace("KIND", "goloop.Loop"), f"--asyncio-mode={mode}", "--goloop")
    assert found == {"passed": 3}, text


def test_the_loop_factories_of_pytest_asyncio_take_bubbles(pytester, outcomes):
    pytester.makeconftest("""
        from goloop import testing

        def pytest_asyncio_loop_factories(config, item):
            return {"bubble": testing.event_loop}
    """)
    found, text = outcomes(
        """
        import asyncio
        import pytest
        import pytest_asyncio

        @pytest_asyncio.fixture
        async def ticker():
            ticks = []

            async def tick():
                while True:
                    await asyncio.sleep(60)
                    ticks.append(asyncio.get_running_loop().time())

            task = asyncio.create_task(tick())
            yield ticks
            task.cancel()

        @pytest.mark.asyncio
        async def test_it(ticker):
            await asyncio.sleep(200)
            assert ticker == [61, 121, 181]
        """
    )
    assert found == {"passed": 1}, text


ANYIO = """
    import asyncio
    import pytest
    import goloop

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.anyio
    async def test_plain():
        assert type(asyncio.get_running_loop()) is KIND

    @pytest.mark.anyio
    @pytest.mark.goloop(bubble=True)
    async def test_in_a_bubble():
        import anyio

        loop = asyncio.get_running_loop()
        with anyio.move_on_after(10):
            await anyio.sleep(7200)
        assert loop.time() == 11
"""


def test_tests_of_anyio(outcomes):
    pytest.importorskip("anyio", reason="anyio brings its plugin with it")
    found, text = outcomes(ANYIO.replace("KIND", "asyncio.SelectorEventLoop"))
    assert found == {"passed": 2}, text
    found, text = outcomes(ANYIO.replace("KIND", "goloop.Loop"), "--goloop")
    assert found == {"passed": 2}, text


def test_hypothesis_draws_the_schedule_and_shrinks_it(outcomes):
    source = """
        import asyncio
        import pytest
        import goloop
        from goloop import sync
        from hypothesis import given, settings, strategies as st

        @pytest.mark.goloop(bubble=True)
        @settings(database=None, derandomize=True, deadline=None)
        @given(n=st.integers(2, 3))
        def test_race(n):
            total, mutex = 0, sync.Mutex()

            def add():
                nonlocal total
                with mutex:
                    seen = total
                with mutex:
                    total = seen + 1

            for g in [goloop.go(add) for _ in range(n)]:
                g.join()
            assert total == n

        @pytest.mark.goloop(bubble=True)
        @settings(max_examples=10, deadline=None)
        @given(seconds=st.integers(1, 100))
        async def test_time(seconds):
            loop = asyncio.get_running_loop()
            await asyncio.sleep(seconds)
            assert loop.time() == 1 + seconds
    """
    found, text = outcomes(source)
    assert found == {"passed": 1, "failed": 1}, text
    assert "n=2" in text and "assert 1 == 2" in text
    seed = text.partition("--goloop-seed=")[2].split()[0]
    assert len(seed.split(",")) <= 4
    found, text = outcomes(source, f"--goloop-seed={seed}")
    assert found == {"passed": 1, "failed": 1}, text


def test_the_watch_reports_callbacks_that_keep_a_loop_waiting(outcomes):
    source = """
        import time
        import pytest

        @pytest.mark.goloop
        async def test_slow():
            time.sleep(0.3)
    """
    for arguments in ([], ["-n", "1"]):
        found, text = outcomes(source, "--goloop-watch", *arguments)
        assert found == {"passed": 1}
        assert "goloop: slow callbacks" in text and "test_slow" in text.partition("slow callbacks")[2]


def test_without_use_it_changes_nothing(outcomes):
    found, text = outcomes("""
        import asyncio
        import sys

        def test_asyncio_is_as_it_was():
            loop = asyncio.new_event_loop()
            assert type(loop).__module__.startswith("asyncio")
            loop.close()

        async def none():
            pass

        def test_no_thread_was_started():
            import threading

            assert not [t for t in threading.enumerate() if t.name.startswith("goloop")]
    """)
    assert found == {"passed": 2}, text
