"""gunicorn's workers on goloop:

    gunicorn --worker-class goloop.contrib.gunicorn.GoroutineWorker package.module:app    # WSGI: Django, Flask, …
    gunicorn --worker-class goloop.contrib.gunicorn.ASGIWorker package.module:app         # ASGI, by gunicorn itself
    gunicorn --worker-class goloop.contrib.gunicorn.UvicornWorker package.module:app      # ASGI, by uvicorn
    gunicorn --worker-class goloop.contrib.gunicorn.AiohttpWorker package.module:factory  # aiohttp

All need gunicorn (ASGIWorker: 24 or later), UvicornWorker and AiohttpWorker what they are named after as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goloop.contrib.gunicorn._aiohttp import AiohttpWorker
    from goloop.contrib.gunicorn._asgi import ASGIWorker
    from goloop.contrib.gunicorn._uvicorn import UvicornWorker
    from goloop.contrib.gunicorn._wsgi import GoroutineWorker

__all__ = ["ASGIWorker", "AiohttpWorker", "GoroutineWorker", "UvicornWorker"]


def __getattr__(name: str) -> Any:
    if name == "ASGIWorker":
        from goloop.contrib.gunicorn._asgi import ASGIWorker

        return ASGIWorker
    if name == "AiohttpWorker":
        from goloop.contrib.gunicorn._aiohttp import AiohttpWorker

        return AiohttpWorker
    if name == "GoroutineWorker":
        from goloop.contrib.gunicorn._wsgi import GoroutineWorker

        return GoroutineWorker
    if name == "UvicornWorker":
        from goloop.contrib.gunicorn._uvicorn import UvicornWorker

        return UvicornWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
