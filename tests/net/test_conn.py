"""A connection's reads and writes, in goroutines and plain threads; closes, deadlines and cancellations in between."""

import asyncio
import socket
import threading
import time

import pytest

import goloop
from goloop import net
from goloop.core.net.polldesc import live_polldescs
from tests.helpers.descriptors import waiters
from tests.helpers.waiting import until


# ------------------------------------------------------------- reading, writing
def test_bytes_arrive_as_they_were_written(pair, start):
    client, server = pair
    reads = start(server.read)
    assert client.write(b"hello") == 5
    assert reads.result(20) == b"hello"
    client.write(bytearray(b"abcdef"))
    assert server.read(2) == b"ab" and server.read(0) == b"" and server.read(100) == b"cdef"
    client.write(memoryview(b"x"))
    room = bytearray(3)
    assert server.readinto(room) == 1 and room == b"x\0\0"
    client.close_write()
    assert start(server.read).result(20) == b"" == server.read()
    assert server.readinto(room) == 0
    server.write(b"still")
    assert client.read() == b"still"


def test_exactly(pair, start):
    client, server = pair
    reads = start(server.read_exactly, 6)
    client.write(b"abc")
    client.write(b"defgh")
    assert reads.result(20) == b"abcdef"
    assert server.read() == b"gh"  # nothing is lost that came along
    assert server.read_exactly(0) == b""
    big = bytes(range(256)) * 4000
    writes = start(client.write, big + b"rest")
    assert start(server.read_exactly, len(big)).result(20) == big
    assert writes.result(20) == len(big) + 4
    client.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        server.read_exactly(10)
    assert caught.value.partial == b"rest" and isinstance(caught.value, EOFError)
    with pytest.raises(EOFError):
        server.read_exactly(1)


def test_exactly_much_and_the_end_comes_before(pair):
    client, server = pair
    writes = goloop.go(client.write, bytes(100_000))
    writes.join()
    client.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        server.read_exactly(1_000_000)
    assert len(caught.value.partial) == 100_000


def test_lines(pair, start):
    client, server = pair
    reads = start(server.readline)
    client.write(b"one\nt")
    assert reads.result(20) == b"one\n"
    client.write(b"wo\n\nlast")
    client.close_write()
    assert start(list, server).result(20) == [b"two\n", b"\n", b"last"]
    assert server.readline() == b""


def test_a_line_over_the_limit_is_left_to_be_read(pair):
    client, server = pair
    client.write(b"12345\n67890\n")
    with pytest.raises(ValueError, match="longer than 5 bytes"):
        server.readline(5)
    assert server.readline(6) == b"12345\n"
    assert server.read_exactly(6) == b"67890\n"
    long = b"x" * 200_000
    writes = goloop.go(client.write, long + b"\n")
    with pytest.raises(ValueError, match="longer than 65536 bytes"):
        server.readline()
    assert server.readline(200_001) == long + b"\n"
    writes.join()


def test_big_transfers_with_a_slow_reader(pair, start):
    client, server = pair
    data = bytes(range(256)) * 40_000  # 10 MB, more than the kernel buffers
    writes = start(client.write, data)
    got = bytearray()
    while len(got) < len(data):
        got += server.read(50_000 if len(got) % 3 else 1_000_000)
        if len(got) < 1_000_000:
            time.sleep(0.001)
    assert writes.result(20) == len(data)
    assert got == data


@pytest.mark.parametrize("call", [lambda c: c.read(-1), lambda c: c.read_exactly(-1), lambda c: c.readline(0)])
def test_bad_sizes(pair, call):
    with pytest.raises(ValueError, match=r"bytes|byte"):
        call(pair[0])


def test_bad_data(pair):
    for bad in ("text", None, 3):
        with pytest.raises(TypeError):
            pair[0].write(bad)
    with pytest.raises(TypeError):
        pair[0].readinto(b"read-only")


def test_a_peer_that_is_gone(pair, start):
    client, server = pair
    server.close()

    def write_on():
        while True:
            client.write(b"x" * 100_000)

    with pytest.raises((BrokenPipeError, ConnectionResetError)) as caught:
        start(write_on).result(20)
    assert caught.value.bytes_written >= 0


