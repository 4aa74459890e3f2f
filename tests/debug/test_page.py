"""The page: who may have it, what it says, and when it is there."""

import hashlib
import http.client
import json
import os
import re
import socket
import threading
from importlib import resources

import pytest

from goloop import debug
from tests.debug.programs import Program, goloop
from tests.helpers.scripts import run_python, run_script
from tests.helpers.waiting import SECONDS, until

pytest.importorskip("aiohttp", reason="the page needs aiohttp (goloop[web])")


@pytest.fixture
def page(door_folder):
    with debug.serve(http="127.0.0.1:0") as door:
        yield Page(door.url)


class Page:
    """Asks for pages, without a browser."""

    def __init__(self, url):
        self.port = int(re.fullmatch(r"http://(?:[\d.]+|localhost|\[::1?\]):(\d+)/", url)[1])
        self.host = url.removeprefix("http://").rpartition(":")[0].strip("[]")

    def ask(self, path="/", method="GET", **headers):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): x for name, x in headers.items()})
            answer = connection.getresponse()
            answer.content = answer.read()
            return answer
        finally:
            connection.close()

    def status(self, path="/", method="GET", **headers):
        return self.ask(path, method, **headers).status

    def json(self, path):
        answer = self.ask(path)
        assert answer.status == 200, answer.content
        return json.loads(answer.content)


# ------------------------------------------------------------------ who may
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7", "localhost:6060", "LOCALHOST", "[::1]:80", "127.8.8.8"])
def test_a_host_that_is_this_machine_may_be_named_and_any_port(page, host):
    assert page.status(Host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:6060",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "0.0.0.0",
        "8.8.8.8",
        "",
        "[::2]",
        "[::1",
        "::1]",
        "@127.0.0.1",
        "127.1",
        "2130706433",
    ],
)
@pytest.mark.parametrize("path", ["/", "/dump", "/api/overview", "/static/page.js"])
def test_any_other_name_is_refused(page, host, path):
    """It has been made to lead here, so that its owner's page may read what this one says (DNS rebinding)."""
    answer = page.ask(path, Host=host)
    assert answer.status in (400, 403)
    assert b"goroutine" not in answer.content


def test_a_page_for_other_machines_may_be_named_by_any_ip_address_and_by_no_name(door_folder):
    with debug.serve(http="0.0.0.0:0") as door:
        page = Page(door.url)
        assert [page.status(Host=host) for host in ("10.0.0.7:6060", "localhost", "evil.example")] == [200, 200, 403]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ],
)
def test_a_request_of_another_page_is_refused(page, headers):
    assert page.status("/api/overview", Host="127.0.0.1", **headers) == 403
    assert page.status("/api/trace?seconds=0.01", "POST", Host="127.0.0.1", **headers) == 403


def test_the_page_itself_and_a_link_to_it_are_let_in(page):
    same = {"Sec_Fetch_Site": "same-origin", "Origin": f"http://127.0.0.1:{page.port}"}
    assert page.status("/api/trace?seconds=0.01", "POST", **same) == 200
    assert page.status("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200
    crossing = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert page.status("/api/trace?seconds=0.01", "POST", **crossing) == 403


def test_every_answer_forbids_others_to_read_frame_or_keep_it(page):
    for answer in (page.ask("/"), page.ask("/dump"), page.ask("/missing"), page.ask("/", Host="evil.example")):
        assert "frame-ancestors 'none'" in answer.getheader("Content-Security-Policy")
        assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"
        assert answer.getheader("Cache-Control") == "no-store"
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        assert answer.getheader("Access-Control-Allow-Origin") is None


def test_it_only_reads(page):
    for path in ("/", "/dump", "/dump.json", "/api/overview", "/api/history", "/api/tables", "/api/graph"):
        assert page.status(path) == 200
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert page.status(path, method) == 405
    assert page.status("/api/trace?seconds=1") == 405


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/vendor.json", "/static/x", "/x"]
)
def test_no_other_file_is_given_away(page, path):
    assert page.status(path) == 404


