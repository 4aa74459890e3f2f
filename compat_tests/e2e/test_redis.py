"""redis.asyncio against a Redis of its own: TCP, TLS and Unix sockets, pipelines, pub/sub, blocking commands."""

from __future__ import annotations

import asyncio
import ssl

import pytest

pytest.importorskip("redis", reason="redis-py is not installed: pip install redis")

from redis import asyncio as aioredis
from redis import exceptions


@pytest.fixture(params=["tcp", "tls", "unix"])
def connect(request, redis_server, authority, tmp_path):
    """Return a function that makes a client with an empty database, over each kind of connection."""
    root = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(root)

    def connect(**options):
        if request.param == "unix":
            return aioredis.Redis(unix_socket_path=str(redis_server.socket), **options)
        if request.param == "tls":
            tls = {"ssl": True, "ssl_ca_certs": str(root), "ssl_min_version": ssl.TLSVersion.TLSv1_3}
            return aioredis.Redis(host="127.0.0.1", port=redis_server.tls_port, **tls, **options)
        return aioredis.Redis(host="127.0.0.1", port=redis_server.port, **options)

    return connect


def test_commands(run, connect):
    """Three hundred tasks at once over fifty connections; values from nothing to a megabyte."""

    async def main():
        pool = {"max_connections": 50}
        async with connect(**pool) as redis:
            await redis.flushall()
            limit = asyncio.Semaphore(50)

            async def one(number):
                async with limit:
                    value = bytes([number % 256]) * (number * 13)
                    assert await redis.set(f"key:{number}", value) is True
                    assert await redis.get(f"key:{number}") == value
                    assert await redis.incrby("sum", number) >= number

            await asyncio.gather(*(one(number) for number in range(300)))
            assert int(await redis.get("sum")) == sum(range(300))
            assert await redis.dbsize() == 301
            big = bytes(range(256)) * 4096
            await redis.set("big", big)
            assert await redis.mget("big", "none", "big") == [big, None, big]

    run(main())


def test_pipelines_and_scripts(run, connect):
    async def main():
        async with connect(decode_responses=True) as redis:
            await redis.flushall()
            async with redis.pipeline(transaction=False) as pipe:
                for number in range(5000):
                    pipe.rpush("list", number)
                assert await pipe.execute() == list(range(1, 5001))
            assert await redis.lrange("list", 0, -1) == [str(number) for number in range(5000)]
            script = redis.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
            assert await asyncio.gather(*(script(keys=["n"], args=[2]) for _ in range(20))) is not None
            assert await redis.get("n") == "40"

            async def add():
                """Optimistic locking: WATCH, and again whenever another was faster."""
                while True:
                    async with redis.pipeline() as pipe:
                        try:
                            await pipe.watch("watched")
                            value = int(await pipe.get("watched") or 0)
                            await asyncio.sleep(0)
                            pipe.multi()
                            pipe.set("watched", value + 1)
                            await pipe.execute()
                            return
                        except exceptions.WatchError:
                            continue

            await asyncio.gather(*(add() for _ in range(15)))
            assert await redis.get("watched") == "15"

    run(main())


def test_publish_and_subscribe(run, connect):
    """Ten subscribers, a thousand messages in order for each."""

    async def main():
        async with connect(decode_responses=True) as redis:
            ready = asyncio.Barrier(11)

            async def listen():
                async with redis.pubsub() as pubsub:
                    await pubsub.subscribe("channel")
                    assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
                    await ready.wait()
                    got = []
                    async for message in pubsub.listen():
                        if message["data"] == "end":
                            return got
                        got.append(message["data"])

            tasks = [asyncio.ensure_future(listen()) for _ in range(10)]
            await ready.wait()
            for number in range(1000):
                assert await redis.publish("channel", number) == 10
            await redis.publish("channel", "end")
            assert await asyncio.gather(*tasks) == [[str(number) for number in range(1000)]] * 10

    run(main())


def test_blocking_commands(run, connect):
    """BLPOP waits and is woken; one that is cancelled takes nothing, one that times out gives None."""

    async def main():
        async with connect(decode_responses=True) as redis:
            await redis.flushall()
            waiting = [asyncio.ensure_future(redis.blpop("queue", timeout=30)) for _ in range(20)]
            while (await redis.info("clients"))["blocked_clients"] < 20:
                await asyncio.sleep(0.01)
            for task in waiting[:10]:
                task.cancel()
            await asyncio.wait(waiting[:10])
            while (await redis.info("clients"))["blocked_clients"] > 10:
                await asyncio.sleep(0.01)
            await redis.rpush("queue", *range(12))
            got = await asyncio.gather(*waiting[10:])
            assert sorted(got, key=lambda item: int(item[1])) == [("queue", str(number)) for number in range(10)]
            assert await redis.lrange("queue", 0, -1) == ["10", "11"]
            assert await redis.blpop("nothing", timeout=0.05) is None

    run(main())


def test_a_lost_connection(run, connect):
    """A connection that the server kills is an error for the command that waits, and the next one reconnects."""

    async def main():
        async with connect(decode_responses=True) as redis, connect(retry=None) as other:
            name = await other.client_id()
            waiting = asyncio.ensure_future(other.blpop("never", timeout=30))
            while (await redis.info("clients"))["blocked_clients"] < 1:
                await asyncio.sleep(0.01)
            assert await redis.client_kill_filter(_id=name) == 1
            with pytest.raises(exceptions.ConnectionError):
                await waiting
            assert await other.ping() is True
            assert await other.client_id() != name

    run(main())
