"""TLS both ways: handshakes on first use, ends of the stream, errors, and what interrupts it."""

import array
import asyncio
import os
import socket
import ssl

import pytest

import goloop
from goloop import net
from tests.helpers.descriptors import unread, waiters
from tests.helpers.waiting import until


@pytest.fixture
def tls_pair(tls_contexts):
    server, client = tls_contexts
    with net.listen_tls("tcp", "127.0.0.1:0", server) as listener:
        dialling = goloop.go(net.dial_tls, "tcp", listener.addr, client)
        with listener.accept() as accepted:
            accepted.handshake()
            with dialling.result(timeout=20) as dialled:
                yield dialled, accepted


def test_both_ways(tls_pair, start):
    client, server = tls_pair
    reads = start(server.readline)
    assert client.write(b"hello\nworld") == 11
    assert reads.result(20) == b"hello\n"
    assert server.read_exactly(5) == b"world"
    server.write(b"back")
    room = bytearray(10)
    assert client.readinto(room) == 4 and room[:4] == b"back"
    assert client.ssl_object.version() == server.ssl_object.version() == "TLSv1.3"
    assert client.remote_addr == server.local_addr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_and_the_end_of_the_stream(tls_contexts, serve, start, version):
    server, _ = tls_contexts
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.maximum_version = client.minimum_version = version

    def handle(conn):
        data = b"".join(iter(conn.read, b""))
        conn.write(b"got %d" % len(data))

    def main():
        with net.dial_tls("tcp", listener.addr, client) as conn:
            conn.write(bytes(100_000))
            conn.close_write()
            with pytest.raises(ssl.SSLError):
                conn.write(b"x")
            return conn.read(), conn.read()

    listener = serve(net.listen_tls("tcp", "127.0.0.1:0", server), handle)
    assert start(main).result(20) == (b"got 100000", b"")


def test_data_on_its_way_when_the_write_side_is_closed(tls_pair):
    client, server = tls_pair
    server.write(b"early" * 10_000)
    until(lambda: unread(client) > 50_000)
    client.write(b"x")
    client.close_write()
    assert client.read_exactly(50_000) == b"early" * 10_000
    assert server.read() == b"x" and server.read() == b""
    server.write(b"late")
    assert client.read() == b"late"


def test_big_transfers_both_ways_at_once(tls_pair):
    client, server = tls_pair
    data = bytes(range(251)) * 20_000

    def locked(function, *args):
        with goloop.lock_os_thread():
            return function(*args)

    calls = [(client.write, data), (server.write, data), (client.read_exactly, len(data))]
    running = [goloop.go(locked, *call) for call in calls]
    assert server.read_exactly(len(data)) == data
    assert [g.result(timeout=60) for g in running] == [len(data), len(data), data]


def test_a_slow_client_keeps_nobody_from_being_accepted(tls_contexts, serve):
    server, client = tls_contexts

    def handle(conn):
        try:
            conn.write(conn.read())
        except ssl.SSLError:
            pass

    listener = serve(net.listen_tls("tcp", "127.0.0.1:0", server), handle)
    with net.dial("tcp", listener.addr):  # says nothing
        with goloop.go(net.dial_tls, "tcp", listener.addr, client).result(timeout=20) as conn:
            conn.write(b"x")
            assert conn.read() == b"x"


def test_a_certificate_that_is_not_trusted(tls_contexts, serve, start):
    server, client = tls_contexts
    seen = goloop.Chan(3)

    def handle(conn):
        for _ in range(2):
            try:
                conn.read()
            except OSError as exc:
                seen.send(exc)

    listener = serve(net.listen_tls("tcp", "127.0.0.1:0", server), handle)
    with pytest.raises(ssl.SSLCertVerificationError):
        start(net.dial_tls, "tcp", listener.addr).result(20)
    assert "alert" in str(seen.recv(timeout=20)).lower()  # the client said why,
    assert isinstance(seen.recv(timeout=20), ssl.SSLError)  # and the connection stays unusable
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        start(lambda: net.dial_tls("tcp", listener.addr, client, server_hostname="example.org")).result(20)


def test_a_peer_that_speaks_no_tls(tls_contexts, serve, start):
    def handle(conn):
        conn.read(10)
        conn.write(b"220 welcome\r\n")

    listener = serve(net.listen("tcp", "127.0.0.1:0"), handle)
    with pytest.raises(ssl.SSLError):
        start(net.dial_tls, "tcp", listener.addr, tls_contexts[1]).result(20)


def test_a_stream_that_was_cut_off(tls_contexts):
    """An end without TLS's own is an error: somebody may have put it there."""
    server, client = tls_contexts
    with net.listen_tls("tcp", "127.0.0.1:0", server) as listener:
        dialling = goloop.go(net.dial_tls, "tcp", listener.addr, client)
        with listener.accept() as accepted:
            accepted.handshake()
            with dialling.result(timeout=20) as dialled:
                accepted.write(b"part")
                assert dialled.read() == b"part"
                with socket.socket(fileno=os.dup(accepted.fileno())) as below:
                    below.shutdown(socket.SHUT_WR)
                with pytest.raises(ssl.SSLEOFError):
                    dialled.read()


def test_dialling_takes_no_longer_than_it_may(tls_contexts, start):
    with net.listen("tcp", "127.0.0.1:0") as listener:  # accepts, and says nothing
        with pytest.raises(TimeoutError):
            start(lambda: net.dial_tls("tcp", listener.addr, tls_contexts[1], timeout=0.1)).result(20)


