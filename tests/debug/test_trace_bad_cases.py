"""Traces when something goes wrong: two at once, a full disk, a reader that leaves, forks, the process's end."""

import asyncio
import errno
import os
import resource
import signal
import threading

import pytest

import goloop
from goloop import debug
from tests.debug.trace_format import Document
from tests.helpers.scripts import run_script


@pytest.fixture(autouse=True)
def no_trace_is_left():
    yield
    assert not debug.is_tracing()


async def work():
    for _ in range(100):
        await asyncio.sleep(0)


def test_a_second_trace_is_refused_and_the_first_goes_on(tmp_path):
    with debug.tracing(tmp_path / "first.json"):
        with pytest.raises(RuntimeError, match="a trace is made already, and there is one at a time"):
            debug.start_trace()
        with pytest.raises(RuntimeError, match="one at a time"), debug.tracing(tmp_path / "second.json"):
            pass
        assert debug.is_tracing()
        goloop.run(work())
    assert Document(tmp_path / "first.json").tasks()
    assert not (tmp_path / "second.json").exists()
    with pytest.raises(RuntimeError, match="no trace is made"):
        debug.stop_trace()


def test_the_block_of_a_trace_that_another_one_has_ended_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="no trace is made"), debug.tracing(tmp_path / "t.json"):
        debug.stop_trace()
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("events", [0, 1023, 2**28 + 1, -5])
def test_a_number_of_events_that_makes_no_sense_is_refused(events):
    with pytest.raises(ValueError, match="the number of events is between 1024 and 268435456, got"):
        debug.start_trace(events=events)


def test_a_number_of_events_is_an_int_and_the_folder_must_exist(tmp_path):
    with pytest.raises(TypeError, match=r"the number of events is an int, got 2000\.5"):
        debug.start_trace(events=2000.5)
    with pytest.raises(FileNotFoundError, match="there is no folder"), debug.tracing(tmp_path / "no" / "t.json"):
        raise AssertionError("the block must not begin")


def test_what_the_block_raises_comes_out_and_the_file_is_written(tmp_path):
    async def fails():
        await work()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), debug.tracing(tmp_path / "t.json"):
        goloop.run(fails())
    assert Document(tmp_path / "t.json").tasks()


def test_a_full_disk_is_an_error_that_has_the_trace(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, debug.tracing("/dev/full"):
        goloop.run(work())
    assert caught.value.errno == errno.ENOSPC
    caught.value.trace.write(tmp_path / "t.json")
    assert Document(tmp_path / "t.json").tasks()


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("precious")
    debug.start_trace()
    goloop.run(work())
    made = debug.stop_trace()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            made.write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["t.json"]
    made.write(path)
    assert Document(path).tasks()


def test_a_reader_that_goes_away_is_an_error_and_ends_nothing_else(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    debug.start_trace()
    goloop.run(work())
    with os.fdopen(writer, "wb", buffering=0) as file, pytest.raises(BrokenPipeError) as caught:
        debug.stop_trace(file)
    assert not debug.is_tracing()
    caught.value.trace.write(tmp_path / "t.json")
    assert Document(tmp_path / "t.json").tasks()


def test_a_trace_goes_to_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    got = []
    thread = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()))
    thread.start()
    with debug.tracing(tmp_path / "fifo"):
        goloop.run(work())
    thread.join()
    assert Document(got[0]).tasks()


def test_a_name_that_ends_in_gz_is_compressed_and_permissions_are_as_of_any_new_file(tmp_path):
    with debug.tracing(tmp_path / "t.json.gz"):
        goloop.run(work())
    assert (tmp_path / "t.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert Document(tmp_path / "t.json.gz").tasks()
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "t.json.gz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_fork_goes_through_while_the_netpoller_has_its_first_event_to_write():
    status, output, errors = run_script(
        """
        import asyncio, os, threading, time, warnings, goloop
        from goloop import debug
        from goloop.core.poll import pollset

        warnings.simplefilter("ignore")  # of a fork with threads
        for _ in range(3):  # loops that sleep for long: the netpoller waits for them
            threading.Thread(target=goloop.run, args=(asyncio.sleep(100),), daemon=True).start()
        while not pollset.stats()["running"]:
            time.sleep(0.01)
        for _ in range(5):
            debug.start_trace()
            pid = os.fork()
            if not pid:
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            debug.stop_trace()
        os._exit(0)
        """
    )
    assert (status, output.split()) == (0, ["7"] * 5), errors


def test_a_forked_child_makes_no_trace_and_leaves_the_file_to_its_parent(tmp_path):
    path = tmp_path / "t.json"
    with debug.tracing(path) as tracing:
        goloop.run(work())
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert not debug.is_tracing()
                tracing.__exit__(None, None, None)
                assert not path.exists()
                with debug.tracing(tmp_path / "child.json"):
                    goloop.run(work())
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert debug.is_tracing()
        goloop.run(work())
    assert sum(name.startswith("work #") for name in Document(path).tasks()) == 2
    document = Document(tmp_path / "child.json")
    assert sum(name.startswith("work #") for name in document.tasks()) == 1
    assert f"threads of process {child}" in [e["args"]["name"] for e in document.of("M")]


def test_the_end_of_the_process_inside_of_a_trace_writes_it(tmp_path):
    status, output, errors = run_script(
        f"""
        import asyncio, sys, threading, goloop
        from goloop import debug

        begun = threading.Event()

        def trace_for_ever():
            with debug.tracing({str(tmp_path / "t.json")!r}):
                begun.set()
                threading.Event().wait()

        async def work():
            await asyncio.sleep(0)

        threading.Thread(target=trace_for_ever, daemon=True).start()
        begun.wait()
        goloop.run(work())
        sys.exit(3)
        """
    )
    assert status == 3, errors
    assert Document(tmp_path / "t.json").tasks()


def test_sys_exit_inside_of_the_block_writes_the_file(tmp_path):
    status, output, errors = run_script(
        f"""
        import asyncio, sys, goloop
        from goloop import debug

        async def work():
            with debug.tracing({str(tmp_path / "t.json")!r}):
                await asyncio.sleep(0)
                sys.exit(4)

        goloop.run(work())
        """
    )
    assert status == 4, errors
    assert Document(tmp_path / "t.json").tasks()


def test_a_trace_that_nobody_ends_does_not_keep_the_process_from_ending():
    status, output, errors = run_script(
        """
        import goloop
        from goloop import debug
        debug.start_trace()
        g = goloop.go(goloop.sleep, 60)
        """
    )
    assert (status, errors) == (0, "")
