"""The client's half of the HTTP tests: an aiohttp client on the loop under test, which checks every answer.

The servers' half is apps/starlette_app.py and apps/aiohttp_app.py: both answer to the same paths, so that each
server (uvicorn, hypercorn, gunicorn, aiohttp) is held to the same things.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import loops

REQUESTS = 400  # in one load; as many connections are open at once
GATE = 200  # requests that have to be in the server together before one of them is answered


def session(**options: Any) -> aiohttp.ClientSession:
    """Return a client without a limit of connections, whose answers carry their server's loop."""
    connector = aiohttp.TCPConnector(limit=0, ssl=options.pop("ssl", True))
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60), **options)


def check(response: aiohttp.ClientResponse, status: int = 200) -> None:
    assert response.status == status
    assert response.headers["x-loop"] == loops.CLASS


async def _echo(http: aiohttp.ClientSession, base: str, rng: random.Random) -> str:
    body = rng.randbytes(rng.choice([0, 1, 1000, 65_536, 300_000]))
    async with http.post(f"{base}/echo", data=body) as response:
        check(response)
        assert response.headers["x-digest"] == hashlib.sha256(body).hexdigest()
        assert await response.read() == body
    return "echo"


async def _stream(http: aiohttp.ClientSession, base: str, rng: random.Random) -> str:
    count = rng.randrange(1, 40)
    async with http.get(f"{base}/stream/{count}") as response:
        check(response)
        assert await response.read() == b"".join(b"%06d\n" % i for i in range(count)) * 100
    return "stream"


async def _thread(http: aiohttp.ClientSession, base: str, rng: random.Random) -> str:
    number = rng.randrange(1000)
    async with http.get(f"{base}/thread/{number}") as response:
        assert response.status == 200
        assert await response.json() == {"square": number * number, "main thread": False}
    return "thread"


async def _missing(http: aiohttp.ClientSession, base: str, rng: random.Random) -> str:
    async with http.get(f"{base}/nothing/{rng.random()}") as response:
        assert response.status == 404
        await response.read()
    return "missing"


async def _sleep(http: aiohttp.ClientSession, base: str, rng: random.Random) -> str:
    async with http.get(f"{base}/sleep/{rng.randrange(50)}") as response:
        check(response)
        assert await response.text() == "slept"
    return "sleep"


KINDS: list[Callable[..., Awaitable[str]]] = [_echo, _stream, _thread, _missing, _sleep]


async def load(http: aiohttp.ClientSession, base: str, *, requests: int = REQUESTS) -> None:
    """Put `requests` requests of all kinds at once; each answer must be right to the byte."""
    rng = random.Random(20)
    jobs = [KINDS[i % len(KINDS)](http, base, random.Random(rng.random())) for i in range(requests)]
    done = Counter(await asyncio.gather(*jobs))
    assert done == dict.fromkeys(["echo", "stream", "thread", "missing", "sleep"], requests // len(KINDS))


async def gate(http: aiohttp.ClientSession, base: str) -> None:
    """Send GATE requests that the server answers only when it has all of them, each with its own number."""

    async def one() -> int:
        async with http.get(f"{base}/gate/{GATE}") as response:
            check(response)
            return int(await response.text())

    assert sorted(await asyncio.gather(*(one() for _ in range(GATE)))) == list(range(GATE))


async def child(http: aiohttp.ClientSession, base: str) -> None:
    """Let the server run ten subprocesses at once."""

    async def one(number: int) -> None:
        async with http.get(f"{base}/child/{number}") as response:
            check(response)
            assert await response.json() == {"code": number, "out": f"{number}\n"}

    await asyncio.gather(*(one(number) for number in range(10)))


async def websocket(http: aiohttp.ClientSession, base: str) -> None:
    """Echo text and bytes, small and large, over fifty WebSockets at once; the server closes them with a code."""

    async def one(number: int) -> None:
        async with http.ws_connect(f"{base}/ws", max_msg_size=0) as ws:
            for size in (0, 1, 125, 126, 70_000):
                await ws.send_str(f"{number}" * size)
                assert await ws.receive_str() == f"{number}" * size
                await ws.send_bytes(bytes([number]) * size)
                assert await ws.receive_bytes() == bytes([number]) * size
            await ws.send_str("bye")
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert (message.data, message.extra) == (4000 + number, loops.CLASS)

    await asyncio.gather(*(one(number) for number in range(50)))


class Duplex:
    """A request whose body is sent while its answer comes in: the way to hold a request open on purpose."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._request = http.post(f"{base}/duplex", data=self._body())
        self._response: aiohttp.ClientResponse | None = None

    async def _body(self) -> AsyncIterator[bytes]:
        while (chunk := await self._queue.get()) is not None:
            yield chunk

    async def echo(self, chunk: bytes) -> None:
        """Send a chunk and wait until the same comes back."""
        self._queue.put_nowait(chunk)
        if self._response is None:
            self._response = await self._request
            check(self._response)
        assert await self._response.content.readexactly(len(chunk)) == chunk

    def transport(self) -> asyncio.Transport:
        assert self._response is not None
        assert self._response.connection is not None
        transport = self._response.connection.transport
        assert transport is not None
        return transport

    async def end(self) -> None:
        self._queue.put_nowait(None)
        assert self._response is not None
        assert await self._response.content.read() == b""
        self._response.release()


class Held:
    """A request that the server answers in two halves, the second when a file of this name is in its E2E_FOLDER.

    For aiohttp's server, which reads nothing more from its connections once it is told to end.
    """

    def __init__(self, http: aiohttp.ClientSession, base: str, folder: Path) -> None:
        self._request = http.get(f"{base}/hold/go-on")
        self._file = folder / "go-on"
        self._response: aiohttp.ClientResponse | None = None

    async def begin(self) -> None:
        self._response = await self._request
        check(self._response)
        assert await self._response.content.readexactly(6) == b"first\n"

    async def end(self) -> None:
        self._file.touch()
        assert self._response is not None
        assert await self._response.content.read() == b"second\n"
        self._response.release()


async def refused(host: str, port: int) -> None:
    """Wait until there is no listener any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # was in the backlog when the listener was closed
        writer.close()
        await asyncio.sleep(0.05)