# --------------------------------------------------------------- several at once
def test_several_readers_each_get_their_part(pair, start):
    client, server = pair
    readers = [start(server.read_exactly, 100) for _ in range(10)]
    for i in range(10):
        for _ in range(10):
            client.write(bytes([i]) * 10)
    parts = sorted(reader.result(20) for reader in readers)
    assert parts == [bytes([i]) * 100 for i in range(10)]  # frames do not mix


def test_writes_of_several_goroutines_do_not_mix(pair, start):
    client, server = pair
    size = 400_000
    writers = [start(client.write, bytes([i]) * size) for i in range(6)]
    seen = {server.read_exactly(size) for _ in range(6)}
    assert seen == {bytes([i]) * size for i in range(6)}
    assert [writer.result(20) for writer in writers] == [size] * 6


def test_one_goroutine_reads_and_another_writes_on_other_workers(pair):
    client, server = pair
    count = 2000

    def locked(function):
        with goloop.lock_os_thread():
            function()

    def write():
        for i in range(count):
            client.write(b"%d\n" % i)

    def echo():
        for _ in range(count):
            server.write(server.readline())

    def read():
        for i in range(count):
            assert client.readline() == b"%d\n" % i

    running = [goloop.go(locked, function) for function in (write, echo, read)]
    for g in running:
        g.join(timeout=60)


# -------------------------------------------------------------------------- close
def test_a_close_wakes_readers_and_writers(pair, start):
    client, _ = pair
    readers = [start(client.read) for _ in range(3)]
    writers = [start(client.write, bytes(20_000_000)) for _ in range(2)]
    until(lambda: waiters(client) == 5)
    client.close()
    client.close()
    for waits in readers + writers:
        with pytest.raises(net.ClosedError, match="closed"):
            waits.result(20)
    for use in (client.read, lambda: client.write(b"x"), lambda: client.set_deadline(1), client.close_write):
        with pytest.raises(OSError, match="closed"):
            use()
    assert client.closed and client.fileno() == -1 and "closed" in repr(client) and client.local_addr == ""


def test_with_closes_also_when_it_raises(pair):
    client, server = pair
    with pytest.raises(KeyError), client:
        raise KeyError
    assert client.closed
    assert server.read() == b""


@pytest.mark.parametrize("kind", ["conn", "listener", "packet"])
def test_an_object_that_nobody_closes_warns_and_is_closed(kind):
    before = live_polldescs()
    if kind == "conn":
        a, b = socket.socketpair()
        with b:
            conn = net.Conn(a)
            with pytest.warns(ResourceWarning, match="unclosed <Conn fd="):
                del conn
            assert b.recv(1) == b""
    elif kind == "listener":
        listener = net.listen("tcp", "127.0.0.1:0")
        address = listener.addr
        with pytest.warns(ResourceWarning, match="unclosed <Listener fd="):
            del listener
        with pytest.raises(ConnectionRefusedError):
            net.dial("tcp", address)
    else:
        packet = net.listen_packet("udp", "127.0.0.1:0")
        with pytest.warns(ResourceWarning, match="unclosed <PacketConn fd="):
            del packet
    assert live_polldescs() == before


# ---------------------------------------------------------------------- deadlines
def test_deadlines_are_sticky(pair, start):
    client, server = pair
    client.set_read_deadline(0.02)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"Conn.read\(\): the deadline has passed"):
            start(client.read).result(20)
    server.write(b"there")
    with pytest.raises(TimeoutError):
        client.read()  # Go: even then
    assert client.write(b"the other direction has its own") == 31
    client.set_read_deadline(None)
    assert start(client.read).result(20) == b"there"
    client.set_deadline(0)
    with pytest.raises(TimeoutError):
        client.write(b"x")
    with pytest.raises(TimeoutError):
        client.read()


def test_a_deadline_for_each_read(pair):
    client, server = pair

    def serve():
        for _ in range(50):
            server.set_read_deadline(10)
            server.write(server.read())
        server.set_read_deadline(0.02)
        with pytest.raises(TimeoutError):
            server.read()

    g = goloop.go(serve)
    for _ in range(50):
        client.write(b"x")
        assert client.read() == b"x"
    g.join(timeout=20)


def test_a_deadline_in_the_middle_takes_nothing(pair, start):
    client, server = pair
    client.write(b"par")
    server.set_read_deadline(0.05)
    with pytest.raises(TimeoutError):
        start(server.read_exactly, 7).result(20)
    with pytest.raises(TimeoutError):
        start(server.read_exactly, 100_000).result(20)
    server.set_read_deadline(0.05)
    with pytest.raises(TimeoutError):
        start(server.readline).result(20)
    server.set_read_deadline(None)
    client.write(b"tial\n")
    assert server.read_exactly(7) == b"partial"
    assert server.readline() == b"\n"