def test_deadlines_and_cancellation_leave_the_stream_whole(tls_pair):
    client, server = tls_pair
    server.set_read_deadline(0.02)
    with pytest.raises(TimeoutError, match=r"TLSConn.read\(\): the deadline has passed"):
        server.read()
    server.set_read_deadline(None)
    g = goloop.go(server.read_exactly, 10)
    client.write(b"12345")
    until(lambda: g.state == "IO wait")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=20)
    client.set_write_deadline(0.05)
    with pytest.raises(TimeoutError) as caught:
        goloop.go(client.write, bytes(20_000_000)).result(timeout=20)
    sent = caught.value.bytes_written
    client.set_write_deadline(None)
    rest = goloop.go(client.write, b"the rest")  # what was encrypted and not sent goes first
    assert server.read_exactly(5) == b"12345"
    assert server.read_exactly(sent) == bytes(sent)
    assert server.read_exactly(8) == b"the rest"
    assert rest.result(timeout=20) == 8


def test_a_close_wakes_who_waits(tls_pair, start):
    client, server = tls_pair
    reads = start(client.read)
    until(lambda: waiters(client) == 1)
    client.close()
    with pytest.raises(net.ClosedError):
        reads.result(20)
    assert server.read() == b""  # it said goodbye


def test_a_handshake_in_the_middle_of_a_connection(tls_contexts):
    """STARTTLS: what was read ahead belongs to TLS, and the plain connection is used up."""
    server, client = tls_contexts
    with net.listen("tcp", "127.0.0.1:0") as listener:

        def serve():
            conn = listener.accept()
            assert conn.readline() == b"STARTTLS\n"
            conn.write(b"go\n")
            with net.TLSConn(conn, server, server_side=True) as secure:
                assert conn.closed
                secure.write(secure.readline())

        g = goloop.go(serve)
        plain = net.dial("tcp", listener.addr)
        plain.write(b"STARTTLS\n")
        assert plain.readline() == b"go\n"
        with net.TLSConn(plain, client, server_hostname="localhost") as secure:
            secure.write(b"secret\n")
            assert secure.readline() == b"secret\n"
        with pytest.raises(net.ClosedError):
            plain.read()
        g.result(timeout=20)


def test_garbage_on_an_established_connection_is_answered_with_an_alert(tls_contexts):
    """The peer is a TLS object of our own, so that it can send what is no record."""
    server, _ = tls_contexts
    a, b = socket.socketpair()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    peer = client.wrap_bio(incoming, outgoing)

    def exchange(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                b.sendall(outgoing.read())
            incoming.write(b.recv(65536))

    with b, net.TLSConn(net.Conn(a), server, server_side=True) as conn:
        shaking = goloop.go(conn.handshake)
        exchange(peer.do_handshake)
        shaking.result(timeout=20)
        b.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"BAD_RECORD_MAC|RECORD_LAYER_FAILURE"):
            goloop.go(conn.read).result(timeout=20)
        with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
            exchange(lambda: peer.read(1))


def test_views_of_larger_items_are_written_as_their_bytes(tls_pair, start):
    client, server = tls_pair
    items = array.array("d", range(1000))
    reads = start(server.read_exactly, 8000)
    assert client.write(memoryview(items)) == 8000
    assert reads.result(20) == items.tobytes()
    room = array.array("d", bytes(80))
    server.write(bytes(range(80)))
    assert client.readinto(room) == 80 and room.tobytes() == bytes(range(80))


def test_bad_arguments_and_calls_are_errors_that_say_what_is_wrong(tls_contexts, tls_pair):
    server, client = tls_contexts
    with pytest.raises(TypeError, match="SSLContext is needed"):
        net.listen_tls("tcp", ":0", None)
    a, b = socket.socketpair()
    with b, net.Conn(a) as conn:
        with pytest.raises(TypeError, match="SSLContext is needed"):
            net.TLSConn(conn, "context")
        with pytest.raises(ValueError, match="hostname"):
            net.TLSConn(conn, client)
        reading = goloop.go(conn.read)
        until(lambda: reading.state == "IO wait")
        with pytest.raises(RuntimeError, match="being read or written"):
            net.TLSConn(conn, server, server_side=True)
        b.send(b"x")
        assert reading.result(timeout=20) == b"x"  # it still works
    with pytest.raises(net.ClosedError):
        net.TLSConn(conn, server, server_side=True)
    with net.listen("unix", "@goloop-test-tls") as listener:
        with pytest.raises(ValueError, match="needs a server_hostname"):
            net.dial_tls("unix", listener.addr)

    with pytest.raises(TypeError, match="TLS inside of TLS"):
        net.TLSConn(tls_pair[0], server, server_side=True)

    async def main():
        with pytest.raises(RuntimeError, match="would block the event loop"):
            tls_pair[0].read()

    goloop.run(main())


def test_a_connection_that_nobody_closes_warns(tls_contexts):
    a, b = socket.socketpair()
    with b:
        conn = net.TLSConn(net.Conn(a), tls_contexts[0], server_side=True)
        with pytest.warns(ResourceWarning, match="unclosed <TLSConn fd="):
            del conn
        assert b.recv(1) == b""  # and it is closed
