"""An aiohttp service whose handlers block, on asyncio, uvloop and goloop side by side: what a health check sees of it.

Run: python examples/demo.py, or make demo in a checkout. It takes about half a minute.

Each loop serves blocking_handler.py in a process of its own. First, all at once: clients that ask for the handler that
blocks, over and over, and one client for each loop that asks for /health twenty times a second. Then, in turns: what
a request costs that does not block, as processor time of the server. The clients run on asyncio's own loop in this
process: a neutral judge. The exit status is 0 only if every answer was right and every server stopped gracefully.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

try:
    import aiohttp
    from rich import box
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
except ImportError as error:
    sys.exit(f"demo.py needs aiohttp and rich: pip install 'goloop[demo]' ({error})")

from many_kinds import Server, ServerFailed

APP = Path(__file__).with_name("blocking_handler.py")
LOOPS = {"asyncio": ["--loop", "asyncio"], "uvloop": ["--loop", "uvloop"], "goloop": ["--loop", "goloop", "--handoff"]}
KINDS = {
    "slow": "time.sleep(0.3)",
    "fetch": "requests.get() of something that takes 0.3 s",
    "query": "a query of 0.3 s by sqlite3",
    "child": "subprocess.run() of something that takes 0.3 s",
}
PERIOD = 0.05  # seconds between two requests for /health
ROUND = 0.5  # seconds of load in the second part, for each loop in turn
LATE = 0.1  # seconds, after which a load balancer would grow nervous
PATIENCE = 60.0  # seconds for one request
BARS = " ▁▂▃▄▅▆▇█"


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    print(f"An aiohttp service whose handlers call {KINDS[options.kind]}, on {', '.join(options.loops)}.", flush=True)
    try:
        return asyncio.run(compete(options))
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What blocking handlers do to a health check, loop beside loop.")
    parser.add_argument("--seconds", type=float, default=6.0, help="of the first part (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="that ask for what blocks (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of the second part (default: %(default)s)")
    parser.add_argument("--kind", choices=KINDS, default="slow", help="how the handlers block (default: %(default)s)")
    parser.add_argument("--loops", help="of asyncio, uvloop, goloop (default: all that are installed)")
    options = parser.parse_args(argv)
    installed = [loop for loop in LOOPS if importlib.util.find_spec(loop) is not None]
    options.loops = installed if options.loops is None else options.loops.split(",")
    for loop in options.loops:
        if loop not in LOOPS:
            parser.error(f"no such loop: {loop!r}; there are {', '.join(LOOPS)}")
        if loop not in installed:
            parser.error(f"{loop} is not installed for {sys.executable}")
    if options.seconds <= 0 or options.clients < 1 or options.rounds < 1:
        parser.error("--seconds must be more than 0, --clients and --rounds at least 1")
    return options


@dataclass
class Contender:
    """One loop's server, and what was seen of it."""

    loop: str
    server: Server
    session: aiohttp.ClientSession
    health: list[float] = field(default_factory=list)  # seconds that each answer took
    asked: float | None = None  # when the request for /health under way was sent
    blocking: int = 0  # blocking requests that were answered
    cost: list[float] = field(default_factory=list)  # processor time of a request in each round, seconds
    wrong: list[str] = field(default_factory=list)

    async def ask(self, path: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE), self.session.get(path) as response:
                body = await response.read()
            if (response.status, body) != (200, b"ok"):
                self.wrong.append(f"{path}: {response.status} {body[:100]!r}")
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            self.wrong.append(f"{path}: {type(error).__name__}: {error}")

    async def ask_health(self, until: float) -> None:
        while time.perf_counter() < until:
            self.asked = time.perf_counter()
            await self.ask("/health")
            took = time.perf_counter() - self.asked
            self.asked = None
            self.health.append(took)
            await asyncio.sleep(max(0.0, PERIOD - took))

    async def ask_blocking(self, path: str, until: float) -> None:
        while time.perf_counter() < until:
            await self.ask(path)
            self.blocking += 1

    async def play_round(self, clients: int) -> None:
        """All clients at once ask for /health, as fast as it answers."""
        before = self.server.cpu()
        started = time.perf_counter()
        counts = await asyncio.gather(*(self._hurry(started + ROUND) for _ in range(clients)))
        self.cost.append((self.server.cpu() - before) / sum(counts))

    async def _hurry(self, until: float) -> int:
        count = 0
        while count == 0 or time.perf_counter() < until:
            await self.ask("/health")
            count += 1
        return count

    def percentile(self, percent: int) -> float:
        """Of /health, in milliseconds."""
        ordered = sorted(self.health)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


