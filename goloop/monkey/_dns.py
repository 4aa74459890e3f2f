"""Name resolution: libc's, in threads, so that its configuration counts as ever."""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Any

from goloop.core.patch.hook import hook
from goloop.core.system.addrinfo import is_literal
from goloop.monkey._threadpool import offload

_ORIGINAL: dict[str, Callable[..., Any]] = {}


def is_address(host: Any) -> bool:
    """Return whether a host in a socket's address is one itself, or "" for any, so that there is nothing to look up."""
    return host == "" or is_literal(host)


def _getaddrinfo(*args: Any, **kwargs: Any) -> Any:
    host = args[0] if args else kwargs.get("host")
    if host is None or is_literal(host):  # and "" is a name for it, which does not exist
        return _ORIGINAL["getaddrinfo"](*args, **kwargs)
    return offload(_ORIGINAL["getaddrinfo"], *args, **kwargs)


def _gethostbyname(*args: Any) -> Any:
    if args and is_address(args[0]):
        return _ORIGINAL["gethostbyname"](*args)
    return offload(_ORIGINAL["gethostbyname"], *args)


def _gethostbyname_ex(*args: Any) -> Any:
    return offload(_ORIGINAL["gethostbyname_ex"], *args)


def _gethostbyaddr(*args: Any) -> Any:
    return offload(_ORIGINAL["gethostbyaddr"], *args)


def _getnameinfo(*args: Any) -> Any:
    return offload(_ORIGINAL["getnameinfo"], *args)


def patch() -> None:
    replacements = (_getaddrinfo, _gethostbyname, _gethostbyname_ex, _gethostbyaddr, _getnameinfo)
    for replacement in replacements:
        name = replacement.__name__[1:]
        _ORIGINAL[name] = hook(getattr(_socket, name), replacement)
