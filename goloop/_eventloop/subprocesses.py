"""Subprocesses: asyncio's subprocess transport, told of the exit by a pidfd.

No SIGCHLD handler, no watcher thread: it works on a loop in any thread, and leaves children that are not
its own alone.
"""

from __future__ import annotations

import os
import subprocess
from asyncio import base_subprocess
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goloop._eventloop.loop import Loop


class SubprocessTransport(base_subprocess.BaseSubprocessTransport):
    """A child process and its pipes, as asyncio.SubprocessTransport."""

    _loop: Loop
    _proc: subprocess.Popen[bytes] | None
    _pidfd: int = -1

    def _start(self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **kwargs: Any) -> None:
        self._proc = subprocess.Popen(
            args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **kwargs
        )
        try:
            self._pidfd = os.pidfd_open(self._proc.pid)
            self._loop._add_reader(self._pidfd, self._exited)
        except BaseException:
            # Nobody would see it exit: take it down rather than leave it behind.
            self._close_pidfd()
            self._proc.kill()
            self._proc.wait()
            raise

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._loop._remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _exited(self) -> None:
        proc = self._proc
        self._close_pidfd()
        if proc is None or self._returncode is not None:
            return
        code = proc.returncode
        if code is None:
            try:
                _, status = os.waitpid(proc.pid, 0)  # does not wait: the pidfd said that it has exited
            except ChildProcessError:
                code = 255
                logger.warning("child process pid %d exit status already read: will report returncode 255", proc.pid)
            else:
                code = os.waitstatus_to_exitcode(status)
        self._process_exited(code)

    def __del__(self) -> None:
        try:
            super().__del__()
        finally:
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1


async def spawn(
    loop: Loop,
    protocol: Any,
    args: Any,
    shell: bool,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    bufsize: int,
    extra: Any = None,
    **kwargs: Any,
) -> SubprocessTransport:
    """Start a child and return its transport when its pipes are connected."""
    waiter = loop.create_future()
    transport = SubprocessTransport(
        loop, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter, extra, **kwargs
    )
    try:
        await waiter
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        await transport._wait()
        raise
    finally:
        del waiter  # an exception in it refers to this frame
    return transport
