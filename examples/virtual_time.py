"""Tests in virtual time: a client that tries again for an hour, and a race that a seed finds and replays.

Run: python examples/virtual_time.py
"""

import argparse
import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable

from goloop import Chan, go, sync
from goloop.testing import DeadlockError, bubble, explore, run


# ---------------------------------------------------------------- what is tested
async def with_retries(call: Callable[[], Awaitable[str]], patience: float) -> str:
    """Call it until it works, with pauses of 1, 2, 4, … and at most 600 seconds; TimeoutError after `patience`."""
    pause = 1.0
    async with asyncio.timeout(patience):
        while True:
            try:
                return await call()
            except ConnectionError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 600)


class Account:
    """A bank account that two goroutines at a time may use. It has a mistake."""

    def __init__(self) -> None:
        self.mutex = sync.Mutex()
        self.balance = 0

    def deposit(self, amount: int) -> None:
        with self.mutex:
            balance = self.balance
        with self.mutex:  # another deposit may come in between
            self.balance = balance + amount


# ------------------------------------------------------------------- the tests
async def test_the_client_tries_for_an_hour() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    calls = []

    async def down() -> str:
        calls.append(loop.time() - begun)
        raise ConnectionError

    try:
        await with_retries(down, patience=3600)
    except TimeoutError:
        print(
            f"{len(calls)} calls in {loop.time() - begun:.0f} s, the last ones at {calls[-2]:.0f} and {calls[-1]:.0f} s"
        )


def test_deposits() -> None:
    account = Account()
    for g in [go(account.deposit, 50) for _ in range(2)]:
        g.join()
    assert account.balance == 100, f"{account.balance} of 100 are there"


def main() -> None:
    argparse.ArgumentParser(description="Tests in virtual time, and a race that a seed finds.").parse_args()
    run(test_the_client_tries_for_an_hour)

    with contextlib.redirect_stderr(io.StringIO()) as line:
        try:
            explore(test_deposits, seeds=100)
        except AssertionError as exc:
            print(exc)
    print(line.getvalue().strip())

    try:
        with bubble():
            go(Chan[int]().recv)
    except DeadlockError as exc:
        print(str(exc).splitlines()[0])


if __name__ == "__main__":
    main()
