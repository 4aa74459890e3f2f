"""The sock_* coroutines that move data: at once, after a wait, and cancelled while they wait."""

import array
import asyncio
import contextlib
import socket

import pytest

from tests.helpers.outcomes import async_outcome_of, outcome_of
from tests.helpers.recorders import decreed
from tests.helpers.sockets import client, listening, stream_pair
from tests.helpers.waiting import parked


@contextlib.contextmanager
def datagram_pair():
    """Two UDP sockets on the loopback, not connected."""
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        yield one, other


async def receive(loop, sock, size):
    data = bytearray()
    while len(data) < size:
        chunk = await loop.sock_recv(sock, 1 << 16)
        if not chunk:
            break
        data += chunk
    return bytes(data)


# Each of these receives "data" in its own way; the value is what came back and what is in the buffer.


async def with_recv(loop, sock):
    return await loop.sock_recv(sock, 100)


async def with_recv_into(loop, sock):
    buffer = bytearray(b"........")
    return await loop.sock_recv_into(sock, buffer), bytes(buffer)


async def with_recvfrom(loop, sock):
    data, _address = await loop.sock_recvfrom(sock, 100)
    return data


async def with_recvfrom_into(loop, sock):
    buffer = bytearray(b"........")
    count, _address = await loop.sock_recvfrom_into(sock, buffer)
    return count, bytes(buffer)


async def with_recvfrom_into_some(loop, sock):
    buffer = bytearray(b"........")
    count, _address = await loop.sock_recvfrom_into(sock, buffer, 4)
    return count, bytes(buffer)


RECEIVERS = {
    with_recv: b"data",
    with_recv_into: (4, b"data...."),
    with_recvfrom: b"data",
    with_recvfrom_into: (4, b"data...."),
    with_recvfrom_into_some: (4, b"data...."),
}
each_receiver = pytest.mark.parametrize("receiver", RECEIVERS, ids=lambda function: function.__name__)


@each_receiver
def test_receiving_what_is_there(both, receiver):
    async def scenario(loop):
        with stream_pair() as (one, other):
            other.send(b"data")
            return await receiver(loop, one)

    assert both(scenario) == RECEIVERS[receiver]


@each_receiver
def test_receiving_what_comes_later(both, receiver):
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(receiver(loop, one))
            other.send(b"data")
            return await task, loop.remove_reader(one)

    assert both(scenario) == (RECEIVERS[receiver], False)


@each_receiver
def test_receiving_the_end(both, receiver):
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(receiver(loop, one))
            other.shutdown(socket.SHUT_WR)
            return await task, await loop.sock_recv(one, 1)

    assert both(scenario)[0] in (b"", (0, b"........"))


@each_receiver
def test_a_cancelled_receiver_is_unregistered_at_once_and_loses_nothing(both, receiver):
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(receiver(loop, one))
            task.cancel()
            outcome = await async_outcome_of(task)
            registered = loop.remove_reader(one)
            again = await parked(receiver(loop, one))
            other.send(b"data")
            return outcome, registered, await again

    assert both(scenario) == (("CancelledError", ""), False, RECEIVERS[receiver])


@each_receiver
@pytest.mark.parametrize("turns", range(4))
def test_a_cancellation_in_any_iteration_loses_nothing(both, receiver, turns):
    """Among them the one between the data's arrival and the receiver's next step."""

    @decreed(b"data", because="asyncio reads before the receiver can know, and drops that if it is cancelled")
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(receiver(loop, one))
            other.send(b"data")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            outcome = await async_outcome_of(task)
            if outcome == ("CancelledError", ""):
                return one.recv(100)
            return b"data" if outcome == RECEIVERS[receiver] else outcome

    assert both(scenario) == b"data"


@each_receiver
def test_a_receiver_goes_on_waiting_when_somebody_else_was_faster(both, receiver):
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(receiver(loop, one))
            other.send(b"lost race")
            one.recv(100)
            for _ in range(5):
                await asyncio.sleep(0)
            waits = not task.done()
            other.send(b"data")
            return waits, await task

    assert both(scenario) == (True, RECEIVERS[receiver])


@each_receiver
def test_data_that_comes_with_the_cancellation_is_kept_for_the_next(both, receiver):
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(receiver(loop, one))
            other.send(b"data")
            task.cancel()
            return await async_outcome_of(task), await receiver(loop, one)

    assert both(scenario) == (("CancelledError", ""), RECEIVERS[receiver])


@each_receiver
def test_a_reset_reaches_the_receiver(both, receiver):
    async def scenario(loop):
        with listening() as server, client() as sock:
            await loop.sock_connect(sock, server.getsockname())
            peer, _ = await loop.sock_accept(server)
            task = await parked(receiver(loop, sock))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            return (await async_outcome_of(task))[0]

    assert both(scenario) == "ConnectionResetError"


