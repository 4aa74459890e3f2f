"""What is a reason for a handoff, and what is none: computing, a busy GIL, a process that is stopped."""

import asyncio
import hashlib
import mmap
import os
import sys
import threading
import time

import pytest

import goloop
from tests.helpers.handoffs import run
from tests.helpers.scripts import run_script
from tests.helpers.waiting import SECONDS, async_until


async def computes():
    """Return how often the loop was handed off while it computed."""
    loop = asyncio.get_running_loop()
    before = loop._stats()["handoffs"]
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    return loop._stats()["handoffs"] - before


def test_computing_is_never_handed_off():
    assert run(computes()) == 0


@pytest.mark.parametrize("interval", [0.005, 0.00002], ids=["ordinary", "tiny"])
def test_waiting_for_the_gil_is_never_handed_off(interval):
    """With a tiny switch interval the wait for the GIL is all but a loop that computes."""
    end = threading.Event()
    before = sys.getswitchinterval()

    def hog():
        while not end.is_set():
            pass

    hogs = [threading.Thread(target=hog) for _ in range(3)]
    for thread in hogs:
        thread.start()
    try:
        sys.setswitchinterval(interval)
        assert run(computes()) == 0
    finally:
        sys.setswitchinterval(before)
        end.set()
        for thread in hogs:
            thread.join()


def test_a_gil_that_changes_hands_all_the_time_is_no_reason():
    end = threading.Event()

    def hog():
        while not end.is_set():
            os.stat("/")

    hogs = [threading.Thread(target=hog) for _ in range(2)]
    for thread in hogs:
        thread.start()
    try:
        assert run(computes()) == 0
    finally:
        end.set()
        for thread in hogs:
            thread.join()


def test_computing_without_the_gil_is_handed_off():
    data, others = bytes(50_000_000), []

    def computes():
        until = time.monotonic() + SECONDS
        while not others and time.monotonic() < until:
            hashlib.sha256(data)

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(computes)
        loop.call_soon(lambda: others.append(loop._stats()["away"]))
        await async_until(lambda: others)

    run(main())
    assert others == [1]


def test_off_by_default():
    event = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(event.set)
        assert not event.wait(0.05)
        assert loop._stats()["handoffs"] == 0

    goloop.run(main())


def test_the_environment_turns_it_on(monkeypatch):
    monkeypatch.setenv("GOLOOP_HANDOFF", "1")
    event = threading.Event()
    got = []

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        assert event.wait(SECONDS)

    goloop.run(main())
    loop = goloop.Loop(handoff=False)  # but not against what the program says
    loop.call_soon(lambda: got.append(event.wait(0.05)))
    loop.call_soon(event.set)
    loop.call_soon(loop.stop)
    event.clear()
    loop.run_forever()
    loop.close()
    assert got == [False]


def test_computing_without_the_gil_is_told_on_a_single_processor():
    """The monitor must let the thread run to see it compute."""
    status, output, errors = run_script(
        """
        import asyncio, hashlib, os, time, goloop

        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        data, others = bytes(20_000_000), []

        def computes():
            until = time.monotonic() + 30
            while not others and time.monotonic() < until:
                hashlib.sha256(data)

        async def main():
            loop = asyncio.get_running_loop()
            loop.slow_callback_duration = 60  # the watch has nothing to say, however busy the machine is
            loop.call_soon(computes)
            loop.call_soon(lambda: others.append(loop._stats()["away"]))
            while not others:
                await asyncio.sleep(0.001)

        goloop.run(main(), handoff=True)
        print(others)
        """
    )
    assert (status, output, errors) == (0, "[1]\n", "")


def test_a_storm_of_page_faults_is_no_violation():
    """Who waits for a page holds the GIL: nobody else runs between two of them."""
    ran, rounds = [], []

    def faults():
        for _ in range(20):
            with mmap.mmap(-1, 8_000_000) as memory:
                before = len(ran)
                for at in range(0, len(memory), mmap.PAGESIZE):
                    memory[at] = 1
                rounds.append(len(ran) - before)

    async def main():
        asyncio.get_running_loop().call_soon(faults)
        while len(rounds) < 20:
            ran.append(1)
            await asyncio.sleep(0)

    run(main())
    assert rounds == [0] * 20
