"""Libraries that take the running loop, and test runners that are told which one to make."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

import loops
import pytest
from commands import APPS, HERE, Command


# -------------------------------------------------------------------------- grpc
def test_grpc(run):
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install grpcio")

    async def upper(request, context):
        await asyncio.sleep(0.001)
        if request == b"bad":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "on purpose")
        return request.upper() + f" {loops.class_name()}".encode()

    async def count(request, context):
        for number in range(int(request)):
            await asyncio.sleep(0)
            yield str(number).encode()

    async def total(requests, context):
        return str(sum([int(request) async for request in requests])).encode()

    async def main():
        methods = {
            "Upper": grpc.unary_unary_rpc_method_handler(upper),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "Total": grpc.stream_unary_rpc_method_handler(total),
        }
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", methods)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test/Upper")
            answers = await asyncio.gather(*(call(b"n%d" % number) for number in range(100)))
            assert answers == [f"N{number} {loops.CLASS}".encode() for number in range(100)]
            with pytest.raises(grpc.aio.AioRpcError, match="on purpose"):
                await call(b"bad")
            stream = channel.unary_stream("/test/Count")(b"50")
            assert [int(item) async for item in stream] == list(range(50))
            numbers = (b"%d" % number for number in range(50))
            assert int(await channel.stream_unary("/test/Total")(numbers)) == sum(range(50))
        await server.stop(None)

    run(main())


# ----------------------------------------------------------------------- Twisted
def test_twisted(run, tmp_path):
    pytest.importorskip("twisted", reason="Twisted is not installed: pip install twisted")

    async def main(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for line in (b"one", b"two" * 1000):
            writer.write(line + b"\r\n")
            assert await reader.readline() == line[::-1] + b"\r\n"
        writer.write(b"end\r\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    with Command([sys.executable, "-X", "faulthandler", str(APPS / "twisted_app.py")], tmp_path) as program:
        ((cls, port),) = program.wait_for(r"on (\S+), port (\d+)\n")
        assert cls == loops.CLASS
        run(main(int(port)))
        assert program.end() == 0
        assert program.wait_for(r"ended after (\d+) lines") == ["3"]
        assert "Traceback" not in program.output()


# -------------------------------------------------------------------- SQLAlchemy
@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg", "psycopg"])
def test_sqlalchemy(run, request, tmp_path, driver):
    pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install sqlalchemy")
    pytest.importorskip(driver, reason=f"{driver} is not installed: pip install {driver}")
    from sqlalchemy import Column, Integer, MetaData, String, Table, func, select
    from sqlalchemy.ext.asyncio import create_async_engine

    if driver == "aiosqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'file.db'}"
    else:
        url = request.getfixturevalue("postgres").url.replace("postgresql://", f"postgresql+{driver}://")
    metadata = MetaData()
    table = Table("things", metadata, Column("id", Integer, primary_key=True), Column("name", String))

    async def main():
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.execute(table.insert(), [{"id": n, "name": f"thing {n}"} for n in range(100)])

        async def one(number):
            async with engine.connect() as connection:
                found = await connection.execute(select(table.c.name).where(table.c.id == number))
                return found.scalar_one()

        assert await asyncio.gather(*map(one, range(20))) == [f"thing {n}" for n in range(20)]
        with contextlib.suppress(ZeroDivisionError):
            async with engine.begin() as connection:
                await connection.execute(table.delete())
                raise ZeroDivisionError
        async with engine.begin() as connection:
            assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == 100
            rows = await connection.stream(select(table.c.id).order_by(table.c.id))
            assert [row.id async for row in rows] == list(range(100))
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
        await engine.dispose()

    run(main())


# ------------------------------------------------------------------ test runners
FACTORY = "import loops\nimport pytest\nfactory = loops.factory()\n"
RUNNERS = {
    "pytest-asyncio": (
        "pytest_asyncio.plugin",
        FACTORY + "def pytest_asyncio_loop_factories(config, item):\n    return {'under test': factory}\n",
        "asyncio_default_fixture_loop_scope = function\n",
        "pytest.mark.asyncio",
    ),
    "anyio": (
        "anyio.pytest_plugin",
        FACTORY + "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio', {'loop_factory': factory}\n",
        "",
        "pytest.mark.anyio",
    ),
}
TESTS = """
import asyncio
import anyio
import loops
import pytest

pytestmark = MARK

async def test_the_loop():
    assert loops.class_name() == loops.CLASS
    await asyncio.sleep(0)

async def test_tasks_and_threads():
    found = []
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(anyio.sleep, 0.001)
    found.append(await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0)))
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.01):
            await anyio.sleep_forever()
    assert found == [None]

async def test_a_failure_is_one():
    await anyio.sleep(0)
    raise KeyError("on purpose")
"""


@pytest.mark.parametrize("runner", RUNNERS)
def test_runner(tmp_path, runner):
    plugin, conftest, ini, mark = RUNNERS[runner]
    pytest.importorskip(plugin.partition(".")[0], reason=f"{runner} is not installed: pip install {runner}")
    pytest.importorskip("anyio", reason="anyio is not installed: pip install anyio")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_it.py").write_text(TESTS.replace("MARK", mark))
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {HERE}\n{ini}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "KeyError: 'on purpose'" in done.stdout


UNITTEST = """
import asyncio
import unittest

import loops

class Tests(unittest.IsolatedAsyncioTestCase):
    loop_factory = LOOP

    async def asyncSetUp(self):
        self.server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)

    async def asyncTearDown(self):
        self.server.close()
        await self.server.wait_closed()

    async def test_the_loop(self):
        assert loops.class_name() == loops.CLASS
        reader, writer = await asyncio.open_connection(*self.server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
"""


def test_unittest(tmp_path):
    """By the class attribute, which Python 3.13 came with; before it by the command."""
    (tmp_path / "test_it.py").write_text(UNITTEST.replace("LOOP", "staticmethod(loops.factory())"))
    start = [sys.executable, "-m", "unittest"] if sys.version_info >= (3, 13) else loops.module("unittest")
    env = {**os.environ, "PYTHONPATH": f"{HERE}:{tmp_path}"}
    command = [*start, "-v", "test_it"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


# ------------------------------------------------------------------------- Kafka
def test_aiokafka_says_when_there_is_no_broker(run):
    """As far as aiokafka goes without a broker, which no registry here has: its connections, its timers, its end."""
    aiokafka = pytest.importorskip("aiokafka", reason="aiokafka is not installed: pip install aiokafka")
    asked = []

    async def hang_up(reader, writer):
        asked.append(await reader.readexactly(4))
        writer.close()

    async def main():
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=2000)
        with pytest.raises(aiokafka.errors.KafkaConnectionError):
            await producer.start()
        await producer.stop()
        server.close()
        await server.wait_closed()

    run(main())
    assert {len(each) for each in asked} == {4}  # it has sent what begins a request: the length of one
