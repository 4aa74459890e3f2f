"""Writes of an iteration are sent at its end: nothing else may tell the difference from a send in each write().

Each scenario writes in a callback behind which others wait, so goloop collects the write; the peer is a plain socket,
looked at from inside the iteration. On asyncio's loop every write is sent at once.
"""

import asyncio
import os
import select
import socket
import threading
import time

import pytest

from tests.helpers.recorders import Recorder, connected
from tests.helpers.scripts import run_loop_script
from tests.helpers.sockets import socket_pair
from tests.helpers.waiting import SECONDS

MANY = 16


def arrived(peer, size=1):
    """What waits at a non-blocking socket now; None: nothing. b"" is the end of the stream.

    Offloaded, it is on its way from the netpoller, which needs no help of the loop: then `size` bytes are awaited.
    """
    got = b""
    while len(got) < size:
        if os.environ.get("GOLOOP_IO") == "offload":
            select.select([peer], [], [], SECONDS)
        try:
            piece = peer.recv(1 << 20)
        except BlockingIOError:
            return got or None
        if not piece:
            break
        got += piece
    return got


async def to_the_end(loop, peer):
    """What comes until the end of the stream."""
    got = bytearray()
    while (piece := await loop.sock_recv(peer, 1 << 16)) != b"":
        got += piece
    return bytes(got)


async def in_one_iteration(loop, *callbacks):
    """Run the callbacks in one iteration, others behind them; return their results."""
    results = []

    def run(callback):
        results.append(callback())

    done = loop.create_future()
    for callback in callbacks:
        loop.call_soon(run, callback)
    loop.call_soon(int)
    loop.call_soon(done.set_result, None)
    await done
    return results


@pytest.fixture(params=["tcp", "unix"])
def kind(request):
    return request.param


async def stream(loop, kind, **options):
    """A transport, its protocol and the plain socket at the other end."""
    ours, peer = socket_pair(kind)
    peer.setblocking(False)
    protocol = Recorder(**options)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    return transport, protocol, peer


