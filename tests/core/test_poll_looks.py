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

    assert max(goloop.run(main())) <= 2  # in the iteration in which it became due, and the one that saw it


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
