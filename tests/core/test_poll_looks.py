"""A busy loop looks at its poll set now and then, and not in each iteration; nothing is starved by that."""

import asyncio
import socket

import goloop

LOOK_ITERATIONS = 61  # of iteration.pyx


class Chain:
    """A callback that schedules itself, so that the loop always has something to run."""

    def __init__(self, loop):
        self.loop = loop
        self.iterations = 0
        self.times = []
        self.over = False

    def __call__(self):
        self.iterations += 1
        self.times.append(self.loop.time())
        if not self.over:
            self.loop.call_soon(self)


def test_a_descriptor_that_becomes_ready_is_not_starved_by_callbacks():
    async def main():
        loop = asyncio.get_running_loop()
        chain = Chain(loop)
        ours, peer = socket.socketpair()
        with ours, peer:
            waits = []
            for _ in range(20):
                came = loop.create_future()
                loop.add_reader(ours, lambda came=came: came.done() or came.set_result(chain.iterations))
                if not chain.iterations:
                    loop.call_soon(chain)
                for _ in range(7):
                    await asyncio.sleep(0)
                before = chain.iterations
                peer.send(b"x")
                waits.append(await came - before)
                ours.recv(10)
            loop.remove_reader(ours)
        chain.over = True
        return waits

    assert max(goloop.run(main())) <= LOOK_ITERATIONS + 1


def test_a_timer_is_not_late_because_callbacks_are_ready():
    async def main():
        loop = asyncio.get_running_loop()
        chain = Chain(loop)
        loop.call_soon(chain)
        late = []
        for _ in range(20):
            fired = loop.create_future()
            when = loop.time() + 0.002
            loop.call_at(when, lambda fired=fired: fired.set_result(len(chain.times)))
            late.append(sum(time > when for time in chain.times[: await fired]))
        chain.over = True
        return late

    assert max(goloop.run(main())) <= LOOK_ITERATIONS + 1


def test_a_timer_that_is_due_when_it_is_set_fires_in_the_next_iteration():
    async def main():
        loop = asyncio.get_running_loop()
        chain = Chain(loop)
        loop.call_soon(chain)
        late = []
        for i in range(200):
            fired = loop.create_future()
            begun = len(chain.times)
            ways = [lambda *call: loop.call_later(0, *call), lambda *call: loop.call_at(loop.time() - 1, *call)]
            ways[i % 2](lambda fired=fired: fired.set_result(len(chain.times)))
            late.append(await fired - begun)
        chain.over = True
        return late

    assert max(goloop.run(main())) <= 2


def test_a_replaced_clock_fires_timers_in_the_iteration_after_it_has_moved():
    loop = goloop.new_event_loop()
    now = 1000.0
    loop.time = lambda: now

    async def main():
        nonlocal now
        chain = Chain(loop)
        loop.call_soon(chain)
        late = []
        for _ in range(20):
            fired = loop.create_future()
            loop.call_at(now + 5, lambda fired=fired: fired.set_result(chain.iterations))
            for _ in range(5):
                await asyncio.sleep(0)
            now += 5
            begun = chain.iterations
            late.append(await fired - begun)
        chain.over = True
        return late

    try:
        assert max(loop.run_until_complete(main())) <= 2
    finally:
        loop.close()


def test_what_is_watched_anew_is_looked_at_in_the_next_iteration():
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        with ours, peer:
            peer.send(b"x")
            seen = []
            for _ in range(50):
                loop.add_reader(ours, seen.append, "ready")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                loop.remove_reader(ours)
            return len(seen)

    assert goloop.run(main()) >= 50
