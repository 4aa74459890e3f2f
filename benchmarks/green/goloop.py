"""goloop's goroutines and channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import goloop
from goloop import Chan, go, gosched, net


def run(function: Callable[..., Any], *args: Any) -> Any:
    return go(function, *args).result()


def spawn(n: int) -> None:
    for g in [go(int) for _ in range(n)]:
        g.join()


def yield_(n: int) -> None:
    def other() -> None:
        for _ in range(n // 2):
            gosched()

    g = go(other)
    other()
    g.join()


def pingpong(n: int) -> None:
    ping, pong = goloop.sync.Semaphore(1), goloop.sync.Semaphore(1)
    ping.acquire()
    pong.acquire()

    def answer() -> None:
        for _ in range(n):
            ping.acquire()
            pong.release()

    g = go(answer)
    for _ in range(n):
        ping.release()
        pong.acquire()
    g.join()


def pump(chan: Chan[int], n: int) -> None:
    def feed() -> None:
        for i in range(n):
            chan.send(i)

    g = go(feed)
    for _ in range(n):
        chan.recv()
    g.join()


def unbuffered(n: int) -> None:
    pump(Chan(), n)


def buffered(n: int) -> None:
    pump(Chan(100), n)


def timeout(n: int) -> None:
    for _ in range(n):
        with goloop.timeout(60):
            pass


def event(n: int) -> None:
    flag = goloop.sync.Event()
    for _ in range(n):
        flag.set()
        flag.wait()
        flag.clear()


def future(n: int) -> None:
    for i in range(n):
        result: goloop.sync.Future[int] = goloop.sync.Future()
        result.set_result(i)
        result.result()


def each(n: int) -> None:
    goloop.map(abs, range(n), limit=20)


def atomic(n: int) -> None:
    number = goloop.sync.AtomicInt()
    for _ in range(n):
        number.add(1)


def table(n: int) -> None:
    table: goloop.sync.Map[int, int] = goloop.sync.Map()
    for i in range(n):
        table.load(i & 1023)
        table.store(i & 1023, i)


def pool(n: int) -> None:
    objects = goloop.sync.Pool(bytearray)
    for _ in range(n):
        objects.put(objects.get())


def limiter(n: int) -> None:
    limiter = goloop.rate.Limiter(1e9, 10**9)
    for _ in range(n):
        limiter.allow()


def flight(n: int) -> None:
    group = goloop.singleflight.Group()
    for _ in range(n):
        group.do("key", int)


def park(n: int) -> Any:
    chan = Chan[int]()
    kept = [go(chan.recv) for _ in range(n)]
    while any(g.state != "chan receive" for g in kept):
        gosched()
    return kept


def echo(conn: net.Conn) -> None:
    with conn:
        while data := conn.read(65536):
            conn.write(data)


def serve(ready: Callable[[int], None]) -> None:
    with net.listen("tcp", "127.0.0.1:0") as listener:
        ready(int(listener.addr.rpartition(":")[2]))
        for conn in listener:
            go(echo, conn)
