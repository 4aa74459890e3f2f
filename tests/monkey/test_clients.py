"""Clients that know nothing of goroutines: urllib, http.client, requests."""

import http.client
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from goloop import go

requests = pytest.importorskip("requests")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.02)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 100


@pytest.fixture
def server():
    """In plain threads, which are left alone."""
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://localhost:{running.server_port}"
        running.shutdown()
        thread.join()


def test_urllib(server, overlap):
    def body(i):
        with urllib.request.urlopen(f"{server}/{i}", timeout=10) as response:
            return response.read()

    assert overlap(body, 20) == [b"/%d" % i for i in range(20)]


def test_http_client(server, overlap):
    def body(i):
        connection = http.client.HTTPConnection(server.removeprefix("http://"))
        results = []
        for n in range(3):
            connection.request("GET", f"/{i}/{n}")
            results.append(connection.getresponse().read())
        connection.close()
        return results

    assert overlap(body, 20) == [[b"/%d/%d" % (i, n) for n in range(3)] for i in range(20)]


def test_requests_with_a_session_of_its_own(server, overlap):
    def body(i):
        with requests.Session() as session:
            return [session.get(f"{server}/{i}/{n}").text for n in range(3)]

    assert overlap(body) == [[f"/{i}/{n}" for n in range(3)] for i in range(8)]


def test_requests_sharing_a_session(server, overlap):
    """All share the pool of urllib3, which has room for two connections and lets the others wait for one."""
    with requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=2, pool_block=True))
        assert overlap(lambda i: session.get(f"{server}/{i}").text, 20) == [f"/{i}" for i in range(20)]


def test_a_server_in_goroutines_and_clients_in_threads():
    """The other way round: http.server's handlers run in goroutines."""

    class Goroutines(Server):
        def process_request(self, request, address):
            go(self.process_request_thread, request, address)

    with Goroutines(("127.0.0.1", 0), Handler) as running:
        serving = go(running.serve_forever, 0.01)
        url = f"http://127.0.0.1:{running.server_port}"
        results = []
        threads = [
            threading.Thread(target=lambda i=i: results.append(requests.get(f"{url}/{i}").text)) for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [f"/{i}" for i in range(8)]
        running.shutdown()
        serving.join(10)
