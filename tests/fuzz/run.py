"""Look for programs that two loops run differently: python -m tests.fuzz.run --seconds 3600 --seed N.

Prints for each difference the seed, a minimised program and both traces. Exit status 1 if there was any.
"""

import argparse
import sys
import time

from tests.fuzz.program import make
from tests.fuzz.tracing import describe, difference, minimised


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look")
    parser.add_argument("--seed", type=int, default=0, help="the first program's seed; the others' follow")
    parser.add_argument("--count", type=int, default=sys.maxsize, help="programs at most; 1 repeats a seed")
    parser.add_argument("--loops", default="asyncio,goloop", help="the oracle and its rival")
    parser.add_argument("--kind", choices=["callbacks", "wires"], help="only programs of this kind")
    parser.add_argument("--first", action="store_true", help="end with the first difference")
    parser.add_argument("--whole", action="store_true", help="do not minimise")
    args = parser.parse_args()
    loops = args.loops.split(",")
    start, seed, tried, found = time.monotonic(), args.seed, 0, 0
    while time.monotonic() - start < args.seconds and seed < args.seed + args.count:
        program = make(seed)
        seed += 1
        if args.kind and program["kind"] != args.kind:
            continue
        tried += 1
        traces = difference(program, loops)
        if traces:
            found += 1
            smaller = program if args.whole else minimised(program, loops)
            again = difference(smaller, loops)
            if again:
                print(describe(smaller, loops, again), flush=True)
            else:
                print("a difference that did not come again")
                print(describe(program, loops, traces), flush=True)
            print(f"program {tried}, after {time.monotonic() - start:.1f} s\n", flush=True)
            if args.first:
                break
    print(f"seeds {args.seed} to {seed - 1}: {tried} programs in {time.monotonic() - start:.0f} s, {found} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
