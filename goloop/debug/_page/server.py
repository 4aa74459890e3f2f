"""The thread of the page, and the loop in it. That is asyncio's own, so nothing that goes wrong in goloop's reaches it.

Whoever looks at the process is not to see this loop: `looks_inside` tells it from the program's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from asyncio import unix_events
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from goloop.debug._asleep import harmless
from goloop.debug._page import app, checks

FAREWELL = 1.0  # seconds for the answers that are on their way when the page closes


class PageLoop(unix_events._UnixSelectorEventLoop):
    """asyncio's loop by a name that goloop.install() leaves alone."""

    looks_inside = True


def split(address: str) -> tuple[str, int]:
    """Return host and port of "HOST:PORT". ValueError for what is no such address."""
    host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ValueError(f"http is 'HOST:PORT', such as '127.0.0.1:6060', not {address!r}")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"the host of http is localhost or an IP address, not {host!r}") from None
    return host, int(port)


class Page:
    """A page that is served. OSError if the address cannot be used, RuntimeError if there can be no more threads."""

    def __init__(self, host: str, port: int) -> None:
        self._asked = (host, port)
        self._sockets = _bind(host, port)
        self._port = self._sockets[0].getsockname()[1]
        self._loop = PageLoop()
        self._loop.set_debug(False)  # its log would speak of what the program does not know
        self._loop.set_default_executor(ThreadPoolExecutor(1, "goloop-page"))
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._run, args=(host,), name="goloop-page", daemon=True)
        harmless.add(self._thread)
        try:
            self._thread.start()
            self._ready.wait()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            for sock in self._sockets:
                sock.close()
            raise
        self.url = f"http://{checks.bracketed(host)}:{self._port}/"

    def serves(self, host: str, port: int) -> bool:
        """Return whether this is the page that is asked for. Port 0 is any."""
        return host == self._asked[0] and port in (0, self._asked[1], self._port)

    def close(self) -> None:
        """End the thread and its connections."""
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # its thread has ended
            pass
        if self._thread is not threading.current_thread():
            self._thread.join(2 * FAREWELL)

    def abandon(self) -> None:
        """Let go of what belongs to the parent. In a forked child, where the thread is not.

        The descriptor of epoll is closed first: the parent's goes on to watch what the child closes.
        """
        loop: Any = self._loop
        loop._selector.close()
        for sock in (*self._sockets, loop._ssock, loop._csock, *_clients(self._runner)):
            sock.close()
        _left_in_child.append(self)  # as it is: its end would speak to a loop that does not run

    def _end(self) -> None:
        if self._ended is not None:
            self._ended.set()

    def _run(self, host: str) -> None:
        try:
            self._loop.run_until_complete(self._serve(host))
        except BaseException as exc:
            self._failure = exc
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self, host: str) -> None:
        self._ended = asyncio.Event()
        self._runner = web.AppRunner(
            app.make(checks.names(host)), access_log=None, handler_cancellation=True, shutdown_timeout=FAREWELL
        )
        await self._runner.setup()
        try:
            for sock in self._sockets:
                await web.SockSite(self._runner, sock, backlog=16).start()
            self._ready.set()
            await self._ended.wait()
        finally:
            await self._runner.cleanup()
            await self._loop.shutdown_default_executor()


_left_in_child: list[Page] = []


def _clients(runner: web.AppRunner | None) -> list[Any]:
    """Return the sockets of the connections that the page has."""
    server = None if runner is None else runner.server
    transports = [] if server is None else [protocol.transport for protocol in server.connections]
    return [t.get_extra_info("socket")._sock for t in transports if t is not None]


def _bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for the host: two for localhost, if there is IPv6."""
    hosts = [host] if host != "localhost" else ["127.0.0.1", "::1"]
    bound: list[socket.socket] = []
    try:
        for each in hosts:
            family = socket.AF_INET6 if ":" in each else socket.AF_INET
            try:
                bound.append(socket.create_server((each, port), family=family, backlog=16))
            except OSError:
                if not bound:
                    raise
                break  # IPv4 is enough, where there is no IPv6
            port = bound[0].getsockname()[1]
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound
