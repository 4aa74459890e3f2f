"""Install a wheel as a user without a compiler would, and run the tests of the source distribution against it.

    python release/try_wheel.py dist [arguments of pytest]          # the wheel there for this Python, and the sdist
    python release/try_wheel.py --installed FOLDER [arguments …]    # goloop is installed; the tests are in FOLDER

The environment is a new one, without caches, and its PATH has every program but compilers. First goloop is alone in it,
and every module is imported and a small program run; then the tests, from a folder that has no goloop beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

COMPILER = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|tcc|zig|ccache)(-[\d.]+)?")
FIRST_PROGRAM = """
import asyncio, importlib, pkgutil, site
import goloop
from goloop import Chan, go

assert any(goloop.__file__.startswith(folder) for folder in site.getsitepackages()), goloop.__file__

async def main():
    assert type(asyncio.get_running_loop()) is goloop.Loop
    chan = Chan(1)
    go(chan.send, 42)
    return await chan.async_recv()

assert goloop.run(main()) == 42
optional = ("goloop.contrib.", "goloop.testing.pytest_plugin", "goloop.__main__")
names = [module.name for module in pkgutil.walk_packages(goloop.__path__, "goloop.")]
for name in names:
    if not name.startswith(optional):
        importlib.import_module(name)
print(f"goloop {goloop.__version__}: {len(names)} modules in {goloop.__file__}")
"""


def without_compilers(folder: Path) -> str:
    """Fill folder with links to the programs on the PATH that are no compilers; return it as a PATH."""
    for place in filter(os.path.isdir, os.get_exec_path()):
        for program in os.scandir(place):
            link = folder / program.name
            if not COMPILER.fullmatch(program.name) and not link.is_symlink():
                link.symlink_to(program.path)
    return str(folder)


def run_tests(python: Path, project: Path, where: Path, options: list[str], env: dict[str, str]) -> int:
    """Run project's tests with goloop from python's environment: the project's folder comes last on sys.path."""
    places = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        env=env, cwd=where, capture_output=True, text=True, check=True,
    )  # fmt: skip
    site = Path(places.stdout.strip())
    (site / "tests_of_goloop.pth").write_text(f"{project}\n")
    for module in (site / "goloop").rglob("*.so"):  # for programs that tests start with the project's folder first
        link = project / module.relative_to(site)
        link.unlink(missing_ok=True)
        link.symlink_to(module)
    paths = [option for option in options if option.startswith("tests")] or ["tests"]
    rest = [option for option in options if not option.startswith("tests")]
    command: list[str | Path] = [python.parent / "pytest", "-c", project / "pyproject.toml", "--rootdir", project]
    return subprocess.run([*command, *(project / path for path in paths), *rest], env=env, cwd=where).returncode


def try_wheel(dist: Path, options: list[str]) -> int:
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    libc = "musllinux" if "musl" in (sysconfig.get_config_var("SOABI") or "") else "manylinux"
    fitting = re.compile(rf".*-{tag}-{tag}-.*{libc}.*_{os.uname().machine}\.whl")
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = (path for path in dist.glob("*.whl") if fitting.fullmatch(path.name))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # database servers run as users of their own, and find their programs in bin/
        for name in ("bin", "env", "src", "empty"):
            (folder / name).mkdir()
        path = without_compilers(folder / "bin")
        env = {**os.environ, "PATH": f"{folder / 'env' / 'bin'}:{path}", "PIP_NO_CACHE_DIR": "1"}
        env.pop("PYTHONPATH", None)
        python = folder / "env" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        pip: list[str | Path] = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, wheel], env=env, cwd=folder / "empty", check=True)
        subprocess.run([python, "-c", FIRST_PROGRAM], env=env, cwd=folder / "empty", check=True)
        subprocess.run([*pip, f"{wheel}[demo,test]"], env=env, cwd=folder / "empty", check=True)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder / "src", filter="data")
        (project,) = (folder / "src").iterdir()
        return run_tests(python, project, folder / "empty", options, env)


def main(args: list[str]) -> int:
    if args[:1] == ["--installed"] and len(args) > 1:
        with tempfile.TemporaryDirectory() as empty:
            subprocess.run([sys.executable, "-c", FIRST_PROGRAM], cwd=empty, check=True)
            return run_tests(Path(sys.executable), Path(args[1]).resolve(), Path(empty), args[2:], dict(os.environ))
    if not args or args[0].startswith("-"):
        sys.exit(__doc__)
    return try_wheel(Path(args[0]).resolve(), args[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
