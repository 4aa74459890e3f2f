"""Servers and tasks that are stopped while a connection is being made: it is closed, and nobody waits for it."""

import asyncio
import contextlib
import socket
import sys

import pytest

from tests.helpers.certificates import client_context, server_context
from tests.helpers.outcomes import reports
from tests.helpers.recorders import Echo, Recorder, decreed, stock
from tests.helpers.servers import serving, talks
from tests.helpers.waiting import async_until, settle

KINDS = ["tcp", "tls"]


def stop_and_cancel_all(loop):
    loop.stop()
    for task in asyncio.all_tasks(loop):
        task.cancel()


@contextlib.contextmanager
def stopped_while_accepting(loop, kind, later):
    """A server whose loop was stopped, and whose tasks were cancelled, in the protocol factory or just after it.

    With its peer and its protocol, which begins a task when it is told of the connection.
    """
    recorder = Recorder(made=lambda _: tasks.append(loop.create_task(asyncio.sleep(1000))))
    tasks = []

    def factory():
        if later:
            loop.call_soon(stop_and_cancel_all, loop)
        else:
            stop_and_cancel_all(loop)
        return recorder

    options = {"ssl": server_context()} if kind == "tls" else {}
    server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0, **options))
    with socket.create_connection(server.sockets[0].getsockname()) as peer:
        loop.run_forever()
        yield server, peer, recorder
    for task in tasks:
        task.cancel()
    loop.run_until_complete(settle())


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_is_being_accepted_is_closed_with_its_server(both, kind, later):
    def scenario(loop):
        if kind == "tls" and stock(loop):
            return b"", []  # asyncio goes on with the handshake
        with stopped_while_accepting(loop, kind, later) as (server, peer, recorder):
            server.close()
            loop.run_until_complete(asyncio.wait_for(server.wait_closed(), 10))
            loop.run_until_complete(settle())
            peer.settimeout(10)
            return peer.recv(10), [] if kind == "tls" else recorder.events

    assert both(scenario) == (b"", [] if kind == "tls" else ["made", ("lost", None)])


def test_cancelling_all_tasks_of_a_running_loop_closes_what_is_being_accepted(both):
    async def scenario(loop):
        before = asyncio.all_tasks()
        tasks = []
        recorder = Recorder(made=lambda _: tasks.append(loop.create_task(asyncio.sleep(1000))))

        def factory():
            for task in asyncio.all_tasks() - before:
                task.cancel()
            return recorder

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            await recorder.until("lost")
            server.close()
            await server.wait_closed()
            peer.settimeout(10)
            received = peer.recv(10)
        for task in tasks:
            task.cancel()
        await settle()
        return received, recorder.events, asyncio.all_tasks() == before

    assert both(scenario) == (b"", ["made", ("lost", None)], True)


def test_a_server_that_its_first_connection_closes_goes_on_with_that_one(both):
    async def scenario(loop):
        class First(Echo):
            def connection_made(self, transport):
                super().connection_made(transport)
                server.close()

        async with serving(loop, First) as (server, address):
            return await talks(loop, address)

    assert both(scenario) is True


def test_connections_that_were_told_of_are_left_alone_when_the_server_closes(both):
    async def scenario(loop):
        recorders = []

        def factory():
            recorders.append(Recorder())
            return recorders[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            await async_until(lambda: recorders and recorders[0].events)
            server.close()
            peer.send(b"still there")
            await recorders[0].until(11)
        await recorders[0].until("lost")
        await server.wait_closed()
        return recorders[0].names()

    assert both(scenario) == ["made", "data", "eof", "lost"]


def test_a_tls_connection_whose_task_is_cancelled_before_it_begins_is_closed(both):
    @decreed(b"", because="asyncio leaves the accepted socket to the garbage collector")
    async def scenario(loop):
        cancelling = asyncio.Event()

        def cancelled(loop, coro, **options):
            task = asyncio.Task(coro, loop=loop, **options)
            task.cancel()
            cancelling.set()
            return task

        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server_context())
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            loop.set_task_factory(cancelled)
            await cancelling.wait()
            loop.set_task_factory(None)
            received = await loop.sock_recv(peer, 10)
        server.close()
        await server.wait_closed()
        return received

    assert both(scenario) == b""


