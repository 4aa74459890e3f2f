"""many_kinds.py: a real aiohttp application under real load. It must pass, and it must fail when a server is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
ROW = re.compile(r"^\W*(goloop|asyncio)\W+(\d+)\W+(\d+)\W+(\d+)\W+([\d.]+)\W+([\d.]+)\W+([\d.]+)", re.MULTILINE)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo: Any = load("many_kinds")


# --- The program as a user runs it ----------------------------------------------------------------------------------


def test_it_passes_and_prints_its_table() -> None:
    overrides = ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE")
    env = {name: value for name, value in os.environ.items() if name not in overrides}
    command = [sys.executable, "examples/many_kinds.py", "--seconds", "0.5", "--clients", "8"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8", timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout), "control characters, and stdout is no terminal"
    rows = {row[0]: row[1:] for row in ROW.findall(done.stdout)}
    assert list(rows) == ["goloop", "asyncio"], done.stdout
    for requests, errors, rate, _, p50, p99 in rows.values():
        assert int(requests) >= len(demo.KINDS)
        assert int(errors) == 0
        assert int(rate) > 0
        assert 0 < float(p50) <= float(p99)
    assert float(rows["asyncio"][3]) == 1.0
    assert float(rows["goloop"][3]) > 0


@pytest.mark.parametrize("launcher", [["-m", "goloop"], []], ids=["goloop", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_idle_application_stops_quietly_at_a_signal(launcher: list[str], number: signal.Signals) -> None:
    command = [sys.executable, *launcher, str(EXAMPLES / "aiohttp_app.py"), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert re.fullmatch(r"Listening on http://127\.0\.0\.1:\d+\n", process.stdout.readline())
            process.send_signal(number)
            assert process.communicate(timeout=60) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()


def test_application_does_not_know_its_loop() -> None:
    assert "goloop" not in (EXAMPLES / "aiohttp_app.py").read_text()


@pytest.mark.parametrize(
    "arguments",
    ["--loops nonesuch", "--loops asyncio,asyncio", "--loops=", "--seconds 0", "--clients 0", "--clients=-1"],
)
def test_command_line_mistakes_are_refused(arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        demo.parse(arguments.split())
    assert caught.value.code == 2


# --- A check that cannot fail is worth nothing ----------------------------------------------------------------------

JSON_TYPE = "application/json; charset=utf-8"
FORM = {
    "type": "multipart/form-data",
    "fields": {"name": "Zoe"},
    # sha256 of b"abc", from FIPS 180-2
    "files": {
        "upload": {
            "filename": "abc.txt",
            "size": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        }
    },
}


def json_reply(value: object) -> Any:
    body = json.dumps(value).encode()
    return demo.Reply(200, {"Content-Type": JSON_TYPE, "Content-Length": str(len(body))}, body)


def events_body(*numbers: int) -> bytes:
    return b"".join(b'id: %d\nevent: tick\ndata: {"number": %d, "square": %d}\n\n' % (n, n, n * n) for n in numbers)


FILE_HEADERS = {"Content-Type": "application/octet-stream"}
EVENT_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
Check = Callable[[Any], None]

# For each check, the same question every time and the right reply to it.
GOOD: dict[str, tuple[Check, Any]] = {
    "item": (
        lambda reply: demo.check_item(reply, 7, "a&b", "asyncio"),
        json_reply({"number": 7, "square": 49, "query": {"tag": "a&b"}, "loop": "asyncio"}),
    ),
    "form": (
        lambda reply: demo.check_form(reply, FORM["type"], FORM["fields"], {"upload": ("abc.txt", b"abc")}),
        json_reply(FORM),
    ),
    "download": (
        lambda reply: demo.check_download(reply, 3, 2),
        demo.Reply(200, {"Transfer-Encoding": "chunked"}, demo.blocks(3, 2)),
    ),
    "file": (
        lambda reply: demo.check_file(reply, None),
        demo.Reply(200, {**FILE_HEADERS, "Content-Length": str(5 * 65536)}, demo.blocks(0, 5)),
    ),
    "file range": (
        lambda reply: demo.check_file(reply, (65530, 65545)),
        demo.Reply(
            206,
            {**FILE_HEADERS, "Content-Length": "16", "Content-Range": "bytes 65530-65545/327680"},
            b"\xfa\xfb\xfc\xfd\xfe\xff\0\0\0\0\0\0\0\1\x08\x09",
        ),
    ),
    "events": (
        lambda reply: demo.check_events(reply, 8, 3),
        demo.Reply(200, EVENT_HEADERS, events_body(8, 9, 10)),
    ),
}


def corruptions(name: str, good: Any) -> Iterator[tuple[str, Any]]:
    """Replies that each differ from the good one in one thing."""
    for status in (204, 206 if good.status == 200 else 200, 404, 500):
        yield f"status {status}", replace(good, status=status)
    for header in good.headers:
        without = {key: value for key, value in good.headers.items() if key != header}
        yield f"no {header}", replace(good, headers=without)
        yield f"other {header}", replace(good, headers={**without, header: "1"})
    body = good.body
    for cut in (0, 1, len(body) // 2, len(body) - 1):
        yield f"body ends at {cut}", replace(good, body=body[:cut])
    yield "body begins late", replace(good, body=body[1:])
    yield "body with a byte more", replace(good, body=body + b"\0")
    yield "body twice", replace(good, body=body + body)
    positions = range(len(body)) if len(body) < 1000 else (0, 7, 8, 65535, 65536, 65543, len(body) - 1)
    for position in positions:
        flipped = bytes([body[position] ^ 1])
        yield f"byte {position} flipped", replace(good, body=body[:position] + flipped + body[position + 1 :])
    if name in ("download", "file"):
        swapped = body[65536:131072] + body[:65536] + body[131072:]
        yield "first blocks swapped", replace(good, body=swapped)
    if name == "file":
        yield "a range nobody asked for", replace(good, headers={**good.headers, "Content-Range": "bytes 0-1/2"})
    if name == "events":
        for numbers in ((), (8, 9), (9, 8, 10), (8, 8, 9), (8, 10, 9), (8, 9, 10, 11), (7, 8, 9)):
            yield f"events {numbers}", replace(good, body=events_body(*numbers))


@pytest.mark.parametrize("name", GOOD)
def test_right_reply_passes_and_every_corrupted_one_is_caught(name: str) -> None:
    check, reply = GOOD[name]
    check(reply)
    missed = []
    for change, corrupted in corruptions(name, reply):
        try:
            check(corrupted)
        except demo.WrongResponse:
            continue
        missed.append(change)
    assert missed == []


def test_server_on_another_loop_is_caught() -> None:
    reply = json_reply({"number": 7, "square": 49, "query": {"tag": ""}, "loop": "asyncio.unix_events"})
    demo.check_item(reply, 7, "", "asyncio")
    with pytest.raises(demo.WrongResponse, match="event loop of the server"):
        demo.check_item(reply, 7, "", "goloop")


def test_unannounced_length_of_a_download_is_required() -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "65536"}
    with pytest.raises(demo.WrongResponse, match="Content-Length"):
        demo.check_download(demo.Reply(200, headers, demo.blocks(0, 1)), 0, 1)


def test_every_wrong_echo_is_caught() -> None:
    sent = ["a", b"b", "c"]
    demo.check_echo(sent, ["a", b"b", "c"], 1000)
    wrong: list[tuple[list[str | bytes], int | None]] = [
        ([], 1000),
        (["a", b"b"], 1000),
        (["a", b"b", "c", "c"], 1000),
        (["a", "c", b"b"], 1000),
        (["a", "b", "c"], 1000),
        ([b"a", b"b", "c"], 1000),
        (["a", b"B", "c"], 1000),
        (["a", b"b", "c"], 1006),
        (["a", b"b", "c"], None),
    ]
    for received, close_code in wrong:
        with pytest.raises(demo.WrongResponse):
            demo.check_echo(sent, received, close_code)


def test_kind_without_a_request_is_a_problem() -> None:
    contender = demo.Contender("asyncio", server=None, client=None)
    contender.latencies.update({kind: [0.25] for kind in demo.KINDS})
    assert contender.problems() == []
    contender.latencies["echo"].clear()
    assert contender.problems() == ["not one right response to 'echo'"]


def test_percentiles_and_rate() -> None:
    contender = demo.Contender("asyncio", server=None, client=None, elapsed=2.0)
    contender.latencies["item"] = [number / 1000 for number in range(60, 100)]
    contender.latencies["form"] = [number / 1000 for number in range(60)]
    assert [contender.percentile(percent) for percent in (0, 50, 99)] == pytest.approx([0, 50, 99])
    assert contender.rate == 50


# --- Broken servers: the whole program must fail, and say why ------------------------------------------------------

# A change to the application, and what it must say about it.
BROKEN = {
    "echo": (
        """
            async def echo(request):
                websocket = web.WebSocketResponse()
                await websocket.prepare(request)
                async for message in websocket:
                    await websocket.send_bytes(bytes(message.data, "utf-8") if message.type is TEXT else message.data)
                return websocket
            app.echo = echo
        """,
        "echo: WrongResponse: type of message 0: got <class 'bytes'>, expected <class 'str'>",
    ),
    "order": (
        "app.numbered_blocks = lambda first, count, good=app.numbered_blocks: reversed([*good(first, count)])",
        "download: WrongResponse: download: got 2097152 bytes, expected 2097152; from offset 7 ",
    ),
    "no route": (
        """
            async def form(request):
                raise web.HTTPNotFound
            app.form = form
        """,
        "form: WrongResponse: status: got 404, expected 200",
    ),
    "late callback": (
        """
            async def item(request, good=app.item):
                asyncio.get_running_loop().call_soon(lambda: {}["no such key"])
                return await good(request)
            app.item = item
        """,
        "KeyError: 'no such key'",
    ),
    "crash": (
        """
            async def events(request):
                os._exit(7)
            app.events = events
        """,
        "the server ended by itself with status 7",
    ),
    "exit status": (
        "atexit.register(os._exit, 3)",
        "the server ended with status 3 at SIGTERM",
    ),
    "abrupt end": (
        """
            def make_app(good=app.make_app):
                made = good()
                async def end_abruptly(_):
                    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
                made.on_startup.append(end_abruptly)
                return made
            app.make_app = make_app
        """,
        "at SIGTERM: ClientPayloadError",
    ),
    "start": (
        "raise RuntimeError('not today')",
        "RuntimeError: not today",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_fails_when_the_server_is_broken(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = BROKEN[name]
    script = tmp_path / "broken_app.py"
    script.write_text(
        "import asyncio, atexit, os, signal, sys\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import aiohttp_app as app\n"
        "from aiohttp import web\n"
        "TEXT = app.WSMsgType.TEXT\n"
        f"{dedent(code)}\n"
        "app.main()\n"
    )
    assert demo.main(["--app", str(script), "--loops", "asyncio", "--seconds", "0.1", "--clients", "6"]) == 1
    assert message in capsys.readouterr().out
