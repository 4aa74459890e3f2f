"""Signals: add_signal_handler(), and how a signal wakes a loop.

A signal's C handler counts it (core.system.signals) and writes its number to Python's wake-up descriptor, whatever the
main thread does and whichever thread holds the GIL. The descriptor only wakes, and tells the order as far as it has
room: the counts have the signals. Python's own handler, which runs in the main thread, wakes the loop as well, for
programs where another library has the descriptor.

While a loop runs in the main thread it borrows the descriptor even without handlers of its own: a Ctrl-C that arrives
just before the loop parks would otherwise wait for the next event.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import socket
import sys
import threading
import warnings
import weakref
from asyncio import events, unix_events
from collections.abc import Callable
from errno import EINVAL
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVarTuple

from goloop.core.system import signals

if TYPE_CHECKING:
    from asyncio import BaseEventLoop as _Base
else:
    _Base = object

_Ts = TypeVarTuple("_Ts")

_UnixLoop: Any = unix_events._UnixSelectorEventLoop

_loops: weakref.WeakSet[SignalMethods] = weakref.WeakSet()  # whose signal sockets a forked child must not write to
_handling: dict[int, weakref.ref[SignalMethods]] = {}  # which loop has a handler for a signal: the last that said so


def _python_handler(number: int, frame: FrameType | None) -> None:
    """Python's handler of the signals that loops handle."""
    signals.ran(number)
    reference = _handling.get(number)
    loop = reference and reference()
    if loop and not loop.is_closed():
        try:
            loop.call_soon_threadsafe(loop._read_signals)
        except RuntimeError:  # it was closed just now
            pass


class SignalMethods(_Base):
    """Mixed into Loop."""

    if TYPE_CHECKING:  # from Loop's other bases
        _add_reader: Any
        _remove_reader: Any
        _check_closed: Any

    def __init__(self) -> None:
        super().__init__()
        self._signal_handlers: dict[int, asyncio.Handle] = {}
        self._signal_sockets: tuple[socket.socket, socket.socket] | None = None
        _loops.add(self)

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Run callback(*args) in the loop when a signal comes (asyncio: add_signal_handler).

        It takes the place of the handler before. sig: the signal's number; ValueError for an invalid one. callback: a
        plain function; TypeError for a coroutine function. args: its arguments. In the main thread only: RuntimeError
        in another thread, and if the signal cannot be caught.
        """
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        try:
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        except (ValueError, OSError) as exc:  # not the main thread
            raise RuntimeError(str(exc)) from None
        before = self._signal_handlers.get(sig)
        self._signal_handlers[sig] = events.Handle(callback, args, self, None)
        try:
            signal.signal(sig, _python_handler)
            signals.count(sig)
            signal.siginterrupt(sig, False)  # system calls go on: the signal wakes the loop
        except OSError as exc:
            if before is None:
                del self._signal_handlers[sig]
            else:
                self._signal_handlers[sig] = before
            if not self._signal_handlers and not self.is_running():
                self._give_back_wakeup_fd()
            if exc.errno == EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise
        _handling[sig] = weakref.ref(self)

    def remove_signal_handler(self, sig: int) -> bool:
        """Put the signal's default handler back (asyncio: remove_signal_handler). In the main thread only.

        sig: the signal's number; ValueError for an invalid one. Returns whether there was a handler to remove.
        """
        self._check_signal(sig)
        if self._signal_handlers.pop(sig, None) is None:
            return False
        signal.signal(sig, signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL)
        signals.take(sig)  # signals that have come are not for the next handler
        _handling.pop(sig, None)
        if not self._signal_handlers and not self.is_running():
            self._give_back_wakeup_fd()
        return True

    _handle_signal = _UnixLoop._handle_signal
    _check_signal = _UnixLoop._check_signal

    def _read_signals(self) -> None:
        """Schedule the handlers of the signals that have come, as often as they have, in the order that is known."""
        assert self._signal_sockets is not None
        try:
            numbers = self._signal_sockets[0].recv(4096)
        except (BlockingIOError, InterruptedError):
            numbers = b""
        came = {number: signals.take(number) for number in list(self._signal_handlers)}
        for number in numbers:
            if came.get(number):
                came[number] -= 1
                self._handle_signal(number)
        for number, times in came.items():
            for _ in range(times):
                self._handle_signal(number)

    # ------------------------------------------------------ the wake-up descriptor
    @property
    def _csock(self) -> socket.socket:
        """The writing end of the signal sockets, made on first use."""
        if self._signal_sockets is None:
            reader, writer = socket.socketpair()
            reader.setblocking(False)
            writer.setblocking(False)
            self._signal_sockets = reader, writer
            self._add_reader(reader.fileno(), self._read_signals)
        return self._signal_sockets[1]

    def _close_signals(self) -> None:
        """The loop closes: remove its handlers, and close what woke it."""
        if sys.is_finalizing():
            if self._signal_handlers:
                warnings.warn(
                    f"Closing the loop {self!r} on interpreter shutdown stage, skipping signal handlers removal",
                    ResourceWarning,
                    stacklevel=3,
                    source=self,
                )
                self._signal_handlers.clear()
        else:
            for sig in list(self._signal_handlers):
                self.remove_signal_handler(sig)
        if self._signal_sockets is not None:
            reader, writer = self._signal_sockets
            self._give_back_wakeup_fd()
            self._signal_sockets = None
            self._remove_reader(reader.fileno())
            reader.close()
            writer.close()

    def _borrow_wakeup_fd(self) -> None:
        if threading.current_thread() is threading.main_thread():
            fd = self._csock.fileno()
            before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            if before not in (-1, fd):
                signal.set_wakeup_fd(before)  # another library's: leave it

    def _give_back_wakeup_fd(self) -> None:
        if self._signal_sockets is not None and threading.current_thread() is threading.main_thread():
            before = signal.set_wakeup_fd(-1)
            if before not in (-1, self._signal_sockets[1].fileno()):
                signal.set_wakeup_fd(before)


def all_loops() -> list[Any]:
    """Return goloop's loops, closed ones too, as long as they are referred to. From any thread, a finalizer as well."""
    # A copy in one step: a WeakSet that is iterated may change meanwhile.
    loops = [reference() for reference in list(_loops.data)]  # type: ignore[attr-defined]
    return [loop for loop in loops if loop is not None]


def after_fork_in_child() -> None:
    """A signal in the child must not reach the parent's handlers through the sockets they share, nor its own counts."""
    for loop in list(_loops):
        loop._give_back_wakeup_fd()
    _handling.clear()
    signals.forget()
