"""A Dask cluster whose client, scheduler, nannies and workers are on the loop under test; prints what it computed.

The workers are spawned processes: they import this file under another name before they make their loops, and
so the install() below is for them too. uvloop needs none, as distributed knows it by name (its configuration).
"""

from __future__ import annotations

import json
import operator
import os
import sys
from typing import Any

import loops

if loops.NAME == "goloop":
    loops.install()

import dask

dask.config.set({"distributed.admin.event-loop": "uvloop" if loops.NAME == "uvloop" else "asyncio"})
os.environ["DASK_DISTRIBUTED__ADMIN__EVENT_LOOP"] = dask.config.get("distributed.admin.event-loop")  # for the workers

from dask import bag, delayed  # noqa: E402
from distributed import Client, LocalCluster, as_completed, wait  # noqa: E402


async def loop_here() -> str:
    return loops.class_name()


def square(number: int) -> int:
    return number * number


def fail(number: int) -> None:
    raise ZeroDivisionError(number)


def blob(size: int) -> bytes:
    return b"x" * size


def compute(client: Client, protocol: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["loops"] = {
        "client": loops.class_name(client.loop.asyncio_loop),
        "scheduler": client.run_on_scheduler(loop_here),
        "nannies": sorted(client.run(loop_here, nanny=True).values()),
        "workers": sorted(client.run(loop_here).values()),
    }
    workers = sorted(client.scheduler_info()["workers"])
    found["protocols"] = sorted({address.partition("://")[0] for address in workers})
    found["map"] = sum(client.gather(client.map(square, range(1000))))
    found["completed"] = sum(future.result() for future in as_completed(client.map(square, range(300))))
    try:
        client.submit(fail, 7).result()
    except ZeroDivisionError as exc:
        found["error"] = str(exc)
    tree = [delayed(square)(i) for i in range(64)]
    while len(tree) > 1:
        tree = [delayed(operator.add)(a, b) for a, b in zip(tree[::2], tree[1::2], strict=True)]
    found["tree"] = tree[0].compute()
    found["bag"] = dict(bag.range(1000, npartitions=10).map(lambda n: n % 3).frequencies().compute())
    # Each of these is made on one worker and used on the other: 8 MB from worker to worker
    parts = client.map(blob, [1_000_000 + i for i in range(8)], workers=[workers[0]], pure=False)
    sizes = client.map(len, parts, workers=[workers[1]])
    found["moved"] = client.gather(sizes)
    scattered = client.scatter(os.urandom(4_000_000), broadcast=True)
    found["scattered"] = sorted(client.submit(len, scattered, workers=[w], pure=False).result() for w in workers)
    wait(parts)
    del parts, sizes, scattered
    client.restart()
    found["after restart"] = sum(client.gather(client.map(square, range(100), pure=False)))
    found["loops after restart"] = sorted(client.run(loop_here).values())
    return found


def main() -> None:
    protocol = sys.argv[1]
    options: dict[str, Any] = {}
    if protocol == "tls":
        from distributed.security import Security

        files = {"ca_file": sys.argv[2], "cert": sys.argv[3], "key": sys.argv[4]}
        sides = {f"tls_{side}_{what}": files[what] for side in ("client", "worker", "scheduler") for what in files}
        sides = {name: path for name, path in sides.items() if not name.endswith("_ca_file")}
        options["security"] = Security(require_encryption=True, tls_ca_file=files["ca_file"], **sides)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            protocol=f"{protocol}://",
            dashboard_address=None,
            memory_limit=0,
            **options,
        ) as cluster,
        Client(cluster) as client,
    ):
        found = compute(client, protocol)
    print("result:", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
