"""gunicorn's workers on goloop:

    gunicorn --worker-class goloop.contrib.gunicorn.GoroutineWorker package.module:app    # WSGI: Django, Flask, …
    gunicorn --worker-class goloop.contrib.gunicorn.AiohttpWorker package.module:factory  # aiohttp

Both need gunicorn, the second one aiohttp as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goloop.contrib.gunicorn._aiohttp import AiohttpWorker
    from goloop.contrib.gunicorn._wsgi import GoroutineWorker

__all__ = ["AiohttpWorker", "GoroutineWorker"]


def __getattr__(name: str) -> Any:
    if name == "AiohttpWorker":
        from goloop.contrib.gunicorn._aiohttp import AiohttpWorker

        return AiohttpWorker
    if name == "GoroutineWorker":
        from goloop.contrib.gunicorn._wsgi import GoroutineWorker

        return GoroutineWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
