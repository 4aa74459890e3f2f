"""examples/blocking_handler.py: with handoff, /health is answered while every handler blocks."""

import http.client
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")
requests = pytest.importorskip("requests")
APP = Path(__file__).parent.parent / "examples" / "blocking_handler.py"
KINDS = ["slow", "fetch", "query", "child"]


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


@pytest.mark.parametrize("options", [["--handoff"], []], ids=["handoff", "plain"])
def test_health_is_answered_meanwhile(options):
    with subprocess.Popen([sys.executable, APP, *options], stdout=subprocess.PIPE, text=True) as server:
        port = int(server.stdout.readline().rpartition(":")[2])
        answers, at_health = [], []
        threads = [
            threading.Thread(target=lambda path=f"/{kind}": answers.append(ask(port, path))) for kind in KINDS * 2
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert ask(port, "/health") == (200, b"ok")
            at_health.append(len(answers))
        for thread in threads:
            thread.join()
        server.send_signal(signal.SIGINT)
        assert f"requests {requests.__version__}" in server.stdout.readline()
    assert server.returncode == 0
    assert answers == [(200, b"ok")] * len(threads)
    # With handoff it is answered over and over before the first of the others is; without, in between.
    assert options == [] or at_health.count(0) > 5
