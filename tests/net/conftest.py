"""Pairs of connections for the tests of goloop.net, and ways to wait for what happens elsewhere."""

import socket

import pytest
import trustme

import goloop
from goloop import net
from goloop.net import _address
from goloop.net._address import ResolvedAddress
from tests.helpers.actors import in_thread
from tests.helpers.descriptors import has_full_backlog
from tests.helpers.waiting import until


@pytest.fixture(params=["tcp", "unix"])
def pair(request, tmp_path):
    """The two ends of a connection."""
    address = "127.0.0.1:0" if request.param == "tcp" else str(tmp_path / "socket")
    with net.listen(request.param, address) as listener:
        with net.dial(request.param, listener.addr) as client, listener.accept() as server:
            yield client, server


@pytest.fixture(params=["goroutine", "thread"])
def start(request):
    """start(function, *args): in a goroutine or in a plain thread; the result has result(timeout)."""
    return goloop.go if request.param == "goroutine" else in_thread


@pytest.fixture
def serve():
    """serve(listener, handle): a goroutine for each connection, until the listener is closed."""
    accepting = []

    def start(listener, handle):
        def one(conn):
            with conn:
                handle(conn)

        def accept():
            for conn in listener:
                goloop.go(one, conn)

        accepting.append((listener, goloop.go(accept)))
        return listener

    yield start
    for listener, g in accepting:
        listener.close()
        g.result(timeout=20)


def echo(conn):
    while data := conn.read():
        conn.write(data)


@pytest.fixture(scope="session")
def tls_contexts():
    """Contexts of a server and of a client that trusts it."""
    import ssl

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture
def names(monkeypatch):
    """names[host] = the addresses that it stands for, or an exception, or a function that returns them."""
    table = {}

    def look_up(wanted):
        found = table[wanted.host]
        if callable(found):
            found = found()
        if isinstance(found, Exception):
            raise found
        targets = []
        for host in found:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sockaddr = (host, int(wanted.port), 0, 0) if ":" in host else (host, int(wanted.port))
            targets.append(ResolvedAddress(wanted.network, family, wanted.kind, sockaddr))
        return targets

    monkeypatch.setattr(_address.AddressSpec, "look_up", look_up)
    return table


@pytest.fixture
def deaf(tmp_path):
    """An address where connecting takes for ever: a listener whose backlog is full."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    clients = []
    for _ in range(8):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(sock.getsockname())
        clients.append(client)
    until(lambda: has_full_backlog(sock))
    yield f"127.0.0.1:{sock.getsockname()[1]}"
    for client in clients:
        client.close()
    sock.close()
