"""One-way channels, for type checkers: what a function that only receives, or only sends, says that it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol, TypeVar

_T_co = TypeVar("_T_co", covariant=True)
_T_contra = TypeVar("_T_contra", contravariant=True)


class RecvChan(Protocol[_T_co]):
    """A channel that is only received from (Go: <-chan T), for annotations; made by nothing: a Chan[T] is one.

    To a type checker sending on it, and closing it, are errors, as in Go; at run time it is the channel itself. All
    methods are Chan's: from any thread, goroutine or coroutine, as their names say.
    """

    @property
    def cap(self) -> int:
        """The capacity (int; Go: cap)."""

    @property
    def closed(self) -> bool:
        """Whether it was closed (bool)."""

    def recv(self, timeout: float | None = None) -> _T_co:
        """Receive the next value, waiting for it (Go: <-ch). timeout: seconds, None for no end."""

    async def async_recv(self, timeout: float | None = None) -> _T_co:
        """Receive the next value in a coroutine, waiting for it (Go: <-ch). timeout: seconds, None for no end."""

    def try_recv(self) -> tuple[_T_co | None, bool]:
        """Receive a value if that needs no waiting: (value, True), or (None, False)."""

    def __iter__(self) -> Iterator[_T_co]: ...

    def __aiter__(self) -> AsyncIterator[_T_co]: ...

    def __len__(self) -> int: ...


class SendChan(Protocol[_T_contra]):
    """A channel that is only sent to (Go: chan<- T), for annotations; made by nothing: a Chan[T] is one.

    To a type checker receiving from it is an error, as in Go; at run time it is the channel itself. All methods are
    Chan's: from any thread, goroutine or coroutine, as their names say.
    """

    @property
    def cap(self) -> int:
        """The capacity (int; Go: cap)."""

    @property
    def closed(self) -> bool:
        """Whether it was closed (bool)."""

    def send(self, value: _T_contra, timeout: float | None = None) -> None:
        """Send a value, waiting for a receiver or for room (Go: ch <- v). timeout: seconds, None for no end."""

    async def async_send(self, value: _T_contra, timeout: float | None = None) -> None:
        """Send a value in a coroutine, waiting for a receiver or for room. timeout: seconds, None for no end."""

    def try_send(self, value: _T_contra) -> bool:
        """Send a value if that needs no waiting; return whether it was sent."""

    def close(self) -> None:
        """Close it (Go: close)."""

    def __len__(self) -> int: ...
