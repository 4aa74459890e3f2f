"""Handoff: what stands between a blocking call and the loop: exceptions, C code, generators, locks."""

import asyncio
import os
import queue
import select
import socket
import sqlite3
import threading
import time

import pytest

from tests.helpers.handoffs import run
from tests.helpers.waiting import SECONDS, async_until


def test_an_exception_comes_out_of_the_call():
    server = socket.create_server(("127.0.0.1", 0))

    async def blocks():
        server.accept()

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        server.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError, match="Invalid argument"):
            await task

    with server:
        run(main())


def test_an_exception_that_nobody_catches_on_its_way_to_the_loop():
    server = socket.create_server(("127.0.0.1", 0))
    order = []

    def blocks():
        server.accept()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: order.append(type(context["exception"])))
        loop.call_soon(blocks)

        def lets_it_fail():
            server.shutdown(socket.SHUT_RDWR)
            # It has failed, and its exception handler must not run while we do.
            time.sleep(0)
            for _ in range(20000):
                pass
            order.append("done")

        loop.call_soon(lets_it_fail)
        await async_until(lambda: len(order) == 2)

    with server:
        run(main())
    assert order == ["done", OSError]


def test_python_code_that_c_calls_before_it_returns_waits_too():
    """A query gives up the GIL, and its row factory is called from C."""
    event = threading.Event()
    inside = []

    def factory(cursor, row):
        assert inside == []
        return row[0]

    async def blocks():
        with sqlite3.connect(":memory:", check_same_thread=False) as db:
            db.row_factory = factory
            db.create_function("pause", 0, lambda: event.wait(SECONDS))
            got = db.execute("select pause()").fetchall()
        db.close()
        return got

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        inside.append(1)
        event.set()
        time.sleep(0)
        for _ in range(50000):
            pass
        inside.clear()
        assert await task == [1]

    run(main())


def test_c_code_between_the_frames():
    event = threading.Event()

    def key(value):
        event.wait(SECONDS)
        return -value

    async def blocks():
        return sorted([1, 2, 3], key=key)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        event.set()
        assert await task == [3, 2, 1]

    run(main())


def test_calls_in_generators_and_with_statements():
    items = queue.Queue()

    def generator():
        while (item := items.get(timeout=SECONDS)) is not None:
            yield item

    async def blocks():
        return [item async for item in amap()]

    async def amap():
        for item in generator():
            yield item

    async def main():
        task = asyncio.create_task(blocks())
        for item in (1, 2, 3, None):
            await asyncio.sleep(0.001)
            items.put(item)
        assert await task == [1, 2, 3]

    run(main())


def test_select_and_files():
    read, write = os.pipe()
    got = []

    async def main():
        loop = asyncio.get_running_loop()

        def selects():
            got.append(select.select([read], [], [], SECONDS)[0])
            got.append(os.read(read, 1))
            with open(read, "rb", closefd=False) as file:
                got.append(file.read(2))

        handoffs = loop._stats()["handoffs"]
        loop.call_soon(selects)
        await async_until(lambda: loop._stats()["handoffs"] == handoffs + 1)  # in select()
        os.write(write, b"x")
        await async_until(lambda: loop._stats()["handoffs"] == handoffs + 2)  # in read()
        os.write(write, b"x")
        os.write(write, b"x")
        await async_until(lambda: len(got) == 3)

    try:
        run(main())
    finally:
        os.close(read)
        os.close(write)
    assert got == [[read], b"x", b"xx"]


def test_locks_held_across_blocking_calls():
    """One sleeps with a lock held, the others wait for it: each must be taken off the loop for the first to go on."""
    lock = threading.Lock()
    order = []

    async def one(n):
        with lock:
            order.append(n)
            time.sleep(0.005)
            order.append(n)

    async def main():
        await asyncio.gather(*(one(n) for n in range(8)))

    run(main())
    assert sorted(order) == sorted([*range(8)] * 2)
    assert order[::2] == order[1::2]
