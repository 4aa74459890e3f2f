"""GoroutineWorker: a gunicorn worker for WSGI applications, with a goroutine for each connection.

The main thread beats for the master and handles signals. A goroutine for each listener accepts. HTTP is gunicorn's own,
by its AsyncWorker, whose handle() runs in the goroutine of the connection; the patched standard library parks there.
While the thread of an accepting goroutine is stuck, in a driver in C or a computation, the main thread accepts.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import select
import ssl
import time
from functools import partial
from types import TracebackType
from typing import Any

from gunicorn import sock as gunicorn_sock
from gunicorn import util
from gunicorn.workers.base_async import AsyncWorker

from goloop.contrib.gunicorn import _remembered
from goloop.contrib.gunicorn._sockets import (
    Connection,
    TLSConnection,
    connection,
    held_by_workers_alone,
    refuse_handshakes,
)
from goloop.core.net.polldesc import PollDesc
from goloop.core.sched.goroutine import Goroutine, go
from goloop.core.sched.goroutine_api import gosched, sleep
from goloop.core.sched.timeout import timeout
from goloop.monkey import patch_all, patch_psycopg
from goloop.sync import Semaphore, WaitGroup

_BEAT = 1.0  # seconds between two signs of life; gunicorn's timeouts are whole seconds
_LOOK = 0.1  # seconds between two looks at the listeners by the main thread
_LINGER = 2.0  # seconds for which a worker that stops waits for requests on open connections; gunicorn's keepalive
_CLEAN_UP = 2.0  # seconds that the connections have to end after the graceful timeout
_PAUSE = 0.1  # seconds until the next try when there is no descriptor, or no memory, for a connection
_HANDSHAKE = 0.1  # seconds for handshakes under way when a listener closes
_GONE = (errno.ECONNABORTED, errno.EPERM, errno.EPROTO)  # the connection that was to be accepted, accept(2) says
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Patience:
    """`with` around the wait for a request: quietly ends it when it takes longer than its worker allows."""

    __slots__ = ("_limit", "_worker")

    def __init__(self, worker: GoroutineWorker) -> None:
        self._worker = worker
        self._limit = timeout(worker.cfg.keepalive)

    def __enter__(self) -> None:
        self._limit.__enter__()
        self._worker._waiting[self] = None
        if not self._worker.alive:  # a stop says so first, and looks for those that wait then
            self.hurry()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._worker._waiting.pop(self, None)
        try:
            self._limit.__exit__(kind, exc, traceback)
        except TimeoutError:
            return True
        return False

    def hurry(self) -> None:
        """The worker stops: wait for a little while only."""
        soon = time.monotonic() + _LINGER
        try:
            if (self._limit.when() or soon) >= soon:
                self._limit.reschedule(soon)
        except RuntimeError:
            pass  # the wait is over


class _Address:
    """As much of a listener as AsyncWorker.handle() needs; the listener itself may be closed by then."""

    __slots__ = ("getsockname",)

    def __init__(self, address: Any) -> None:
        self.getsockname = lambda: address


class _Acceptor:
    """Accepts connections from a listener in a goroutine, as long as there is room for them."""

    def __init__(self, worker: GoroutineWorker, listener: Any) -> None:
        self.worker = worker
        self.listener = listener
        self.address = _Address(listener.getsockname())
        self.turns = 0  # how often it was woken
        self.seen = -1  # that number, when the main thread looked last
        self.goroutine = go(self.run)

    def run(self) -> None:
        slots = self.worker._slots
        desc = PollDesc(self.listener.fileno())
        try:
            while True:
                desc.wait_read()
                slots.acquire()
                self.turns += 1
                self.start_one()
                gosched()
        finally:
            desc.close()

    def start_one(self) -> bool:
        """With a slot: start a connection; False if there is none to be had, and the slot is free again."""
        started = False
        try:
            started = self.start(slot=True)
        finally:
            if not started:
                self.worker._slots.release()
        return started

    def start(self, *, slot: bool) -> bool:
        """Accept a connection and start its goroutine; False if there is none to be had."""
        while True:
            try:
                client, addr = self.listener.accept()
                break
            except BlockingIOError:
                return False
            except OSError as exc:
                if exc.errno in _GONE:
                    continue
                if exc.errno not in _FULL:
                    raise
                self.worker.log.error("No connection can be accepted: %s", exc)
                sleep(_PAUSE)
                return False
        self.worker._start(self.address, connection(client), addr, slot)
        return True

    def relieve(self) -> None:
        """In the main thread: accept, if the goroutine's thread is stuck in what another goroutine does there."""
        if self.goroutine.done():
            self.worker._end_of(self.goroutine)  # which says why
            self.goroutine = go(self.run)
        before, self.seen = self.seen, self.turns
        if before == self.turns and select.select([self.listener.fileno()], [], [], 0)[0]:
            while self.worker._slots.try_acquire() and self.start_one():
                pass

    def stop(self) -> None:
        """In the main thread: accept what waits in the queue, or it would be reset, and close the listener."""
        self.worker._end_of(self.goroutine)
        inherited = any(isinstance(address, int) for address in self.worker.cfg.address)  # fd://…
        for_good = not inherited and held_by_workers_alone(self.listener.fileno(), self.worker.ppid)  # no reload
        leaves_soon = for_good and refuse_handshakes(self.listener.sock)
        while self.start(slot=False) or (
            leaves_soon and select.select([self.listener.fileno()], [], [], _HANDSHAKE)[0]
        ):
            pass
        self.listener.close()


