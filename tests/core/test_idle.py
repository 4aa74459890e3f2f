"""An idle loop sleeps on its futex, and the one netpoller thread in epoll_wait for all of them.

The kernel says which system call a thread is in. Nothing here waits for a time but for the thread's state.
"""

import asyncio
import os
import platform
import socket
import threading

import pytest

import goloop
from tests.helpers.servers import ending
from tests.helpers.waiting import until

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="system calls are told apart by x86-64's numbers"
)

FUTEX, EPOLL = {202}, {232, 281, 441}  # futex; epoll_wait, epoll_pwait, epoll_pwait2


def call_of(tid):
    """The number of the system call that a thread of this process is in; None: it is in none."""
    with open(f"/proc/self/task/{tid}/syscall") as file:
        first = file.read().split()[0]
    return int(first) if first.isdigit() else None


def netpollers():
    """The thread identifiers of the netpoller: none, or one."""
    found = []
    for tid in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{tid}/comm") as file:
            if file.read().strip() == "goloop-netpoll":
                found.append(tid)
    return found


def all_idle(threads):
    pollers = netpollers()
    return len(pollers) == 1 and call_of(pollers[0]) in EPOLL and all(call_of(t.native_id) in FUTEX for t in threads)


class IdleServer(threading.Thread):
    """A thread with a loop and a server that echoes lines."""

    def __init__(self):
        super().__init__()
        self.up = threading.Event()

    def run(self):
        goloop.run(self.main())

    async def main(self):
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        async with ending(await asyncio.start_server(self.echo, "127.0.0.1", 0)) as server:
            self.address = server.sockets[0].getsockname()
            self.up.set()
            await self.over.wait()

    async def echo(self, reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    def __enter__(self):
        self.start()
        assert self.up.wait(30)
        return self

    def __exit__(self, *exc):
        self.loop.call_soon_threadsafe(self.over.set)
        self.join()


def test_an_idle_server_is_parked_and_the_netpoller_waits_for_it():
    with IdleServer() as server:
        until(lambda: all_idle([server]))
        with socket.create_connection(server.address) as client:
            for i in range(3):
                client.sendall(b"hello %d\n" % i)
                assert client.recv(100) == b"hello %d\n" % i
                until(lambda: all_idle([server]))


def test_many_idle_loops_share_one_netpoller():
    servers = [IdleServer() for _ in range(20)]
    for server in servers:
        server.__enter__()
    try:
        until(lambda: all_idle(servers))
        for server in servers:
            with socket.create_connection(server.address) as client:
                client.sendall(b"hello\n")
                assert client.recv(100) == b"hello\n"
    finally:
        for server in servers:
            server.__exit__()


def test_an_idle_period_costs_one_more_wake_up():
    with IdleServer() as server, socket.create_connection(server.address) as client:
        client.sendall(b"one\n")
        assert client.recv(100) == b"one\n"
        until(lambda: all_idle([server]))
        before = server.loop._stats()["parks"]
        client.sendall(b"two\n")
        assert client.recv(100) == b"two\n"
        until(lambda: all_idle([server]))
        # One sleep after the message, and the same one on the futex.
        assert server.loop._stats()["parks"] - before <= 3


def test_a_worker_whose_goroutines_are_parked_is_idle_too():
    channel = goloop.Chan()
    ident = []

    def wait_for_it():
        ident.append(threading.current_thread())
        return channel.recv()

    goroutines = [goloop.go(wait_for_it) for _ in range(10)]
    until(lambda: len(ident) == 10)
    until(lambda: all_idle(set(ident)))
    for i in range(10):
        channel.send(i)
    assert sorted(g.result() for g in goroutines) == list(range(10))


def test_a_parked_loop_keeps_its_timers():
    fired = threading.Event()
    with IdleServer() as server:
        server.loop.call_soon_threadsafe(lambda: server.loop.call_later(1, fired.set))
        until(lambda: all_idle([server]))
        assert fired.wait(30)


def test_a_loop_that_only_timers_wake_stays_on_the_futex():
    times = []

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(4):
            before = loop._stats()["parks"]
            await asyncio.sleep(0.25)
            times.append(loop._stats()["parks"] - before)

    goloop.run(main())
    assert times[0] <= 3
    assert all(parks <= 2 for parks in times[1:])
