"""Whether the repository is ready for a release of the version in goloop/__init__.py: its tag, its changelog, its tree.

python release/check_version.py           # before the tag is made
python release/check_version.py v0.2.0    # for a tag: its version is goloop's
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)((?:a|b|rc)\d+)?")


def version() -> str:
    found = re.search(r'^__version__ = "(.*)"$', (ROOT / "goloop" / "__init__.py").read_text(), re.MULTILINE)
    return found[1] if found else ""


def order(version: str) -> tuple[int, int, int, bool, str]:
    """Return what versions are sorted by: those before a release come first."""
    found = VERSION.fullmatch(version)
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3]), found[4] is None, found[4] or ""


def section(changelog: str, title: str) -> str | None:
    """Return the text below a title of the second level, None if there is no such title."""
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else None


def faults(tag: str | None, changelog: str, current: str, tags: list[str], changed: str) -> Iterator[str]:
    """Say what is in the way of a release.

    Args:
        tag: the tag that is released, None if it is not made yet.
        changelog: the text of CHANGELOG.md.
        current: the version in goloop/__init__.py.
        tags: all tags of the repository.
        changed: what `git status --porcelain` prints.
    """
    if not VERSION.fullmatch(current):
        yield f"{current!r} is no version: MAJOR.MINOR.PATCH, with a1, b1 or rc1 behind it before a release"
        return
    if tag is not None and tag != f"v{current}":
        yield f"the tag is {tag}, and goloop.__version__ is {current}"
    if tag is None and f"v{current}" in tags:
        yield f"v{current} is released already: raise goloop.__version__"
    released = [each[1:] for each in tags if VERSION.fullmatch(each[1:]) and each.startswith("v") and each != tag]
    if released and order(current) < max(map(order, released)):
        yield f"{current} comes before {max(released, key=order)}, which is released"
    if not section(changelog, rf"\[{re.escape(current)}\] - \d{{4}}-\d\d-\d\d"):
        yield f"CHANGELOG.md tells nothing below a title like ## [{current}] - 2026-12-31"
    if section(changelog, r"\[Unreleased\]"):
        yield f"CHANGELOG.md still has entries below [Unreleased]: they belong to {current}"
    if changed:
        yield f"not everything is committed:\n{changed.rstrip()}"


def git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main(args: list[str]) -> int:
    tag = args[0] if args else None
    changelog = (ROOT / "CHANGELOG.md").read_text()
    found = list(faults(tag, changelog, version(), git("tag").split(), git("status", "--porcelain")))
    for fault in found:
        print(fault, file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