def test_a_large_or_slow_request_holds_up_nobody(page):
    with socket.create_connection((page.host, page.port)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        assert page.status() == 200
        assert page.ask("/", X="x" * 100_000).status == 400
        assert page.status() == 200


# ---------------------------------------------------------------- what it says
def test_the_data_is_that_of_the_process(page):
    overview = page.json("/api/overview")
    assert overview["pid"] == os.getpid() and overview["stats"]["pid"] == os.getpid()
    assert "MainThread" in page.ask("/dump").content.decode()
    assert json.loads(page.ask("/dump.json").content)["process"]["pid"] == os.getpid()
    assert page.ask("/dump").getheader("Content-Type") == "text/plain; charset=utf-8"


def test_the_history_is_that_of_the_last_minutes(page):
    until(lambda: page.json("/api/history")["samples"])
    found = page.json("/api/history?since=0")
    assert found["samples"][0].keys() >= {"time", "lag", "callbacks", "goroutines", "connections", "tasks"}
    newest = found["samples"][-1]["time"]
    until(lambda: page.json(f"/api/history?since={newest}")["samples"])
    assert all(sample["time"] > newest for sample in page.json(f"/api/history?since={newest}")["samples"])
    assert page.status("/api/history?since=ever") == 400


def test_a_trace_is_recorded_and_there_is_one_at_a_time(page):
    answer = page.ask("/api/trace?seconds=0.05", "POST")
    assert answer.getheader("Content-Disposition") == 'attachment; filename="trace.json"'
    assert "traceEvents" in json.loads(answer.content)
    for seconds in ("0", "-1", "601", "nan", "x", ""):
        assert page.status(f"/api/trace?seconds={seconds}", "POST") == 400
    debug.start_trace()
    try:
        assert page.status("/api/trace?seconds=0.05", "POST") == 409
    finally:
        debug.stop_trace()


def test_a_browser_that_leaves_ends_its_trace(page):
    with socket.create_connection((page.host, page.port)) as sock:
        sock.sendall(b"POST /api/trace?seconds=500 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        until(debug.is_tracing)
    until(lambda: not debug.is_tracing())


# A service with secrets where a page must not show them: arguments, what it sends, and what it was started with.
SECRETS = """
    import asyncio, sys, goloop
    from goloop import debug

    async def handle(password):
        secret = "secret-local"
        await asyncio.sleep(1000)

    def work(password, channel):
        channel.recv()

    async def main():
        door = debug.serve(http="127.0.0.1:0")
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"secret-payload")
        tasks = [asyncio.create_task(handle("secret-argument"))]
        goroutines = [goloop.go(work, "secret-argument", goloop.Chan())]
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", "secret-child", stdin=-1)
        tasks.append(asyncio.create_task(child.wait()))
        print(door.url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        child.kill()
        await child.wait()
        print("bye", flush=True)

    goloop.run(main())
"""


def test_no_argument_and_no_payload_is_shown(door_folder):
    with Program(SECRETS) as program:
        page = Page(program.says())
        said = [
            page.ask(path).content for path in ("/api/overview", "/api/tables", "/api/graph", "/dump", "/dump.json")
        ]
        said.append(page.ask("/api/trace?seconds=0.05", "POST").content)
        said.append(goloop("dump", program.pid).stdout.encode())
        program.hears("end")
        assert program.says() == "bye"
    assert b"handle" in b"".join(said) and b"secret" not in b"".join(said)


STUCK = """
    import asyncio, sys, goloop
    from goloop import debug

    async def handle():
        print(debug.serve(http="127.0.0.1:0").url, flush=True)
        sys.stdin.readline()

    goloop.run(handle())
"""


def test_it_answers_while_the_loop_is_stuck_and_does_not_show_its_own(door_folder):
    with Program(STUCK) as program:
        page = Page(program.says())
        tables = page.json("/api/tables")
        assert [row["function"] for row in tables["rows"]] == ["handle"]
        overview = page.json("/api/overview")
        assert [loop["thread_name"] for loop in overview["loop_list"]] == ["MainThread"]
        assert len(overview["stats"]["loops"]) == 1
        assert "page" not in page.ask("/dump").content.decode().lower()
        program.hears("go on")
        assert program.wait() == 0


# -------------------------------------------------------------- when it is there
def test_serving_it_again_is_the_same_page_and_elsewhere_an_error(door_folder):
    with debug.serve(http="127.0.0.1:0") as door:
        url = door.url
        assert debug.serve(http="127.0.0.1:0").url == debug.serve().url == url
        assert debug.serve(http=url.removeprefix("http://").strip("/")).url == url
        with pytest.raises(RuntimeError, match=f"the page is at {url} already"):
            debug.serve(http="127.0.0.2:0")
    assert door.url is None
    with debug.serve(http="localhost:0") as door:
        assert Page(door.url).status() == 200 and door.url.startswith("http://localhost:")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "6060",
        ":6060",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:70000",
        "::1:6060",
        6060,
        "http://127.0.0.1:6060",
        "example.com:80",
        "127.0.0.1:٣",
    ],
)
def test_an_address_that_is_none_is_an_error_that_says_how_one_looks(door_folder, address):
    with pytest.raises(ValueError, match=r"http is 'HOST:PORT'|the host of http is localhost or an IP address"):
        debug.serve(http=address)
    assert not door_folder.exists()


