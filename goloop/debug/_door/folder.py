"""The folder of the doors: /tmp/goloop-UID, with one socket for each process, named by its number.

Only its owner may enter it, so nobody else gets as far as a socket. A folder that somebody else has made there, or
that others may enter, is refused, and so is a symbolic link. Used by the process with the door, and by those who look.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator

from goloop import _environment

SUFFIX = ".sock"
CONNECT = 2.0  # seconds for a connection, which the kernel makes at once


def path() -> str:
    """Return where this user's doors are."""
    return _environment.get("GOLOOP_DEBUG_DIR") or f"/tmp/goloop-{os.geteuid()}"


@contextlib.contextmanager
def opened(folder: str, *, make: bool = False) -> Iterator[int]:
    """Give a descriptor of the folder, whose owner and mode have been checked. make: make it if there is none.

    Whatever is put in its place afterwards: what is done by way of the descriptor is done in the folder that was
    checked. PermissionError for one that is not safe.
    """
    if make:
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(folder, flags)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.lexists(folder):
            raise PermissionError(f"{folder} is no folder: {_remedy()}") from None
        raise
    try:
        _check(folder, os.fstat(fd))
        yield fd
    finally:
        os.close(fd)


def _check(folder: str, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise PermissionError(f"{folder} belongs to user {found.st_uid}, not to you ({os.geteuid()}): {_remedy()}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise PermissionError(f"{folder} is open to other users (mode {mode:o}, it must be 700): {_remedy()}")


def _remedy() -> str:
    return "remove it, or name another folder in GOLOOP_DEBUG_DIR"


def listen(fd: int, pid: int, backlog: int) -> tuple[socket.socket, tuple[int, int]]:
    """Return a listening socket in the folder `fd`, and what tells its file from others.

    It gets its name when it listens already: one that refuses a connection is one whose process has died. A file that
    a process of the same number has left behind is replaced. OSError if such a process answers: it lives in another
    container with the same folder.
    """
    name, new = f"{pid}{SUFFIX}", f".{pid}.new"
    if answers(fd, name):
        raise OSError(errno.EADDRINUSE, f"another process {pid} is served in this folder: set GOLOOP_DEBUG_DIR")
    _unlink(fd, new)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(_address(fd, new))
        listener.listen(backlog)
        found = os.stat(new, dir_fd=fd, follow_symlinks=False)
        os.rename(new, name, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        listener.close()
        _unlink(fd, new)
        raise
    return listener, (found.st_dev, found.st_ino)


def remove(fd: int, pid: int, identity: tuple[int, int]) -> None:
    """Remove the file of a socket that listen() has made, unless it has been replaced."""
    name = f"{pid}{SUFFIX}"
    if _identity(fd, name) == identity:
        _unlink(fd, name)


def connect(fd: int, name: str, timeout: float = CONNECT) -> socket.socket:
    """Return a connection with a socket in the folder. OSError if there is none or nobody listens; TimeoutError if a
    process does, but does not take its connections."""
    if _identity(fd, name) is None:
        raise FileNotFoundError(errno.ENOENT, "no such socket", name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(_address(fd, name))
    except BlockingIOError:  # as Linux says of a full backlog
        sock.close()
        raise TimeoutError(errno.ETIMEDOUT, "the backlog is full", name) from None
    except BaseException:
        sock.close()
        raise
    return sock


def answers(fd: int, name: str) -> bool:
    """Return whether a process listens there."""
    try:
        connect(fd, name).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except TimeoutError:
        pass  # its backlog is full
    return True


def names(fd: int) -> list[str]:
    """Return the names of the sockets in the folder, of dead processes too."""
    return sorted(name for name in os.listdir(fd) if name.endswith(SUFFIX) and name[: -len(SUFFIX)].isdecimal())


def sweep(fd: int) -> None:
    """Remove the files that processes have left behind that had no time to do so."""
    for name in names(fd):
        identity = _identity(fd, name)
        if identity is not None and not answers(fd, name) and _identity(fd, name) == identity:
            _unlink(fd, name)
    for name in os.listdir(fd):
        pid = name.removeprefix(".").removesuffix(".new")
        if name == f".{pid}.new" and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            _unlink(fd, name)


def _address(fd: int, name: str) -> str:
    return f"/proc/self/fd/{fd}/{name}"  # a path of any length, in the folder that was checked


def _identity(fd: int, name: str) -> tuple[int, int] | None:
    """Return what tells this file from a later one of its name. None: it is no socket."""
    try:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def _unlink(fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass
