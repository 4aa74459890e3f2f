"""Under pytest-asyncio: tests, fixtures and their clean-up run on a loop of goloop's."""

pytest_plugins = ["pytester"]

CONFTEST = """
    import goloop

    def pytest_asyncio_loop_factories(config, item):
        return {"goloop": goloop.new_event_loop}
"""

TESTS = """
    import asyncio
    import pytest
    import pytest_asyncio
    import goloop

    ended = []

    @pytest_asyncio.fixture
    async def echo():
        async def serve(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()
        ended.append(type(asyncio.get_running_loop()))

    @pytest.mark.asyncio
    async def test_echo(echo):
        assert type(asyncio.get_running_loop()) is goloop.Loop
        reader, writer = await asyncio.open_connection(*echo)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()

    def test_the_fixture_ended_on_the_loop():
        assert ended == [goloop.Loop]

    class TestOneLoopForAClass:
        loops = []

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.asyncio(loop_scope="class")
        async def test_loop(self, n):
            self.loops.append(asyncio.get_running_loop())
            assert self.loops == self.loops[:1] * (n + 1)

    @pytest.mark.asyncio
    async def test_a_failure_is_the_test_s():
        await asyncio.sleep(0)
        raise KeyError("on purpose")
"""


def test_tests_and_fixtures_run_on_goloop(pytester):
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "asyncio", "-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*KeyError: 'on purpose'"])
