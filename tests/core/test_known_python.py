"""What goloop takes from CPython's insides: only where a version that nobody has checked turns it off."""

import pathlib
import re
import shutil
import subprocess
import sysconfig

import pytest

import goloop

CORE = pathlib.Path(goloop.__file__).parent / "core"
GUARD = "known_python.h"
# Fields and functions that CPython's documentation does not have.
INSIDE = re.compile(
    r"threading_local_key|threading_local_sentinel|\(tstate\)->|\bts->|->m_ml\b|->d_method\b|_PyInterpreterState_"
    r"|PyObject_GC_UnTrack|<void \*>\w+ \+ \w+"
)


def sources():
    """Every source file of the core that is written by hand, as it stands in a checkout."""
    found = [path for path in sorted(CORE.rglob("*")) if path.suffix in {".pyx", ".pxd", ".h"}]
    found += sorted(CORE.rglob("native/*.c"))
    if not any(path.suffix == ".pyx" for path in found):
        pytest.skip("goloop is installed without its sources")
    return found


def test_every_file_that_looks_inside_of_cpython_asks_for_the_version():
    looking = [path for path in sources() if INSIDE.search(path.read_text())]
    assert looking, "the pattern finds nothing any more"
    assert [path.name for path in looking if GUARD not in path.read_text()] == []


@pytest.mark.parametrize("file", ["sched/native/trap.h", "patch/native/hook.c"])
def test_the_fallback_for_an_unknown_version_compiles(file):
    """With the warnings that a name nobody uses, or one that is not there, would give."""
    sources()
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    command = [
        compiler,
        "-x",
        "c",
        "-std=gnu11",
        "-fsyntax-only",
        "-Werror=implicit-function-declaration",
        "-DGL_PYTHON_KNOWN=0",
    ]
    done = subprocess.run([*command, f"-I{sysconfig.get_path('include')}", CORE / file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_this_version_was_checked():
    """The suite is what checks it: a Python that it has passed on is a known one."""
    from goloop.core.patch import cpython_layout

    assert cpython_layout.known_python()
