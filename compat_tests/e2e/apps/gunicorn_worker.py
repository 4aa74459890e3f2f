"""Config file of gunicorn (`-c`), and the worker class of it: aiohttp's worker, on goloop.

This is what a user of goloop writes; the master stays on asyncio, and each worker gets its loop after the fork.
"""

from __future__ import annotations

from typing import Any

from aiohttp.worker import GunicornWebWorker

import goloop

worker_class = "gunicorn_worker.GoloopWebWorker"


class GoloopWebWorker(GunicornWebWorker):
    def init_process(self) -> None:
        goloop.install()
        super().init_process()


def worker_exit(server: Any, worker: Any) -> None:
    print(f"worker: exit on {type(worker.loop).__qualname__}", flush=True)
