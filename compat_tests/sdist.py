"""Fetches source distributions with pip and unpacks what the suites need of them into the cache folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import threading
from importlib import metadata
from pathlib import Path

_lock = threading.Lock()


def installed(package: str) -> str:
    """Return the version of package in this environment; without it the run ends with a message."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        sys.exit(f"{package} is not installed: pip install -e '.[compat]'")


def unpacked(cache: Path, package: str, version: str, drop: tuple[str, ...] = ()) -> Path:
    """Return the folder of package's sdist, fetched on the first call.

    drop: top-level folders that are not unpacked; the package itself is one, so that the tests find the
    installed one with its compiled parts.
    """
    folder = cache / "sdists" / f"{package}-{version}"
    with _lock:
        if folder.exists():
            return folder
        cache.mkdir(exist_ok=True)
        fetched = cache / "fetched"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        # --no-binary for this package alone: pip asks its build backend for the metadata, which comes as wheels
        options = ["--no-deps", "--no-binary", package, "--dest", str(fetched)]
        subprocess.run([*pip, *options, f"{package}=={version}"], check=True)
        (archive,) = fetched.glob(f"{package}-{version}.tar.gz")
        part = cache / "sdists" / f".{package}-{version}.part"
        shutil.rmtree(part, ignore_errors=True)
        with tarfile.open(archive) as tar:
            wanted = [m for m in tar.getmembers() if Path(m.name).parts[1:2] not in [(d,) for d in drop]]
            tar.extractall(part, members=wanted, filter="data")
        (top,) = part.iterdir()
        top.rename(folder)
        part.rmdir()
        return folder
