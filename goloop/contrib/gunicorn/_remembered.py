"""What gunicorn makes for each request though it is the same for many: the date, and what all environs begin with.

Only in a worker's process, and only functions that gunicorn calls by their modules' names.
"""

from __future__ import annotations

import time
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi

_http_date = util.http_date
_base_environ = wsgi.base_environ
_date: tuple[int, str] = (-1, "")  # in seconds since 1970, and as text
_environ: tuple[Any, int, dict[str, Any]] | None = None  # the configuration, `_forgotten` then, and what it comes to
_forgotten = 0  # how often


def _date_of(timestamp: float | None = None) -> Any:
    global _date
    if timestamp is not None:
        return _http_date(timestamp)
    now = int(time.time())
    second, text = _date
    if second != now:
        text = _http_date(now)
        _date = now, text
    return text


def _environ_of(cfg: Any) -> dict[str, Any]:
    global _environ
    times, known = _forgotten, _environ
    if known is None or known[0] is not cfg or known[1] != times:
        known = _environ = cfg, times, _base_environ(cfg)
    return known[2].copy()


def remember() -> None:
    """From now on."""
    util.http_date = _date_of
    wsgi.base_environ = _environ_of


def forget() -> None:
    """The files of the log that environs have were opened anew. In a signal's handler, while others run."""
    global _forgotten
    _forgotten += 1
