"""dump() and dump_on_signal(): the text, the JSON, and a signal that asks for it."""

import asyncio
import io
import json
import os
import re
import signal
import threading

import pytest

import goloop
from goloop import debug
from tests.helpers.scripts import run_script
from tests.helpers.waiting import until


def text():
    file = io.StringIO()
    debug.dump(file)
    return file.getvalue()


def until_parked(*goroutines):
    for g in goroutines:
        until(lambda g=g: g.waiting_since is not None)


def test_like_goroutines_are_told_once():
    chan = goloop.Chan()

    def receive():
        chan.recv()

    waiting = [goloop.go(receive) for _ in range(200)]
    until_parked(*waiting)
    shown = text()
    first, second, third = (g.id for g in waiting[:3])
    assert re.search(rf"200 . goroutine {first}, {second}, {third} … .*receive \[chan receive: chan A, ", shown)
    assert shown.count("chan receive") == 1
    assert len(shown.splitlines()) < 40
    chan.close()
    for g in waiting:
        with pytest.raises(goloop.ChannelClosed):
            g.join()


def test_the_stuck_come_first():
    mutex = goloop.sync.Mutex()

    def lock_twice():
        mutex.lock()
        mutex.lock()

    def nap():
        goloop.sleep(1000)

    sleeper = goloop.go(nap)
    until_parked(sleeper)
    stuck = goloop.go(lock_twice)
    until_parked(stuck)
    shown = text()
    assert f"deadlock: goroutine {stuck.id} → lock A → goroutine {stuck.id}" in shown
    assert shown.index("lock_twice [") < shown.index("nap [")
    assert f"lock A (Mutex) locked, held by goroutine {stuck.id}, 1 waiting" in shown
    sleeper.cancel()
    stuck.cancel()


def test_json_is_the_snapshot_as_plain_data():
    file = io.StringIO()
    debug.dump(file, format="json")
    found = json.loads(file.getvalue())
    assert found["process"]["pid"] == os.getpid()
    assert found["problems"] == []


def test_another_format_is_an_error():
    with pytest.raises(ValueError, match='"text" or "json"'):
        debug.dump(io.StringIO(), format="xml")
    with pytest.raises(ValueError, match='"text" or "json"'):
        debug.dump_on_signal(format="xml")


def test_a_file_that_takes_no_such_characters_gets_others():
    data = io.BytesIO()
    mutex = goloop.sync.Mutex()
    mutex.lock()
    g = goloop.go(mutex.lock)
    until_parked(g)
    file = io.TextIOWrapper(data, encoding="ascii")
    debug.dump(file)
    assert b"mutex lock" in data.getvalue()
    mutex.unlock()
    g.join()


def test_it_goes_to_a_descriptor_and_by_default_to_the_standard_error(capsys):
    reader, writer = os.pipe()
    debug.dump(writer)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        assert file.read().startswith(f"process {os.getpid()} ")
    debug.dump()
    assert capsys.readouterr().err.startswith(f"process {os.getpid()} ")


def test_no_argument_is_shown():
    def wait(secret):
        goloop.sleep(1000)

    async def main():
        task = asyncio.create_task(sleep("hunter2"))
        await asyncio.sleep(0)
        shown = text()
        file = io.StringIO()
        debug.dump(file, format="json")
        assert "hunter2" not in shown and "hunter2" not in file.getvalue()
        task.cancel()

    async def sleep(secret):
        await asyncio.sleep(1000)

    g = goloop.go(wait, "hunter2")
    until_parked(g)
    goloop.run(main())
    g.cancel()


# ---------------------------------------------------------------------- signals
@pytest.mark.parametrize("stuck", ["lock.acquire()", "while not seen: pass"])
def test_a_signal_makes_a_dump_while_the_only_loop_is_stuck(stuck):
    status, out, err = run_script(
        f"""
        import asyncio, os, signal, threading
        import goloop

        seen = []
        lock = threading.Lock()
        lock.acquire()
        reader, writer = os.pipe()
        goloop.debug.dump_on_signal(signal.SIGUSR2, file=writer)

        def ask():
            os.kill(os.getpid(), signal.SIGUSR2)
            text = b""
            while b"tasks:" not in text:
                text += os.read(reader, 65536)
            seen.append(text)
            lock.release()

        async def handler():
            threading.Thread(target=ask).start()
            {stuck}
            return "done"

        print(goloop.run(handler()))
        print(seen[0].decode())
        """,
    )
    assert (status, out.split("\n")[0]) == (0, "done"), err
    assert re.search(r"task 1 handler \[running\]\n(?: .*\n)*? +<string>:\d+ in handler", out)


def test_the_environment_asks_for_it_and_the_process_goes_on():
    status, out, err = run_script(
        """
        import os, signal, threading
        import goloop

        def loop():
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGQUIT)
                goloop.sleep(0.01)

        goloop.go(loop).join()
        print("still here")
        """,
        GOLOOP_DUMP="1",
    )
    assert (status, out) == (0, "still here\n")
    assert "process " in err and "goroutines:" in err


def test_the_handler_that_was_there_is_called_as_well_and_comes_back():
    status, out, err = run_script("""
        import os, signal
        from goloop import debug

        signal.signal(signal.SIGUSR2, lambda *_: print("mine", flush=True))
        reader, writer = os.pipe()
        debug.dump_on_signal(signal.SIGUSR2, file=writer)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.read(reader, 10)
        print(debug.no_dump_on_signal(signal.SIGUSR2), debug.no_dump_on_signal(signal.SIGUSR2))
        os.kill(os.getpid(), signal.SIGUSR2)
    """)
    assert (status, sorted(out.split())) == (0, ["False", "True", "mine", "mine"]), err


def test_a_forked_child_makes_dumps_of_its_own():
    status, out, err = run_script("""
        import os, signal
        from goloop import debug

        reader, writer = os.pipe()
        debug.dump_on_signal(signal.SIGUSR2, file=writer)
        for _ in range(2):
            child = os.fork()
            while child == 0:  # until it is killed: what follows, in the child, would signal the whole process group
                signal.pause()
            os.kill(child, signal.SIGUSR2)
            line = os.read(reader, 65536).decode().split(",")[0]
            print(line == f"process {child} -c")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.kill(os.getpid(), signal.SIGUSR2)
        print(os.read(reader, 65536).decode().startswith(f"process {os.getpid()}"))
    """)
    assert (status, out.split()) == (0, ["True", "True", "True"]), err


def test_a_full_disk_and_a_reader_that_went_away_are_logged(caplog):
    reader, writer = os.pipe()
    os.close(reader)
    debug.dump_on_signal(signal.SIGUSR2, file=writer)
    try:
        for file in (writer, os.open("/dev/full", os.O_WRONLY)):
            caplog.clear()
            debug.dump_on_signal(signal.SIGUSR2, file=file)
            os.kill(os.getpid(), signal.SIGUSR2)
            until(lambda: "could not be written" in caplog.text)
            os.close(file)
    finally:
        assert debug.no_dump_on_signal(signal.SIGUSR2)
    until(lambda: "goloop-dump" not in [thread.name for thread in threading.enumerate()])


def test_signals_that_cannot_be_caught_are_refused():
    with pytest.raises(OSError, match="Invalid argument"):
        debug.dump_on_signal(signal.SIGKILL)
    with pytest.raises(ValueError, match="invalid signal number"):
        debug.dump_on_signal(10_000)
    until(lambda: "goloop-dump" not in [thread.name for thread in threading.enumerate()])
