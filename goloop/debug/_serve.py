"""serve(): the one door of this process, and the page behind it. Their state and its changes are here alone.

A forked child gets a door of its own, and no page: its address is the parent's.
"""

from __future__ import annotations

import atexit
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from goloop.debug._door import answers
from goloop.debug._door.server import Server
from goloop.runtime import fork
from goloop.runtime.real_threads import require_threads

if TYPE_CHECKING:
    from goloop.debug._page.server import Page

_lock = threading.RLock()  # guards what follows, and is held while a door opens or closes
_server: Server | None = None
_page: Page | None = None
_installed = False


class Door:
    """The way into this process for those who look at it, made by serve(). Also a context manager that closes it.

    All methods and attributes are for any thread.
    """

    __slots__ = ()

    @property
    def path(self) -> str | None:
        """The path of the Unix socket. None when the door is closed. Any thread."""
        server = _server
        return None if server is None else server.path

    @property
    def url(self) -> str | None:
        """The address of the page. None without one. Any thread."""
        page = _page
        return None if page is None else page.url

    def close(self) -> None:
        """Close the door and the page, for all that asked for them. Again: no effect. Any thread; it waits for answers
        that are on their way, for a second at most."""
        _close()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        where = " ".join(each for each in (self.path, self.url) if each is not None)
        return f"<goloop.debug.Door {where or 'closed'}>"


def serve(*, http: str | None = None) -> Door:
    """Let `python -m goloop ps | dump | top | stats | trace` look into this process, and browsers if `http` is given
    (Go: net/http/pprof).

    The door is a Unix socket in /tmp/goloop-UID (or GOLOOP_DEBUG_DIR), for this user and root. Threads of its own serve
    it, so it answers while every loop is stuck; what it shows are names, states and places in the code, never arguments
    or data. It stays open until close() or the end of the process, and a forked child opens its own. GOLOOP_DEBUG=1
    opens it at the import. Calling serve() again returns the same door.

    http: where to serve a page as well, "HOST:PORT" such as "127.0.0.1:6060" or "[::1]:6060"; port 0 chooses one (see
    Door.url). Whoever reaches that address can read the page; one that is not of this machine has to be given as an
    IP address. It needs the extra goloop[web].

    OSError if the folder or the address cannot be used, PermissionError if the folder is another user's or open to
    others, ValueError for an address that is none, RuntimeError if a page is served elsewhere already or gevent has
    replaced threads, ImportError without the extra. From any thread.
    """
    global _server, _page
    require_threads()
    with _lock:
        if http is not None:
            Page, split = _page_classes()
            host, port = split(http)
            if _page is not None and not _page.serves(host, port):
                raise RuntimeError(f"the page is at {_page.url} already: close() that door first")
        _install()
        if _server is None:
            _server = Server(answers.answer)
        if http is not None and _page is None:
            _page = Page(host, port)
    return Door()


def _page_classes() -> tuple[type[Page], Callable[[str], tuple[str, int]]]:
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise ImportError("the page is served by aiohttp: pip install 'goloop[web]'") from None
    from goloop.debug._page.server import Page, split

    return Page, split


def _install() -> None:
    global _installed
    if not _installed:
        _installed = True
        # Called at the import, it closes behind goloop's own shutdown: one can see what that waits for.
        atexit.register(_close)
        fork.add(_after_fork_in_child)


def serve_from_environment() -> None:
    """Open the door for GOLOOP_DEBUG=1. A program whose door cannot be opened runs all the same, with a warning."""
    try:
        serve()
    except (OSError, RuntimeError) as exc:
        warnings.warn(f"GOLOOP_DEBUG: nobody can look into this process: {exc}", RuntimeWarning, stacklevel=3)


def _close() -> None:
    global _server, _page
    with _lock:
        server, _server = _server, None
        page, _page = _page, None
        try:
            if page is not None:
                page.close()
        finally:
            if server is not None:
                server.close()


def _after_fork_in_child() -> None:
    """The threads stayed in the parent."""
    global _lock, _server, _page
    _lock = threading.RLock()
    server, _server = _server, None
    page, _page = _page, None
    if page is not None:
        page.abandon()
    if server is not None:
        server.abandon()
        try:
            _server = Server(answers.answer)
        except (OSError, RuntimeError) as exc:
            warnings.warn(f"nobody can look into the child process: {exc}", RuntimeWarning, stacklevel=2)
