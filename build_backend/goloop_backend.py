"""The build backend of goloop: setuptools', after a look at what the machine lacks.

    python build_backend/goloop_backend.py   # exit status 1 and a sentence on stderr if goloop cannot be built here

pip asks a backend for its requirements before it downloads any, so the answer comes at once, and not when they have
arrived and the first file fails to compile. That is why pyproject.toml itself names no requirements. The file has to be
readable by Pythons that are too old, or they get a traceback in place of the sentence.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Settings = dict[str, Any] | None

REQUIRES = ["setuptools>=77", "Cython>=3.1"]
ROOT = Path(__file__).resolve().parent.parent
PROBE = "#include <Python.h>\n#include <pthread.h>\n#include <sys/epoll.h>\n"


def missing() -> str | None:
    """Say what this machine lacks to build goloop, in a sentence; None if nothing.

    Returns:
        A sentence that also says how to get what is missing, or None.
    """
    if sys.platform != "linux":
        return f"goloop runs on Linux only (it stands on epoll), and this is {sys.platform}"
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        version = ".".join(map(str, sys.version_info[:2]))
        return f"goloop needs CPython 3.11 or later, and this is {sys.implementation.name} {version}"
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(command[0]) is None:
        return (
            f"goloop is compiled when it is built, and there is no C compiler ({command[0]}): install gcc and the C "
            "library's headers (Debian, Ubuntu: build-essential; Fedora: gcc; Alpine: build-base)"
        )
    return _cannot_compile(command)


def _cannot_compile(command: list[str]) -> str | None:
    flags = [flag for name in ("CPPFLAGS", "CFLAGS") for flag in shlex.split(os.environ.get(name, ""))]
    include = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    probe = [*command, *flags, *include, "-fsyntax-only", "-x", "c", "-"]
    result = subprocess.run(probe, input=PROBE, capture_output=True, text=True)
    if result.returncode == 0:
        return None
    if "Python.h" in result.stderr:
        version = ".".join(map(str, sys.version_info[:2]))
        return (
            f"goloop is compiled when it is built, and the headers of Python {version} are missing (Python.h): install "
            f"them (Debian, Ubuntu: python{version}-dev; Fedora: python{version}-devel; Alpine: python3-dev)"
        )
    said = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip())
    return f"goloop is compiled when it is built, and {shlex.join(command)} does not work: {said}"


def _check() -> None:
    lack = missing()
    if lack:
        raise SystemExit(lack)


@contextmanager
def _alone() -> Iterator[None]:
    """Let one build at a time work in this folder: those of several Pythons share the generated C."""
    import fcntl  # it is not there where `missing()` has to say that only Linux will do

    with (ROOT / "pyproject.toml").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _setuptools(hook: str, *args: Any) -> str:
    from setuptools import build_meta

    with _alone():
        name: str = getattr(build_meta, hook)(*args)
    return name


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    _check()
    return REQUIRES


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    _check()
    return REQUIRES


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    return REQUIRES


def prepare_metadata_for_build_wheel(folder: str, config_settings: Settings = None) -> str:
    return _setuptools("prepare_metadata_for_build_wheel", folder, config_settings)


def prepare_metadata_for_build_editable(folder: str, config_settings: Settings = None) -> str:
    return _setuptools("prepare_metadata_for_build_editable", folder, config_settings)


def build_wheel(folder: str, config_settings: Settings = None, metadata: str | None = None) -> str:
    _check()
    return _setuptools("build_wheel", folder, config_settings, metadata)


def build_editable(folder: str, config_settings: Settings = None, metadata: str | None = None) -> str:
    _check()
    return _setuptools("build_editable", folder, config_settings, metadata)


def build_sdist(folder: str, config_settings: Settings = None) -> str:
    return _setuptools("build_sdist", folder, config_settings)


if __name__ == "__main__":
    _check()