async def compete(options: argparse.Namespace) -> int:
    console = Console(highlight=False)
    async with AsyncExitStack() as stack:
        contenders = []
        for loop in options.loops:
            command = [sys.executable, str(APP), *LOOPS[loop]]
            try:
                server = await stack.enter_async_context(Server.start(command))
            except ServerFailed as error:
                raise ServerFailed(f"{loop}: the server {error}") from None
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(server.url, connector=connector))
            contenders.append(Contender(loop, server, session))
        await watch_health(contenders, options, console)
        await count_cost(contenders, options, console)
        for contender in contenders:
            await contender.session.close()  # or the server would wait for its connections
            contender.wrong += await contender.server.stop()
    return report(contenders, console)


# ------------------------------------------------------------------------------------------------- blocking handlers
async def watch_health(contenders: list[Contender], options: argparse.Namespace, console: Console) -> None:
    console.print(
        f"\n{options.clients} clients of each keep asking for that, one more for /health, {options.seconds:g} s:"
    )
    until = time.perf_counter() + options.seconds
    async with asyncio.TaskGroup() as group:
        for contender in contenders:
            for _ in range(options.clients):
                group.create_task(contender.ask_blocking(f"/{options.kind}", until))
            group.create_task(contender.ask_health(until))
        if console.is_terminal and not console.is_dumb_terminal:
            group.create_task(show(contenders, until, console))
    console.print(health_table(contenders))


async def show(contenders: list[Contender], until: float, console: Console) -> None:
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while time.perf_counter() < until or any(contender.asked for contender in contenders):
            live.update(live_table(contenders), refresh=True)
            await asyncio.sleep(0.1)


def live_table(contenders: list[Contender]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("loop")
    table.add_column("/health now", justify="right")
    table.add_column("its last answers")
    table.add_column("")
    for contender in contenders:
        took = contender.health[-1] if contender.health else 0.0
        if contender.asked is not None:
            took = max(took, time.perf_counter() - contender.asked)
        style = "red" if took > LATE else "green"
        bars = "".join(bar_of(each) for each in contender.health[-40:])
        blocked = f"{contender.blocking} blocking requests answered"
        table.add_row(contender.loop, f"[{style}]{took * 1000:.0f} ms[/]", f"[{style}]{bars:<40}[/]", blocked)
    return table


def bar_of(seconds: float) -> str:
    """One character; each step is twice as long, from a millisecond on."""
    step = 0
    while seconds > 0.001 * 2**step and step < len(BARS) - 1:
        step += 1
    return BARS[max(1, step)]


def health_table(contenders: list[Contender]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption="how long /health took; it should be a millisecond")
    table.add_column("loop")
    for heading in ("asked", "p50 ms", "p99 ms", "longest ms", "blocking requests answered"):
        table.add_column(heading, justify="right")
    for contender in contenders:
        milliseconds = [f"{contender.percentile(percent):.1f}" for percent in (50, 99, 100)]
        table.add_row(contender.loop, str(len(contender.health)), *milliseconds, str(contender.blocking))
    return table


# ---------------------------------------------------------------------------------------------------- ordinary load
async def count_cost(contenders: list[Contender], options: argparse.Namespace, console: Console) -> None:
    seconds = options.rounds * ROUND * len(contenders)
    console.print(f"\nNow nothing blocks: 20 clients ask each for /health in turns, {seconds:g} s:")
    for _ in range(options.rounds):
        for contender in contenders:
            await contender.play_round(20)
    console.print(cost_table(contenders))


def cost_table(contenders: list[Contender]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption="medians of the rounds ± half of their spread")
    table.add_column("loop")
    for heading in ("µs of processor a request", "beside asyncio"):
        table.add_column(heading, justify="right")
    base = next((contender.cost for contender in contenders if contender.loop == "asyncio"), None)
    for contender in contenders:
        beside = "-"
        if base is not None and min(base) > 0:
            beside = spread([mine / theirs for mine, theirs in zip(contender.cost, base, strict=True)], "{:.2f}")
        cost = spread([each * 1e6 for each in contender.cost], "{:.0f}")
        table.add_row(contender.loop, f"[bold]{cost}[/]", beside)
    return table


def spread(values: Sequence[float], form: str) -> str:
    half = (max(values) - min(values)) / 2
    return f"{form.format(statistics.median(values))} ± {form.format(half)}"


def report(contenders: list[Contender], console: Console) -> int:
    for contender in contenders:
        for problem in contender.wrong[:5]:
            console.print(f"{contender.loop}: {problem}", markup=False, soft_wrap=True, style="red")
    if any(contender.wrong for contender in contenders):
        console.print("FAILED", style="bold red")
        return 1
    console.print(headline(contenders), style="bold", soft_wrap=True)
    console.print("Every answer was right, and every server stopped gracefully.", style="green")
    return 0


def headline(contenders: list[Contender]) -> str:
    health = ", ".join(f"{contender.loop} {contender.percentile(50):.1f} ms" for contender in contenders)
    cost = ", ".join(f"{contender.loop} {statistics.median(contender.cost) * 1e6:.0f} µs" for contender in contenders)
    return f"\n/health while others block: {health}\nProcessor time of a request: {cost}"


if __name__ == "__main__":
    sys.exit(main())