ENDS = {
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "write_eof": lambda transport: transport.write_eof(),
    "get_write_buffer_size": lambda transport: transport.get_write_buffer_size(),
    "get_extra_info": lambda transport: transport.get_extra_info("socket") and None,
    "shutdown of the socket": lambda transport: transport.get_extra_info("socket").shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_asks_for_more_than_writing_finds_the_bytes_sent(both, kind, end):
    async def scenario(loop):
        transport, _, peer = await stream(loop, kind)
        with peer:

            def write_and_end():
                transport.write(b"one ")
                transport.writelines([b"two ", bytearray(b"three")])
                returned = ENDS[end](transport)
                return returned, arrived(peer, 13)

            (outcome,) = await in_one_iteration(loop, write_and_end)
            transport.close()
        return outcome

    assert both(scenario)[1] == b"one two three"


def test_a_socket_that_was_asked_for_before_the_write_finds_the_bytes_sent(both, kind):
    async def scenario(loop):
        transport, _, peer = await stream(loop, kind)
        sock = transport.get_extra_info("socket")
        with peer:

            def write_and_look():
                transport.write(b"before")
                number = sock.fileno()
                return number == sock.fileno(), arrived(peer)

            outcome = await in_one_iteration(loop, write_and_look)
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return outcome, sock.fileno(), sock.family.name

    assert both(scenario)[0] == [(True, b"before")]


def test_a_write_behind_which_nothing_waits_is_sent_at_once(both, kind):
    async def scenario(loop):
        transport, _, peer = await stream(loop, kind)
        with peer:
            await asyncio.sleep(0)
            transport.write(b"alone")
            seen = arrived(peer)
            transport.close()
        return seen

    assert both(scenario) == b"alone"


def test_more_than_64_kib_of_one_stream_is_sent_at_once(both, kind):
    async def scenario(loop):
        transport, _, peer = await stream(loop, kind)
        with peer:

            def write():
                for _ in range(3):
                    transport.write(bytes(30_000))
                return len(arrived(peer, 60_000)) >= 60_000

            outcome = await in_one_iteration(loop, write)
            transport.abort()
        return outcome

    assert both(scenario) == [True]


def test_a_slow_callback_does_not_hold_back_what_was_written_before_it(both, kind):
    async def scenario(loop):
        transport, _, peer = await stream(loop, kind)
        with peer:

            def spin():
                until = time.monotonic() + 0.003
                while time.monotonic() < until:
                    pass

            results = await in_one_iteration(loop, lambda: transport.write(b"early"), spin, lambda: arrived(peer))
            transport.close()
        return results[-1]

    assert both(scenario) == b"early"


@pytest.mark.parametrize("blocking", [False, True], ids=["computes", "blocks"])
def test_a_stuck_callback_does_not_hold_back_what_was_written_before_it(both, kind, blocking):
    async def scenario(loop):
        transport, _, peer = await stream(loop, kind)
        got = []
        came = threading.Event()

        def read():
            peer.settimeout(SECONDS)
            got.append(peer.recv(100))
            came.set()

        def get_stuck():
            if blocking:
                return came.wait(SECONDS)
            until = time.monotonic() + SECONDS
            while not came.is_set() and time.monotonic() < until:
                pass
            return came.is_set()

        reader = threading.Thread(target=read)
        reader.start()
        with peer:
            results = await in_one_iteration(loop, lambda: transport.write(b"now"), get_stuck)
            reader.join()
            transport.close()
        return results[-1], got

    assert both(scenario) == (True, [b"now"])


def test_a_callback_that_writes_again_after_it_was_stuck_has_both_writes_sent(both, kind):
    """In between the netpoller has had time to find nothing to do, and to cease looking."""

    async def scenario(loop):
        transport, _, peer = await stream(loop, kind)
        peer.setblocking(True)
        peer.settimeout(SECONDS)

        def write_twice():
            seen = []
            for data in (b"one", b"two"):
                transport.write(data)
                seen.append(peer.recv(100))
                time.sleep(0.1)
            return seen

        with peer:
            for _ in range(30):  # a stream is offloaded once it is in steady state
                peer.sendall(b"x")
                await asyncio.sleep(0.001)
            results = await in_one_iteration(loop, write_twice)
            transport.close()
        return results

    assert both(scenario) == [[b"one", b"two"]]


def test_what_was_written_arrives_before_the_loop_leaves_by_an_exception(both, kind):
    def scenario(loop):
        transport, _, peer = loop.run_until_complete(stream(loop, kind))

        def leave():
            raise SystemExit(3)

        with peer:
            loop.call_soon(transport.write, b"last words")
            loop.call_soon(leave)
            loop.call_soon(int)
            with pytest.raises(SystemExit):
                loop.run_forever()
            seen = arrived(peer)
            transport.close()
            loop.run_until_complete(asyncio.sleep(0))
        return seen

    assert both(scenario) == b"last words"


def test_a_write_after_the_loop_has_left_by_an_exception_is_sent_at_once(both, kind):
    def scenario(loop):
        transport, _, peer = loop.run_until_complete(stream(loop, kind))

        def leave():
            raise SystemExit(3)

        with peer:
            loop.call_soon(leave)
            loop.call_soon(int)
            with pytest.raises(SystemExit):
                loop.run_forever()
            transport.write(b"afterwards")
            seen = arrived(peer)
            transport.close()
            loop.run_until_complete(asyncio.sleep(0))
        return seen

    assert both(scenario) == b"afterwards"


def test_what_was_written_arrives_before_the_loop_stops(both, kind):
    def scenario(loop):
        transport, _, peer = loop.run_until_complete(stream(loop, kind))
        with peer:
            loop.call_soon(transport.write, b"last words")
            loop.call_soon(loop.stop)
            loop.call_soon(int)
            loop.run_forever()
            seen = arrived(peer)
            transport.close()
            loop.run_until_complete(asyncio.sleep(0))
        return seen

    assert both(scenario) == b"last words"


def test_pieces_of_many_streams_keep_their_order(both, kind):
    async def scenario(loop):
        streams = [await stream(loop, kind) for _ in range(MANY)]

        def write_to(transport, i):
            for k in range(20):
                piece = f"{i}.{k} ".encode()
                if k % 3 == 0:
                    transport.writelines([piece, bytearray(piece)])
                else:
                    transport.write(memoryview(piece) if k % 3 == 1 else piece)

        await in_one_iteration(loop, *(lambda t=t, i=i: write_to(t, i) for i, (t, _, _) in enumerate(streams)))
        seen = []
        for transport, _, peer in streams:
            transport.close()
            seen.append(await to_the_end(loop, peer))
            peer.close()
        return seen

    for i, seen in enumerate(both(scenario)):
        assert seen == b"".join(f"{i}.{k} ".encode() * (2 if k % 3 == 0 else 1) for k in range(20))


def test_more_streams_than_a_batch_has_places_for(both):
    async def scenario(loop):
        streams = [await stream(loop, "unix") for _ in range(150)]
        await in_one_iteration(loop, *(lambda t=t, i=i: t.write(b"%d" % i) for i, (t, _, _) in enumerate(streams)))
        seen = [arrived(peer) for _, _, peer in streams]
        for transport, _, peer in streams:
            transport.close()
            peer.close()
        return seen

    assert both(scenario) == [b"%d" % i for i in range(150)]


def test_what_the_kernel_does_not_take_is_sent_later_and_pauses_the_protocol(both, kind):
    async def scenario(loop):
        transport, protocol, peer = await stream(loop, kind)
        transport.set_write_buffer_limits(high=1000)
        sent = bytearray()
        with peer:
            while "pause" not in protocol.names():
                piece = os.urandom(20_000)
                sent += piece
                await in_one_iteration(loop, lambda piece=piece: transport.write(piece), lambda: None)
            transport.write_eof()
            got = await to_the_end(loop, peer)
            transport.close()
            await protocol.until("lost")
        return got == sent, protocol.names()

    assert both(scenario) == (True, ["made", "pause", "resume", "lost"])


def test_a_write_to_a_peer_that_has_gone_ends_the_connection(both):
    async def scenario(loop):
        transport, protocol, peer = await stream(loop, "unix")
        peer.close()

        await in_one_iteration(loop, lambda: transport.write(b"to nobody"))
        await protocol.until("lost")
        return protocol.events

    assert both(scenario) == ["made", ("lost", "BrokenPipeError")]


def test_a_forked_child_writes_behind_what_was_written_before_the_fork(both):
    def scenario(loop):
        return run_loop_script(
            loop,
            """
            import os, socket
            ours, peer = socket.socketpair()
            async def main():
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                def write_and_fork():
                    transport.write(b"parent ")
                    number = ours.fileno()
                    pid = os.fork()
                    if pid == 0:
                        os.write(number, b"child ")
                        os._exit(0)
                    os.waitpid(pid, 0)
                    transport.write(b"parent")
                loop.call_soon(write_and_fork)
                loop.call_soon(int)
                loop.call_soon(int)
                await asyncio.sleep(0.01)
                transport.close()
            loop.run_until_complete(main())
            print(peer.recv(100))
            """,
        )

    status, output = both(scenario)
    assert (status, output.strip()) == (0, "b'parent child parent'")


@pytest.mark.parametrize("end", ["os._exit(0)", "os.execv('/bin/true', ['true'])", "os.execlp('true', 'true')"])
def test_the_end_of_the_process_comes_after_what_was_written(both, end):
    def scenario(loop):
        return run_loop_script(
            loop,
            f"""
            import os, socket
            ours, peer = socket.socketpair()
            pid = os.fork()
            if pid:
                ours.close()
                os.waitpid(pid, 0)
                print(peer.recv(100))
                raise SystemExit(0)
            loop = new_loop()
            async def main():
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                def write_and_end():
                    transport.write(b"last words")
                    {end}
                loop.call_soon(write_and_end)
                loop.call_soon(int)
                loop.call_soon(int)
                await asyncio.sleep(10)
            loop.run_until_complete(main())
            """,
        )

    status, output = both(scenario)
    assert (status, output.strip()) == (0, "b'last words'")


def test_a_file_that_is_sent_comes_behind_what_was_written(both, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"file")

    async def scenario(loop):
        transport, _, peer = await stream(loop, "tcp")
        with peer, path.open("rb") as file:
            begun = loop.create_future()

            def write_and_send():
                transport.write(b"head ")
                task = loop.create_task(loop.sendfile(transport, file))
                task.add_done_callback(lambda task: begun.set_result(task.result()))

            await in_one_iteration(loop, write_and_send)
            await begun
            transport.write(b" tail")
            transport.close()
            return await to_the_end(loop, peer)

    assert both(scenario) == b"head file tail"


def test_pause_writing_runs_in_the_context_of_the_connection():
    import contextvars

    import goloop

    variable = contextvars.ContextVar("variable", default="elsewhere")
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        variable.set("connection")
        protocol = Recorder(pause=lambda self: seen.append(variable.get()))
        async with connected(loop, protocol, "unix") as (transport, _):
            transport.set_write_buffer_limits(high=0)

            def write():
                variable.set("writer")
                transport.write(bytes(30_000))

            while not seen:
                await in_one_iteration(loop, lambda: contextvars.copy_context().run(write))

    goloop.run(main())
    assert seen == ["connection"]
