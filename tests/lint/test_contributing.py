"""The walks in CONTRIBUTING.md name functions that are there, in at most five files each."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WALKS = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## A walk through the code\n")[2].split("\n### ")[1:]
FILES = {path.name: path for path in (ROOT / "goloop").rglob("*") if path.suffix in (".py", ".pyx", ".c")}


def test_there_are_three_walks():
    assert [walk.partition("\n")[0] for walk in WALKS] == [
        "From bytes arriving at a socket to `data_received`",
        "From `conn.read()` in a goroutine to its return",
        "From `go(f)` to its first instruction",
    ]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.partition("\n")[0])
def test_a_walk_names_what_is_there(walk):
    quoted = set(re.findall(r"`([^`]+)`", walk.partition("\n")[2]))
    named = {each for each in quoted if each.endswith((".py", ".pyx", ".c"))}
    files = {FILES[Path(each).name] for each in named}
    assert all(not each.startswith("goloop/") or (ROOT / each).is_file() for each in named)
    assert 0 < len(files) <= 5
    text = "\n".join(path.read_text() for path in files)
    words = {re.sub(r"\(.*", "", each).rpartition(".")[2] for each in quoted - named}
    missing = {word for word in words if not re.search(rf"\b{word}\b", text)}
    assert not missing
