"""A pipeline of goroutines and channels: numbers go in, three workers look for primes, one channel collects them.

Run: python examples/pipeline.py [up to]
"""

import argparse

from goloop import Chan, go


def count(limit: int) -> Chan[int]:
    """The first stage: a goroutine that sends 2, 3, 4, … and then closes its channel."""
    numbers: Chan[int] = Chan()

    def run() -> None:
        for n in range(2, limit):
            numbers.send(n)
        numbers.close()

    go(run)
    return numbers


def primes(numbers: Chan[int]) -> Chan[int]:
    """A later one: receives until the channel before it is closed, and closes its own."""
    found: Chan[int] = Chan()

    def run() -> None:
        for n in numbers:
            if all(n % d for d in range(2, int(n**0.5) + 1)):
                found.send(n)
        found.close()

    go(run)
    return found


def merge(*channels: Chan[int]) -> Chan[int]:
    """Fan in: one channel with everything that comes out of several."""
    merged: Chan[int] = Chan()

    def forward(channel: Chan[int]) -> None:
        for value in channel:
            merged.send(value)

    def run() -> None:
        for g in [go(forward, channel) for channel in channels]:
            g.join()
        merged.close()

    go(run)
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description="Look for primes in a pipeline of goroutines.")
    parser.add_argument("limit", nargs="?", type=int, default=10_000, help="below which (default: %(default)s)")
    limit = parser.parse_args().limit
    if limit < 3:
        parser.error(f"there is no prime below {limit}: take at least 3")
    numbers = count(limit)
    found = sorted(merge(*[primes(numbers) for _ in range(3)]))  # three workers share one input
    print(f"{len(found)} primes below {limit}, the last one is {found[-1]}")


if __name__ == "__main__":
    main()
