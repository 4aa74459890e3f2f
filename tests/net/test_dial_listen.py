"""dial() and listen(): addresses, names, families, timeouts, refusals, and how a listener ends."""

import asyncio
import os
import socket

import pytest

import goloop
from goloop import net
from goloop.net import _address, _dial, _listen
from tests.helpers.descriptors import waiters
from tests.helpers.waiting import until

HAS_IPV6 = os.path.exists("/proc/net/if_inet6")
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")


# ---------------------------------------------------------------------- addresses
@pytest.mark.parametrize(
    "network",
    ["tcp", "tcp4", pytest.param("tcp6", marks=needs_ipv6)],
)
def test_every_tcp_network(network, start):
    host = "[::1]" if network == "tcp6" else "127.0.0.1"
    with net.listen(network, f"{host}:0") as listener:
        assert listener.addr.startswith(f"{host}:") and not listener.addr.endswith(":0")
        accepts = start(listener.accept)
        with net.dial(network, listener.addr) as conn, accepts.result(20) as server:
            assert conn.remote_addr == listener.addr == server.local_addr
            assert server.remote_addr == conn.local_addr
            conn.write(b"x")
            assert server.read() == b"x"


@needs_ipv6
def test_all_addresses_of_this_machine():
    with net.listen("tcp", ":0") as listener:
        assert listener.addr.startswith("[::]:")
        port = listener.addr.rpartition(":")[2]
        for host in ("", "127.0.0.1", "[::1]"):
            with net.dial("tcp", f"{host}:{port}") as conn, listener.accept() as server:
                assert server.remote_addr == conn.local_addr  # IPv4 reads as IPv4 though the socket is IPv6
    with net.listen("tcp4", ":0") as listener:
        assert listener.addr.startswith("0.0.0.0:")
    with net.listen("tcp6", ":0") as listener:
        with pytest.raises(ConnectionRefusedError):
            net.dial("tcp4", "127.0.0.1:" + listener.addr.rpartition(":")[2])


@pytest.mark.parametrize(
    ("network", "address", "message"),
    [
        ("tpc", "127.0.0.1:1", "unknown network 'tpc': it is one of tcp, "),
        ("tcp", "127.0.0.1", "an address is host:port"),
        ("tcp", "[::1]", "an address is host:port"),
        ("tcp", "::1:80", "too many colons"),
        ("tcp", "[::1:80", "an address is host:port"),
        ("tcp", "127.0.0.1:", "bad port"),
        ("tcp", "127.0.0.1:-1", "bad port"),
        ("tcp", "127.0.0.1:65536", "at most 65535"),
        ("tcp", "127.0.0.1:no-such-service", "unknown port 'no-such-service'"),
        ("tcp", "a b:80", "bad host"),
        ("tcp4", "[::1]:80", "not an address of network 'tcp4'"),
        ("tcp6", "127.0.0.1:80", "not an address of network 'tcp6'"),
        ("unix", "", "needs a path"),
        ("unix", "a\0b", "needs a path"),
        ("unix", "x" * 108, "at most 107 bytes"),
    ],
)
def test_bad_addresses(network, address, message):
    for call in (net.dial, net.listen):
        with pytest.raises(ValueError, match=message):
            call(network, address)


def test_the_wrong_function_for_a_network():
    with pytest.raises(ValueError, match=r"use listen_packet\(\)"):
        net.listen("udp", ":0")
    with pytest.raises(ValueError, match=r"use listen\(\)"):
        net.listen_packet("tcp", ":0")
    with pytest.raises(ValueError, match="not a network for TLS"):
        net.dial_tls("udp", ":1")
    with pytest.raises(TypeError, match="an address is a str"):
        net.dial("tcp", b"127.0.0.1:80")


def test_names_of_services():
    assert _address.parse("tcp", "127.0.0.1:http", passive=False).numeric()[0].sockaddr == ("127.0.0.1", 80)


# -------------------------------------------------------------------------- names
def test_localhost(start):
    with net.listen("tcp", "localhost:0") as listener:
        conn = start(net.dial, "tcp", "localhost:" + listener.addr.rpartition(":")[2]).result(20)
        with conn, listener.accept() as server:
            assert conn.remote_addr == listener.addr == server.local_addr
            assert server.remote_addr == conn.local_addr
            assert listener.addr.rpartition(":")[0] in ("127.0.0.1", "[::1]")


