"""Work for more than one process, or machine: goroutines hand it to a Dask cluster, and one of its workers dies.

A scheduler and two workers are started here, as processes; on machines of your own, `dask scheduler` and `dask worker`
start them, and Client takes the scheduler's address. Each goroutine submits one block of numbers and waits for its
count of primes; the counts come in over a channel in the order in which they are ready. After the first few, one of the
workers is killed: the scheduler gives what it had to the other one, and a new worker takes its place.

Run: pip install goloop distributed; python examples/cluster.py [up to]
"""

import argparse
import asyncio
import logging
import os
import signal
import sys

import goloop
from goloop import Chan, go
from goloop.errgroup import Group

goloop.install()  # before distributed makes its loops: here, and in its workers, which import this file
goloop.monkey.patch_all()  # waiting for a result parks the goroutine, not its thread

try:
    from distributed import Client, LocalCluster
except ImportError as error:
    sys.exit(f"cluster.py needs distributed: pip install distributed ({error})")

BLOCK = 1000  # numbers


def count_primes(start: int, stop: int) -> int:
    """Runs in a worker's process."""
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(start, 2), stop))


async def loop_name() -> str:
    """Runs on the loop of a worker's process."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def fan_out(client: Client, limit: int) -> tuple[Chan[int], goloop.Goroutine[None]]:
    """Start a goroutine for each block; return the channel of the counts, and who closes it when all are in."""
    counts: Chan[int] = Chan()
    group = Group()

    def count(start: int) -> None:
        counts.send(client.submit(count_primes, start, min(start + BLOCK, limit), pure=False).result())

    def close() -> None:
        try:
            group.wait()
        finally:
            counts.close()

    for start in range(0, limit, BLOCK):
        group.go(count, start)
    return counts, go(close)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("limit", nargs="?", type=int, default=200_000, help="default: %(default)s")
    limit = parser.parse_args().limit
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        pids = sorted(client.run(os.getpid).values())
        print(f"{len(pids)} workers, whose loops are {' and '.join(set(client.run(loop_name).values()))}'s")
        blocks = primes = 0
        counts, closer = fan_out(client, limit)
        for found in counts:
            blocks += 1
            primes += found
            if blocks == 5:
                os.kill(pids[0], signal.SIGKILL)
                print("one of them was killed")
        closer.join()
        client.wait_for_workers(2)
        now = client.run(os.getpid).values()
        print(f"{primes} primes below {limit}, in {blocks} blocks; {len(set(now) - set(pids))} new worker")


if __name__ == "__main__":
    main()
