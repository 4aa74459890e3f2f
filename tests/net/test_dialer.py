"""Dialer and ListenConfig: dial() and listen() with options."""

import errno
import math
import socket

import pytest

import goloop
from goloop import context, go, net
from goloop.net import Dialer, ListenConfig
from tests.helpers.waiting import SECONDS


@pytest.fixture
def listener():
    with net.listen("tcp", "127.0.0.1:0") as listener:
        yield listener


def option(conn, level, name):
    return conn.getsockopt(level, name)


def test_without_options_they_are_dial_and_listen(listener):
    with Dialer().dial("tcp", listener.addr) as one, listener.accept() as other:
        one.write(b"x")
        assert other.read() == b"x"
        assert option(one, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
    with ListenConfig().listen("tcp", "127.0.0.1:0") as second, net.dial("tcp", second.addr):
        with second.accept() as conn:
            assert option(conn, socket.SOL_SOCKET, socket.SO_KEEPALIVE) and option(
                conn, socket.IPPROTO_TCP, socket.TCP_NODELAY
            )
    with ListenConfig().listen_packet("udp", "127.0.0.1:0") as packets:
        with Dialer().dial("udp", packets.local_addr) as sender:
            sender.write(b"datagram")
            assert packets.read_from()[0] == b"datagram"


@pytest.mark.parametrize(("seconds", "on"), [(0, False), (77, True)])
def test_keep_alive(listener, seconds, on):
    with Dialer(keep_alive=seconds).dial("tcp", listener.addr) as conn:
        assert bool(option(conn, socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is on
        assert (option(conn, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77) is on
        assert (option(conn, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 77) is on
        assert option(conn, socket.IPPROTO_TCP, socket.TCP_NODELAY)
    with ListenConfig(keep_alive=seconds).listen("tcp", "127.0.0.1:0") as configured:
        with net.dial("tcp", configured.addr), configured.accept() as conn:
            assert bool(option(conn, socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is on


def test_a_local_address(listener):
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        local = f"127.0.0.2:{probe.getsockname()[1]}"
    with Dialer(local_addr=local).dial("tcp", listener.addr) as conn, listener.accept() as accepted:
        assert conn.local_addr == accepted.remote_addr == local
    with net.listen_packet("udp", "127.0.0.1:0") as packets:
        with Dialer(local_addr="127.0.0.3:0").dial("udp", packets.local_addr) as sender:
            sender.write(b"x")
            assert packets.read_from()[1].startswith("127.0.0.3:")


def test_a_local_address_of_another_family_or_that_is_taken_is_an_error(listener):
    with pytest.raises(OSError, match="no local address of this family: dial tcp") as caught:
        Dialer(local_addr="[::1]:0").dial("tcp", listener.addr)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(OSError, match="in use") as caught:
        Dialer(local_addr=listener.addr).dial("tcp", listener.addr)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_local_path_lets_a_unixgram_server_answer(tmp_path):
    here = tmp_path / "client"
    with net.listen_packet("unixgram", tmp_path / "server") as server:
        with Dialer(local_addr=here).dial("unixgram", server.local_addr) as client:
            client.write(b"question")
            data, addr = server.read_from()
            server.write_to(b"answer to " + data, addr)
            assert client.read() == b"answer to question" and addr == str(here)


def test_control_sees_each_socket_before_it_is_used(listener):
    def control(network, address, sock):
        seen.append((network, address))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 12345)

    seen = []
    with Dialer(control=control).dial("tcp", listener.addr) as conn:
        assert seen == [("tcp", listener.addr)]
        assert option(conn, socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 12345
    config = ListenConfig(control=control)
    with config.listen("tcp", "127.0.0.1:0") as one, config.listen_packet("udp", "127.0.0.1:0") as other:
        assert seen[1:] == [("tcp", "127.0.0.1:0"), ("udp", "127.0.0.1:0")]
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == other.getsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF
        )


def test_an_exception_of_control_ends_the_call(listener):
    def control(network, address, sock):
        sockets.append(sock)
        raise KeyError(address)

    sockets = []
    for call in (
        lambda: Dialer(control=control).dial("tcp", listener.addr),
        lambda: ListenConfig(control=control).listen("tcp", "127.0.0.1:0"),
        lambda: ListenConfig(control=control).listen_packet("udp", "127.0.0.1:0"),
    ):
        with pytest.raises(KeyError):
            call()
    assert [sock.fileno() for sock in sockets] == [-1, -1, -1]


def test_the_timeout_and_a_context_end_a_dial(deaf):
    with pytest.raises(TimeoutError, match="dial tcp"):
        Dialer(timeout=0.05).dial("tcp", deaf)
    ctx, cancel = context.with_cancel(context.background())
    dialling = go(Dialer(timeout=SECONDS).dial, "tcp", deaf, ctx=ctx)
    cancel()
    with pytest.raises(context.Canceled):
        dialling.result(SECONDS)


def test_both_families_race_with_the_same_options(names, listener):
    port = listener.addr.rpartition(":")[2]
    names["both.test"] = ["::1", "127.0.0.1"]
    seen = []
    dialer = Dialer(control=lambda network, address, sock: seen.append(address))
    with go(dialer.dial, "tcp", f"both.test:{port}").result(SECONDS) as conn:
        assert conn.remote_addr == listener.addr
    assert seen == [f"[::1]:{port}", f"127.0.0.1:{port}"]


def test_tls_with_a_local_address(tls_contexts):
    server, client = tls_contexts
    with net.listen_tls("tcp", "127.0.0.1:0", server) as listener:

        def answer():
            with listener.accept() as conn:
                conn.write(conn.remote_addr.encode())

        answering = go(answer)
        dialer = Dialer(timeout=SECONDS, local_addr="127.0.0.4:0")
        with go(dialer.dial_tls, "tcp", listener.addr, client).result(SECONDS) as conn:
            assert conn.read().startswith(b"127.0.0.4:")
        answering.result(SECONDS)


def test_two_listeners_share_a_port():
    config = ListenConfig(reuse_port=True)
    with config.listen("tcp", "127.0.0.1:0") as one, config.listen("tcp", one.addr) as other:
        assert one.addr == other.addr


def test_they_are_values():
    assert Dialer(keep_alive=5) == Dialer(keep_alive=5) != Dialer()
    with pytest.raises(AttributeError):
        Dialer().timeout = 5


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Dialer(timeout="1"), TypeError),
        (lambda: Dialer(timeout=math.nan), ValueError),
        (lambda: Dialer(keep_alive=1.5), TypeError),
        (lambda: Dialer(keep_alive=-1), ValueError),
        (lambda: Dialer(keep_alive=10**6), ValueError),
        (lambda: Dialer(control=1), TypeError),
        (lambda: Dialer(local_addr=80).dial("tcp", ":1"), TypeError),
        (lambda: Dialer(local_addr="localhost:0").dial("tcp", ":1"), ValueError),
        (lambda: Dialer(local_addr="/path").dial("unix", "/other"), ValueError),
        (lambda: ListenConfig(keep_alive=True), TypeError),
        (lambda: ListenConfig(control="x"), TypeError),
        (lambda: ListenConfig().listen("udp", ":0"), ValueError),
    ],
)
def test_misuse_is_an_error_at_the_call(make, error):
    with pytest.raises(error):
        make()


def test_on_a_loops_thread_a_dial_is_refused(listener):
    async def main():
        with pytest.raises(RuntimeError, match="open_connection"):
            Dialer().dial("tcp", listener.addr)

    goloop.run(main())
