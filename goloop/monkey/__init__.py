"""The standard library, cooperative in goroutines and untouched everywhere else.

A goroutine that calls time.sleep(), reads a socket or waits for a lock parks, so that others run on its thread
meanwhile. Plain threads, coroutines and a loop's callbacks notice nothing: what is changed asks at each call whether a
goroutine calls. It is changed where it is (patch/hook.pyx), so that it does not matter what was imported, made or
bound before; there is no way back.
"""

from __future__ import annotations

from collections.abc import Callable

from goloop.monkey import _dns, _queue, _select, _socket, _ssl, _subprocess, _threading, _time
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


def _patch(name: str) -> None:
    if name not in _patched:
        _patched.add(name)  # one that fails half-way must not be begun again
        _PATCHES[name]()


def is_patched(name: str) -> bool:
    """Return whether "socket", "ssl", "time", "select", "queue", "threading", "subprocess" or "dns" is patched.

    ValueError for any other name.
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
    """Let the standard library park goroutines (gevent: monkey.patch_all). Again: nothing happens.

    Each argument stands for one of the patch_...() functions below. Call it in any thread and at any time, but
    best before goroutines run: those that run keep sharing their thread's threading.local values.
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
    for name, on in wanted.items():
        if on:
            _patch(name)


def patch_time() -> None:
    """time.sleep(); sleep(0) lets other goroutines run."""
    _patch("time")


def patch_threading() -> None:
    """Lock, RLock, what is built on them (Condition, Event, Semaphore, Barrier), Thread.join(), threading.local.

    A goroutine owns an RLock, rather than its thread, and has values of its own in each threading.local.
    get_ident() and current_thread() stay those of the thread, which a goroutine never changes.
    """
    _patch("threading")


def patch_queue() -> None:
    """queue.SimpleQueue; the other queues are made of locks, see patch_threading()."""
    _patch("queue")


def patch_select() -> None:
    """select.select(), poll objects and epoll objects, and so the selectors."""
    _patch("select")


def patch_socket() -> None:
    """Connecting, accepting, receiving and sending on every socket."""
    _patch("socket")


def patch_ssl() -> None:
    """Handshake, reading, writing and closing of ssl.SSLSocket."""
    _patch("ssl")


def patch_subprocess() -> None:
    """Popen.wait() and communicate(), os.waitpid() and os.waitid() for one child."""
    _patch("subprocess")


def patch_dns() -> None:
    """getaddrinfo(), gethostbyname() and their kin: in a pool of threads, while the goroutine parks."""
    _patch("dns")
