"""choose(): select() with a body for each case."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from goloop.core.sync.chan import Case, async_select, select

Branch = tuple[Case | None, Callable[..., Any]]


def _checked(name: str, branches: tuple[Branch, ...], otherwise: Callable[[], Any] | None) -> list[Case | None]:
    for branch in branches:
        if not isinstance(branch, tuple) or len(branch) != 2 or not callable(branch[1]):
            raise TypeError(f"{name}() takes pairs of a case and its body, (recv(chan), function), got {branch!r}")
    if otherwise is not None and not callable(otherwise):
        raise TypeError(f"{name}() takes a function as otherwise, got {otherwise!r}")
    return [case for case, _ in branches]


def _body(
    branches: tuple[Branch, ...], otherwise: Callable[[], Any] | None, index: int, value: Any, ok: bool
) -> Callable[[], Any]:
    if index < 0:
        assert otherwise is not None
        return otherwise
    case, body = branches[index]
    assert case is not None
    return (lambda: body(value, ok)) if not case.sends else body


def choose(*branches: Branch, otherwise: Callable[[], Any] | None = None, timeout: float | None = None) -> Any:
    """Wait for the first of several operations, do it, and return what its body returns (Go: select).

    branches: pairs of a case and its body: `(recv(chan), body)` calls body(value, ok), where ok is False if the channel
    is closed and drained; `(send(chan, value), body)` calls body(). A case that is None is never ready. otherwise: a
    function that is called, without arguments, if no case is ready; None: wait. timeout: seconds, None for no end;
    TimeoutError when it is over, and nothing was done. TypeError for anything else. ChannelClosed for sending on a
    closed channel. Operations that are ready at the same time have the same chance. Parks a goroutine, which raises
    asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
    outside of a goroutine: `await async_choose()` there.
    """
    cases = _checked("choose", branches, otherwise)
    return _body(branches, otherwise, *select(*cases, default=otherwise is not None, timeout=timeout))()


async def async_choose(
    *branches: Branch, otherwise: Callable[[], Any] | None = None, timeout: float | None = None
) -> Any:
    """Wait in a coroutine for the first of several operations, do it, and return what its body returns (Go: select).

    branches: pairs of a case and its body: `(recv(chan), body)` calls body(value, ok), where ok is False if the channel
    is closed and drained; `(send(chan, value), body)` calls body(). A case that is None is never ready. otherwise: a
    function that is called, without arguments, if no case is ready; None: wait. What a body returns is awaited if it
    can be. timeout: seconds, None for no end; TimeoutError when it is over, and nothing was done. TypeError for
    anything else. ChannelClosed for sending on a closed channel. On any loop.
    """
    cases = _checked("async_choose", branches, otherwise)
    chosen = await async_select(*cases, default=otherwise is not None, timeout=timeout)
    result = _body(branches, otherwise, *chosen)()
    return await result if isawaitable(result) else result