@pytest.mark.parametrize("turns", range(6))
def test_a_tls_client_that_is_cancelled_in_any_iteration_closes_its_connection(both, turns):
    @decreed("closed", because="asyncio cannot close a TLS connection that has not begun its handshake")
    async def scenario(loop):
        recorder = Recorder()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            address = listener.getsockname()
            task = asyncio.ensure_future(
                loop.create_connection(lambda: recorder, *address, ssl=client_context(), server_hostname="goloop.test")
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() and not recorder.events
            try:
                peer, _ = listener.accept()
            except BlockingIOError:
                return "closed"  # not even connected
            with peer:
                peer.setblocking(False)
                with contextlib.suppress(ConnectionResetError):
                    while await loop.sock_recv(peer, 10000):
                        pass  # its first message
                return "closed"

    assert both(scenario) == "closed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "close", ["close", *(["close_clients", "abort_clients"] if sys.version_info >= (3, 13) else [])]
)
def test_what_a_server_accepts_while_it_closes_is_closed(both, kind, close):
    @decreed(b"", because="asyncio leaves it open, or lets it wait for the end of a handshake's time")
    async def scenario(loop):
        recorder = Recorder()
        accepted = asyncio.Event()

        def close_server():
            server.close()
            if close != "close":
                getattr(server, close)()
            accepted.set()

        def factory():
            loop.call_soon(close_server)  # between the transport and connection_made()
            return recorder

        options = {"ssl": server_context()} if kind == "tls" else {}
        server = await loop.create_server(factory, "127.0.0.1", 0, **options)
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            await accepted.wait()
            await asyncio.wait_for(server.wait_closed(), 10)
            if kind == "tcp":
                await recorder.until("lost")
            await settle()
            assert recorder.events == ([] if kind == "tls" else ["made", ("lost", None)])
            peer.setblocking(False)
            return await loop.sock_recv(peer, 10)

    assert both(scenario) == b""


def test_a_silent_tls_client_is_closed_with_the_server(both):
    @decreed((b"", []), because="asyncio waits until the time for a handshake is over")
    async def scenario(loop):
        recorder = Recorder()
        made = asyncio.Event()

        def factory():
            made.set()
            return recorder

        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            await made.wait()
            await settle()  # its handshake is under way
            server.close()
            await asyncio.wait_for(server.wait_closed(), 10)
            return await loop.sock_recv(peer, 10), recorder.events

    assert both(scenario) == (b"", [])


def test_a_tls_connection_that_is_made_for_the_client_goes_on_when_the_server_closes(both):
    async def scenario(loop):
        async with serving(loop, Echo, ssl=server_context()) as (server, address):
            secure = {"ssl": client_context(), "server_hostname": "goloop.test"}
            reader, writer = await asyncio.open_connection(*address, **secure)
            server.close()  # the end of the handshake is on its way to the server
            writer.write(b"there")
            received = await reader.readexactly(5)
            writer.close()
            return received

    assert both(scenario) == b"there"


def test_a_tls_connection_whose_factory_closes_the_server_is_closed(both):
    @decreed((b"", []), because="asyncio leaves the accepted socket to the garbage collector")
    async def scenario(loop):
        reported = reports(loop)
        closed = asyncio.Event()

        def factory():
            server.close()
            closed.set()
            return asyncio.Protocol()

        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            await closed.wait()
            await asyncio.wait_for(server.wait_closed(), 10)
            return await loop.sock_recv(peer, 10), reported

    assert both(scenario, debug=True) == (b"", [])


def test_the_connections_behind_the_one_that_closes_the_server_are_closed(both):
    @decreed(([True, False, False], 3), because="asyncio leaves them open")
    async def scenario(loop):
        answers = []
        recorders = []

        class First(Echo):
            def connection_made(self, transport):
                super().connection_made(transport)
                recorders.append(self)
                if len(recorders) == 1:
                    server.close()

        async with serving(loop, First) as (server, address):
            peers = [socket.create_connection(address) for _ in range(3)]  # accepted in one turn
            for peer in peers:
                peer.setblocking(False)
                await loop.sock_sendall(peer, b"there?")
            for peer in peers:
                with contextlib.suppress(ConnectionError):
                    answers.append(await loop.sock_recv(peer, 10) == b"there?")
                    continue
                answers.append(False)
            for peer in peers:
                peer.close()
        return answers, len(recorders)

    assert both(scenario) == ([True, False, False], 3)


@pytest.mark.parametrize("turns", range(5))
def test_a_tls_connection_is_closed_with_the_server_in_any_iteration(both, turns):
    @decreed("closed", because="asyncio leaves it open, to a garbage collection or the end of a handshake's time")
    async def scenario(loop):
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server_context())
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            server.close()
            await asyncio.wait_for(server.wait_closed(), 10)
            try:
                return "open" if peer.recv(10) else "closed"
            except ConnectionResetError:
                return "closed"  # it was not even accepted

    assert both(scenario) == "closed"