def test_looking_up_a_name_stops_no_other_goroutine(names):
    looking, go_on = goloop.Chan(1), goloop.Chan(1)

    def slowly():
        looking.send(True)
        go_on.recv(timeout=20)
        return ["127.0.0.1"]

    names["slow"] = slowly
    with net.listen("tcp", "127.0.0.1:0") as listener:

        def main():
            port = listener.addr.rpartition(":")[2]
            dialling = goloop.go(net.dial, "tcp", f"slow:{port}")
            looking.recv(timeout=20)
            goloop.sleep(0.01)  # on the same worker, and yet it goes on
            assert not dialling.done()
            go_on.send(True)
            return dialling.result(timeout=20)

        goloop.go(main).result(timeout=20).close()
        listener.accept().close()


def test_a_name_that_does_not_exist(names, start):
    names["nowhere.invalid"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(socket.gaierror):
        start(net.dial, "tcp", "nowhere.invalid:80").result(20)


def test_the_time_for_a_look_up_counts(names):
    go_on = goloop.Chan(1)
    names["slow"] = lambda: go_on.recv(timeout=20) and []
    with pytest.raises(TimeoutError, match="dial tcp slow:80: timed out"):
        goloop.go(net.dial, "tcp", "slow:80", 0.05).result(timeout=20)
    go_on.send(True)


def test_every_address_of_a_name_is_tried(names, start):
    with net.listen("tcp", "127.0.0.3:0") as listener:
        port = listener.addr.rpartition(":")[2]
        names["several"] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        with start(net.dial, "tcp", f"several:{port}").result(20) as conn:
            assert conn.remote_addr == listener.addr
        names["several"].pop()
        with pytest.raises(ConnectionRefusedError, match=r"dial tcp 127.0.0.1:\d+") as caught:
            start(net.dial, "tcp", f"several:{port}").result(20)
        assert "127.0.0.2" in caught.value.__notes__[0]


@needs_ipv6
@pytest.mark.parametrize("answers", ["127.0.0.1", "::1"])
def test_both_families_of_a_name_race(names, start, answers):
    names["both"] = ["::1", "127.0.0.1"]
    with net.listen("tcp", f"[{answers}]:0" if ":" in answers else f"{answers}:0") as listener:
        with start(net.dial, "tcp", "both:" + listener.addr.rpartition(":")[2]).result(20) as conn:
            assert conn.remote_addr == listener.addr
    with pytest.raises(ConnectionRefusedError, match=r"dial tcp \[::1\]:"):
        start(net.dial, "tcp", "both:1").result(20)


@needs_ipv6
def test_a_family_that_does_not_answer_does_not_hold_up_the_other(names, start, monkeypatch):
    connect = _dial._finish_connect

    def finish(sock, target, until):
        if target.family == socket.AF_INET6:
            goloop.sleep(60)
        connect(sock, target, until)

    monkeypatch.setattr(_dial, "_finish_connect", finish)
    names["both"] = ["::1", "127.0.0.1"]
    with net.listen("tcp", ":0") as listener:
        with start(net.dial, "tcp", "both:" + listener.addr.rpartition(":")[2]).result(20) as conn:
            assert conn.remote_addr.startswith("127.0.0.1:")


# --------------------------------------------------------------- refusals, timeouts
def test_refused(start):
    with pytest.raises(ConnectionRefusedError, match=r"Connection refused: dial tcp 127\.0\.0\.1:1"):
        start(net.dial, "tcp", "127.0.0.1:1").result(20)
    with pytest.raises(FileNotFoundError, match="dial unix /no/such"):
        start(net.dial, "unix", "/no/such").result(20)


def test_dialling_takes_no_longer_than_it_may(deaf, start):
    with pytest.raises(TimeoutError, match=f"dial tcp {deaf}: timed out"):
        start(net.dial, "tcp", deaf, 0.05).result(20)
    with pytest.raises(TimeoutError):
        start(net.dial, "tcp", deaf, 0).result(20)


def test_a_cancelled_dial_leaves_nothing(deaf):
    g = goloop.go(net.dial, "tcp", deaf)
    until(lambda: g.state == "IO wait")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=20)


def test_a_unix_listener_whose_backlog_is_full(tmp_path, start):
    path = str(tmp_path / "socket")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(0)
    with net.dial("unix", path), sock:
        with pytest.raises(TimeoutError):
            start(net.dial, "unix", path, 0.05).result(20)
        waits = start(net.dial, "unix", path, 20)
        sock.accept()[0].close()
        waits.result(20).close()


def test_in_a_coroutine():
    async def main():
        for call in (net.dial, net.dial_tls):
            with pytest.raises(RuntimeError, match=r"dial\(\) would block the event loop"):
                call("tcp", "127.0.0.1:1")
        with pytest.raises(RuntimeError, match="a name to look up"):
            net.listen("tcp", "localhost:0")
        with net.listen("tcp", "127.0.0.1:0") as listener:
            with pytest.raises(RuntimeError, match=r"Listener.accept\(\) would block"):
                listener.accept()
            conn = await goloop.go(net.dial, "tcp", listener.addr)
            (await goloop.go(listener.accept)).close()
            conn.close()

    goloop.run(main())


