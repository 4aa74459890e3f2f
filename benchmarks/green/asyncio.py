"""asyncio's tasks and queues on its own loop. Its smallest queue holds one value: there is no unbuffered one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


def run(function: Callable[..., Any], *args: Any) -> Any:
    async def main() -> Any:
        return await function(*args)

    return asyncio.run(main())


async def nothing() -> None:
    pass


async def spawn(n: int) -> None:
    for task in [asyncio.create_task(nothing()) for _ in range(n)]:
        await task


async def yield_(n: int) -> None:
    async def other() -> None:
        for _ in range(n // 2):
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await other()
    await task


async def pingpong(n: int) -> None:
    ping, pong = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def answer() -> None:
        for _ in range(n):
            await ping.acquire()
            pong.release()

    task = asyncio.create_task(answer())
    for _ in range(n):
        ping.release()
        await pong.acquire()
    await task


async def pump(queue: asyncio.Queue[int], n: int) -> None:
    async def feed() -> None:
        for i in range(n):
            await queue.put(i)

    task = asyncio.create_task(feed())
    for _ in range(n):
        await queue.get()
    await task


async def unbuffered(n: int) -> None:
    await pump(asyncio.Queue(1), n)


async def buffered(n: int) -> None:
    await pump(asyncio.Queue(100), n)


async def timeout(n: int) -> None:
    for _ in range(n):
        async with asyncio.timeout(60):
            pass


async def event(n: int) -> None:
    flag = asyncio.Event()
    for _ in range(n):
        flag.set()
        await flag.wait()
        flag.clear()


async def future(n: int) -> None:
    loop = asyncio.get_running_loop()
    for i in range(n):
        result = loop.create_future()
        result.set_result(i)
        await result


async def each(n: int) -> None:
    room = asyncio.Semaphore(20)

    async def one(i: int) -> int:
        async with room:
            return abs(i)

    await asyncio.gather(*map(one, range(n)))


async def park(n: int) -> Any:
    event = asyncio.Event()
    kept = [asyncio.create_task(event.wait()) for _ in range(n)]
    await asyncio.sleep(0)
    return kept


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def serve(ready: Callable[[int], None]) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=1024)
    ready(server.sockets[0].getsockname()[1])
    await server.serve_forever()
