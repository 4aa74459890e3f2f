"""Look into the packages of a release before anybody else does.

    python release/check.py dist            # every wheel that is there, and the source distribution
    python release/check.py dist --all      # and none may be missing of those that a release has

The source distribution has every file of the repository that belongs into it and nothing that is generated. A wheel has
every module, each compiled one for the Python and platform that its name says, stripped, linked to the C library alone,
and with no symbol of its own that another module has, too.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 4_000_000  # bytes of a wheel
PYTHONS = ["cp311", "cp312", "cp313", "cp314", "cp315"]
PLATFORMS = [f"{libc}_{machine}" for libc, machine in product(["manylinux", "musllinux"], ["x86_64", "aarch64"])]
NOT_PACKED = re.compile(r"\.(ci|github)/|\.(git\w+|clang-format|editorconfig|pre-commit-config\.yaml)$")
SYSTEM = re.compile(r"(libc|libm|libpthread|libdl|librt|ld-linux[\w-]*|ld-musl-\w+|libc\.musl-\w+)\.so(\.\d+)?")
OWN = re.compile(r"(PyInit_|gl_|__pyx_)\w+")


def sources() -> set[str] | None:
    """Return the files of the repository that a source distribution has; None outside of a checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return None
    return {name for name in listed.stdout.splitlines() if not NOT_PACKED.match(name) and (ROOT / name).exists()}


def sdist_faults(path: Path) -> Iterator[str]:
    with tarfile.open(path) as archive:
        members = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in members if ".egg-info/" in name}
    expected = sources()
    if expected is not None:
        yield from (f"{name} is missing" for name in sorted(expected - members))
        yield from (f"{name} does not belong there" for name in sorted(members - expected - made))
    yield from (f"{name} is generated" for name in sorted(members) if name.endswith(".so"))
    native = re.compile(r"(^|/)native/[^/]+\.c$")
    yield from (f"{name} is generated" for name in sorted(members) if name.endswith(".c") and not native.search(name))


def wheel_faults(path: Path) -> Iterator[str]:
    size = path.stat().st_size
    if size > LIMIT:
        yield f"{size / 1e6:.1f} MB, and not at most {LIMIT / 1e6:g}"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        compiled = {name: archive.read(name) for name in names if name.endswith(".so")}
    for pattern in ("*.py", "*.pyi", "*.pxd"):
        for source in sorted((ROOT / "goloop").rglob(pattern)):
            name = str(source.relative_to(ROOT))
            if name not in names:
                yield f"{name} is missing"
    (tag,) = {(tag.interpreter, tag.abi) for tag in parse_wheel_filename(path.name)[3]}
    suffix = f".cpython-{tag[1].removeprefix('cp')}-"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for module in settings["tool"]["setuptools"]["ext-modules"]:
        stem = module["name"].replace(".", "/")
        if sum(name.startswith(stem + suffix) for name in compiled) != 1:
            yield f"{stem}{suffix}….so is missing"
    exported: Counter[str] = Counter()
    for name, blob in sorted(compiled.items()):
        yield from (f"{name}: {fault}" for fault in elf_faults(ELFFile(BytesIO(blob)), exported))
    yield from (f"{symbol} is exported by {count} modules" for symbol, count in exported.items() if count > 1)


def elf_faults(elf: ELFFile, exported: Counter[str]) -> Iterator[str]:
    """Say what is wrong with a compiled module; count the symbols that it exports."""
    for section in elf.iter_sections():
        if section.name == ".symtab" or section.name.startswith(".debug_"):
            yield f"it is not stripped: {section.name}"
        if isinstance(section, DynamicSection):
            for entry in section.iter_tags("DT_NEEDED"):
                if not SYSTEM.fullmatch(entry.needed):
                    yield f"it needs {entry.needed}"
        if section.name == ".dynsym" and isinstance(section, SymbolTableSection):
            for symbol in section.iter_symbols():
                if symbol["st_shndx"] == "SHN_UNDEF" or symbol["st_info"]["bind"] == "STB_LOCAL":
                    continue
                exported[symbol.name] += 1
                if not OWN.fullmatch(symbol.name):
                    yield f"it exports {symbol.name}"


def absent(wheels: list[Path]) -> Iterator[str]:
    """Name the wheels that a release has and this folder has not."""
    for python, platform in product(PYTHONS, PLATFORMS):
        libc, _, machine = platform.partition("_")
        if not any(f"-{python}-" in each.name and libc in each.name and machine in each.name for each in wheels):
            yield f"no wheel for {python} on {platform}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="a wheel for every Python and platform has to be there")
    args = parser.parse_args()
    wheels = sorted(args.folder.glob("*.whl"))
    sdists = sorted(args.folder.glob("*.tar.gz"))
    faults = [f"{args.folder}: {len(sdists)} source distributions, and not one"] if len(sdists) != 1 else []
    if not wheels:
        faults.append(f"{args.folder}: no wheels")
    faults += [f"{path.name}: {fault}" for path in sdists for fault in sdist_faults(path)]
    faults += [f"{path.name}: {fault}" for path in wheels for fault in wheel_faults(path)]
    if args.all:
        faults += absent(wheels)
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"{args.folder}: {len(wheels)} wheel{'s' * (len(wheels) != 1)} and the source distribution are good")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
