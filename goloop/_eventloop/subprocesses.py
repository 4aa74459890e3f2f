"""Subprocesses: asyncio's subprocess transport, told of the exit by a pidfd.

No SIGCHLD handler, no watcher thread: it works on a loop in any thread, and leaves children that are not
its own alone.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
from asyncio import base_subprocess
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from goloop._eventloop.loop import Loop


KILLED = 5.0  # seconds that the end of a killed child may take; a child that waits for a disk takes longer


class SubprocessTransport(base_subprocess.BaseSubprocessTransport):
    """A child process and its pipes, as asyncio.SubprocessTransport."""

    _loop: Loop
    _proc: subprocess.Popen[bytes] | None
    _returncode: int | None
    _pipes: dict[int, Any]
    _exit_waiters: Any  # a list, and from Python 3.14 on a set or None
    _closed: bool
    _pidfd: int = -1
    _connecting: bool = False  # asyncio's task that connects the pipes has begun, and has not ended

    def _start(self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **kwargs: Any) -> None:
        self._proc = subprocess.Popen(
            args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **kwargs
        )
        try:
            self._pidfd = os.pidfd_open(self._proc.pid)
            self._loop._add_reader(self._pidfd, self._exited)
        except ProcessLookupError:  # it has ended, and the kernel keeps no status of it: SIGCHLD is ignored
            self._loop.call_soon(self._exited)
        except BaseException:
            # Its exit would go unseen: take it down rather than leave it behind.
            self._close_pidfd()
            self._proc.kill()
            self._proc.wait()
            raise
        self._loop._children.add(self)

    def _close_pidfd(self) -> None:
        self._loop._children.discard(self)
        if self._pidfd >= 0:
            self._loop._remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _exited(self) -> None:
        proc = self._proc
        known = self._pidfd >= 0
        self._close_pidfd()
        if proc is None or self._returncode is not None:
            return
        code = proc.returncode
        if code is None:
            try:
                if not known:  # its number may be another child's by now
                    raise ChildProcessError
                _, status = os.waitpid(proc.pid, 0)  # does not wait: the pidfd said that it has exited
            except ChildProcessError:
                code = 255
                logger.warning("child process pid %d exit status already read: will report returncode 255", proc.pid)
            else:
                code = os.waitstatus_to_exitcode(status)
        self._process_exited(code)

    def _process_exited(self, returncode: int) -> None:
        # Up to Python 3.13 the base wakes those that wait() only when the pipes are closed, too, which a grandchild may
        # keep open. Later versions have woken them all by now, and have None here.
        super()._process_exited(returncode)
        if self._exit_waiters:
            for waiter in self._exit_waiters:
                if not waiter.done():
                    waiter.set_result(returncode)
            self._exit_waiters.clear()

    def _loop_closes(self) -> None:
        """The loop will not see the child exit: end it, and read its status."""
        proc = self._proc
        if proc is not None and proc.returncode is None and self._pidfd >= 0 and not self._loop._is_foreign():
            try:
                proc.kill()
            except PermissionError:  # it runs as another user, and goes on
                pass
            else:
                ended = select.poll()
                ended.register(self._pidfd, select.POLLIN)
                ended.poll(KILLED * 1000)
                self._returncode = proc.poll()
        self._close_pidfd()

    def close(self) -> None:
        """Close the pipes, and kill the child if it has not ended; nothing if the loop has done so when it closed."""
        if self._loop is None or not self._loop.is_closed():
            super().close()
        self._closed = True

    async def _connect_pipes(self, waiter: asyncio.Future[None] | None) -> None:
        self._connecting = True
        try:
            await super()._connect_pipes(waiter)
        finally:
            self._connecting = False
            if self._closed:
                self._close_pipes()

    def _close_pipes(self) -> None:
        """Close the pipes of a child whose start was given up: those that have a transport by now, and those without.

        Not while one of them is being connected: its transport watches the descriptor already.
        """
        if self._connecting or self._proc is None:
            return
        for number, pipe in enumerate((self._proc.stdin, self._proc.stdout, self._proc.stderr)):
            connected = self._pipes.get(number)
            if connected is not None:
                connected.pipe.close()
            elif pipe is not None:
                pipe.close()

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
        transport._close_pipes()
        await transport._wait()
        raise
    finally:
        del waiter  # an exception in it refers to this frame
    return transport
