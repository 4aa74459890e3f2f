"""asyncpg and psycopg against a PostgreSQL of their own: TCP, TLS and Unix sockets, COPY, notifications, cancelling."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal

import loops
import pytest

ROWS = 20_000
SUM = ROWS * (ROWS - 1) // 2


class TestAsyncpg:
    """asyncpg drives the loop's transports, and start_tls() in the middle of a connection."""

    @pytest.fixture(params=["tcp", "tls", "unix"])
    def options(self, request, postgres, client_tls):
        pytest.importorskip("asyncpg", reason="asyncpg is not installed: pip install asyncpg")
        common = {"user": postgres.user, "database": postgres.database, "port": postgres.port, "timeout": 20}
        if request.param == "unix":
            return {**common, "host": str(postgres.folder)}
        tls = client_tls if request.param == "tls" else False
        return {**common, "host": "127.0.0.1", "password": postgres.password, "ssl": tls}

    @staticmethod
    @contextlib.asynccontextmanager
    async def connect(options):
        import asyncpg

        connection = await asyncpg.connect(**options)
        try:
            yield connection
        finally:
            await connection.close()

    def test_types_and_rows(self, run, options):
        async def main():
            async with self.connect(options) as db:
                ssl = await db.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                assert ssl is bool(options.get("ssl"))
                values = [7, "text ü", b"\0\1", decimal.Decimal("1.50"), datetime.date(2024, 2, 29), [1, None, 3], None]
                row = await db.fetchrow(
                    "SELECT $1::int, $2::text, $3::bytea, $4::numeric, $5::date, $6::int[], $7::int", *values
                )
                assert list(row) == values
                big = "x" * 5_000_000
                assert await db.fetchval("SELECT $1::text", big) == big
                rows = await db.fetch("SELECT i, repeat('r', i % 100) AS t FROM generate_series(0, $1) i", ROWS - 1)
                assert len(rows) == ROWS
                assert all(row["i"] == i and row["t"] == "r" * (i % 100) for i, row in enumerate(rows))
                total = 0
                async with db.transaction():
                    async for (i,) in db.cursor("SELECT generate_series(0, $1)", ROWS - 1, prefetch=500):
                        total += i
                assert total == SUM

        run(main())

    def test_pool(self, run, options):
        """Four hundred transactions in turn on ten connections; half of them roll back."""
        import asyncpg

        async def main():
            async with asyncpg.create_pool(min_size=10, max_size=10, **options) as pool:
                await pool.execute("DROP TABLE IF EXISTS account")
                await pool.execute("CREATE TABLE account (id int PRIMARY KEY, amount bigint NOT NULL)")
                await pool.executemany("INSERT INTO account VALUES ($1, 0)", [(i,) for i in range(5)])

                async def one(number):
                    async with pool.acquire() as db:
                        with contextlib.suppress(ZeroDivisionError):
                            async with db.transaction():
                                await db.execute(
                                    "UPDATE account SET amount = amount + $1 WHERE id = $2", number, number % 5
                                )
                                assert await db.fetchval("SELECT $1::int * 2", number) == number * 2
                                if number % 2:
                                    raise ZeroDivisionError

                await asyncio.gather(*(one(number) for number in range(400)))
                rows = await pool.fetch("SELECT id, amount FROM account ORDER BY id")
                expected = [(i, sum(n for n in range(400) if n % 5 == i and n % 2 == 0)) for i in range(5)]
                assert [tuple(row) for row in rows] == expected
                with pytest.raises(asyncpg.UniqueViolationError):
                    await pool.execute("INSERT INTO account VALUES (0, 0)")
                await pool.execute("DROP TABLE account")

        run(main())

    def test_copy(self, run, options, tmp_path):
        async def main():
            async with self.connect(options) as db:
                await db.execute("CREATE TEMP TABLE copied (i int, t text)")
                records = [(i, f"row {i}" if i % 3 else None) for i in range(ROWS)]
                assert await db.copy_records_to_table("copied", records=records) == f"COPY {ROWS}"
                assert await db.fetchval("SELECT sum(i) FROM copied") == SUM
                out = tmp_path / "copied.csv"
                done = await db.copy_from_query("SELECT * FROM copied ORDER BY i", output=str(out), format="csv")
                assert done == f"COPY {ROWS}"
                assert out.read_text() == "".join(f"{i},{t or ''}\n" for i, t in records)

        run(main())

    def test_notifications(self, run, options):
        async def main():
            got = asyncio.Queue()
            async with self.connect(options) as listener, self.connect(options) as sender:
                await listener.add_listener("news", lambda _db, _pid, _channel, payload: got.put_nowait(payload))
                for number in range(500):
                    await sender.execute("SELECT pg_notify('news', $1)", str(number))
                assert [await got.get() for _ in range(500)] == [str(number) for number in range(500)]

        run(main())

    def test_cancelling_and_losing(self, run, options):
        """A timeout and a cancelled task stop the query in the server; a killed backend is an error at once."""
        import asyncpg

        async def main():
            async with self.connect(options) as db, self.connect(options) as other:
                with pytest.raises(asyncio.TimeoutError):
                    await db.fetchval("SELECT pg_sleep(600)", timeout=0.1)
                task = asyncio.ensure_future(db.execute("SELECT pg_sleep(600)"))
                sleeping = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
                pid = db.get_server_pid()
                while not await other.fetchval(sleeping, pid):
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await db.fetchval("SELECT 1") == 1
                assert await other.fetchval(sleeping, pid) == 0
                task = asyncio.ensure_future(db.execute("SELECT pg_sleep(600)"))
                while not await other.fetchval(sleeping, pid):
                    await asyncio.sleep(0.01)
                assert await other.fetchval("SELECT pg_terminate_backend($1)", pid) is True
                with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
                    await task
                assert db.is_closed()

        run(main())