def test_an_address_in_use_is_an_error_and_leaves_nothing_behind(door_folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(OSError, match="in use"):
            debug.serve(http=f"127.0.0.1:{other.getsockname()[1]}")
    door = debug.serve()  # the door itself was opened, and stays
    assert door.url is None
    door.close()


def test_ipv6(door_folder):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with debug.serve(http="[::1]:0") as door:
        assert Page(door.url).status() == 200


def test_the_end_of_the_page_ends_its_thread_and_its_connections(door_folder):
    before = threading.active_count()
    with debug.serve(http="127.0.0.1:0") as door:
        page = Page(door.url)
        idle = socket.create_connection((page.host, page.port))
        idle.sendall(b"GET /static/icon.svg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert idle.recv(100)
        page.ask("/api/trace?seconds=0.01", "POST")  # which uses another thread
    with idle:
        while idle.recv(10000):
            pass
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        page.ask()


def test_without_aiohttp_the_error_says_what_to_install(door_folder, tmp_path):
    (tmp_path / "aiohttp.py").write_text("raise ImportError('no aiohttp')")
    done = run_python(
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from goloop import debug\n"
        "try: debug.serve(http='127.0.0.1:0')\n"
        "except ImportError as exc: print(exc)",
    )
    assert done.stdout == "the page is served by aiohttp: pip install 'goloop[web]'\n", done.stderr


def test_a_forked_child_has_no_page_and_does_not_hold_its_parents(door_folder):
    status, out, err = run_script(
        """
        import http.client, os, sys, warnings
        from goloop import debug

        warnings.simplefilter("ignore")  # of a fork with threads

        def asked(port):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/api/overview")
            status = connection.getresponse().status
            connection.close()
            return status

        door = debug.serve(http="127.0.0.1:0")
        port = int(door.url.rstrip("/").rpartition(":")[2])
        held = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        held.request("GET", "/")
        held.getresponse().read()
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            held.close()
            assert door.url is None and door.path is not None
            os.close(theirs)
            os.read(ours, 1)  # until the parent has closed its own
            try:
                asked(port)
            except ConnectionRefusedError:
                sys.exit(7)
            sys.exit(1)
        assert asked(port) == 200
        held.request("GET", "/")
        assert held.getresponse().read()
        door.close()
        os.write(theirs, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        held.close()
        """
    )
    assert (status, out, err) == (0, "", "")


def test_a_program_that_takes_over_asyncios_loop_has_a_page_too(door_folder, tmp_path):
    """The launcher makes every loop goloop's, and says so if one is not. The page's is not meant."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, urllib.request\n"
        "from goloop import debug\n"
        "async def main():\n"
        "    url = debug.serve(http='127.0.0.1:0').url\n"
        "    print(await asyncio.to_thread(lambda: urllib.request.urlopen(url).status))\n"
        "asyncio.run(main())\n"
    )
    done = goloop("--monkey", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")
    other = goloop("-c", "from goloop import debug; debug.serve(http='127.0.0.1:0')")
    assert (other.returncode, other.stderr) == (0, "")


# --------------------------------------------------------------------- its files
def test_the_files_of_others_are_as_their_packages_have_them_with_their_licences():
    vendor = resources.files("goloop.debug._page").joinpath("vendor")
    known = json.loads(vendor.joinpath("vendor.json").read_text())
    files = {"vendor.json"}
    for package in known["packages"]:
        assert package["license"] == "MIT"
        assert any(name.endswith(".LICENSE") for name in package["files"])
        for name, digest in package["sha256"].items():
            assert hashlib.sha256(vendor.joinpath(name).read_bytes()).hexdigest() == digest, name
        files |= package["files"].keys()
        assert package["sha256"].keys() == package["files"].keys()
    assert {file.name for file in vendor.iterdir()} == files


def test_the_page_loads_nothing_from_elsewhere():
    static = resources.files("goloop.debug._page").joinpath("static")
    for file in static.iterdir():
        loaded = re.findall(
            r"""(?:src|href)=["']([^"'#]+)|url\(([^)]+)\)|import\s.*from\s+["']([^"']+)""", file.read_text()
        )
        for path in ("".join(each) for each in loaded):
            assert path.startswith("static/") or path in ("dump", "dump.json"), (file.name, path)
