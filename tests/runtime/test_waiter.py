"""What holds for every wait, whatever is waited for."""

import asyncio

import goloop


def test_a_coroutine_claimed_while_it_makes_its_future():
    async def main():
        loop = asyncio.get_running_loop()
        chan = goloop.Chan()
        create_future = loop.create_future

        def slowly():
            del loop.create_future
            assert chan.send_nowait("came")
            return create_future()

        loop.create_future = slowly
        return await chan.arecv(timeout=10)

    assert goloop.run(main()) == "came"
