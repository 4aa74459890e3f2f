"""A WSGI application without a framework, for the tests of gunicorn's worker."""

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gunicorn.workers.base_async import ALREADY_HANDLED

import goloop

sleep = time.sleep  # taken before any request
gates: dict[int, threading.Barrier] = {}
gates_lock = threading.Lock()
FOLDER = Path(os.environ["TEST_FOLDER"])
print(f"app: loaded by {os.getpid()}, patched: {getattr(threading.Thread.join, '__module__', '')}", flush=True)


def read_body(environ: dict[str, Any]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while data := environ["wsgi.input"].read(10_000):
        digest.update(data)
        size += len(data)
    return digest.hexdigest(), size


def gate(number: int) -> None:
    """Return when that many requests are inside."""
    with gates_lock:
        barrier = gates.setdefault(number, threading.Barrier(number))
    barrier.wait(60)


def file(environ: dict[str, Any], size: int) -> Iterable[bytes]:
    content = tempfile.TemporaryFile()  # the server closes it
    content.write(bytes(range(256)) * (size // 256))
    content.seek(256)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](content)
    return wrapped


def stream(count: int) -> Iterator[bytes]:
    for i in range(count):
        sleep(0.001)
        yield b"%06d\n" % i


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    _, kind, *rest = environ["PATH_INFO"].split("/")
    number = int(rest[0]) if rest else 0
    headers = [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))]
    if kind == "stream":
        start_response("200 OK", headers)
        return stream(number)
    if kind == "file":
        start_response("200 OK", headers)
        return file(environ, number)
    if kind == "complain":
        environ["wsgi.errors"].write(f"complaint {number}\n")
    if kind == "broken":
        start_response("200 OK", [*headers, ("Content-Length", "100")])
        return (b"x" * 10 if i == 0 else bytes(-1) for i in range(2))
    if kind == "echo":
        body = " ".join(map(str, read_body(environ)))
    elif kind == "sleep":
        sleep(number / 1000)
        body = "slept"
    elif kind == "gate":
        gate(number)
        body = "through"
    elif kind == "hold":
        with (FOLDER / "held").open("a") as held:
            held.write("x")
        while not (FOLDER / "release").exists():
            sleep(0.01)
        body = "released"
    elif kind == "spin":
        (FOLDER / f"spinning{number}").touch()
        while True:
            pass
    elif kind == "hints":
        environ["wsgi.early_hints"]([("Link", "</style.css>")])
        environ["gunicorn.socket"].recv(1)  # until the client has seen them
        body = "hinted"
    elif kind == "hijack":  # the application speaks for itself
        sock = environ["gunicorn.socket"]
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
        sock.sendall(b"got " + sock.recv(100))
        return ALREADY_HANDLED  # type: ignore[no-any-return]
    elif kind == "where":
        body = f"{goloop.current() is not None} {environ['wsgi.url_scheme']} {environ['wsgi.multithread']}"
    elif kind == "peer":
        body = f"{environ['REMOTE_ADDR']} {environ['SERVER_PROTOCOL']} {environ.get('HTTP_X_TEST')}"
    elif kind == "crash":
        raise ValueError("crashed on purpose")
    elif kind == "exit":
        sys.exit("ended on purpose")
    else:
        body = f"pid {os.getpid()}"
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body.encode()]
