"""A service with four faults, to try on it what goloop shows of a program that runs. See docs/debug/ for how.

    GOLOOP_DEBUG=1 python examples/faulty_service.py [HOST:PORT]

It answers HTTP. Each fault shows when its address is asked for:

    /deadlock   two tasks each take one lock, and wait for the other one's
    /leak       each request leaves a goroutine behind, which waits for a channel that nobody sends to
    /compute    each request computes for 300 ms, and the loop serves nobody meanwhile
    /keep       each request opens a connection to the service itself, and forgets to close it
    /           answers "ok", when the loop comes to it
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time

import goloop

accounts = asyncio.Lock()
ledger = asyncio.Lock()
kept: list[asyncio.StreamWriter] = []  # the leak: nobody takes anything out


# --------------------------------------------------------- 1: a circle of locks
async def pay_in() -> None:
    async with accounts:
        await asyncio.sleep(0.01)
        async with ledger:
            pass


async def pay_out() -> None:
    async with ledger:
        await asyncio.sleep(0.01)
        async with accounts:
            pass


async def deadlock() -> str:
    for transfer in (pay_in, pay_out):
        transfers.add(asyncio.create_task(transfer(), name=transfer.__name__))
    return "two transfers have begun"


transfers: set[asyncio.Task[None]] = set()


# ------------------------------------------------- 2: goroutines that never end
def look_up(answers: goloop.Chan[str]) -> None:
    answers.recv()  # the request is long gone when an answer could come


async def leak() -> str:
    goloop.go(look_up, goloop.Chan())
    return "looked up"


# ------------------------------------------------------- 3: a handler that computes
def checksum() -> int:
    total, until = 0, time.perf_counter() + 0.3
    while time.perf_counter() < until:
        total = (total * 31 + 7) % 1_000_003
    return total


async def compute() -> str:
    return str(checksum())


# -------------------------------------------- 4: connections that are never closed
async def keep() -> str:
    _, writer = await asyncio.open_connection(*address)
    kept.append(writer)
    return f"{len(kept)} connections"


# ------------------------------------------------------------------ the service
PAGES = {"/deadlock": deadlock, "/leak": leak, "/compute": compute, "/keep": keep}
address: tuple[str, int] = ("127.0.0.1", 8000)


async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = await reader.readline()
        while (await reader.readline()).strip():
            pass
        path = request.split()[1].decode() if len(request.split()) > 1 else "/"
        page = PAGES.get(path)
        answer = await page() if page is not None else "ok"
        writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(listen: str) -> None:
    global address
    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(serve_client, host, int(port))
    address = server.sockets[0].getsockname()[:2]
    print(f"process {os.getpid()} listens at http://{address[0]}:{address[1]}/", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A service with four faults: /deadlock, /leak, /compute, /keep.")
    parser.add_argument("address", nargs="?", default="127.0.0.1:8000", help="HOST:PORT (default: %(default)s)")
    options = parser.parse_args()
    try:
        goloop.run(main(options.address))
    except (OSError, ValueError) as error:
        raise SystemExit(f"cannot listen on {options.address}: {error}") from None
    except KeyboardInterrupt:
        print("bye")
