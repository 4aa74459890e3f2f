"""UvicornWorker: uvicorn under gunicorn, from the package uvicorn-worker, or from the uvicorns that still bring it."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from goloop.policy import install

try:
    from uvicorn_worker import UvicornWorker as _UvicornWorker
except ImportError:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `uvicorn.workers` module is deprecated", DeprecationWarning)
        from uvicorn.workers import UvicornWorker as _UvicornWorker


class UvicornWorker(_UvicornWorker):  # type: ignore[misc]  # one of the two is not there
    """uvicorn's worker for gunicorn, whose loop, and any that the application makes besides, is goloop's."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**_UvicornWorker.CONFIG_KWARGS, "loop": "goloop:new_event_loop"}

    def init_process(self) -> None:
        """Called by gunicorn in the worker's process."""
        install()
        super().init_process()
