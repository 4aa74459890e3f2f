"""The worker pool of go_before.go on goloop, part for part.

Run: python go_after.py 127.0.0.1:0
"""

import argparse
import signal
import sys
from typing import NamedTuple

import goloop
from goloop import Chan, RecvChan, SendChan, context, net, recv, send, sync


class Job(NamedTuple):
    number: int
    answer: SendChan[str]


def factors(n: int) -> str:
    found = []
    p = 2
    while p * p <= n:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    if n > 1:
        found.append(n)
    return " ".join(map(str, found))


def work(jobs: RecvChan[Job]) -> None:
    for job in jobs:
        job.answer.send(f"{job.number} = {factors(job.number)}")


def serve(ctx: context.Context, conn: net.Conn, jobs: SendChan[Job]) -> None:
    with conn:
        conn.set_deadline(ctx)
        answer: Chan[str] = Chan(1)
        try:
            for line in conn:
                if not line.strip().isdigit():
                    conn.write(b"a number, please\n")
                    continue
                index, _, _ = goloop.select(send(jobs, Job(int(line), answer)), recv(ctx.done()))
                if index == 1:
                    return
                conn.write(answer.recv().encode() + b"\n")
        except (context.Canceled, OSError):
            pass  # the program ends, or the client is gone


def main() -> None:
    parser = argparse.ArgumentParser(description="Factors of numbers, one a line, by a pool of workers.")
    parser.add_argument("address", nargs="?", default="127.0.0.1:0", help="HOST:PORT (default: %(default)s)")
    options = parser.parse_args()
    with context.notify(context.background(), signal.SIGINT, signal.SIGTERM) as ctx:
        try:
            listener = net.listen("tcp", options.address)
        except (OSError, ValueError) as error:
            sys.exit(f"cannot listen on {options.address}: {error}")
        print("listening on", listener.addr, flush=True)
        context.after_func(ctx, listener.close)

        jobs: Chan[Job] = Chan()
        workers, clients = sync.WaitGroup(), sync.WaitGroup()
        for _ in range(4):
            workers.go(work, jobs)
        for conn in listener:  # until it is closed
            clients.go(serve, ctx, conn, jobs)
        clients.wait()
        jobs.close()
        workers.wait()
    print("bye")


if __name__ == "__main__":
    main()
