"""Sockets in goroutines, with and without timeouts, and shared with plain threads."""

import array
import asyncio
import errno
import fcntl
import os
import socket
import struct
import threading
import time

import pytest

from goloop import go
from goloop.monkey import _dns
from tests.helpers.waiting import until

LIMIT = 10  # seconds


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield sock


def non_blocking(sock):
    return bool(fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK)


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_echo(listener, overlap, timeout):
    listener.settimeout(timeout)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as exc:
                return exc.errno
            go(echo, connection)

    def echo(connection):
        with connection:
            connection.settimeout(timeout)
            while data := connection.recv(100):
                connection.sendall(data)

    def client(i):
        with socket.create_connection(listener.getsockname(), timeout) as sock:
            for n in range(10):
                sock.sendall(b"%d" % (i * n))
                assert sock.recv(100) == b"%d" % (i * n)
                time.sleep(0.001)
            return i

    server = go(serve)
    assert overlap(client, 20) == list(range(20))
    assert client(1) == 1  # a plain thread
    listener.close()
    assert server.result(LIMIT) == errno.EBADF


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_the_descriptor_stays_as_it_was(pair, timeout):
    left, right = pair
    left.settimeout(timeout)
    mode = non_blocking(left)
    g = go(left.recv, 10)
    until(lambda: g.state == "IO wait")
    assert non_blocking(left) is mode is (timeout is not None)
    assert left.gettimeout() == timeout
    received = []
    thread = threading.Thread(target=lambda: received.append(left.recv(10)))
    thread.start()
    right.send(b"one")
    until(lambda: g.done() or received)
    right.send(b"two")
    thread.join(LIMIT)
    assert sorted([g.result(LIMIT), *received]) == [b"one", b"two"]


def test_connecting_leaves_the_mode(listener):
    def connect():
        with socket.socket() as sock:
            sock.connect(listener.getsockname())
            return non_blocking(sock), sock.gettimeout()

    assert go(connect).result(LIMIT) == (False, None)


def test_much_data_both_ways(pair):
    left, right = pair
    size = 3_000_000

    def send(sock):
        sock.sendall(bytes(size))
        return sock.shutdown(socket.SHUT_WR)

    def receive(sock):
        total, room = 0, bytearray(60_000)
        while n := sock.recv_into(room):
            total += n
        return total

    for timeout in (None, LIMIT):
        left, right = socket.socketpair()
        with left, right:
            left.settimeout(timeout)
            gs = [go(send, left), go(receive, right), go(send, right), go(receive, left)]
            assert [g.result(LIMIT) for g in gs] == [None, size, None, size]


def test_a_sender_that_waits_does_not_hold_up_others(pair, overlap):
    left, right = pair
    g = go(left.sendall, bytes(2_000_000))
    until(lambda: g.state == "IO wait")
    overlap(lambda i: time.sleep(0.001))
    total = 0
    while total < 2_000_000:
        total += len(right.recv(100_000))
    assert g.result(LIMIT) is None


def outcomes(sock, peer, address):
    """What calls on sockets raise and return; the same in a goroutine and outside."""
    found = []

    def note(call):
        try:
            found.append(call())
        except OSError as exc:
            found.append((type(exc), exc.args))

    sock.settimeout(0.01)
    note(lambda: sock.recv(1))
    note(lambda: sock.recv_into(bytearray(1)))
    note(lambda: sock.recvfrom(1))
    note(lambda: sock.recvmsg(1))
    note(lambda: sock.recvmsg_into([bytearray(1)]))
    sock.settimeout(0)
    note(lambda: sock.recv(1))
    note(lambda: sock.recvfrom(1))
    sock.settimeout(None)
    note(lambda: sock.recv(0))
    note(lambda: sock.recv(1, socket.MSG_DONTWAIT))
    note(lambda: sock.recvfrom(1, socket.MSG_DONTWAIT))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 10_000))
    note(lambda: sock.recv(1))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
    peer.close()
    note(lambda: sock.recv(1))
    note(lambda: sock.send(b"x"))
    note(lambda: sock.sendall(b"x"))
    sock.close()
    for call in (sock.recv, sock.recvfrom, sock.recvmsg):
        note(lambda call=call: call(1))
    note(lambda: sock.send(b""))
    note(lambda: sock.accept())
    note(lambda: sock.connect("nowhere"))
    note(lambda: sock.connect_ex("nowhere"))
    for timeout in (None, 5, 0):
        with socket.socket() as client:
            client.settimeout(timeout)
            note(lambda client=client: client.connect_ex(address))
        with socket.socket() as client:
            client.settimeout(timeout)
            note(lambda client=client: client.connect(address))
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        note(lambda: datagrams.recv(1, socket.MSG_ERRQUEUE))
        note(lambda: datagrams.recvmsg(1, 0, socket.MSG_ERRQUEUE))
    with socket.socket() as unconnected:
        note(lambda: unconnected.recv(1))
        note(lambda: unconnected.accept())
        with pytest.raises(TypeError) as caught:
            unconnected.connect("text")
        found.append(str(caught.value))
    return found


def test_outcomes_are_the_originals():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
        expected = outcomes(*socket.socketpair(), address)
        assert go(outcomes, *socket.socketpair(), address).result(LIMIT) == expected
    assert expected[0] == (TimeoutError, ("timed out",))


