"""pyproject.toml lists what there is: what it forgets works in a checkout, and is in no wheel."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def dotted(path):
    return ".".join(path.relative_to(ROOT).parts)


def test_every_package_is_listed():
    there = {dotted(path.parent) for path in (ROOT / "goloop").rglob("__init__.py")}
    assert there == set(SETTINGS["packages"])


def test_every_cython_module_is_listed_with_its_source():
    there = {dotted(path.with_suffix("")): str(path.relative_to(ROOT)) for path in (ROOT / "goloop").rglob("*.pyx")}
    assert there == {module["name"]: module["sources"][0] for module in SETTINGS["ext-modules"]}


def test_every_native_source_belongs_to_a_module():
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "goloop").glob("core/*/native/*.c")}
    assert there == {source for module in SETTINGS["ext-modules"] for source in module["sources"][1:]}
