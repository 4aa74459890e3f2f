"""Waiting for child processes: a pidfd becomes readable when the child ends."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

from goloop.core.patch import fd_wait
from goloop.core.patch.hook import hook, is_cooperative
from goloop.core.sched.goroutine_api import sleep
from goloop.monkey._threadpool import offload
from goloop.runtime import fork

_FIRST_LOOK, _LAST_LOOK = 0.0005, 0.05  # seconds between looks where there are no pidfds; those of Popen.wait()
_CHUNK = 1 << 16

_ORIGINAL: dict[str, Callable[..., Any]] = {}
_popen_wait = subprocess.Popen._wait  # type: ignore[attr-defined]
_popen_communicate = subprocess.Popen.communicate


def _wait_for_exit(pid: int, timeout: float | None) -> bool:
    """Park until a child has ended and can be waited for; False: the time, in seconds, is over."""
    try:
        fd = os.pidfd_open(pid)
    except OSError as exc:
        if exc.errno == errno.ESRCH:
            return True  # there is no such process: waitpid() says so
        return _look_for_exit(pid, timeout)
    try:
        return fd_wait.wait(fd, False, timeout)
    finally:
        os.close(fd)


def _look_for_exit(pid: int, timeout: float | None) -> bool:
    until = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_LOOK
    while True:
        try:
            if _ORIGINAL["waitid"](os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except OSError:
            return True
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                return False
            pause = min(pause, left)
        sleep(pause)
        pause = min(2 * pause, _LAST_LOOK)


def _waitpid(pid: Any, options: Any, /) -> Any:
    original = _ORIGINAL["waitpid"]
    if not isinstance(pid, int) or not isinstance(options, int) or options & os.WNOHANG:
        return original(pid, options)
    if pid <= 0 or options:  # any of several children, or more than an exit: only the kernel can wait for that
        return offload(original, pid, options)
    while True:
        result = original(pid, os.WNOHANG)
        if result[0]:
            return result
        _wait_for_exit(pid, None)


def _waitid(idtype: Any, id: Any, options: Any, /) -> Any:
    original = _ORIGINAL["waitid"]
    if not isinstance(options, int) or options & os.WNOHANG:
        return original(idtype, id, options)
    if idtype != os.P_PID or options & ~os.WNOWAIT != os.WEXITED:
        return offload(original, idtype, id, options)
    while True:
        result = original(idtype, id, options | os.WNOHANG)
        if result is not None:
            return result
        _wait_for_exit(id, None)


def _wait() -> Any:
    return offload(_ORIGINAL["wait"])


def _patched_wait(self: subprocess.Popen[Any], timeout: float | None) -> int:
    if timeout is not None and timeout > 0 and self.returncode is None and is_cooperative():
        # The original would look every now and then, up to 50 ms late.
        until = time.monotonic() + timeout
        if not _wait_for_exit(self.pid, timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        timeout = max(until - time.monotonic(), 0.001)
    return _popen_wait(self, timeout)  # type: ignore[no-any-return]


def _patched_communicate(
    self: subprocess.Popen[Any], input: Any = None, timeout: float | None = None
) -> tuple[Any, Any]:
    pipes = [pipe for pipe in (self.stdin, self.stdout, self.stderr) if pipe is not None]
    started = self._communication_started  # type: ignore[attr-defined]
    if timeout is not None or started or len(pipes) != 1 or not is_cooperative():
        return _popen_communicate(self, input, timeout)  # it waits with a selector
    # With one pipe the original reads or writes it to the end, and blocks.
    if self.stdin is not None:
        try:
            result = self._communicate(input, None, None)  # type: ignore[attr-defined]
        finally:
            self._communication_started = True  # type: ignore[attr-defined]
        self.wait()
        return result  # type: ignore[no-any-return]
    stream = pipes[0]
    if isinstance(stream, io.TextIOWrapper):
        try:
            stream.reconfigure(newline=None)
        except io.UnsupportedOperation:  # something was read before, and is in its buffer
            return offload(_popen_communicate, self, input, timeout)
        data = self._translate_newlines(  # type: ignore[attr-defined]
            _read_all(stream.buffer), stream.encoding, stream.errors
        )
    else:
        data = _read_all(stream)
    stream.close()
    self.wait()
    return (data, None) if stream is self.stdout else (None, data)


def _read_all(stream: Any) -> bytes:
    """Read to the end, through the stream, as there may be something in its buffer."""
    read = getattr(stream, "read1", stream.read)
    chunks: list[bytes] = []
    while True:
        fd_wait.wait(stream.fileno(), False, None)
        chunk = read(_CHUNK)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def patch() -> None:
    fd_wait.patch()
    fork.add(fd_wait.after_fork_in_child)
    for replacement in (_waitpid, _waitid, _wait):
        name = replacement.__name__[1:]
        _ORIGINAL[name] = hook(getattr(os, name), replacement)
    for name, method in (("_wait", _patched_wait), ("communicate", _patched_communicate)):
        setattr(subprocess.Popen, name, method)