@pytest.mark.parametrize("how", ["close", "detach", "os.close"])
@pytest.mark.parametrize("where", ["thread", "goroutine"])
def test_closing_wakes_who_waits(how, where):
    left, right = socket.socketpair()
    with right:
        waiters = [go(left.recv, 1), go(left.recvfrom, 1)]
        until(lambda: [g.state for g in waiters] == ["IO wait"] * 2)
        fd = left.fileno()
        close = {"close": left.close, "detach": left.detach, "os.close": lambda: os.close(left.fileno())}[how]
        close() if where == "thread" else go(close).result(LIMIT)
        for g in waiters:
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                g.result(LIMIT)
            assert caught.value.errno == errno.EBADF
        left.detach()
        if how == "detach":
            os.close(fd)


def test_cancelled_while_it_waits(pair):
    left, right = pair
    g = go(left.recv, 10)
    until(lambda: g.state == "IO wait")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(LIMIT)
    again = go(left.recv, 10)
    right.send(b"not lost")
    assert again.result(LIMIT) == b"not lost"


def test_waiting_for_all(pair):
    left, right = pair
    g = go(left.recv, 4, socket.MSG_WAITALL)
    right.send(b"ab")
    until(lambda: g.state == "chan receive")
    right.send(b"cd")
    assert g.result(LIMIT) == b"abcd"


def test_datagrams(overlap):
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.bind(("127.0.0.1", 0))
        port, reply = server.getsockname()[1], client.getsockname()
        for timeout in (None, LIMIT):
            server.settimeout(timeout)
            gs = [
                go(server.recvfrom, 10),
                go(server.recvfrom_into, bytearray(10)),
                go(server.recvmsg, 10),
                go(server.recvmsg_into, [bytearray(10)]),
            ]

            def send():
                client.sendto(b"four", ("localhost", port))
                client.sendto(b"four", 0, ("127.0.0.1", port))
                client.sendmsg([b"fo", b"ur"], (), 0, ("localhost", port))
                client.sendmsg(iter([b"four"]), [], 0, ("127.0.0.1", port))

            go(send).result(LIMIT)
            first, second, third, fourth = (g.result(LIMIT) for g in gs)
            assert first == (b"four", reply)
            assert second == (4, reply)
            assert third == (b"four", [], 0, reply)
            assert fourth == (4, [], 0, reply)


def test_descriptors_are_passed(pair):
    left, right = pair
    g = go(socket.recv_fds, left, 10, 1)
    until(lambda: g.state == "IO wait")
    go(socket.send_fds, right, [b"x"], [right.fileno()]).result(LIMIT)
    data, fds, _, _ = g.result(LIMIT)
    assert data == b"x" and len(fds) == 1
    os.close(fds[0])
    assert array.array("i").itemsize == 4


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_sendfile(pair, tmp_path, timeout):
    left, right = pair
    left.settimeout(timeout)
    (tmp_path / "file").write_bytes(bytes(2_000_000))

    def send():
        with (tmp_path / "file").open("rb") as file:
            return left.sendfile(file, 10)

    g, total = go(send), 0
    while total < 1_999_990:
        total += len(right.recv(100_000))
    assert g.result(LIMIT) == total == 1_999_990


def test_makefile(pair):
    left, right = pair

    def read():
        with left.makefile("rb") as file:
            return file.readline(), file.read(3)

    g = go(read)
    right.sendall(b"a line\nab")
    right.sendall(b"c")
    assert g.result(LIMIT) == (b"a line\n", b"abc")


def test_a_unix_socket_whose_queue_is_full(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)

        def connect(timeout):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(timeout)
                try:
                    sock.connect(path)
                except TimeoutError:
                    return "late"
                return "connected"

        assert go(connect, None).result(LIMIT) == "connected"
        assert go(connect, 0.05).result(LIMIT) == "late"
        waiting = [go(connect, None) for _ in range(3)]
        until(lambda: [g.state for g in waiting] == ["sleep"] * 3)
        for _ in range(4):
            server.accept()[0].close()
        assert [g.result(LIMIT) for g in waiting] == ["connected"] * 3


def test_accepting_in_goroutines_and_plain_threads(listener):
    """A goroutine changes the mode of the listening descriptor; nobody notices."""
    gs = [go(listener.accept) for _ in range(2)]
    until(lambda: [g.state for g in gs] == ["IO wait"] * 2)
    assert listener.gettimeout() is None and listener.getblocking()
    accepted = []
    threads = [threading.Thread(target=lambda: accepted.append(listener.accept())) for _ in range(2)]
    for thread in threads:
        thread.start()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(4)]
    for thread in threads:
        thread.join(LIMIT)
    accepted += [g.result(LIMIT) for g in gs]
    assert len(accepted) == 4 and not any(non_blocking(sock) for sock, _ in accepted)
    for sock in [*clients, *(sock for sock, _ in accepted)]:
        sock.close()
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.settimeout(0.01)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_plain_loop_in_another_thread_is_left_alone(listener):
    async def main():
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"hello")
        data = await reader.read()
        writer.close()
        return data

    def serve():
        with listener.accept()[0] as connection:
            connection.sendall(connection.recv(100))

    g = go(serve)
    assert asyncio.run(main()) == b"hello"
    g.result(LIMIT)


def test_only_names_are_looked_up_in_a_thread(monkeypatch, listener):
    offloaded = []

    def offload(function, *args, **kwargs):
        offloaded.append(args[0])
        return function(*args, **kwargs)

    monkeypatch.setattr(_dns, "offload", offload)
    host, port = listener.getsockname()

    def body():
        for literal in (host, "127.1", "::1", None, b"127.1"):
            socket.getaddrinfo(literal, port)
        for literal in ("", host, "127.1"):
            socket.gethostbyname(literal)
            with socket.socket() as sock:
                sock.connect((literal, port))
        assert offloaded == []
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("", port)
        socket.getaddrinfo("localhost", port)
        return offloaded

    assert go(body).result(LIMIT) == ["", "localhost"]
