"""pyzmq's asyncio sockets: ZeroMQ's descriptors tell of events at their edges only, and are watched by the loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

zmq = pytest.importorskip("zmq", reason="pyzmq is not installed: pip install pyzmq")

from zmq import asyncio as azmq  # noqa: E402


@contextlib.contextmanager
def context():
    with azmq.Context() as made:
        try:
            yield made
        finally:
            made.destroy(linger=0)


@pytest.mark.parametrize("address", ["inproc://a", "tcp://127.0.0.1:*", "ipc://*"])
def test_dealers_and_a_router(run, address):
    """Twenty dealers with a hundred questions each, all on their way at once, and one router that answers."""

    async def main():
        with context() as zctx, zctx.socket(zmq.ROUTER) as router:
            router.bind(address)
            endpoint = router.last_endpoint.decode()

            async def serve():
                while True:
                    who, *parts = await router.recv_multipart()
                    await router.send_multipart([who, *reversed(parts)])

            async def ask(number):
                with zctx.socket(zmq.DEALER) as dealer:
                    dealer.connect(endpoint)
                    for i in range(100):
                        await dealer.send_multipart([b"%d" % i, b"%d" % number, b"x" * i * 50])
                    for i in range(100):
                        assert await dealer.recv_multipart() == [b"x" * i * 50, b"%d" % number, b"%d" % i]

            serving = asyncio.ensure_future(serve())
            await asyncio.gather(*(ask(number) for number in range(20)))
            serving.cancel()
            await asyncio.wait([serving])

    run(main())


def test_request_and_reply(run):
    async def main():
        with context() as zctx, zctx.socket(zmq.REP) as rep, zctx.socket(zmq.REQ) as req:
            port = rep.bind_to_random_port("tcp://127.0.0.1")
            req.connect(f"tcp://127.0.0.1:{port}")

            async def serve():
                for _ in range(500):
                    await rep.send_json({"got": await rep.recv_json()})

            serving = asyncio.ensure_future(serve())
            for i in range(500):
                await req.send_json(i)
                assert await req.recv_json() == {"got": i}
            await serving

    run(main())


def test_push_from_a_thread(run):
    """A plain blocking socket in a thread pushes ten thousand messages into the loop."""
    count = 10_000

    async def main():
        with context() as zctx, zctx.socket(zmq.PULL) as pull:
            port = pull.bind_to_random_port("tcp://127.0.0.1")

            def push():
                with zmq.Context() as plain, plain.socket(zmq.PUSH) as sock:
                    sock.connect(f"tcp://127.0.0.1:{port}")
                    for i in range(count):
                        sock.send(b"%d" % i)

            thread = threading.Thread(target=push)
            thread.start()
            assert [int(await pull.recv()) for _ in range(count)] == list(range(count))
            await asyncio.to_thread(thread.join)

    run(main())


def test_publish_and_subscribe(run):
    async def main():
        with context() as zctx, zctx.socket(zmq.XPUB) as pub:
            port = pub.bind_to_random_port("tcp://127.0.0.1")

            async def listen(topic):
                with zctx.socket(zmq.SUB) as sub:
                    sub.connect(f"tcp://127.0.0.1:{port}")
                    sub.subscribe(topic)
                    return [await sub.recv_multipart() for _ in range(300)]

            topics = [b"a", b"b", b"c"]
            listening = [asyncio.ensure_future(listen(topic)) for topic in topics]
            assert sorted([await pub.recv() for _ in topics]) == [b"\1" + topic for topic in topics]
            for i in range(300):
                for topic in topics:
                    await pub.send_multipart([topic, b"%d" % i])
            got = await asyncio.gather(*listening)
            assert got == [[[topic, b"%d" % i] for i in range(300)] for topic in topics]

    run(main())


def test_timeouts_and_cancelling(run):
    """A receive that times out or is cancelled loses no message of those that come later."""

    async def main():
        with context() as zctx, zctx.socket(zmq.PULL) as pull, zctx.socket(zmq.PUSH) as push:
            pull.bind("inproc://queue")
            push.connect("inproc://queue")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(pull.recv(), 0.02)
            pull.rcvtimeo = 20
            with pytest.raises(zmq.Again):
                await pull.recv()
            pull.rcvtimeo = -1
            waiting = pull.recv()
            waiting.cancel()
            await asyncio.wait([waiting])
            for i in range(10):
                await push.send(b"%d" % i)
            assert [await pull.recv() for _ in range(10)] == [b"%d" % i for i in range(10)]
            assert await pull.poll(10) == 0

    run(main())


def test_poller_with_plain_sockets(run):
    async def main():
        left, right = socket.socketpair()
        with left, right, context() as zctx, zctx.socket(zmq.PAIR) as a, zctx.socket(zmq.PAIR) as b:
            a.bind("inproc://pair")
            b.connect("inproc://pair")
            poller = azmq.Poller()
            poller.register(a, zmq.POLLIN)
            poller.register(left, zmq.POLLIN)
            assert await poller.poll(10) == []
            for _ in range(20):
                right.send(b"x")
                assert await poller.poll(10_000) == [(left.fileno(), zmq.POLLIN)]
                assert left.recv(10) == b"x"
                await b.send(b"y")
                assert await poller.poll(10_000) == [(a, zmq.POLLIN)]
                assert await a.recv() == b"y"
            assert await poller.poll(10) == []

    run(main())
