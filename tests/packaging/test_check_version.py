"""A release is held up by a version, a tag, a changelog or a tree that do not fit together."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "release" / "check_version.py"

SPEC = importlib.util.spec_from_file_location("check_version", PATH)
check_version = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_version)

CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- A thing.

## [0.1.0] - 2026-10-01

- The first.
"""


def faults(tag=None, changelog=CHANGELOG, current="0.2.0", tags=("v0.1.0",), changed=""):
    return list(check_version.faults(tag, changelog, current, list(tags), changed))


def test_nothing_is_in_the_way_of_what_fits_together():
    assert faults() == []
    assert faults("v0.2.0", tags=["v0.1.0", "v0.2.0"]) == []


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("the tag is v0.3.0, and goloop.__version__ is 0.2.0", {"tag": "v0.3.0"}),
        ("v0.2.0 is released already", {"tags": ["v0.2.0"]}),
        ("0.2.0 comes before 0.10.0", {"tags": ["v0.1.0", "v0.10.0"]}),
        ("0.2.0rc1 comes before 0.2.0", {"current": "0.2.0rc1", "tags": ["v0.2.0"]}),
        ("tells nothing below a title like ## [0.3.0]", {"current": "0.3.0"}),
        ("still has entries", {"changelog": CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n")}),
        ("not everything is committed:\n M Makefile", {"changed": " M Makefile\n"}),
        ("is no version", {"current": "0.2"}),
        ("is no version", {"current": "0.2.0-beta"}),
    ],
)
def test_what_does_not_fit_is_said(said, changes):
    assert any(said in fault for fault in faults(**changes))


def test_a_version_of_goloop_is_one():
    assert check_version.VERSION.fullmatch(check_version.version())
