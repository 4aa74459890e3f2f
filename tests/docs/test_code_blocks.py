"""Every Python block of the documentation runs, and every command in it is one that there is."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from goloop._environment import VARIABLES
from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, matches, words_of
from tests.helpers.scripts import run_python
from tests.helpers.session import run_session

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
LANGUAGES = {"python", "console", "text", "go", "toml", "ini", "yaml", "dockerfile", "mermaid", "sh"}
COMMANDS = {"cd", "curl", "docker", "git", "gunicorn", "hypercorn", "kill", "make", "nc", "pip", "py-spy", "pytest"}
COMMANDS |= {"python", "python3", "python3.13", "source", "uv", "uvicorn", "wrk", "daphne", "granian", "ls", "cat"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def of(language):
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language == language]


def by_page(language):
    pages = {}
    for block in BLOCKS:
        if block.language == language:
            pages.setdefault(block.page, []).append(block)
    return [pytest.param(blocks, id=str(page.relative_to(ROOT))) for page, blocks in pages.items()]


def test_blocks_say_their_language():
    assert {str(block): block.language for block in BLOCKS if block.language not in LANGUAGES} == {}


@pytest.mark.parametrize("block", of("python"))
def test_a_python_block_is_python(block):
    tree = compile(block.text, str(block), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert tree.body, "the block is empty"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path):
    before, printed = "", ""
    for block in blocks_of(page):
        if block.mark == "output":
            assert matches(block.text, printed), f"{block}: it prints\n{printed}"
        if block.language != "python":
            continue
        if block.title:
            (tmp_path / block.title).write_text(block.text)
        if block.mark == "not run":
            continue
        before = before + "\n" + block.text if block.mark == "continues" else block.text
        printed = run_block(block, before, tmp_path)


def run_block(block: Block, code: str, folder: Path) -> str:
    program = folder / (block.title or "block.py")
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    program.write_text(block.text)
    said = re.search("Traceback|Warning", done.stderr)  # the watch may say something
    assert done.returncode == 0 and not said, f"{block}: status {done.returncode}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", of("console"))
def test_a_command_of_a_console_block_is_one_that_there_is(block):
    for command, _ in block.commands:
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        for words in words_of(command):
            check(words)


def check(words: list[str]) -> None:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name = words.pop(0).partition("=")[0]
        assert name in VARIABLES or not name.startswith("GOLOOP_"), f"{name} is no variable of goloop"
    if not words:
        return
    program, *arguments = words
    assert program in COMMANDS or program.startswith((".venv/", "./")), f"{program}: is it a command that readers have?"
    for argument in arguments:
        if re.match(r"(examples|benchmarks|compat_tests|tests|docs|goloop)/", argument):
            assert (ROOT / argument.partition("::")[0]).exists(), f"{argument} is not there"
        if found := re.fullmatch(r"goloop\[(.*)\]", argument):
            assert set(found[1].split(",")) <= PROJECT["optional-dependencies"].keys(), argument
        if argument.startswith("goloop.") and program == "gunicorn":
            module, _, name = argument.rpartition(".")
            assert name in importlib.import_module(module).__all__, argument
    if program == "make":
        check_make(arguments)
    if program.startswith("python") and arguments[:2] == ["-m", "goloop"]:
        check_launcher(arguments[2:])


def check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for argument in arguments:
        name, sign, _ = argument.partition("=")
        assert re.search(rf"\b{name}\b" if sign else rf"^{name}:", makefile, re.MULTILINE), f"make has no {name}"


def check_launcher(arguments: list[str]) -> None:
    known = run_python("-m", "goloop", "--help").stdout
    for argument in arguments:
        if argument in ("-m", "-c", "-") or not argument.startswith("-"):
            return
        assert argument in known, f"python -m goloop has no option {argument}"


@pytest.mark.parametrize(
    "blocks", [each for each in by_page("console") if any(block.mark == "run" for block in each.values[0])]
)
def test_the_sessions_of_a_page_go_as_it_says(blocks, tmp_path):
    page = blocks[0].page
    files = {block.title: block.text for block in blocks_of(page) if block.title}
    session = [pair for block in blocks if block.mark == "run" for pair in block.commands]
    for command, expected, got in run_session(session, files, tmp_path):
        assert matches(expected, got), f"{page}: {command} printed\n{got}\nnot\n{expected}"


def test_a_block_that_is_not_run_says_why():
    reasons = {str(block): block.reason for block in BLOCKS if block.mark == "not run"}
    assert {where for where, reason in reasons.items() if len(reason.split()) < 3} == set()


def test_a_wrong_command_is_found():
    for wrong in (
        ["GOLOOP_HANDOF=1", "python", "x.py"],
        ["make", "coffee"],
        ["python", "examples/coffee.py"],
        ["python", "-m", "goloop", "--coffee", "x.py"],
        ["pip", "install", "goloop[coffee]"],
        ["gunicorn", "-k", "goloop.contrib.gunicorn.CoffeeWorker", "app:app"],
        ["coffee"],
    ):
        with pytest.raises(AssertionError):
            check(wrong)


def test_sessions_compare_and_stop_their_servers(tmp_path):
    with contextlib.closing(
        run_session(
            [("python server.py &", ""), ("curl -s http://127.0.0.1:8080/", "hello\n"), ("echo other", "…\n")],
            {"server.py": SERVER},
            tmp_path,
        )
    ) as session:
        assert [got for _, _, got in session] == ["hello\n", "other\n"]
    assert (tmp_path / "ended").read_text() == str(int(signal.SIGINT))


SERVER = """
import http.server, signal

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello\\n")

    def log_message(self, *args):
        pass

with http.server.HTTPServer(("127.0.0.1", 8080), Handler) as server:
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        open("ended", "w").write(str(int(signal.SIGINT)))
"""