@pytest.mark.parametrize("receiver", [with_recvfrom, with_recvfrom_into])
def test_datagrams_come_with_their_address(both, receiver):
    async def scenario(loop):
        with datagram_pair() as (one, other):
            sent = [await loop.sock_sendto(one, data, other.getsockname()) for data in (b"first", b"")]
            first = await loop.sock_recvfrom(other, 100)
            empty = await loop.sock_recvfrom_into(other, bytearray(10))
            task = await parked(loop.sock_recvfrom(other, 3))
            await loop.sock_sendto(one, b"third", other.getsockname())
            third = await task
            return sent, first[0], empty[0], third[0], {first[1], empty[1], third[1]} == {one.getsockname()}

    assert both(scenario) == ([5, 0], b"first", 0, b"thi", True)


# Sending


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sendall_sends_megabytes_to_a_slow_reader(both, kind):
    data = bytes(range(256)) * 16384

    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(loop.sock_sendall(one, kind(data)))
            received = await receive(loop, other, len(data))
            return await task, received == data, loop.remove_writer(one)

    assert both(scenario) == (None, True, False)


def test_sendall_of_nothing_and_of_little(both):
    async def scenario(loop):
        with stream_pair() as (one, other):
            outcomes = [await loop.sock_sendall(one, data) for data in (b"", b"x", bytearray(b"yz"))]
            return outcomes, await loop.sock_recv(other, 100)

    assert both(scenario) == ([None] * 3, b"xyz")


def test_both_directions_of_one_socket_at_once(both):
    data = b"x" * 3_000_000

    async def scenario(loop):
        with stream_pair() as (one, other):
            received = await asyncio.gather(
                loop.sock_sendall(one, data),
                loop.sock_sendall(other, data),
                receive(loop, one, len(data)),
                receive(loop, other, len(data)),
            )
            return [value == data for value in received[2:]]

    assert both(scenario) == [True, True]


def test_a_cancelled_sendall_is_unregistered_at_once_and_a_new_one_works(both):
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(loop.sock_sendall(one, b"x" * 10_000_000))
            task.cancel()
            outcome = await async_outcome_of(task)
            registered = loop.remove_writer(one)
            again = await parked(loop.sock_sendall(one, b"end"))
            data = bytearray()
            while not data.endswith(b"end"):
                data += await loop.sock_recv(other, 1 << 20)
            return outcome, registered, await again, set(data[:-3]) == set(b"x")

    assert both(scenario) == (("CancelledError", ""), False, None, True)


def test_sendall_to_a_peer_that_goes_away(both):
    async def scenario(loop):
        with stream_pair() as (one, other):
            task = await parked(loop.sock_sendall(one, b"x" * 10_000_000))
            other.close()
            first = (await async_outcome_of(task))[0]
            return first, (await async_outcome_of(loop.sock_sendall(one, b"x")))[0], loop.remove_writer(one)

    assert both(scenario) == ("BrokenPipeError", "BrokenPipeError", False)


def test_sendto_waits_for_room(both):
    async def scenario(loop):
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
            client(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind("")  # a name in the abstract namespace, chosen by the kernel
            receiver.setblocking(False)
            count = 0
            while outcome_of(sender.sendto, b"filler", receiver.getsockname()) == 6:
                count += 1
            task = await parked(loop.sock_sendto(sender, b"last", receiver.getsockname()))
            received = [await loop.sock_recv(receiver, 100) for _ in range(count + 1)]
            return await task, received[-1], set(received[:-1])

    assert both(scenario) == (4, b"last", {b"filler"})


def test_connecting_a_datagram_socket_sets_its_peer(both):
    async def scenario(loop):
        with datagram_pair() as (one, other):
            await loop.sock_connect(one, other.getsockname())
            await loop.sock_sendall(one, b"data")
            return one.getpeername() == other.getsockname(), await loop.sock_recv(other, 10)

    assert both(scenario) == (True, b"data")


def test_sendall_takes_views_of_any_shape(both):
    numbers = array.array("I", range(100))
    views = [memoryview(numbers), memoryview(numbers)[::2], memoryview(b"abcdef").cast("B", (2, 3)), memoryview(b"")]
    sent = b"".join(bytes(view) for view in views)

    @decreed(sent, because="asyncio compares the number of bytes sent with the number of items")
    async def scenario(loop):
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.setblocking(False)
            for view in views:
                await loop.sock_sendall(one, view)
            return await receive(loop, other, len(sent))

    assert both(scenario) == sent
