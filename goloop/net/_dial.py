"""dial(): addresses one after the other, both families in a race, until one connects."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, overload

from goloop._backoff import pauses
from goloop.chan import Chan, recv, select
from goloop.context import Context
from goloop.core.net.conn import Conn
from goloop.core.net.packet_conn import PacketConn
from goloop.core.net.polldesc import PollDesc, may_wait
from goloop.core.sched.bubble import refuse_in_bubble
from goloop.core.sched.goroutine import Goroutine, go
from goloop.core.sched.goroutine_api import sleep
from goloop.errors import Canceled, DeadlineExceeded
from goloop.net._address import ResolvedAddress, pack, parse, resolve
from goloop.net._limit import Limit, limit
from goloop.net._options import Options, Packet, Stream

_HEAD_START = 0.3  # seconds that the first family has before the other is tried as well; RFC 6555, as in Go


@overload
def dial(
    network: Stream, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> Conn: ...
@overload
def dial(
    network: Packet, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> PacketConn: ...
@overload
def dial(
    network: str, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> Any: ...
def dial(
    network: str, address: str | os.PathLike[str], timeout: float | None = None, *, ctx: Context | None = None
) -> Any:
    """Connect to an address (Go: net.Dial).

    network: "tcp", "udp", either with 4 or 6 for one family only, "unix" or "unixgram". address: "host:port",
    "[::1]:port", ":port" for this machine; a name of a host or of a service will do, and is looked up without stopping
    other goroutines. For Unix sockets a path, or "@name" for an abstract one. timeout: seconds for all of it,
    TimeoutError when it is over; None: the system's. ctx: a Context that ends the dial with its own end, by its error
    (Go: Dialer.DialContext); the connection outlives it; None: no context. Returns a Conn, or a PacketConn for
    datagrams.

    All addresses of a name are tried; if it has both families, the second one gets its chance after 0.3 s (RFC 6555).
    ValueError for a bad network or address, OSError with the first error when none answers. Connections have
    TCP_NODELAY and keep-alive set, as in Go. Parks a goroutine, which raises asyncio.CancelledError when it is
    cancelled; blocks a plain thread. RuntimeError on the thread of a running loop outside of a goroutine.
    """
    return dial_with(DialOptions(), network, address, limit(timeout, ctx, "dial()"))


class DialOptions(NamedTuple):
    options: Options = Options()
    local: tuple[ResolvedAddress, ...] = ()  # one of each family, to be bound to; none: the kernel's choice

    def bind(self, sock: socket.socket, target: ResolvedAddress) -> None:
        if self.local:
            local = next((address for address in self.local if address.family == target.family), None)
            if local is None:
                raise OSError(errno.EADDRNOTAVAIL, f"no local address of this family: dial {target}")
            sock.bind(local.sockaddr)


def dial_with(how: DialOptions, network: str, address: str | os.PathLike[str], until: Limit) -> Any:
    refuse_in_bubble("dial()")
    in_goroutine = may_wait("dial()", "asyncio.open_connection()")
    wanted = parse(network, address, passive=False)
    what = f"dial {network} {os.fspath(address)}"
    try:
        targets = resolve(wanted, in_goroutine, until)
        families = {target.family for target in targets}
        if len(families) == 1 or targets[0].kind != socket.SOCK_STREAM:
            return _dial_each(targets, until, how)
        return _dial_race(
            [t for t in targets if t.family == targets[0].family],
            [t for t in targets if t.family != targets[0].family],
            until,
            how,
        )
    except (Canceled, DeadlineExceeded) as exc:
        raise type(exc)(f"{what}: {exc}") from exc.__cause__
    except TimeoutError as exc:
        if exc.errno is not None:
            raise  # the system's
        raise TimeoutError(f"{what}: timed out") from None


def _dial_each(targets: list[ResolvedAddress], until: Limit, how: DialOptions) -> Any:
    """Try one after the other, each with its share of the time (Go: dialSerial)."""
    first: OSError | None = None
    for i, target in enumerate(targets):
        try:
            left = until.left()
            if left is None:
                return _connect(target, until, how)
            share = max(left / (len(targets) - i), min(left, 2.0))  # Go: partialDeadline
            return _connect(target, until.within(share), how)
        except OSError as exc:
            if first is None:
                first = exc
            elif not isinstance(exc, TimeoutError):
                first.add_note(str(exc))
    assert first is not None, "no address"
    try:
        raise first
    finally:
        del first  # or it would keep this frame alive, and be kept by it


def _dial_race(first: list[ResolvedAddress], second: list[ResolvedAddress], until: Limit, how: DialOptions) -> Any:
    """Happy eyeballs: the second list starts when the first has had its head start, or has failed."""
    race = _Race(until, how)
    racers = [go(race.run, first)]
    try:
        return race.referee(racers, partial(go, race.run, second))
    except BaseException:
        race.call_off()
        raise
    finally:
        for racer in racers:
            racer.cancel()


class _Race:
    """Two goroutines that dial; the first connection wins, and another one is closed."""

    def __init__(self, until: Limit, how: DialOptions) -> None:
        self.until = until
        self.how = how
        self.lock = threading.Lock()
        self.over = False  # guarded by lock
        self.winner: Chan[Any] = Chan(1)
        self.failures: Chan[Exception] = Chan(2)

    def run(self, targets: list[ResolvedAddress]) -> None:
        try:
            conn = _dial_each(targets, self.until, self.how)
        except (OSError, Canceled) as exc:
            self.failures.send(exc)
            return
        with self.lock:
            late, self.over = self.over, True
            if not late:
                self.winner.try_send(conn)
        if late:
            conn.close()

    def referee(self, racers: list[Goroutine[None]], start_second: Callable[[], Goroutine[None]]) -> Any:
        error: Exception | None = None
        for finished in range(2):
            while True:
                head_start = _HEAD_START if len(racers) == 1 else None
                try:
                    index, value, _ = select(recv(self.winner), recv(self.failures), timeout=head_start)
                    break
                except TimeoutError:
                    racers.append(start_second())
            if index == 0:
                return value
            error = error or value
            if len(racers) == 1 and finished == 0:
                racers.append(start_second())
        assert error is not None
        try:
            raise error
        finally:
            del error, value

    def call_off(self) -> None:
        with self.lock:
            self.over = True
            conn, there = self.winner.try_recv()
        if there and conn is not None:
            conn.close()


def _connect(target: ResolvedAddress, until: Limit, how: DialOptions) -> Any:
    for _ in range(3):
        sock = socket.socket(target.family, target.kind)
        try:
            sock.setblocking(False)
            how.options.prepare(sock, target.network, target.address)
            how.bind(sock, target)
            _finish_connect(sock, target, until)
            if target.kind == socket.SOCK_DGRAM:
                return PacketConn(sock, partial(pack, sock.family, False))
            if target.family == socket.AF_UNIX:
                return Conn(sock)
            if sock.getsockname() == sock.getpeername():
                # Linux connects a socket to itself when it gives that port out itself (Go: selfConnect).
                sock.close()
                continue
            how.options.set_tcp(sock)
            return Conn(sock)
        except BaseException:
            sock.close()
            raise
    raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connection refused: dial {target}")


def _finish_connect(sock: socket.socket, target: ResolvedAddress, until: Limit) -> None:
    for pause in pauses():
        error = sock.connect_ex(target.sockaddr)
        if error != errno.EAGAIN or sock.family != socket.AF_UNIX:
            break
        left = until.left()
        sleep(pause if left is None else min(pause, left))
    if error in (errno.EINPROGRESS, errno.EINTR):
        desc = PollDesc(sock)
        try:
            desc.set_write_deadline(until.context)
            desc.wait_write(until.left())
        except (TimeoutError, Canceled):
            until.left()  # says whose time it was
            raise TimeoutError from None
        finally:
            desc.close()
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"{os.strerror(error)}: dial {target}")
