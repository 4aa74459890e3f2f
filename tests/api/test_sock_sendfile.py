"""loop.sock_sendfile: by the system call, by its fallback, with offset and count, and what it refuses."""

import asyncio
import errno
import io
import os
import socket

import pytest

from tests.helpers.outcomes import async_outcome_of
from tests.helpers.recorders import decreed
from tests.helpers.sockets import stream_pair

CONTENT = bytes(range(256)) * 8192  # 2 MiB, more than the socket's buffers


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sendfile") / "content"
    path.write_bytes(CONTENT)
    return path


async def receive_all(loop, sock):
    data = bytearray()
    while chunk := await loop.sock_recv(sock, 1 << 18):
        data += chunk
    return bytes(data)


async def send_and_receive(loop, file, *args, **kwargs):
    """Send a file; return what sock_sendfile returned, what arrived, and where the file is positioned."""
    with stream_pair() as (one, other):
        receiving = asyncio.ensure_future(receive_all(loop, other))
        sent = await async_outcome_of(loop.sock_sendfile(one, file, *args, **kwargs))
        one.shutdown(socket.SHUT_WR)
        return sent, await receiving, file.tell()


RANGES = {
    "everything": ((), CONTENT),
    "offset": ((1000,), CONTENT[1000:]),
    "count": ((0, 5000), CONTENT[:5000]),
    "offset and count": ((1000, 5000), CONTENT[1000:6000]),
    "count beyond the end": ((len(CONTENT) - 10, 5000), CONTENT[-10:]),
    "offset at the end": ((len(CONTENT), None), b""),
}


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("part", RANGES)
def test_a_file_is_sent_by_the_system_call(both, path, part, fallback):
    args, expected = RANGES[part]
    outcome = len(expected), True, sum(args[:1]) + len(expected)

    @decreed(outcome, because="asyncio up to 3.13 leaves the file alone if it sent nothing", when=not expected)
    async def scenario(loop):
        with path.open("rb") as file:
            sent, received, position = await send_and_receive(loop, file, *args, fallback=fallback)
        return sent, received == expected, position

    assert both(scenario) == outcome


@pytest.mark.parametrize("part", RANGES)
def test_an_object_that_is_no_real_file_is_sent_by_the_fallback(both, part):
    args, expected = RANGES[part]

    async def scenario(loop):
        sent, received, position = await send_and_receive(loop, io.BytesIO(CONTENT), *args)
        return sent, received == expected, position

    assert both(scenario)[:2] == (len(expected), True)


def test_offset_zero_is_the_beginning_wherever_the_file_stands(both):
    @decreed((len(CONTENT), True), because="up to 3.13 asyncio's fallback starts where the file stands then")
    async def scenario(loop):
        file = io.BytesIO(CONTENT)
        file.seek(77)
        sent, received, _ = await send_and_receive(loop, file)
        return sent, received == CONTENT

    assert both(scenario) == (len(CONTENT), True)


def test_without_the_fallback_it_is_not_available(both):
    async def scenario(loop):
        return await send_and_receive(loop, io.BytesIO(CONTENT), fallback=False)

    assert both(scenario) == (("SendfileNotAvailableError", "not a regular file"), b"", 0)


def test_an_empty_file_sends_nothing(both, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()

    async def scenario(loop):
        with empty.open("rb") as file:
            return await send_and_receive(loop, file), await send_and_receive(loop, file, 0, 10, fallback=False)

    assert both(scenario) == ((0, b"", 0), (0, b"", 0))


def test_a_cancelled_sendfile_is_unregistered_and_the_socket_is_usable(both, path):
    async def scenario(loop):
        with path.open("rb") as file, stream_pair() as (one, other):
            task = asyncio.ensure_future(loop.sock_sendfile(one, file))
            for _ in range(20):
                await asyncio.sleep(0)
            waiting = not task.done()
            task.cancel()
            outcome = await async_outcome_of(task)
            await asyncio.sleep(0)
            registered = loop.remove_writer(one)
            receiving = asyncio.ensure_future(receive_all(loop, other))
            await loop.sock_sendall(one, b"end")
            one.shutdown(socket.SHUT_WR)
            received = await receiving
            return waiting, outcome, registered, received[-3:], CONTENT.startswith(received[:-3])

    assert both(scenario) == (True, ("CancelledError", ""), False, b"end", True)


def test_a_peer_that_goes_away_is_an_error(both, path):
    async def scenario(loop):
        with path.open("rb") as file, stream_pair() as (one, other):
            task = asyncio.ensure_future(loop.sock_sendfile(one, file))
            for _ in range(20):
                await asyncio.sleep(0)
            other.close()
            return (await async_outcome_of(task))[0], loop.remove_writer(one)

    assert both(scenario) == ("BrokenPipeError", False)


def test_a_connection_that_is_lost_in_the_middle_is_a_connection_error(both, path, monkeypatch):
    @decreed(("ConnectionError", [0, 1000], 1000), because="asyncio says so only if it has waited in between")
    async def scenario(loop):
        real, calls = os.sendfile, []

        def lost_in_the_middle(out, source, offset, count):
            calls.append(offset)
            if len(calls) > 1:
                raise OSError(errno.ENOTCONN, "not connected")
            return real(out, source, offset, 1000)

        with stream_pair() as (one, _other), path.open("rb") as file, monkeypatch.context() as patch:
            patch.setattr(os, "sendfile", lost_in_the_middle)
            kind, _text = await async_outcome_of(loop.sock_sendfile(one, file, fallback=False))
            return kind, calls, file.tell()

    assert both(scenario) == ("ConnectionError", [0, 1000], 1000)


@pytest.mark.parametrize(
    ("args", "kind", "text"),
    [
        ((0, "x"), "TypeError", "count must be a positive integer (got 'x')"),
        ((0, 1.5), "TypeError", "count must be a positive integer (got 1.5)"),
        ((0, 0), "ValueError", "count must be a positive integer (got 0)"),
        ((0, -1), "ValueError", "count must be a positive integer (got -1)"),
        (("x",), "TypeError", "offset must be a non-negative integer (got 'x')"),
        ((-1,), "ValueError", "offset must be a non-negative integer (got -1)"),
    ],
)
def test_bad_ranges(both, path, args, kind, text):
    async def scenario(loop):
        with path.open("rb") as file, stream_pair() as (one, _other):
            return await async_outcome_of(loop.sock_sendfile(one, file, *args))

    assert both(scenario) == (kind, text)


def test_a_text_file_is_refused(both, path):
    async def scenario(loop):
        with path.open(encoding="latin-1") as file, stream_pair() as (one, _other):
            return await async_outcome_of(loop.sock_sendfile(one, file))

    assert both(scenario) == ("ValueError", "file should be opened in binary mode")


def test_a_datagram_socket_is_refused(both, path):
    async def scenario(loop):
        with path.open("rb") as file, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            return await async_outcome_of(loop.sock_sendfile(sock, file))

    assert both(scenario) == ("ValueError", "only SOCK_STREAM type sockets are supported")


def test_debug_mode_refuses_a_blocking_socket(both, path):
    async def scenario(loop):
        with path.open("rb") as file, socket.socket() as sock:
            return await async_outcome_of(loop.sock_sendfile(sock, file))

    assert both(scenario, debug=True) == ("ValueError", "the socket must be non-blocking")