# ---------------------------------------------------------------------- listeners
def test_several_accept_at_once(start):
    with net.listen("tcp", "127.0.0.1:0") as listener:
        accepts = [start(listener.accept) for _ in range(5)]
        clients = [net.dial("tcp", listener.addr) for _ in range(5)]
        servers = [g.result(20) for g in accepts]
        assert {s.remote_addr for s in servers} == {c.local_addr for c in clients}
        for conn in clients + servers:
            conn.close()


def test_a_close_ends_accepting(start):
    listener = net.listen("tcp", "127.0.0.1:0")
    accepts = [start(listener.accept) for _ in range(3)] + [start(list, listener)]
    until(lambda: waiters(listener) == 4)
    address = listener.addr
    listener.close()
    listener.close()
    for waits in accepts[:3]:
        with pytest.raises(net.ClosedError):
            waits.result(20)
    assert accepts[3].result(20) == []
    assert listener.closed and listener.addr == address and listener.fileno() == -1
    with pytest.raises(net.ClosedError):
        start(listener.accept).result(20)
    with net.listen("tcp", address):  # the port is free at once
        pass


def test_a_listeners_deadline(start):
    with net.listen("tcp", "127.0.0.1:0") as listener:
        listener.set_deadline(0.02)
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"Listener.accept\(\)"):
                start(listener.accept).result(20)
        listener.set_deadline(None)
        waits = start(listener.accept)
        net.dial("tcp", listener.addr).close()
        waits.result(20).close()


def test_an_address_that_is_taken():
    with net.listen("tcp", "127.0.0.1:0") as listener:
        with pytest.raises(OSError, match=f"already in use: listen tcp {listener.addr}"):
            net.listen("tcp", listener.addr)
        with pytest.raises(TypeError):
            net.Listener(socket.socket)
    with net.listen("tcp", "127.0.0.1:0", reuse_port=True) as one:
        with net.listen("tcp", one.addr, reuse_port=True):
            pass


def test_a_unix_sockets_file(tmp_path):
    path = tmp_path / "socket"
    with net.listen("unix", path) as listener:
        assert listener.addr == str(path) and path.is_socket()
        with pytest.raises(OSError, match="in use"):
            net.listen("unix", path)
        with net.dial("unix", path) as conn, listener.accept() as server:
            assert conn.remote_addr == str(path) and server.remote_addr == ""
    assert not path.exists()
    listener = net.listen("unix", path)
    path.unlink()
    with net.listen("unix", path) as another:
        listener.close()
        assert path.exists()  # another one's now
    assert not path.exists() and another.closed


@pytest.mark.parametrize(
    ("listen", "network", "owner"), [(net.listen, "unix", "Listener"), (net.listen_packet, "unixgram", "PacketConn")]
)
def test_a_listen_that_fails_after_binding_leaves_no_file(listen, network, owner, tmp_path, monkeypatch):
    def fails(*args):
        raise MemoryError

    monkeypatch.setattr(_listen, owner, fails)
    path = tmp_path / "socket"
    with pytest.raises(MemoryError):
        listen(network, path)
    assert not path.exists()
    monkeypatch.undo()
    with listen(network, path):
        assert path.is_socket()


def test_an_abstract_unix_socket():
    with net.listen("unix", f"@goloop-test-{os.getpid()}") as listener:
        with net.dial("unix", listener.addr) as conn, listener.accept():
            assert conn.remote_addr == listener.addr == f"@goloop-test-{os.getpid()}"


def test_too_many_open_files_lose_no_connection(start, one_worker):
    import resource

    with net.listen("tcp", "127.0.0.1:0") as listener, net.dial("tcp", listener.addr) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 3, hard))
            try:
                while True:
                    taken.append(os.open("/", os.O_RDONLY))
            except OSError:
                pass
            with pytest.raises(OSError, match="Too many open files"):
                goloop.go(listener.accept).result(timeout=20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)
        with start(listener.accept).result(20) as server:
            assert server.remote_addr == client.local_addr


@pytest.mark.parametrize("kind", [net.Conn, net.Listener, net.PacketConn, net.TLSConn])
def test_an_object_that_was_never_opened_counts_as_closed(kind):
    class Careless(kind):
        def __init__(self):
            pass  # and not super().__init__()

    unopened = Careless()
    assert unopened.closed and unopened.fileno() == -1 and "closed" in repr(unopened)
    with pytest.raises(net.ClosedError):
        goloop.go(unopened.accept if kind is net.Listener else unopened.read).result(timeout=20)
    with pytest.raises(net.ClosedError):
        unopened.set_deadline(1)
    with unopened:
        pass