class GoroutineWorker(AsyncWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker that serves each connection in a goroutine: `gunicorn -k goloop.contrib.gunicorn.GoroutineWorker app`.

    The standard library is patched (goloop.monkey.patch_all()) before the application is loaded, and psycopg (3) if it
    is installed; goloop.monkey.patch_psycopg2() is for the post_fork hook. gunicorn's settings mean what they mean for
    its gevent worker: worker_connections is the number of connections at a time, keepalive the seconds for the next
    request to come in, timeout the seconds without a goroutine that gets to run after which the master ends the worker.
    At a stop or reload, connections that wait in the listen queue are still accepted, requests under way have
    graceful_timeout seconds to end, and each answer closes its connection; a connection without a request is closed
    after 2 s. Of HTTP/2 gunicorn serves a connection's requests one after the other, and a connection without one stays
    for keepalive seconds, at a stop, too. gunicorn makes and calls it, in the main thread of the worker's process;
    handle() and handle_request() run in goroutines.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.alive: bool
        super().__init__(*args, **kwargs)
        self._slots = Semaphore(max(self.worker_connections, 1))
        self._connections: dict[Goroutine[None], None] = {}
        self._serving = WaitGroup()  # as many
        self._waiting: dict[_Patience, None] = {}  # connections without a request
        self._tls: ssl.SSLContext | None = None
        self._next_beat = 0.0  # in seconds of time.monotonic()
        self._pulse: Goroutine[None] | None = None  # the last beat
        self._cut_off = False  # the graceful timeout is over: what is left is cancelled

    def load_wsgi(self) -> None:
        """Called by gunicorn in the worker's process, once that has its signal handlers."""
        patch_all()
        if importlib.util.find_spec("psycopg") is not None:
            patch_psycopg()
        _remembered.remember()
        super().load_wsgi()

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """Called by gunicorn when its logs are to be opened anew, in the signal's handler."""
        super().handle_usr1(sig, frame)
        _remembered.forget()

    def timeout_ctx(self) -> _Patience:
        """Called by gunicorn where it waits for the next request."""
        return _Patience(self)

    # -------------------------------------------------------------- the main thread
    def run(self) -> None:
        """Called by gunicorn: serve until the worker is to stop."""
        if self.cfg.is_ssl:
            self._tls = gunicorn_sock.ssl_context(self.cfg)
            self._tls.sslsocket_class = TLSConnection
        acceptors = [_Acceptor(self, listener) for listener in self.sockets]
        while self.alive and self._master_lives():
            self._beat()
            self._sleep()
            for acceptor in acceptors:
                acceptor.relieve()
        self.alive = False
        for acceptor in acceptors:
            acceptor.stop()
        for patience in list(self._waiting):
            patience.hurry()
        self._finish()
        if self._pulse is not None:
            self._end_of(self._pulse)

    def _master_lives(self) -> bool:
        if self.ppid == os.getppid():
            return True
        self.log.info("Parent changed, shutting down: %s", self)
        return False

    def _beat(self) -> None:
        """Tell the master, once a second, that a goroutine gets to run: a worker that cannot do that is stuck."""
        now = time.monotonic()
        if now >= self._next_beat and (self._pulse is None or self._pulse.done()):
            self._next_beat = now + _BEAT
            self._pulse = go(self.notify)

    def _sleep(self) -> None:
        """For a moment, or until a signal."""
        if select.select([self.PIPE[0]], [], [], _LOOK)[0]:
            try:
                os.read(self.PIPE[0], 4096)
            except BlockingIOError:
                pass

    def _finish(self) -> None:
        """Let the requests under way end, for graceful_timeout seconds."""
        if self._ended_within(self.cfg.graceful_timeout):
            return
        self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
        self._cut_off = True
        for g in list(self._connections):
            g.cancel()
        self._ended_within(_CLEAN_UP)

    def _ended_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            self._beat()
            left = until - time.monotonic()
            try:
                self._serving.wait(min(_BEAT, left))
                return True
            except TimeoutError:
                if left <= 0:
                    return False

    def _end_of(self, goroutine: Goroutine[None]) -> None:
        """Cancel a goroutine of the worker's own, and wait until it has ended."""
        goroutine.cancel()
        try:
            goroutine.join(_CLEAN_UP)
        except (asyncio.CancelledError, TimeoutError):
            pass
        except Exception:
            self.log.exception("A goroutine of the worker failed")

    # ------------------------------------------------------------------- goroutines
    def _start(self, address: _Address, client: Connection, addr: Any, slot: bool) -> None:
        """Start the goroutine of a connection. It gives the slot back, if it has one."""
        self._serving.add(1)
        try:
            g = go(self._serve, address, client, addr)
        except BaseException:
            self._serving.done()
            client.close()
            raise
        self._connections[g] = None
        g.add_done_callback(partial(self._ended, client, slot))

    def _ended(self, client: Connection, slot: bool, g: Goroutine[None]) -> None:
        """The connection's goroutine is done, also if it never started."""
        util.close(client)
        self._connections.pop(g, None)
        if slot:
            self._slots.release()
        self._serving.done()

    def _serve(self, address: _Address, client: Connection, addr: Any) -> None:
        if self._tls is not None:
            try:
                client = self._shake_hands(self._tls, client)
            except OSError as exc:
                self.log.debug("No TLS with %s: %s", addr, exc)
                return
        self.handle(address, client, addr)

    def _shake_hands(self, context: ssl.SSLContext, client: Connection) -> TLSConnection:
        with timeout(self.cfg.timeout or None):
            tls = context.wrap_socket(
                client,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=self.cfg.suppress_ragged_eofs,
            )
            assert isinstance(tls, TLSConnection)
            try:
                tls.do_handshake()
            except BaseException:
                tls.close()
                raise
            return tls

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Called by gunicorn for each request."""
        sock.begin_answer()
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.end_answer()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Called by gunicorn for a request that fails."""
        if self._cut_off and isinstance(exc, asyncio.CancelledError):
            self.log.debug("Closing connection of %s: the graceful timeout is over", addr)
        else:
            super().handle_error(req, client, addr, exc)