class TestPsycopg:
    """psycopg gives the loop libpq's descriptors to watch, which come, go and come again under the same numbers."""

    @pytest.fixture(params=["tcp", "tls", "unix"])
    def url(self, request, postgres, authority, tmp_path):
        pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
        if request.param == "unix":
            return f"host={postgres.folder} port={postgres.port} user={postgres.user} dbname={postgres.database}"
        if request.param == "tls":
            authority.cert_pem.write_to_path(tmp_path / "ca.pem")
            return f"{postgres.url}?sslmode=verify-full&sslrootcert={tmp_path / 'ca.pem'}"
        return f"{postgres.url}?sslmode=disable"

    @staticmethod
    def connect(url, **options):
        import psycopg

        return psycopg.AsyncConnection.connect(url, **options)

    def test_types_and_rows(self, run, url):
        async def main():
            async with await self.connect(url) as db:
                ssl = await (await db.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).fetchone()
                assert ssl == ("sslmode=verify-full" in url,)
                values = [7, "text ü", b"\0\1", decimal.Decimal("1.50"), datetime.date(2024, 2, 29), [1, None, 3], None]
                cursor = await db.execute(
                    "SELECT %s::int, %s::text, %s::bytea, %s::numeric, %s::date, %s::int[], %s::int", values
                )
                assert list(await cursor.fetchone()) == values
                big = "x" * 5_000_000
                assert await (await db.execute("SELECT %s::text", [big])).fetchone() == (big,)
                cursor = await db.execute("SELECT i, repeat('r', i %% 100) FROM generate_series(0, %s) i", [ROWS - 1])
                assert await cursor.fetchall() == [(i, "r" * (i % 100)) for i in range(ROWS)]
                async with db.cursor("server side") as cursor:
                    await cursor.execute("SELECT generate_series(0, %s)", [ROWS - 1])
                    assert sum([i async for (i,) in cursor]) == SUM

        run(main())

    def test_many_connections(self, run, url):
        """Sixty tasks on ten connections that are opened and closed all the time."""

        async def main():
            limit = asyncio.Semaphore(10)

            async def one(number):
                async with limit, await self.connect(url) as db:
                    cursor = await db.execute("SELECT %s::int, sum(i) FROM generate_series(0, 999) i", [number])
                    assert await cursor.fetchone() == (number, 499_500)

            await asyncio.gather(*(one(number) for number in range(60)))

        run(main())

    def test_pool(self, run, url):
        pool_of = pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed: pip install psycopg-pool")

        async def main():
            async with pool_of.AsyncConnectionPool(url, min_size=4, max_size=10, open=False) as pool:

                async def one(number):
                    async with pool.connection() as db, db.transaction():
                        cursor = await db.execute("SELECT %s::int * 2", [number])
                        assert await cursor.fetchone() == (number * 2,)

                await asyncio.gather(*(one(number) for number in range(400)))

        run(main())

    def test_pipeline_and_copy(self, run, url):
        async def main():
            async with await self.connect(url) as db:
                await db.execute("CREATE TEMP TABLE copied (i int, t text)")
                rows = [(i, f"row {i}" if i % 3 else None) for i in range(ROWS)]
                async with db.cursor() as cursor:
                    async with cursor.copy("COPY copied FROM STDIN") as copy:
                        for row in rows:
                            await copy.write_row(row)
                    async with cursor.copy("COPY (SELECT * FROM copied ORDER BY i) TO STDOUT") as copy:
                        copy.set_types(["int4", "text"])
                        assert [row async for row in copy.rows()] == rows
                async with db.pipeline():
                    cursors = [await db.execute("SELECT %s::int", [number]) for number in range(500)]
                assert [await cursor.fetchone() for cursor in cursors] == [(number,) for number in range(500)]

        run(main())

    def test_notifications(self, run, url):
        async def main():
            async with (
                await self.connect(url, autocommit=True) as db,
                await self.connect(url, autocommit=True) as other,
            ):
                await db.execute("LISTEN news")

                async def send():
                    for number in range(500):
                        await other.execute("SELECT pg_notify('news', %s)", [str(number)])

                sending = asyncio.ensure_future(send())
                got = []
                async for message in db.notifies():
                    got.append(message.payload)
                    if len(got) == 500:
                        break
                await sending
                assert got == [str(number) for number in range(500)]

        run(main())

    def test_cancelling_and_losing(self, run, url):
        import psycopg

        async def main():
            async with await self.connect(url, autocommit=True) as other:
                db = await self.connect(url, autocommit=True)
                pid = db.info.backend_pid
                sleeping = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"

                async def asleep():
                    return await (await other.execute(sleeping, [pid])).fetchone() == (1,)

                task = asyncio.ensure_future(db.execute("SELECT pg_sleep(600)"))
                while not await asleep():
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not await asleep()
                assert await (await db.execute("SELECT 1")).fetchone() == (1,)
                task = asyncio.ensure_future(db.execute("SELECT pg_sleep(600)"))
                while not await asleep():
                    await asyncio.sleep(0.01)
                await other.execute("SELECT pg_terminate_backend(%s)", [pid])
                with pytest.raises(psycopg.OperationalError):
                    await task
                assert db.closed
                await db.close()

        run(main())


def test_both_in_one_loop(run, postgres):
    """asyncpg's transports and psycopg's watched descriptors side by side."""
    asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed: pip install asyncpg")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")

    async def first():
        db = await asyncpg.connect(postgres.url)
        assert [await db.fetchval("SELECT $1::int", i) for i in range(200)] == list(range(200))
        await db.close()

    async def second():
        async with await psycopg.AsyncConnection.connect(postgres.url) as db:
            got = [await (await db.execute("SELECT %s::int", [i])).fetchone() for i in range(200)]
            assert got == [(i,) for i in range(200)]

    async def main():
        assert loops.class_name() == loops.CLASS
        await asyncio.gather(first(), second(), first(), second())

    run(main())
