"""The code blocks of the documentation, and what a comment on the line before one says about it.

<!-- not run: REASON -->   it cannot run here; it is compiled all the same
<!-- continues -->         it goes on from the Python block before it
<!-- run -->               of a console block: its commands are run, and what they print is compared
<!-- output -->            of a text block: the Python block before it prints this; … stands for anything
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+) *(?P<info>[^`\n]*)$")
_COMMENT = re.compile(r"^ *<!-- (not run: (?P<reason>.+)|(?P<word>continues|run|output)) -->$")


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    title: str
    text: str
    mark: str  # "", "continues", "run", "output" or "not run"
    reason: str  # why it is not run

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Of a console block: each command, and what it prints."""
        found: list[tuple[str, str]] = []
        lines = iter(self.text.splitlines(keepends=True))
        for line in lines:
            if not line.startswith("$ "):
                assert found, f"{self}: a console block begins with '$ ', got {line!r}"
                found[-1] = (found[-1][0], found[-1][1] + line)
                continue
            command = line[2:]
            while command.rstrip("\n").endswith("\\"):
                command += next(lines)
            found.append((command.strip(), ""))
        return found


def blocks_of(page: Path) -> Iterator[Block]:
    lines = page.read_text().split("\n")
    i = 0
    while i < len(lines):
        fence = _FENCE.match(lines[i])
        if fence is None:
            i += 1
            continue
        indent, ticks, info = fence["indent"], fence["ticks"], fence["info"].strip()
        end = next((j for j in range(i + 1, len(lines)) if lines[j] == indent + ticks), None)
        assert end is not None, f"{page}:{i + 1}: the block has no end"
        comment = _COMMENT.match(lines[i - 1])
        title = re.search(r'title="([^"]+)"', info)
        yield Block(
            page=page,
            line=i + 1,
            language=info.partition(" ")[0],
            title=title[1] if title else "",
            text=dedent("\n".join(lines[i + 1 : end]) + "\n"),
            mark=(comment["word"] or "not run") if comment else "",
            reason=(comment["reason"] or "") if comment else "",
        )
        i = end + 1


def words_of(command: str) -> list[list[str]]:
    """Return the words of each simple command in a line: without pipes, comments and the variables set before it."""
    parts: list[list[str]] = [[]]
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    for word in lexer:
        if set(word) <= set("|&;"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def matches(expected: str, got: str) -> bool:
    """Whether a text is as written, where … stands for anything within a line."""
    wanted = [re.escape(line.rstrip()).replace("…", ".*") for line in expected.strip("\n").split("\n")]
    lines = [line.rstrip() for line in got.strip("\n").split("\n")]
    return len(wanted) == len(lines) and all(map(re.fullmatch, wanted, lines))
