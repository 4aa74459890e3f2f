"""ASGIWorker: gunicorn's own worker for ASGI applications. Each gets its loop after the fork, and the master none."""

from __future__ import annotations

from gunicorn.workers.gasgi import ASGIWorker as GunicornASGIWorker

from goloop.policy import install


class ASGIWorker(GunicornASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker for ASGI applications, whose loop, and any that the application makes besides, is goloop's.

    gunicorn's setting asgi_loop means nothing here: each of its values gives a loop of goloop's.
    """

    def init_process(self) -> None:
        """Called by gunicorn in the worker's process."""
        install()
        super().init_process()
