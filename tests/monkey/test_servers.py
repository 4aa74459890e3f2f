"""Drivers that know nothing of goroutines against real servers, started here from the distribution's packages."""

import contextlib
import time

import pytest

import goloop
from goloop import go, monkey

trustme = pytest.importorskip("trustme")
services = pytest.importorskip("services")  # compat_tests/e2e; not there in an installed package


@pytest.fixture(scope="module")
def redis_server():
    with services.redis(trustme.CA()) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb():
    with services.mariadb() as server:
        yield server


@pytest.fixture(scope="module")
def postgres():
    with services.postgres(trustme.CA()) as server:
        yield server


# ------------------------------------------------------------------------- redis
def test_redis_commands_and_a_pipeline(redis_server, overlap):
    redis = pytest.importorskip("redis")
    with redis.Redis(port=redis_server.port) as client:

        def body(i):
            assert client.blpop("nothing", timeout=0.01) is None  # the other replies may come before they are read
            client.set(f"key {i}", i)
            with client.pipeline() as pipeline:
                for _ in range(10):
                    pipeline.incr(f"key {i}")
                return client.get(f"key {i}"), pipeline.execute()[-1], client.get(f"key {i}")

        assert overlap(body, 20) == [(b"%d" % i, i + 10, b"%d" % (i + 10)) for i in range(20)]


def test_redis_blocking_commands(redis_server, overlap):
    redis = pytest.importorskip("redis")
    with redis.Redis(port=redis_server.port) as client:

        def body(i):
            if i % 2:
                return client.blpop(f"list {i}", timeout=10)
            time.sleep(0.01)
            return client.rpush(f"list {i + 1}", f"value {i}")

        assert overlap(body) == [(f"list {i}".encode(), f"value {i - 1}".encode()) if i % 2 else 1 for i in range(8)]


def test_redis_waits_for_a_connection_of_its_pool(redis_server, overlap):
    redis = pytest.importorskip("redis")
    pool = redis.BlockingConnectionPool(port=redis_server.port, max_connections=2, timeout=10)
    with contextlib.closing(pool), redis.Redis(connection_pool=pool) as client:
        client.delete("counter")

        def body(i):
            assert client.blpop("nothing", timeout=0.01) is None  # the reply to incr() may be there before it is read
            return client.incr("counter")

        assert sorted(overlap(body, 20)) == list(range(1, 21))


def test_redis_locks_are_the_goroutines(redis_server, overlap):
    """redis.lock.Lock keeps its token in a threading.local."""
    redis = pytest.importorskip("redis")
    inside = []
    with redis.Redis(port=redis_server.port) as client:
        lock = client.lock("lock", timeout=30, sleep=0.002)

        def body(i):
            with lock:
                inside.append(i)
                time.sleep(0.002)
                assert inside == [i]
                inside.remove(i)
            return True

        assert overlap(body) == [True] * 8


def test_redis_publishes(redis_server):
    redis = pytest.importorskip("redis")
    with redis.Redis(port=redis_server.port) as client, client.pubsub() as subscriber:
        subscriber.subscribe("channel")

        def listen():
            for message in subscriber.listen():
                if message["type"] == "message":
                    return message["data"]

        g = go(listen)
        while client.publish("channel", "hello") == 0:
            time.sleep(0.005)
        assert g.result(10) == b"hello"


# ----------------------------------------------------------------------- MariaDB
def test_pymysql(mariadb, overlap):
    pymysql = pytest.importorskip("pymysql")

    def body(i):
        server = {"host": "127.0.0.1", "port": mariadb.port, "database": mariadb.database}
        connection = pymysql.connect(user=mariadb.user, password=mariadb.password, **server)
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE t{i} (n INT, s TEXT)")
            cursor.executemany(f"INSERT INTO t{i} VALUES (%s, %s)", [(n, "x" * n) for n in range(100)])
            connection.commit()
            cursor.execute(f"SELECT SUM(n), MAX(LENGTH(s)), SLEEP(0.05) FROM t{i}")
            return cursor.fetchone()

    assert overlap(body) == [(4950, 99, 0)] * 8


def test_sqlalchemy_with_pymysql(mariadb, overlap):
    """Its pool makes them wait for each other."""
    pytest.importorskip("pymysql")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    url = f"mysql+pymysql://{mariadb.user}:a%20password@127.0.0.1:{mariadb.port}/{mariadb.database}"
    engine = sqlalchemy.create_engine(url, pool_size=2, max_overflow=0)

    def body(i):
        with engine.connect() as connection:
            return connection.execute(sqlalchemy.text("SELECT :i + SLEEP(0.01)"), {"i": i}).scalar()

    try:
        assert overlap(body) == list(range(8))
    finally:
        engine.dispose()


# -------------------------------------------------------------------- PostgreSQL
SLOW = "SELECT %s::int, pg_sleep(0.05)"


def test_psycopg(postgres, overlap):
    psycopg = pytest.importorskip("psycopg")
    monkey.patch_psycopg()
    monkey.patch_psycopg()

    def body(i):
        with psycopg.connect(postgres.url) as connection:
            return connection.execute(SLOW, [i]).fetchone()[0]

    assert overlap(body) == list(range(8))
    assert body(5) == 5


def test_a_timeout_ends_a_query_of_psycopg(postgres):
    psycopg = pytest.importorskip("psycopg")
    monkey.patch_psycopg()

    def body():
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            with pytest.raises(TimeoutError), goloop.timeout(0.05):
                connection.execute("SELECT pg_sleep(1000)")
            return connection.execute("SELECT 42").fetchone()  # the connection can be used again

    assert go(body).result(60) == (42,)


def test_a_query_of_psycopg_that_is_larger_than_the_socket_takes_arrives_whole(postgres):
    psycopg = pytest.importorskip("psycopg")
    monkey.patch_psycopg()

    def body():
        with psycopg.connect(postgres.url) as connection:
            return connection.execute("SELECT length(%s::text)", ["x" * 20_000_000]).fetchone()

    assert go(body).result(60) == (20_000_000,)


def test_a_query_of_psycopg_whose_server_ends_fails(postgres):
    psycopg = pytest.importorskip("psycopg")
    monkey.patch_psycopg()

    def body():
        with psycopg.connect(postgres.url) as connection:
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1000)")

    go(body).result(60)


def test_notifications_come_to_a_goroutine_that_waits_for_them_with_psycopg(postgres):
    psycopg = pytest.importorskip("psycopg")
    monkey.patch_psycopg()

    def body():
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("LISTEN news")
            assert list(connection.notifies(timeout=0.05)) == []
            with psycopg.connect(postgres.url, autocommit=True) as other:
                other.execute("NOTIFY news, 'hello'")
            return [each.payload for each in connection.notifies(timeout=60, stop_after=1)]

    assert go(body).result(60) == ["hello"]


def test_psycopg2(postgres, overlap):
    psycopg2 = pytest.importorskip("psycopg2")
    monkey.patch_psycopg2()
    monkey.patch_psycopg2()

    def body(i):
        with contextlib.closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
            cursor.execute(SLOW, [i])
            return cursor.fetchone()[0]

    assert overlap(body) == list(range(8))
    assert body(5) == 5
