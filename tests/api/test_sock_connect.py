"""sock_connect and sock_accept, and what all the sock_* coroutines refuse."""

import asyncio
import contextlib
import gc
import socket
import ssl

import pytest

from tests.helpers.outcomes import async_outcome_of
from tests.helpers.recorders import decreed
from tests.helpers.sockets import client, listening, stream_pair
from tests.helpers.waiting import parked, polled, settle


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "localhost")]
)
def test_connect_and_accept(both, family, host):
    try:
        with listening(family, (host, 0)):
            pass
    except OSError:
        pytest.skip(f"no {host} on this machine")

    async def scenario(loop):
        with listening(family, (host, 0)) as server, client(family) as sock:
            address = (host, server.getsockname()[1])
            connected = await loop.sock_connect(sock, address)
            peer, name = await loop.sock_accept(server)
            with peer:
                await loop.sock_sendall(sock, b"ping")
                return connected, name == sock.getsockname(), peer.gettimeout(), await loop.sock_recv(peer, 10)

    assert both(scenario) == (None, True, 0.0, b"ping")


def test_connect_and_accept_on_a_unix_path(both, tmp_path):
    async def scenario(loop):
        path = tmp_path / "s"
        with listening(socket.AF_UNIX, str(path)) as server, client(socket.AF_UNIX) as sock:
            await loop.sock_connect(sock, str(path))
            path.unlink()
            peer, name = await loop.sock_accept(server)
            with peer:
                await loop.sock_sendall(peer, b"ping")
                return name, await loop.sock_recv(sock, 10)

    assert both(scenario) == ("", b"ping")


def test_accept_waits_and_takes_many(both):
    async def scenario(loop):
        with listening() as server, contextlib.ExitStack() as stack:
            task = await parked(loop.sock_accept(server))
            clients = [stack.enter_context(client()) for _ in range(5)]
            await asyncio.gather(*[loop.sock_connect(sock, server.getsockname()) for sock in clients])
            accepted = [await task] + [await loop.sock_accept(server) for _ in range(4)]
            names = {name for peer, name in accepted}
            for peer, _ in accepted:
                peer.close()
            return names == {sock.getsockname() for sock in clients}, loop.remove_reader(server)

    assert both(scenario) == (True, False)


def test_a_cancelled_accept_is_unregistered_at_once_and_a_new_one_works(both):
    async def scenario(loop):
        with listening() as server, client() as sock:
            task = await parked(loop.sock_accept(server))
            task.cancel()
            outcome = await async_outcome_of(task)
            registered = loop.remove_reader(server)
            again = await parked(loop.sock_accept(server))
            await loop.sock_connect(sock, server.getsockname())
            peer, _ = await again
            peer.close()
            return outcome, registered, peer.type

    assert both(scenario) == (("CancelledError", ""), False, socket.SOCK_STREAM)


@pytest.mark.parametrize("turns", range(4))
def test_an_accept_that_is_cancelled_in_any_iteration_loses_no_connection(both, turns):
    @decreed(True, because="asyncio accepts before the waiting task can know, and drops that if it is cancelled")
    async def scenario(loop):
        with listening() as server, client() as sock:
            task = await parked(loop.sock_accept(server))
            await loop.sock_connect(sock, server.getsockname())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            peer, name = server.accept() if task.cancelled() else task.result()
            peer.close()
            return name == sock.getsockname()

    assert both(scenario) is True


@contextlib.contextmanager
def full_queue(path):
    """A listening Unix socket whose queue is full."""
    with listening(socket.AF_UNIX, path) as server, contextlib.ExitStack() as stack:
        server.listen(1)
        waiting = []
        while True:
            sock = stack.enter_context(client(socket.AF_UNIX))
            try:
                sock.connect(path)
            except BlockingIOError:
                break
            waiting.append(sock)
        yield server, len(waiting)


UNCONNECTED = "asyncio takes EAGAIN of a Unix socket for a connection that is under way, and reports success"


def test_a_full_unix_queue_is_waited_for(both, tmp_path):
    path = str(tmp_path / "socket")

    @decreed((False, path, b"ping"), because=UNCONNECTED)
    async def scenario(loop):
        with full_queue(path) as (server, waiting), client(socket.AF_UNIX) as sock:
            task = await parked(loop.sock_connect(sock, path))
            await settle()
            early = task.done()
            for _ in range(waiting):
                server.accept()[0].close()
            await task
            sock.send(b"ping")
            peer, _ = await loop.sock_accept(server)
            with peer:
                return early, sock.getpeername(), await loop.sock_recv(peer, 10)

    assert both(scenario) == (False, path, b"ping")


def test_waiting_for_a_full_unix_queue_can_be_cancelled_and_can_fail(both, tmp_path):
    path = str(tmp_path / "socket")

    @decreed(("TimeoutError", "ConnectionRefusedError"), because=UNCONNECTED)
    async def scenario(loop):
        with client(socket.AF_UNIX) as sock:
            with full_queue(path):
                timeout = await async_outcome_of(
                    asyncio.wait_for(loop.create_unix_connection(asyncio.Protocol, path), 0.01)
                )
                task = await parked(loop.sock_connect(sock, path))
            refused = await async_outcome_of(task)  # nobody listens there any more
            return timeout[0], refused[0]

    assert both(scenario) == ("TimeoutError", "ConnectionRefusedError")


