"""Servers: create_unix_server, accepting, connect_accepted_socket, running out of descriptors."""

import asyncio
import contextlib
import gc
import os
import pathlib
import resource
import socket
import sys
from asyncio import unix_events

import pytest

from tests.helpers.outcomes import async_outcome_of, reports
from tests.helpers.recorders import Echo, Recorder, decreed
from tests.helpers.scripts import run_loop_script
from tests.helpers.servers import ending, serving, talks
from tests.helpers.sockets import receive, socket_pair
from tests.helpers.waiting import async_until

PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


# Unix servers


@pytest.mark.parametrize("kind", [str, pathlib.Path, os.fsencode])
def test_unix_server_at_a_path(both, tmp_path, kind):
    path = tmp_path / "sock"

    async def scenario(loop):
        async with ending(await loop.create_unix_server(Echo, kind(path))) as server:
            facts = [server.sockets[0].getsockname() == str(path), await talks(loop, str(path), socket.AF_UNIX)]
        facts.append(path.exists())
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return facts

    assert both(scenario) == [True, True, not PY313]


def test_unix_server_in_the_abstract_namespace(both):
    name = f"\0goloop test {os.getpid()}"

    async def scenario(loop):
        async with ending(await loop.create_unix_server(Echo, name)) as server:
            return await talks(loop, name, socket.AF_UNIX), server.sockets[0].getsockname() == name.encode()

    assert both(scenario) == (True, True)


def test_unix_server_replaces_a_stale_socket_but_nothing_else(both, tmp_path):
    stale, file = tmp_path / "stale", tmp_path / "file"

    async def scenario(loop):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(stale))
        file.write_text("precious")
        async with ending(await loop.create_unix_server(Echo, stale)):
            answered = await talks(loop, str(stale), socket.AF_UNIX)
        kind, text = await async_outcome_of(loop.create_unix_server(Echo, file))
        stale.unlink(missing_ok=True)
        return answered, kind, text.replace(str(file), "FILE"), file.read_text()

    assert both(scenario) == (True, "OSError", "[Errno 98] Address 'FILE' is already in use", "precious")


def test_unix_server_does_not_unlink_its_successors_socket(both, tmp_path):
    path = tmp_path / "sock"

    async def scenario(loop):
        first = await loop.create_unix_server(Echo, path)
        second = await loop.create_unix_server(Echo, path)
        first.close()
        await first.wait_closed()
        async with ending(second):
            answered = await talks(loop, str(path), socket.AF_UNIX)
        left = path.exists()
        path.unlink(missing_ok=True)
        return answered, left

    assert both(scenario) == (True, not PY313)


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
def test_unix_server_leaves_its_socket_when_told_so(both, tmp_path):
    path = tmp_path / "sock"

    async def scenario(loop):
        server = await loop.create_unix_server(Echo, path, cleanup_socket=False)
        server.close()
        await server.wait_closed()
        return path.exists()

    assert both(scenario) is True


def test_unix_server_closes_while_blocking_calls_are_forbidden(both, tmp_path, monkeypatch):
    path = tmp_path / "sock"

    def forbid(name):  # as blockbuster does, which knows that asyncio itself may
        function = getattr(os, name)

        def watched(*args, **kwargs):
            assert sys._getframe(1).f_code.co_filename == unix_events.__file__, f"blocking call: os.{name}"
            return function(*args, **kwargs)

        return watched

    async def scenario(loop):
        server = await loop.create_unix_server(Echo, path)
        with monkeypatch.context() as patch:
            for name in ("stat", "unlink"):
                patch.setattr(os, name, forbid(name))
            server.close()
        await server.wait_closed()
        left = path.exists()
        path.unlink(missing_ok=True)
        return left

    assert both(scenario) is not PY313


def test_unix_server_whose_socket_is_gone_closes_quietly(both, tmp_path):
    path = tmp_path / "sock"

    async def scenario(loop):
        seen = reports(loop)
        server = await loop.create_unix_server(Echo, path)
        path.unlink()
        server.close()
        await server.wait_closed()
        return seen, path.exists()

    assert both(scenario) == ([], False)


# Accepting


