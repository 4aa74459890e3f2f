"""TLS connections in goroutines, with and without timeouts, and shared with plain threads."""

import asyncio
import fcntl
import os
import socket
import ssl
import threading

import pytest

from goloop import go
from tests.helpers.waiting import until

trustme = pytest.importorskip("trustme")
LIMIT = 20  # seconds


@pytest.fixture(scope="module")
def contexts():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture
def connected(contexts):
    """Two ends of a TLS connection, made in goroutines."""
    left, right = socket.socketpair()
    server = go(contexts[0].wrap_socket, left, server_side=True)
    client = go(contexts[1].wrap_socket, right, server_hostname="localhost")
    with server.result(LIMIT) as one, client.result(LIMIT) as other:
        yield one, other


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_echo(contexts, overlap, timeout):
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def serve():
            handlers = []
            for _ in range(21):
                handlers.append(go(echo, listener.accept()[0]))
            for handler in handlers:
                handler.join()

        def echo(raw):
            with contexts[0].wrap_socket(raw, server_side=True) as connection:
                while data := connection.recv(1000):
                    connection.sendall(data)
                connection.unwrap().close()

        def client(i):
            raw = socket.create_connection(listener.getsockname(), timeout)
            with contexts[1].wrap_socket(raw, server_hostname="localhost") as connection:
                for n in range(5):
                    message, received = b"%d" % (i * n) * 1000, b""
                    connection.sendall(message)
                    while len(received) < len(message):
                        received += connection.recv(1000)
                    assert received == message
                connection.unwrap().close()
                return connection.gettimeout()

        server = go(serve)
        assert overlap(client, 20) == [timeout] * 20
        assert client(1) == timeout  # a plain thread
        server.result(LIMIT)


def test_much_data(connected):
    left, right = connected
    size = 2_000_000
    g = go(left.sendall, bytes(size))
    total, room = 0, bytearray(100_000)

    def receive():
        nonlocal total
        while total < size:
            total += right.recv_into(room)

    go(receive).result(LIMIT)
    assert g.result(LIMIT) is None and total == size


def modes(sock):
    return sock.gettimeout(), sock.getblocking(), bool(fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK)


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_the_modes_stay_as_they_were(connected, timeout):
    left, right = connected
    left.settimeout(timeout)
    before = modes(left)
    g = go(left.recv, 10)
    until(lambda: g.state == "IO wait")
    assert modes(left) == before == (timeout, True, timeout is not None)
    right.sendall(b"x")
    assert g.result(LIMIT) == b"x"
    assert modes(left) == before


def test_outcomes_are_the_originals(contexts):
    def outcomes():
        found = []
        left, right = socket.socketpair()
        left.settimeout(0.02)
        with left, right:
            with pytest.raises(TimeoutError, match="The handshake operation timed out"):
                contexts[1].wrap_socket(left, server_hostname="localhost")
        left, right = socket.socketpair()
        server = threading.Thread(target=lambda: found.append(contexts[0].wrap_socket(left, server_side=True)))
        server.start()
        client = contexts[1].wrap_socket(right, server_hostname="localhost")
        server.join(LIMIT)
        peer = found.pop()
        with client, peer:
            client.settimeout(0.02)
            with pytest.raises(TimeoutError, match=r"^The read operation timed out$"):
                client.recv(1)
            with pytest.raises(TimeoutError, match=r"^The write operation timed out$"):
                client.sendall(bytes(10_000_000))
            client.settimeout(0)
            with pytest.raises(ssl.SSLWantReadError):
                client.recv(1)
            client.close()
            with pytest.raises(OSError, match="Bad file") as caught:
                client.recv(1)
        return caught.value.errno

    assert go(outcomes).result(LIMIT) == outcomes()


def test_a_goroutine_and_a_thread_share_a_connection(connected):
    left, right = connected
    # It reads in a goroutine while a plain thread writes,
    g = go(left.recv, 10)
    until(lambda: g.state == "IO wait")
    left.sendall(b"from a thread")
    assert right.recv(100) == b"from a thread"
    right.sendall(b"hello")
    assert g.result(LIMIT) == b"hello"
    # and reads in a plain thread, which blocks, while goroutines write.
    received = []
    thread = threading.Thread(target=lambda: received.append(left.recv(10)))
    thread.start()
    for _ in range(100):
        go(left.sendall, b"y" * 10).join(LIMIT)
    total = 0
    while total < 1000:
        total += len(right.recv(1000))
    right.sendall(b"bye")
    thread.join(LIMIT)
    assert received == [b"bye"]
    assert modes(left) == (None, True, False)


def test_closing_and_cancelling_wake_who_reads(connected):
    left, right = connected
    g = go(right.recv, 10)
    until(lambda: g.state == "IO wait")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(LIMIT)
    g = go(left.recv, 10)
    until(lambda: g.state == "IO wait")
    left.close()
    with pytest.raises(OSError, match="Bad file"):
        g.result(LIMIT)
