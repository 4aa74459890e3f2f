"""What loops have besides tasks: servers, connections, child processes, timers, executors."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from goloop.core.look import loops as look
from goloop.core.look.chains import text_of_address
from goloop.core.look.parts import callable_name
from goloop.core.net.polldesc import PollDesc
from goloop.core.sync import timer_thread
from goloop.core.transports.acceptor import Acceptor
from goloop.debug import _snapshot as data
from goloop.runtime import workers

if TYPE_CHECKING:
    from goloop.debug._collect import Raw


def _key(kind: str, thing: Any) -> str:
    return f"{kind}-{id(thing):x}"


def _kind(family: int | None, kind: int | None) -> str:
    if family == socket.AF_UNIX:
        return "unix" if kind == socket.SOCK_STREAM else "unix datagram"
    return "udp" if kind == socket.SOCK_DGRAM else "tcp"


def addresses_of(fd: int) -> tuple[str, str, str]:
    """Return the kind of a socket, and its two addresses; empty texts for what is none."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return "", "", ""
    try:
        local = peer = ""
        try:
            local = text_of_address(sock.getsockname())
            peer = text_of_address(sock.getpeername())
        except OSError:
            pass
        return _kind(sock.family, sock.type), local, peer
    finally:
        sock.detach()


def connections(raw: Raw) -> tuple[tuple[data.Server, ...], tuple[data.Connection, ...]]:
    servers: dict[int, tuple[str, Any, list[Any]]] = {}
    found = []
    for loop in raw.loops:
        key = f"loop-{id(loop):x}"
        for fd, reader, _, owner in look.descriptors_of(loop):
            if isinstance(reader, Acceptor):
                server = look.acceptor_state(reader)[1]
                servers.setdefault(id(server), (key, server, []))[2].append(reader)
            state = look.transport_state(owner) if owner is not None else None
            if state is not None:
                found.append(_connection(key, owner, state))
            elif isinstance(owner, PollDesc):
                found.append(_of_goroutines(fd, owner, key))
    return tuple(_server(*entry) for entry in servers.values()), tuple(found)


def _connection(loop: str, transport: Any, state: dict[str, Any]) -> data.Connection:
    server = state.pop("server")
    local, peer = text_of_address(state.pop("local")), text_of_address(state.pop("peer"))
    kind = ""
    if local or peer:
        kind = "unix" if ":" not in (local or peer) else "tcp"
    if type(transport).__name__ == "DatagramTransport":
        kind = "udp"
    elif not kind:
        kind = "pipe" if "Pipe" in type(transport).__name__ else "unix"
    return data.Connection(
        key=_key("connection", transport),
        loop=loop,
        server="" if server is None else _key("server", server),
        kind=kind,
        local=local,
        peer=peer,
        **state,
    )


def _of_goroutines(fd: int, desc: PollDesc, loop: str) -> data.Connection:
    kind, local, peer = addresses_of(fd)
    return data.Connection(
        key=_key("conn", desc),
        loop=loop,
        server="",
        kind=f"goloop.net {kind}".strip(),
        fd=fd,
        local=local,
        peer=peer,
        protocol="",
        since=None,
        received=None,
        sent=None,
        buffered=0,
        reading_paused=False,
        writing_paused=False,
        closing=False,
        offloaded=False,
        tls=False,
    )


def _server(loop: str, server: Any, acceptors: list[Any]) -> data.Server:
    addresses = []
    accepting = 0
    backlog = 0
    tls = False
    kind = ""
    for acceptor in acceptors:
        sock, _, tls, n, backlog = look.acceptor_state(acceptor)
        accepting += n
        kind, local, _ = addresses_of(sock.fileno())
        addresses.append(local)
    clients = getattr(server, "_clients", None)  # 3.13
    count = len(clients) if clients is not None else getattr(server, "_active_count", None)
    return data.Server(
        key=_key("server", server),
        loop=loop,
        kind="tls" if tls else kind,
        addresses=tuple(addresses),
        connections=count,
        accepting=accepting,
        backlog=backlog,
    )


def children(raw: Raw) -> tuple[data.Child, ...]:
    found = []
    for loop in raw.loops:
        for transport in list(loop._children):
            proc = transport._proc
            if proc is None:
                continue
            found.append(
                data.Child(
                    key=f"process-{proc.pid}",
                    pid=proc.pid,
                    program=_program(proc.args),
                    loop=f"loop-{id(loop):x}",
                    since=None,
                    waiters=len(transport._exit_waiters or ()),
                )
            )
    return tuple(found)


def _program(args: Any) -> str:
    """The file of a command, without folder and arguments; of a command line for the shell, that it is one."""
    if isinstance(args, (str, bytes)):
        return "sh"
    try:
        return os.path.basename(os.fsdecode(args[0]))
    except (TypeError, IndexError):
        return ""


def timers(raw: Raw) -> tuple[data.Timer, ...]:
    found = []
    for loop in raw.loops:
        shift = raw.now - loop.time() if loop._is_bubble else 0.0
        for when, callback, name in look.timers_of(loop):
            if callback is not workers._retire_if_idle:
                found.append(data.Timer(_key("timer", callback), f"loop-{id(loop):x}", when + shift, name))
    for entry, when, function in timer_thread.timers_set():
        name = "a channel's" if function is None else callable_name(function)
        found.append(data.Timer(_key("timer", entry), "", when, name))
    return tuple(found)


def executors(raw: Raw) -> tuple[data.Executor, ...]:
    found = []
    for loop in raw.loops:
        pool = getattr(loop, "_default_executor", None)
        if pool is None:
            continue
        queue = getattr(pool, "_work_queue", None)
        threads = getattr(pool, "_threads", None)
        found.append(
            data.Executor(
                key=_key("executor", pool),
                loop=f"loop-{id(loop):x}",
                kind=type(pool).__qualname__,
                limit=getattr(pool, "_max_workers", None),
                threads=len(threads) if threads is not None else 0,
                queued=queue.qsize() if queue is not None and hasattr(queue, "qsize") else None,
                running=tuple(text for of, text in raw.jobs.threads.values() if text and of is queue),
            )
        )
    return tuple(found)
