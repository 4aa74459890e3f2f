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
            assert chan.try_send("came")
            return create_future()

        loop.create_future = slowly
        return await chan.async_recv(timeout=10)

    assert goloop.run(main()) == "came"


def test_a_waiter_that_is_cancelled_before_its_loop_closes_leaves_the_value_that_it_was_given():
    # Seen from the sender: it has chosen a coroutine, and finds its loop closed when it comes to wake it. In between
    # the coroutine was cancelled, and left the value in the channel. It must stay there, and only once.
    loop = asyncio.SelectorEventLoop()
    chan = goloop.Chan()
    got = []

    async def receives():
        got.append(await chan.async_recv())
        await asyncio.sleep(0)

    task = loop.create_task(receives())
    loop.run_until_complete(asyncio.sleep(0))

    def closes(*args):
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
        raise RuntimeError("Event loop is closed")

    loop.call_soon_threadsafe = closes
    assert chan.try_send("once")
    assert got == []
    assert task.cancelled()
    assert chan.try_recv() == ("once", True)
    assert chan.try_recv() == (None, False)
