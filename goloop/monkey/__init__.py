"""The standard library, cooperative in goroutines and untouched everywhere else.

A goroutine that calls time.sleep(), reads a socket or waits for a lock parks, so that others run on its thread
meanwhile. Plain threads, coroutines and a loop's callbacks notice nothing: a changed function asks at each call whether
a goroutine calls. It is changed where it is (patch/hook.pyx), so that it does not matter when a name was imported, made
or bound; there is no way back.
"""

from __future__ import annotations

from collections.abc import Callable

from goloop.monkey import _dns, _queue, _select, _socket, _ssl, _subprocess, _threading, _time
from goloop.monkey._drivers import blocking_drivers
from goloop.monkey._psycopg import patch_psycopg, patch_psycopg2

__all__ = [
    "is_patched",
    "patch_all",
    "patch_dns",
    "patch_psycopg",
    "patch_psycopg2",
    "patch_queue",
    "patch_select",
    "patch_socket",
    "patch_ssl",
    "patch_subprocess",
    "patch_threading",
    "patch_time",
    "unpatched",
]

_PATCHES: dict[str, Callable[[], None]] = {
    "time": _time.patch,
    "threading": _threading.patch,
    "queue": _queue.patch,
    "select": _select.patch,
    "socket": _socket.patch,
    "ssl": _ssl.patch,
    "subprocess": _subprocess.patch,
    "dns": _dns.patch,
}
_patched: set[str] = set()
_failed: dict[str, str] = {}  # part: why; one that fails half-way must not be begun again


def _patch(*names: str) -> None:
    """Patch these parts, all that can be. SystemError that tells which could not."""
    for name in names:
        if name not in _patched and name not in _failed:
            try:
                _PATCHES[name]()
            except Exception as exc:
                _failed[name] = f"{type(exc).__name__}: {exc}"
            else:
                _patched.add(name)
    failed = [f"{name} ({_failed[name]})" for name in names if name in _failed]
    if failed:
        raise SystemError(f"not patched, and blocking goroutines' threads as ever: {'; '.join(failed)}")


def is_patched(name: str) -> bool:
    """Return whether a part of the standard library is patched (bool). From any thread.

    name: "socket", "ssl", "time", "select", "queue", "threading", "subprocess" or "dns"; ValueError for any other.
    """
    if name not in _PATCHES:
        raise ValueError(f"there is no patch {name!r}; there are {', '.join(_PATCHES)}")
    return name in _patched


def patch_all(
    *,
    socket: bool = True,
    ssl: bool = True,
    time: bool = True,
    select: bool = True,
    queue: bool = True,
    threading: bool = True,
    subprocess: bool = True,
    dns: bool = True,
) -> None:
    """Let the standard library park goroutines (gevent: monkey.patch_all). A second call does nothing.

    Each argument stands for a function below; False leaves that part as it is. socket: patch_socket(). ssl:
    patch_ssl(). time: patch_time(). select: patch_select(). queue: patch_queue(). threading: patch_threading().
    subprocess: patch_subprocess(). dns: patch_dns(). SystemError that tells which parts could not be patched, as on a
    Python whose insides are not as expected; the others are patched all the same. unpatched() tells what else blocks.
    Call it in any thread and at any time, but best before goroutines run: those that run keep sharing their thread's
    threading.local values.
    """
    wanted = {
        "time": time,
        "threading": threading,
        "queue": queue,
        "select": select,
        "socket": socket,
        "ssl": ssl,
        "subprocess": subprocess,
        "dns": dns,
    }
    _patch(*(name for name, on in wanted.items() if on))


def unpatched() -> dict[str, str]:
    """Return what blocks the thread of a goroutine that waits in it, as far as that can be known: name and reason.

    In it are the parts of the standard library that are not patched, and the drivers in C that are imported by now and
    wait by themselves: a goroutine that waits there keeps its thread, though not others that have not started. Files,
    pipes that are read without communicate() and multiprocessing's locks block in any case. From any thread, goroutine
    or coroutine.
    """
    parts = {
        name: _failed.get(name, f"goloop.monkey.patch_{name}() was not called")
        for name in _PATCHES
        if name not in _patched
    }
    return parts | blocking_drivers()


def patch_time() -> None:
    """Let time.sleep() park goroutines; sleep(0) lets other goroutines run. From any thread, at any time.

    In a bubble of goloop.testing that begins later, time.sleep(), time(), monotonic(), perf_counter() and their
    variants in nanoseconds go by the bubble's clock.
    """
    _patch("time")


def patch_threading() -> None:
    """Let locks, Thread.join() and threading.local work by goroutine. From any thread, at any time.

    Covered are Lock, RLock and everything that is built on them (Condition, Event, Semaphore, Barrier). A goroutine
    owns an RLock, rather than its thread, and has values of its own in each threading.local. get_ident() and
    current_thread() stay those of the thread, which a goroutine never changes.
    """
    _patch("threading")


def patch_queue() -> None:
    """Let queue.SimpleQueue park goroutines. From any thread, at any time.

    The other queues are made of locks: patch_threading() is for them.
    """
    _patch("queue")


def patch_select() -> None:
    """Let select.select(), poll objects and epoll objects park goroutines, and so the selectors.

    From any thread, at any time.
    """
    _patch("select")


def patch_socket() -> None:
    """Let connecting, accepting, receiving and sending on sockets park goroutines. From any thread, at any time."""
    _patch("socket")


def patch_ssl() -> None:
    """Let handshake, reading, writing and closing of ssl.SSLSocket park goroutines. From any thread, at any time."""
    _patch("ssl")


def patch_subprocess() -> None:
    """Let waiting for a child process park goroutines. From any thread, at any time.

    Covered are Popen.wait() and communicate(), os.waitpid() and os.waitid() for one child.
    """
    _patch("subprocess")


def patch_dns() -> None:
    """Let getaddrinfo(), gethostbyname() and their kin run in a pool of threads while the goroutine parks.

    From any thread, at any time.
    """
    _patch("dns")
