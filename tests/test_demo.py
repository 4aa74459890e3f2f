"""examples/demo.py shows that /health is answered on goloop while handlers block, and fails when a server is wrong."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")
EXAMPLES = Path(__file__).parent.parent / "examples"
QUICK = ["--seconds", "1", "--clients", "3", "--rounds", "1", "--loops", "asyncio,goloop"]


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("many_kinds", None)


def test_health_is_answered_sooner_on_goloop_and_its_words_come_first():
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "demo.py", *QUICK],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.startswith("An aiohttp service whose handlers call time.sleep(0.3), on asyncio, goloop.\n")
    rows = dict(re.findall(r"^ *(asyncio|goloop) +\d+ +([\d.]+) +[\d.]+ +[\d.]+ +\d+ *$", done.stdout, re.M))
    assert float(rows["goloop"]) < float(rows["asyncio"])
    assert re.search(r"^\W*goloop +\d+ ± 0 +\d+\.\d\d ± 0\.00", done.stdout, re.M), done.stdout
    assert re.search(r"^/health while others block: asyncio .* ms, goloop .* ms\n", done.stdout, re.M)
    assert re.search(r"^Processor time of a request: asyncio \d+ µs, goloop \d+ µs\n", done.stdout, re.M)
    assert done.stdout.endswith("Every answer was right, and every server stopped gracefully.\n")


def test_a_wrong_answer_fails_the_demo(demo, tmp_path, monkeypatch, capfd):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\nimport blocking_handler as app\n"
        "async def health(_):\n    return app.web.Response(text='not so well')\n"
        "app.health = health\napp.main()\n"
    )
    monkeypatch.setattr(demo, "APP", wrong)
    assert demo.main([*QUICK[:-1], "asyncio"]) == 1
    out, _ = capfd.readouterr()
    assert "asyncio: /health: 200 b'not so well'" in out
    assert out.endswith("FAILED\n")


def test_a_server_that_does_not_start_fails_the_demo(demo, tmp_path, monkeypatch, capfd):
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('not today')\n")
    monkeypatch.setattr(demo, "APP", broken)
    assert demo.main([*QUICK[:-1], "goloop"]) == 1
    _, err = capfd.readouterr()
    assert err.startswith("goloop: the server printed b'' instead of its URL") and "RuntimeError: not today" in err


@pytest.mark.parametrize(
    "arguments",
    ["--loops coffee", "--seconds 0", "--clients 0", "--rounds 0", "--kind coffee", "--loops goloop,coffee"],
)
def test_wrong_arguments_are_refused(demo, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        demo.parse(arguments.split())
    assert "error: " in capsys.readouterr().err


def test_bars_grow_with_the_time(demo):
    bars = [demo.bar_of(seconds) for seconds in (0.0005, 0.003, 0.03, 3)]
    assert bars == sorted(set(bars)) and bars[0] == "▁" and bars[-1] == "█"