def test_datagrams_to_a_full_unix_receiver_wait_for_room(both):
    async def scenario(loop):
        with (
            client(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
            client(socket.AF_UNIX, socket.SOCK_DGRAM) as filler,
            client(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind("")  # a name that the kernel chooses
            name, count = receiver.getsockname(), 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    filler.sendto(b"x", name)
                    count += 1
            task = await parked(loop.sock_sendto(sender, b"last", name))
            await polled()
            early = task.done()
            received = [receiver.recv(10) for _ in range(count)]
            sent = await task
            return early, set(received), sent, await loop.sock_recv(receiver, 10)

    assert both(scenario) == (False, {b"x"}, 4, b"last")


def test_a_refused_connection_names_the_address(both):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()

        async def scenario(loop):
            with client() as sock:
                return await async_outcome_of(loop.sock_connect(sock, address)), loop.remove_writer(sock)

        (kind, text), registered = both(scenario)
    assert kind == "ConnectionRefusedError"
    assert str(address) in text
    assert registered is False


def test_an_error_is_not_kept_alive_by_the_future_that_brought_it(both):
    async def scenario(loop):
        with listening() as server, client() as sock:
            address = server.getsockname()
            server.close()
            try:
                await loop.sock_connect(sock, address)
            except ConnectionRefusedError as exc:
                await asyncio.sleep(0)  # the future has woken this task up, and until it waits again it is in use
                return [type(holder).__name__ for holder in gc.get_referrers(exc) if asyncio.isfuture(holder)]

    assert both(scenario) == []


def test_a_missing_unix_path_is_an_error(both, tmp_path):
    async def scenario(loop):
        with client(socket.AF_UNIX) as sock:
            return await async_outcome_of(loop.sock_connect(sock, str(tmp_path / "missing")))

    assert both(scenario)[0] == "FileNotFoundError"


def test_a_cancelled_connect_is_unregistered_at_once(both):
    async def scenario(loop):
        with socket.socket() as server, contextlib.ExitStack() as stack:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            task = None
            while task is None or task.done():  # until the backlog is full and a connection stays half-open
                sock = stack.enter_context(client())
                task = asyncio.ensure_future(loop.sock_connect(sock, server.getsockname()))
                for _ in range(5):
                    await asyncio.sleep(0)
            task.cancel()
            outcome = await async_outcome_of(task)
            return outcome, loop.remove_writer(sock)

    assert both(scenario) == (("CancelledError", ""), False)


# Refusals


def operations(loop, sock):
    buffer = bytearray(10)
    return {
        "recv": lambda: loop.sock_recv(sock, 10),
        "recv_into": lambda: loop.sock_recv_into(sock, buffer),
        "recvfrom": lambda: loop.sock_recvfrom(sock, 10),
        "recvfrom_into": lambda: loop.sock_recvfrom_into(sock, buffer),
        "sendall": lambda: loop.sock_sendall(sock, b"x"),
        "sendto": lambda: loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
        "connect": lambda: loop.sock_connect(sock, ("127.0.0.1", 9)),
        "accept": lambda: loop.sock_accept(sock),
    }


OPERATIONS = list(operations(None, None))


@pytest.mark.parametrize("name", OPERATIONS)
def test_debug_mode_refuses_a_blocking_socket(both, name):
    async def scenario(loop):
        with socket.socket() as sock:
            return await async_outcome_of(operations(loop, sock)[name]())

    assert both(scenario, debug=True) == ("ValueError", "the socket must be non-blocking")


def test_a_tls_socket_is_refused(both):
    async def scenario(loop):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with context.wrap_socket(client(), server_hostname="name", do_handshake_on_connect=False) as sock:
            return [await async_outcome_of(call()) for call in operations(loop, sock).values()]

    assert both(scenario) == [("TypeError", "Socket cannot be of type SSLSocket")] * len(OPERATIONS)


@pytest.mark.parametrize("name", ["recv", "recv_into", "recvfrom", "recvfrom_into"])
def test_waiting_on_a_transports_socket_is_refused(both, name):
    async def scenario(loop):
        with stream_pair() as (one, _other):
            transport, _protocol = await loop.create_connection(asyncio.Protocol, sock=one)
            kind, text = await async_outcome_of(operations(loop, one)[name]())
            transport.close()
            await asyncio.sleep(0)
            return kind, text.partition(" is used by ")[1]

    assert both(scenario) == ("RuntimeError", " is used by ")


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "connect"])
def test_a_closed_socket_is_an_os_error(both, name):
    async def scenario(loop):
        sock = client()
        sock.close()
        return await async_outcome_of(operations(loop, sock)[name]())

    assert both(scenario)[0] == "OSError"
