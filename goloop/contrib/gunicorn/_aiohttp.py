"""AiohttpWorker. The master stays as it is; each worker gets its loop after the fork."""

from __future__ import annotations

from aiohttp.worker import GunicornWebWorker

from goloop.policy import install


class AiohttpWorker(GunicornWebWorker):
    """aiohttp's worker, whose loop, and any that the application makes besides, is goloop's."""

    def init_process(self) -> None:
        """Called by gunicorn in the worker's process."""
        install()
        super().init_process()
