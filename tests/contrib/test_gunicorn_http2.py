"""GoroutineWorker and HTTP/2, which gunicorn does where its package h2 is installed."""

import random
import signal
import ssl
import time

import pytest
import trustme

import goloop
from tests.contrib.conftest import SECONDS

pytest.importorskip("h2", reason="gunicorn has HTTP/2 only with h2")
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded


class Client:
    """One connection."""

    def __init__(self, sock):
        self.sock = sock
        self.connection = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.statuses, self.bodies, self.ended = {}, {}, set()
        self.terminated = None
        self.flush()

    def flush(self):
        self.sock.sendall(self.connection.data_to_send())

    def request(self, path, body=b"", method="GET"):
        stream = self.connection.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x")]
        self.bodies[stream] = b""
        self.connection.send_headers(stream, headers, end_stream=not body)
        while body:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if not room:
                self.flush()
                self.receive()
                continue
            self.connection.send_data(stream, body[:room], end_stream=len(body) <= room)
            body = body[room:]
        self.flush()
        return stream

    def receive(self):
        """What the server has sent; False: it has closed the connection."""
        data = self.sock.recv(65536)
        if not data:
            return False
        for event in self.connection.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[":status"]
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, ConnectionTerminated):
                self.terminated = event.error_code
        self.flush()
        return True

    def answer(self, stream):
        while stream not in self.ended:
            assert self.receive(), "the server closed the connection"
        return self.statuses[stream], self.bodies[stream]


def serve(gunicorn, *options):
    return gunicorn("plain_app:app", "--http-protocols", "h2,h1", "--http2-cleartext", "both", *options)


def test_requests_of_one_connection_are_answered(gunicorn):
    running = serve(gunicorn)
    with running.connect() as sock:
        client = Client(sock)
        streams = [client.request(f"/stream/{n}") for n in range(1, 6)]
        for n, stream in enumerate(streams, 1):
            assert client.answer(stream) == ("200", b"".join(b"%06d\n" % i for i in range(n)))
        body = random.Random(1).randbytes(300_000)
        status, answer = client.answer(client.request("/echo", body, "POST"))
        assert (status, answer.split()[-1]) == ("200", b"300000")
    assert running.get("/stream/1") == b"000000\n"  # HTTP/1.1 beside it
    running.stop()


def test_connections_are_served_side_by_side(gunicorn):
    running = serve(gunicorn)

    def one(_):
        with running.connect() as sock:
            client = Client(sock)
            return client.answer(client.request("/gate/20"))[0]

    assert goloop.map(one, range(20)) == ["200"] * 20
    running.stop()


def test_over_tls(gunicorn, tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files = ["--certfile", str(tmp_path / "chain.pem"), "--keyfile", str(tmp_path / "key.pem")]
    running = gunicorn("plain_app:app", "--http-protocols", "h2,h1", *files)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    authority.configure_trust(context)
    with context.wrap_socket(running.connect(), server_hostname="localhost") as sock:
        assert sock.selected_alpn_protocol() == "h2"
        client = Client(sock)
        for n in range(1, 4):
            assert client.answer(client.request(f"/stream/{n}"))[0] == "200"
    running.stop()


def test_an_open_connection_without_a_request_does_not_hold_up_a_stop(gunicorn):
    running = serve(gunicorn)
    with running.connect() as sock:
        client = Client(sock)
        assert client.answer(client.request("/stream/1"))[0] == "200"
        start = time.monotonic()
        running.signal(signal.SIGTERM)
        while client.receive():
            pass
        assert time.monotonic() - start < 15  # keepalive, 2 s, and not the graceful timeout, 20 s
    assert running.command.process.wait(SECONDS) == 0
    running.quiet()
