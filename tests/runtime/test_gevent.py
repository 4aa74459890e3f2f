"""Beside gevent: goloop is imported after gevent.monkey.patch_all()."""

from tests.helpers.scripts import run_script


def test_a_loop_runs_after_gevent_has_patched_everything():
    status, out, err = run_script(
        """
        import gevent.monkey; gevent.monkey.patch_all()
        import asyncio, goloop
        async def main():
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            server.close()
            await asyncio.sleep(0.001)
            return 5
        print(goloop.run(main()))
        """
    )
    assert (status, out) == (0, "5\n"), err


def test_goroutines_say_that_they_need_threads():
    status, out, err = run_script(
        """
        import gevent.monkey; gevent.monkey.patch_all()
        import goloop
        from goloop import timer
        for call in (lambda: goloop.go(int), lambda: timer.after(1), lambda: goloop.Loop(handoff=True)):
            try:
                call()
            except RuntimeError as exc:
                print("gevent.monkey has replaced them by greenlets" in str(exc))
        """
    )
    assert (status, out) == (0, "True\n" * 3), err


def test_goroutines_run_where_gevent_has_left_threads_alone():
    status, out, err = run_script(
        """
        import gevent.monkey; gevent.monkey.patch_all(thread=False)
        import goloop
        print(goloop.go(int, "3").result(timeout=30))
        """
    )
    assert (status, out) == (0, "3\n"), err
