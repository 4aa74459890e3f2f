"""A loop full of blocking calls, and a flag that only one callback may hold.

    python tests/runtime/handoff_stress.py [--seconds 60] [--seed 1] [--regions] [--debug] [--fault rogue]

Every callback raises the loop's flag when it begins, lowers it for its blocking calls and awaits, and raises it again
after them; two callbacks at once would find it up. Between the two it also checks that its task, its context and
the running loop are its own. The calls are mixed at random: sleeps, sockets, a slow FIFO, child processes, hashes,
sqlite3 with Python functions in its queries, locks, timeouts, and calls that fail.

It ends at the first violation, with status 1, or if nothing ends for half a minute, with status 3 and the stacks.
--fault makes a fault that it must find: `rogue`, a thread that runs callbacks without having been given the loop;
`deaf` (3.12 and later), instructions and exceptions are not told to goloop, so that the trap has holes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import faulthandler
import hashlib
import os
import random
import select
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import goloop

MEGABYTES = bytes(4_000_000)
STUCK = 30.0  # seconds
name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")


class Failed(Exception):
    pass


class Stress:
    def __init__(self, seed: int, regions: bool) -> None:
        self.random = random.Random(seed)
        self.regions = regions
        self.within: set[str] = set()  # who is in a blocking() region
        self.inside: str | None = None  # who holds the flag
        self.violations: list[str] = []
        self.done: dict[str, int] = {}
        self.started = self.finished = 0
        self.lock = threading.Lock()
        self.folder = tempfile.TemporaryDirectory()
        self.fifo = os.path.join(self.folder.name, "fifo")
        os.mkfifo(self.fifo)
        self.end = threading.Event()
        self.pair = socket.socketpair()
        self.loop: Any = None

    # -------------------------------------------------------------- the flag
    def raise_flag(self, who: str) -> None:
        if self.inside is not None:
            self.violations.append(f"{who} runs while {self.inside} does")
        self.inside = who

    def check(self, who: str) -> None:
        if self.inside != who:
            self.violations.append(f"{who} runs, and the flag is {self.inside}'s")
        if asyncio.get_running_loop() is not self.loop:
            self.violations.append(f"{who}: another running loop")
        # Now and then for so long that others want the GIL meanwhile.
        for _ in range(100000 if self.random.random() < 0.03 else self.random.randrange(50)):
            pass
        if self.inside != who:
            self.violations.append(f"{who} ran, and the flag was {self.inside}'s")

    def lower_flag(self, who: str) -> None:
        self.check(who)
        self.inside = None

    def look(self, who: str, seen: str | None) -> None:
        """Who held the flag right after a call, before any other line of Python: nobody, but in a region."""
        if seen is not None and who not in self.within:
            self.violations.append(f"{who} is back from a call while {seen} runs")

    def block(self, who: str) -> None:
        """One blocking call, or a few, of a random kind."""
        operation = self.random.choice(OPERATIONS)
        self.lower_flag(who)
        failed = False
        try:
            if self.regions and self.random.random() < 0.5:
                with goloop.blocking():
                    self.within.add(who)
                    try:
                        operation(self, who)
                    finally:
                        self.within.discard(who)
            else:
                operation(self, who)
        except Failed:
            failed = True
        finally:
            self.raise_flag(who)
        self.check(who)
        self.done[operation.__name__] = self.done.get(operation.__name__, 0) + 1
        if failed != (operation in FAILING):
            self.violations.append(f"{who}: {operation.__name__} {'failed' if failed else 'did not fail'}")

    # ------------------------------------------------------------ operations
    def sleeps(self, who: str) -> None:
        self.look(who, (time.sleep(self.random.uniform(0, 0.02)), self.inside)[1])  # type: ignore[func-returns-value]

    def reads_socket(self, who: str) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            helper = threading.Timer(self.random.uniform(0, 0.01), theirs.sendall, (b"x" * 100,))
            helper.start()
            if self.random.random() < 0.5:
                got = ours.makefile("rb").read(100)
            else:
                got, seen = ours.recv(100, socket.MSG_WAITALL), self.inside
                self.look(who, seen)
            assert got == b"x" * 100
            helper.join()

    def reads_fifo(self, who: str) -> None:
        with open(self.fifo, "rb") as file:
            got, seen = file.read(1), self.inside
            self.look(who, seen)
            assert got in (b"y", b"")

    def runs_child(self, who: str) -> None:
        assert subprocess.run(["sh", "-c", "sleep 0.01; exit 3"]).returncode == 3

    def hashes(self, who: str) -> None:
        self.look(who, (hashlib.sha256(MEGABYTES), self.inside)[1])

    def queries(self, who: str) -> None:
        def factory(cursor: Any, row: Any) -> Any:
            # C calls this after a query that had given up the GIL: it is ordinary code of this callback.
            if who not in self.within:
                self.raise_flag(who)
                self.lower_flag(who)
            return row[0]

        def nap(seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        db = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            db.row_factory = factory
            db.create_function("nap", 1, nap)
            assert db.execute("select nap(0.003) + nap(0.003)").fetchall() == [0.006]
            numbers = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)"
            assert db.execute(numbers + " select count(*) from n").fetchone() == 20000
        finally:
            db.close()

    def waits_for_lock(self, who: str) -> None:
        with self.lock:
            time.sleep(self.random.uniform(0, 0.005))

    def times_out(self, who: str) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(0.005)
            try:
                ours.recv(1)
            except TimeoutError as exc:
                seen = self.inside
                self.look(who, seen)
                raise Failed from exc

    def times_out_below(self, who: str) -> None:
        """The innermost frame catches nothing: not one instruction of it runs after the call."""

        def receives(sock: socket.socket) -> bytes:
            return sock.recv(1)

        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(0.005)
            try:
                receives(ours)
            except TimeoutError as exc:
                seen = self.inside
                self.look(who, seen)
                raise Failed from exc

    def sleeps_in_map(self, who: str) -> None:
        """C resumes the generator after each sleep: a frame begins before the one that waits goes on."""

        def naps() -> Iterator[float]:
            for _ in range(3):
                yield self.random.uniform(0, 0.01)
                seen = self.inside
                self.look(who, seen)

        list(map(time.sleep, naps()))

    def fails_in_c(self, who: str) -> None:
        """The exception leaves through frames that catch nothing."""

        def raises(value: int) -> int:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                theirs_file = theirs.fileno()
                timer = threading.Timer(0.004, lambda: theirs.shutdown(socket.SHUT_RDWR))
                timer.start()
                select.select([theirs_file], [], [], 0.05)
                timer.join()
            time.sleep("nonsense")  # type: ignore[arg-type]
            return value

        try:
            sorted([2, 1], key=raises)
        except TypeError as exc:
            raise Failed from exc

    # ------------------------------------------------------------- callbacks
    async def task(self, number: int) -> None:
        who = f"task {number}"
        me = asyncio.current_task()
        name.set(who)
        self.raise_flag(who)
        for _ in range(self.random.randrange(1, 6)):
            if self.random.random() < 0.6:
                self.block(who)
            if asyncio.current_task() is not me or name.get() != who:
                self.violations.append(f"{who} is {asyncio.current_task()} in context {name.get()!r}")
            self.lower_flag(who)
            await asyncio.sleep(self.random.choice((0, 0, 0.001, 0.01)))
            self.raise_flag(who)
        self.lower_flag(who)
        self.finished += 1

    def callback(self, number: int) -> None:
        who = f"callback {number}"
        self.raise_flag(who)
        if asyncio.current_task() is not None:
            self.violations.append(f"{who} has a current task: {asyncio.current_task()}")
        try:
            if self.random.random() < 0.5:
                self.block(who)
        finally:
            self.lower_flag(who)
            self.finished += 1
        if self.random.random() < 0.1:
            raise Failed(who)

    def readable(self) -> None:
        who = "reader"
        self.raise_flag(who)
        if self.random.random() < 0.3:
            self.block(who)
        self.pair[0].recv(1)
        self.lower_flag(who)
        self.finished += 1

    # ---------------------------------------------------------------- faults
    def rogue(self) -> None:
        """A thread that was not given the loop runs callbacks of it."""
        asyncio._set_running_loop(self.loop)
        number = 0
        while not self.end.is_set():
            time.sleep(0.001)
            number += 1
            who = f"rogue {number}"
            self.raise_flag(who)
            for _ in range(5):
                self.check(who)
                time.sleep(0)
            self.lower_flag(who)

    def deaf(self) -> None:
        """Leave only the part of the trap that stops new frames."""
        monitoring = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        tool = next(n for n in range(6) if monitoring.get_tool(n) == "goloop")
        for event in (monitoring.events.INSTRUCTION, monitoring.events.RAISE):
            monitoring.register_callback(tool, event, None)

    # ------------------------------------------------------------------ main
    def feed_fifo(self) -> None:
        """Opens block until there is a reader; a reader that got nothing gets the end of the file."""
        while not self.end.is_set():
            try:
                fd = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                time.sleep(0.002)
                continue
            try:
                time.sleep(0.002)
                os.write(fd, b"y")
            except OSError:
                pass
            finally:
                os.close(fd)

    async def main(self, seconds: float, fault: str | None) -> None:
        loop: Any = asyncio.get_running_loop()
        self.loop = loop
        threads = [threading.Thread(target=self.feed_fifo)]
        if fault == "rogue":
            threads.append(threading.Thread(target=self.rogue))
        elif fault == "deaf":
            self.deaf()
        self.pair[0].setblocking(False)
        loop.add_reader(self.pair[0], self.readable)
        unexpected: list[Any] = []

        def handler(_: Any, context: dict[str, Any]) -> None:
            if not isinstance(context.get("exception"), Failed):
                unexpected.append(context)

        loop.set_exception_handler(handler)
        for thread in threads:
            thread.start()
        number, tasks, until = 0, set(), time.monotonic() + seconds
        while time.monotonic() < until and not self.violations:
            while self.started - self.finished < 40:
                number += 1
                self.started += 1
                kind = self.random.randrange(6)
                if kind < 3:
                    task = asyncio.create_task(self.task(number))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                elif kind == 3:
                    loop.call_soon(self.callback, number)
                elif kind == 4:
                    loop.call_later(self.random.uniform(0, 0.02), self.callback, number)
                else:
                    self.pair[1].send(b"z")
            await asyncio.sleep(0.001)
        while self.finished < self.started:
            await asyncio.sleep(0.005)
        self.end.set()
        await asyncio.gather(*tasks)
        while any(thread.is_alive() for thread in threads):
            await asyncio.sleep(0.005)
        loop.remove_reader(self.pair[0])
        self.violations += [f"unexpected: {context}" for context in unexpected]
        if loop._stats()["away"] != 0:
            self.violations.append(f"{loop._stats()['away']} are away though all have ended")
        self.done["handoffs"] = loop._stats()["handoffs"]

    def close(self) -> None:
        self.pair[0].close()
        self.pair[1].close()
        self.folder.cleanup()


OPERATIONS = [
    Stress.sleeps,
    Stress.reads_socket,
    Stress.reads_fifo,
    Stress.runs_child,
    Stress.hashes,
    Stress.queries,
    Stress.waits_for_lock,
    Stress.times_out,
    Stress.times_out_below,
    Stress.sleeps_in_map,
    Stress.fails_in_c,
]
FAILING = [Stress.times_out, Stress.times_out_below, Stress.fails_in_c]


def watchdog(stress: Stress) -> None:
    """A process of its own for the program: two callbacks at once may leave the loop unable to end."""
    finished, since = -1, time.monotonic()
    while not stress.end.wait(0.5):
        if stress.violations:
            if stress.end.wait(5):
                return
            report(stress)
            os._exit(1)
        if stress.finished != finished:
            finished, since = stress.finished, time.monotonic()
        elif time.monotonic() - since > STUCK:
            print(f"STUCK: {stress.started - stress.finished} callbacks and tasks do not end", flush=True)
            faulthandler.dump_traceback()
            os._exit(3)


def report(stress: Stress) -> None:
    print(f"{stress.finished} callbacks and tasks; {stress.done}")
    for violation in stress.violations[:20]:
        print("VIOLATION:", violation)
    print(f"{len(stress.violations)} violations", flush=True)


def run(
    seconds: float,
    seed: int,
    regions: bool = False,
    debug: bool = False,
    interval: float | None = None,
    fault: str | None = None,
    watched: bool = False,
) -> Stress:
    """Run it, and return what was found: violations, and how often each operation was done."""
    before = sys.getswitchinterval()
    if interval is not None:
        sys.setswitchinterval(interval)
    stress = Stress(seed, regions)
    if watched:
        threading.Thread(target=watchdog, args=(stress,), daemon=True).start()
    try:
        goloop.run(stress.main(seconds, fault), handoff=True, debug=debug)
    finally:
        stress.end.set()
        sys.setswitchinterval(before)
        stress.close()
    return stress


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--regions", action="store_true", help="half of the calls in goloop.blocking()")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--interval", type=float, help="sys.setswitchinterval()")
    parser.add_argument("--fault", choices=("rogue", "deaf"), help="what it must find")
    options = parser.parse_args()
    if options.fault == "deaf" and not hasattr(sys, "monitoring"):
        parser.error("there is no sys.monitoring before Python 3.12")
    print(f"seed {options.seed}", flush=True)
    stress = run(
        options.seconds, options.seed, options.regions, options.debug, options.interval, options.fault, watched=True
    )
    report(stress)
    return 1 if stress.violations else 0


if __name__ == "__main__":
    sys.exit(main())