def test_a_write_that_ends_half_way_says_how_far_it_got(pair, start):
    client, server = pair
    client.set_write_deadline(0.05)
    with pytest.raises(TimeoutError) as caught:
        start(client.write, bytes(30_000_000)).result(20)
    sent = caught.value.bytes_written
    assert 0 <= sent < 30_000_000
    client.close()
    got = 0
    while data := server.read(1_000_000):
        got += len(data)
    assert got == sent


def test_a_deadline_of_those_who_wait_for_their_turn(pair, start):
    client, _ = pair
    readers = [start(client.read) for _ in range(4)]
    client.set_read_deadline(0.05)
    for reader in readers:
        with pytest.raises(TimeoutError):
            reader.result(20)


# ------------------------------------------------------------------- cancellation
def test_cancelled_reads_lose_no_byte(pair):
    client, server = pair
    sent = bytes(i % 251 for i in range(3000))
    got = bytearray()

    def write():
        for i in range(0, len(sent), 3):
            client.write(sent[i : i + 3])
            if i % 50 == 0:
                goloop.sleep(0.0005)

    writer = goloop.go(write)
    attempt = 0
    while len(got) < len(sent):
        n = min(1 + attempt % 40, len(sent) - len(got))
        attempt += 1
        g = goloop.go(server.read_exactly, n)
        if attempt % 3:
            time.sleep(0.0002 * (attempt % 4))
            g.cancel()
        try:
            got += g.result(timeout=20)
        except asyncio.CancelledError:
            pass
    assert got == sent
    writer.join()


def test_cancelling_one_who_waits_for_its_turn(pair):
    client, server = pair
    first, second, third = (goloop.go(server.read_exactly, 2) for _ in range(3))
    until(lambda: first.state == second.state == third.state == "IO wait")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        second.result(timeout=20)
    client.write(b"1133")
    assert first.result(timeout=20) == b"11" and third.result(timeout=20) == b"33"


def test_a_goroutine_that_never_waits_can_be_cancelled_and_lets_others_run():
    with net.listen("tcp", "127.0.0.1:0") as listener:

        def pour(conn):
            with conn:
                try:
                    while True:
                        conn.write(bytes(100_000))
                except ConnectionError:
                    pass

        def drain():
            with net.dial("tcp", listener.addr) as conn:
                while conn.read(100):
                    pass

        pouring = goloop.go(lambda: pour(listener.accept()))
        g = goloop.go(drain)
        assert goloop.go(goloop.sleep, 0.05).result(timeout=20) is None
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result(timeout=20)
        pouring.result(timeout=20)


# --------------------------------------------------------------------- where, what
def test_in_a_coroutine_it_says_what_to_do(pair):
    client, _ = pair

    async def main():
        calls = (client.read, client.readline, lambda: client.read_exactly(1), lambda: client.write(b"x"))
        for call in calls:
            with pytest.raises(RuntimeError, match=r"Conn\.\w+\(\) would block the event loop: use asyncio's streams"):
                call()
        return await goloop.go(client.write, b"in a goroutine")

    assert goloop.run(main()) == 14


def test_addresses_and_options(pair):
    client, server = pair
    assert client.remote_addr == server.local_addr and client.local_addr == server.remote_addr
    if ":" in client.remote_addr:
        for conn in pair:
            assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 50_000
    where = server.remote_addr
    server.close()
    assert server.remote_addr == where
    with pytest.raises(net.ClosedError):
        server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_a_conn_takes_over_a_socket():
    a, b = socket.socketpair()
    with net.Conn(a) as conn, b:
        assert a.fileno() == -1
        b.send(b"x")
        assert conn.read() == b"x"
    for bad in (None, 3, socket.socket(type=socket.SOCK_DGRAM)):
        with pytest.raises(TypeError):
            net.Conn(bad)
        if bad and bad != 3:
            bad.close()


def test_keyboard_interrupt_in_a_thread_that_waits(pair):
    import signal

    _, server = pair
    main = threading.main_thread().ident  # sleeps in poll(2), which only a signal of its own ends
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        server.read()
    timer.join()
    pair[0].write(b"x")
    assert server.read() == b"x"
