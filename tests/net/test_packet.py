"""Datagrams: both ends, connected and not, Unix sockets, deadlines and closes."""

import socket

import pytest

import goloop
from goloop import net
from tests.helpers.descriptors import waiters
from tests.helpers.waiting import until


@pytest.mark.parametrize(("network", "host"), [("udp", "127.0.0.1"), ("udp4", "127.0.0.1"), ("udp6", "[::1]")])
def test_to_and_fro(network, host, start):
    with net.listen_packet(network, f"{host}:0") as server, net.dial(network, server.local_addr) as client:
        reads = start(server.read_from)
        assert client.write(b"hello") == 5
        data, sender = reads.result(20)
        assert (data, sender) == (b"hello", client.local_addr)
        assert client.remote_addr == server.local_addr and server.remote_addr == ""
        for message in (b"one", b"", b"three"):
            server.write_to(message, sender)
        assert [client.read(), client.read(), client.read()] == [b"one", b"", b"three"]
        server.write_to(b"cut off", sender)
        assert client.read_from(3) == (b"cut", server.local_addr)
        if network != "udp6":  # where the name may stand for nothing
            server.write_to(b"by name", "localhost:" + sender.rpartition(":")[2])
            assert client.read() == b"by name"


def test_both_families_on_one_socket():
    with net.listen_packet("udp", ":0") as server:
        port = server.local_addr.rpartition(":")[2]
        for network, host in (("udp4", "127.0.0.1"), ("udp6", "[::1]")):
            with net.dial(network, f"{host}:{port}") as client:
                client.write(b"x")
                data, sender = server.read_from()
                assert sender == client.local_addr
                server.write_to(b"back", sender)
                assert client.read() == b"back"
                if network == "udp4":
                    server.write_to(b"by name", "localhost:" + sender.rpartition(":")[2])
                    assert client.read() == b"by name"


def test_a_name_with_addresses_of_both_families_is_taken_for_ipv4_where_that_will_do(monkeypatch):
    getaddrinfo = socket.getaddrinfo

    def both(host, port, family, kind, proto, flags):
        if host != "both.test" or flags & socket.AI_NUMERICHOST:
            return getaddrinfo(host, port, family, kind, proto, flags)
        hosts = ["::1", "::ffff:127.0.0.1"] if flags & socket.AI_ALL else ["::1"]
        return [(socket.AF_INET6, kind, proto, "", (host, int(port), 0, 0)) for host in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    for network, address, name in (("udp", ":0", "udp4"), ("udp6", "[::1]:0", "udp6")):
        with net.listen_packet(network, address) as server:
            port = server.local_addr.rpartition(":")[2]
            with net.dial(name, ("127.0.0.1:" if name == "udp4" else "[::1]:") + port) as client:
                client.write(b"x")
                _, sender = server.read_from()
                server.write_to(b"by name", "both.test:" + sender.rpartition(":")[2])
                client.set_deadline(20)
                assert client.read() == b"by name"


def test_unix(tmp_path):
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with net.listen_packet("unixgram", a) as server, net.listen_packet("unixgram", b) as other:
        other.write_to(b"hello", a)
        assert server.read_from() == (b"hello", b)
        with net.dial("unixgram", a) as client:
            client.write(b"no name")
            assert server.read_from() == (b"no name", "")
    assert not list(tmp_path.iterdir())


def test_nobody_there(start):
    with net.listen_packet("udp", "127.0.0.1:0") as server:
        address = server.local_addr
    with net.dial("udp", address) as client:
        client.write(b"x")
        with pytest.raises(ConnectionRefusedError):
            start(client.read).result(20)


def test_deadlines_and_closes(start):
    server = net.listen_packet("udp", "127.0.0.1:0")
    server.set_read_deadline(0.02)
    with pytest.raises(TimeoutError, match=r"PacketConn.read\(\)"):
        start(server.read).result(20)
    server.set_write_deadline(0)
    with pytest.raises(TimeoutError):
        server.write_to(b"x", "127.0.0.1:9")
    server.set_deadline(None)
    reads = [start(server.read) for _ in range(3)]
    until(lambda: waiters(server) == 3)
    server.close()
    server.close()
    for waits in reads:
        with pytest.raises(net.ClosedError):
            waits.result(20)
    with pytest.raises(net.ClosedError):
        server.write_to(b"x", "127.0.0.1:9")
    assert server.closed and server.fileno() == -1 and server.local_addr == server.remote_addr == ""


def test_bad_arguments_and_calls_are_errors_that_say_what_is_wrong():
    with net.listen_packet("udp4", "127.0.0.1:0") as server:
        with pytest.raises(ValueError, match="host:port"):
            server.write_to(b"x", "127.0.0.1")
        with pytest.raises(ValueError, match="not an address of network 'udp4'"):
            server.write_to(b"x", "[::1]:9")
        with pytest.raises(OSError, match="Destination address required"):
            server.write(b"x")
        with pytest.raises(TypeError):
            server.write_to("text", "127.0.0.1:9")
        with pytest.raises(ValueError, match="most bytes"):
            server.read(-1)

        async def main():
            with pytest.raises(RuntimeError, match=r"PacketConn.read\(\) would block"):
                server.read()

        goloop.run(main())
    with pytest.raises(TypeError, match="datagram socket"):
        net.PacketConn(3, None)


def test_many_datagrams(start):
    with net.listen_packet("udp", "127.0.0.1:0") as server, net.dial("udp", server.local_addr) as client:

        def answer():
            for _ in range(2000):
                data, sender = server.read_from()
                server.write_to(data, sender)

        g = start(answer)
        for i in range(2000):
            client.write(b"%d" % i)
            assert client.read() == b"%d" % i
        g.result(20)
