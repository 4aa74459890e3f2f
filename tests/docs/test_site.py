"""The documentation has what it promises: each page in the menu, each variable, each public name, each message."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

import goloop
from goloop import _environment
from tests.docs.blocks import PAGES, ROOT

DOCS = ROOT / "docs"
REPOSITORY = re.compile(r"https://github\.com/goloop-project/goloop/(?:blob|tree)/main/([^)\s#>\"]+)")
OWN_PAGES = re.compile(r"https://goloop-project\.github\.io/goloop/([^)\s#>\"]*)")


def rows_of(page, heading=None):
    """The cells of each row of a page's tables, or of those under one heading."""
    text = (DOCS / page).read_text()
    if heading is not None:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_page_is_in_the_menu():
    menu = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(menu) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_the_repository_and_to_the_site_lead_somewhere(page):
    text = page.read_text()
    gone = [path for path in REPOSITORY.findall(text) if not (ROOT / path).exists()]
    for path in OWN_PAGES.findall(text):
        name = path.rstrip("/") or "index"
        if not (DOCS / f"{name}.md").exists() and not (DOCS / name / "index.md").exists():
            gone.append(path)
    assert gone == []


def test_the_readme_shows_on_a_package_index_what_it_shows_here():
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []
    for picture in re.findall(r"https://raw\.githubusercontent\.com/goloop-project/goloop/main/([^)]+)\)", text):
        assert (ROOT / picture).exists(), picture


def test_the_table_of_variables_is_complete_and_has_the_right_defaults():
    rows = {row[0].strip("`"): row for row in rows_of("run/configuration.md", "Environment variables")[1:]}
    assert rows.keys() == _environment.VARIABLES.keys()
    for name, (_, values, default, _) in rows.items():
        variable = _environment.VARIABLES[name]
        if variable.default is None:  # a switch that is unset, or nothing
            assert default in (("0", "1 in debug mode, else 0") if values.startswith("switch") else ("none",)), name
        else:
            assert _environment.parse(name, default.strip("`")) == variable.default, name
        for value in re.findall(r"`(\w+)`", values):
            _environment.parse(name, value)  # ValueError: it has no such value
        if "Read at the import" in variable.meaning:
            assert (
                f"`{name}`"
                in (DOCS / "run/configuration.md").read_text().replace("\n", " ").partition("are read at the import")[0]
            )


MODULES = ("context", "debug", "errgroup", "monkey", "net", "rate", "singleflight", "sync", "testing", "timer")


def public_names():
    for name in goloop.__all__:
        if not name.startswith("__") and not inspect.ismodule(getattr(goloop, name)):
            yield name, name
    for module in MODULES:
        for name in importlib.import_module(f"goloop.{module}").__all__:
            yield f"{module}.{name}", name


ROWS = "\n".join(row[0] for row in rows_of("coming-from/index.md"))
GUIDES = "\n".join(page.read_text() for folder in ("guides", "run", "debug") for page in (DOCS / folder).glob("*.md"))
# What only functions make is told of together with them.
MADE = {"CancelFunc", "CancelCauseFunc", "WithCancel", "WithCancelCause", "Context", "Reservation", "Leak"}


@pytest.mark.parametrize(("path", "name"), list(public_names()))
def test_every_public_name_has_its_row_in_the_table_of_all_names(path, name):
    assert re.search(rf"(?<![\w.]){re.escape(path)}\b", ROWS), f"{path} has no row"


@pytest.mark.parametrize(("path", "name"), [pair for pair in public_names() if pair[1] not in MADE])
def test_every_public_name_is_told_of_in_a_guide(path, name):
    assert re.search(rf"(?<![\w.-]){re.escape(name)}\b|\b\w+\.{re.escape(name)}\b", GUIDES), f"{path} stands nowhere"


@pytest.mark.parametrize(
    "page", ["coming-from/go.md", "coming-from/gevent.md", "coming-from/threads.md", "coming-from/index.md"]
)
def test_names_of_goloop_in_the_tables_are_there(page):
    for row in rows_of(page)[1:]:
        ours = row[0 if "index" in page else 1]
        for path in re.findall(r"`(?:await )?(?:goloop\.)?([a-z]\w*(?:\.\w+)+)", ours):
            first, *rest = path.split(".")
            if first in MODULES:
                found = importlib.import_module(f"goloop.{first}")
                for name in rest:
                    found = getattr(found, name)


def test_the_reference_has_every_public_name():
    page = (DOCS / "reference/api/goloop.md").read_text()
    names = {name for path, name in public_names() if "." not in path}
    assert names == set(re.findall(r"^::: goloop\.(\w+)$", page, re.MULTILINE))
    for module in MODULES:
        assert f"::: goloop.{module}\n" in (DOCS / f"reference/api/{module}.md").read_text()


def sources():
    """The texts of goloop, adjacent literals put together."""
    files = [path for path in (ROOT / "goloop").rglob("*") if path.suffix in (".py", ".pyx", ".c")]
    return [re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in files]


def test_messages_of_the_page_of_errors_are_in_the_sources():
    texts = sources()
    rows = [row for row in rows_of("reference/errors.md") if row[0] != "message" and not row[0].startswith("---")]
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row[0])]
    assert len(messages) > 50
    missing = []
    for message in messages:
        parts = [part for part in message.split("…") if part.strip()]
        pattern = ".{0,120}?".join(re.escape(part) for part in parts)
        if not any(re.search(pattern, text) for text in texts):
            missing.append(message)
    assert missing == []
