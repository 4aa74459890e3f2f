"""Goroutines and channels side by side with gevent and asyncio: spawning, switching, channels, memory.

    python benchmarks/goroutines.py [--repeats 5]

Each measurement is a fresh process; the contenders take turns, so that a noisy moment hits them all. gevent is left
out where it is not installed.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

PRELUDES = {
    "goloop": """
import time, os, goloop
from goloop import go
def timed(n, f):
    def body():
        f(100)
        begun = time.perf_counter()
        f(n)
        return n / (time.perf_counter() - begun)
    print(go(body).result())
""",
    "gevent": """
import time, os, gevent, gevent.queue
def timed(n, f):
    def body():
        f(100)
        begun = time.perf_counter()
        f(n)
        return n / (time.perf_counter() - begun)
    print(gevent.spawn(body).get())
""",
    "asyncio": """
import time, os, asyncio
def timed(n, f):
    async def body():
        await f(100)
        begun = time.perf_counter()
        await f(n)
        return n / (time.perf_counter() - begun)
    print(asyncio.run(body()))
""",
}

RESIDENT = """
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""

QUEUE = {
    "goloop": """
def f(n):
    chan = goloop.Chan({size})
    def feed():
        for i in range(n):
            chan.send(i)
        chan.close()
    go(feed)
    for _ in chan:
        pass
timed({n}, f)
""",
    "gevent": """
def f(n):
    queue = gevent.queue.{kind}
    def feed():
        for i in range(n):
            queue.put(i)
    g = gevent.spawn(feed)
    for _ in range(n):
        queue.get()
    g.join()
timed({n}, f)
""",
    "asyncio": """
async def f(n):
    queue = asyncio.Queue({size} or 1)
    async def feed():
        for i in range(n):
            await queue.put(i)
    task = asyncio.create_task(feed())
    for _ in range(n):
        await queue.get()
    await task
timed({n}, f)
""",
}

# name: (unit, {contender: code}). The code prints one number, the more the better but for memory.
WORKLOADS = {
    "spawn and join": (
        "goroutines/s",
        {
            "goloop": "def f(n):\n    for g in [go(int) for _ in range(n)]:\n        g.join()\ntimed(100_000, f)",
            "gevent": "def f(n):\n    gevent.joinall([gevent.spawn(int) for _ in range(n)])\ntimed(100_000, f)",
            "asyncio": "async def nothing():\n    pass\nasync def f(n):\n    for t in "
            "[asyncio.create_task(nothing()) for _ in range(n)]:\n        await t\ntimed(100_000, f)",
        },
    ),
    "yield": (
        "switches/s",
        {
            "goloop": "def f(n):\n    for _ in range(n):\n        goloop.gosched()\ngo(f, 10**7)\ntimed(200_000, f)",
            "gevent": "def f(n):\n    for _ in range(n):\n        gevent.sleep(0)\ngevent.spawn(f, 10**7)\n"
            "timed(200_000, f)",
            "asyncio": "async def f(n):\n    for _ in range(n):\n        await asyncio.sleep(0)\ntimed(200_000, f)",
        },
    ),
    "unbuffered channel": (
        "values/s",
        {
            "goloop": QUEUE["goloop"].format(size=0, n=200_000),
            "gevent": QUEUE["gevent"].format(kind="Channel()", n=200_000),
            "asyncio": QUEUE["asyncio"].format(size=0, n=200_000),
        },
    ),
    "channel of 100": (
        "values/s",
        {
            "goloop": QUEUE["goloop"].format(size=100, n=300_000),
            "gevent": QUEUE["gevent"].format(kind="Queue(100)", n=300_000),
            "asyncio": QUEUE["asyncio"].format(size=100, n=300_000),
        },
    ),
    "20,000 parked": (
        "bytes each",
        {
            "goloop": RESIDENT + "chan = goloop.Chan()\ndef f():\n    before = resident()\n    "
            "gs = [go(chan.recv) for _ in range(20_000)]\n    goloop.sleep(2)\n    "
            "print((resident() - before) / 20_000)\n    os._exit(0)\ngo(f).join()",
            "gevent": RESIDENT
            + "import gevent.event\nevent = gevent.event.Event()\ndef f():\n    before = resident()\n"
            "    gs = [gevent.spawn(event.wait) for _ in range(20_000)]\n    gevent.sleep(2)\n    "
            "print((resident() - before) / 20_000)\n    os._exit(0)\ngevent.spawn(f).join()",
        },
    ),
}


def measure(contender, code):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDES[contender] + code], capture_output=True, text=True, check=True, timeout=300
    )
    return float(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    contenders = [name for name in PRELUDES if name == "goloop" or importlib.util.find_spec(name)]
    table = Table("workload", "unit", "contender", "minimum", "median", "maximum", "goloop / it")
    for workload, (unit, codes) in WORKLOADS.items():
        results = {name: [] for name in contenders if name in codes}
        for _ in range(options.repeats):
            for name, values in results.items():
                values.append(measure(name, codes[name]))
        ours = statistics.median(results["goloop"])
        for name, values in results.items():
            middle = statistics.median(values)
            row = [f"{v:,.0f}" for v in (min(values), middle, max(values))]
            table.add_row(workload, unit, name, *row, f"{ours / middle:.2f}")
        table.add_section()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
