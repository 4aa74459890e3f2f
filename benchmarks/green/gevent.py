"""gevent's greenlets and queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.lock
import gevent.pool
import gevent.queue
import gevent.socket


def run(function: Callable[..., Any], *args: Any) -> Any:
    return gevent.spawn(function, *args).get()


def spawn(n: int) -> None:
    gevent.joinall([gevent.spawn(int) for _ in range(n)])


def yield_(n: int) -> None:
    def other() -> None:
        for _ in range(n // 2):
            gevent.sleep(0)

    g = gevent.spawn(other)
    other()
    g.join()


def pingpong(n: int) -> None:
    ping, pong = gevent.lock.Semaphore(0), gevent.lock.Semaphore(0)

    def answer() -> None:
        for _ in range(n):
            ping.acquire()
            pong.release()

    g = gevent.spawn(answer)
    for _ in range(n):
        ping.release()
        pong.acquire()
    g.join()


def pump(queue: Any, n: int) -> None:
    def feed() -> None:
        for i in range(n):
            queue.put(i)

    g = gevent.spawn(feed)
    for _ in range(n):
        queue.get()
    g.join()


def unbuffered(n: int) -> None:
    pump(gevent.queue.Channel(), n)


def buffered(n: int) -> None:
    pump(gevent.queue.Queue(100), n)


def timeout(n: int) -> None:
    for _ in range(n):
        with gevent.Timeout(60):
            pass


def event(n: int) -> None:
    flag = gevent.event.Event()
    for _ in range(n):
        flag.set()
        flag.wait()
        flag.clear()


def future(n: int) -> None:
    for i in range(n):
        result = gevent.event.AsyncResult()
        result.set(i)
        result.get()


def each(n: int) -> None:
    gevent.pool.Pool(20).map(abs, range(n))


def park(n: int) -> Any:
    event = gevent.event.Event()
    kept = [gevent.spawn(event.wait) for _ in range(n)]
    gevent.sleep(0)
    return kept


def echo(sock: Any) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def serve(ready: Callable[[int], None]) -> None:
    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    ready(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        gevent.spawn(echo, sock)