def test_connect_accepted_socket(both):
    async def scenario(loop):
        ours, peer = socket_pair("tcp")
        with peer:
            recorder = Recorder()
            transport, protocol = await loop.connect_accepted_socket(lambda: recorder, ours)
            peer.send(b"x")
            await recorder.until("data")
            peername = transport.get_extra_info("peername") == peer.getsockname()
            transport.close()
            await recorder.until("lost")
            return protocol is recorder, peername, recorder.events

    assert both(scenario) == (True, True, ["made", ("data", b"x"), ("lost", None)])


def failing_first():
    """A factory whose first protocol is none."""
    calls = iter([True])

    def factory():
        if next(calls, False):
            raise ArithmeticError("no protocol")
        return Echo()

    return factory


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio leaves the accepted socket to the garbage collector
def test_failing_protocol_factory_is_reported_and_the_server_goes_on(both):
    async def scenario(loop):
        seen = reports(loop)
        async with serving(loop, failing_first()) as (_, address):
            with socket.create_connection(address):
                await async_until(lambda: seen)
            return [report[:3] for report in seen], await talks(loop, address)

    error = ("Error on transport creation for incoming connection", "ArithmeticError", "no protocol")
    assert both(scenario, debug=True) == ([error], True)


def test_failing_protocol_factory_closes_its_connection(both):
    @decreed(b"", because="asyncio leaves the accepted socket to the garbage collector")
    async def scenario(loop):
        reports(loop)
        async with serving(loop, failing_first()) as (_, address):
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                return await receive(sock)

    assert both(scenario) == b""


def test_five_hundred_connections_leave_no_descriptors(both):
    async def scenario(loop):
        async with serving(loop) as (_, address):
            await talks(loop, address)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                recorders = [Recorder() for _ in range(50)]
                pairs = await asyncio.gather(*(loop.create_connection(lambda r=r: r, *address) for r in recorders))
                for transport, recorder in pairs:
                    transport.write(b"hello")
                    await recorder.until(5)
                    transport.close()
                for recorder in recorders:
                    await recorder.until("lost")
            await async_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
            return {recorder.data for recorder in recorders}

    assert both(scenario) == {b"hello"}


def test_five_thousand_connections_leave_no_memory(both):
    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    async def rounds(loop, address, count):
        for _ in range(count // 50):
            recorders = [Recorder() for _ in range(50)]
            for recorder in recorders:
                transport, _ = await loop.create_connection(lambda recorder=recorder: recorder, *address)
                transport.write(b"hello")
            for recorder in recorders:
                await recorder.until(5)
                recorder.transport.close()
                await recorder.until("lost")

    async def scenario(loop):
        async with serving(loop) as (_, address):
            await rounds(loop, address, 1000)
            descriptors, before = len(os.listdir("/proc/self/fd")), resident()
            await rounds(loop, address, 5000)
            await async_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
            return resident() - before < 5000 * 500  # bytes: a transport that stayed would take more

    assert both(scenario) is True


def test_accepting_goes_on_after_running_out_of_descriptors(both):
    def scenario(loop):
        return run_loop_script(
            loop,
            """
            import resource

            asyncio.constants.ACCEPT_RETRY_DELAY = 0.05

            async def main():
                reported, accepted, lost = loop.create_future(), loop.create_future(), loop.create_future()

                def handler(loop, context):
                    if not reported.done():
                        kind = type(context["socket"]).__name__
                        reported.set_result((context["message"], context["exception"].errno, kind))

                def factory():
                    accepted.set_result("accepted")
                    return Protocol()

                class Protocol(asyncio.Protocol):
                    def connection_lost(self, exc):
                        lost.set_result(exc)

                loop.set_exception_handler(handler)
                server = await loop.create_server(factory, "127.0.0.1", 0)
                client = socket.socket()
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
                fillers = []
                while True:
                    try:
                        fillers.append(os.dup(0))
                    except OSError:
                        break
                client.connect(server.sockets[0].getsockname())
                print(*await reported)
                for fd in fillers:
                    os.close(fd)
                print(await accepted)
                client.close()
                server.close()
                await lost

            loop.run_until_complete(main())
            loop.close()
            """,
        )

    code, output = both(scenario)
    assert code == 0
    assert output == "socket.accept() out of system resource 24 TransportSocket\naccepted\n"
