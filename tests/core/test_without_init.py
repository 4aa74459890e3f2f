"""What is made without its __init__(), by __new__() or a careless subclass, is whole, or refused; nothing crashes."""

import asyncio
import contextlib
import copy
import pathlib
import pickle
import subprocess
import sys

import pytest

import goloop
from goloop import net, sync, timer
from goloop.core.sched import goroutine_api
from goloop.core.sync import chan


def test_no_extension_type_crashes_or_hangs_without_its_init():
    script = pathlib.Path(__file__).with_name("make_without_init.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=110)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize(
    ("sealed", "how"),
    [
        (goloop.Goroutine, r"goroutines are made by go\(\)"),
        (type(sync.RWMutex().rlocker()), r"made by RWMutex.rlocker\(\)"),
        (timer.FuncTimer, r"made by after_func\(\)"),
        (chan.Case, r"made by goloop.recv\(chan\)"),
        (goroutine_api.Completion, r"made by wait\(\)"),
    ],
)
def test_a_type_that_only_goloop_makes_is_made_in_no_other_way(sealed, how):
    class Sub(sealed):
        def __init__(self, *args):
            pass

    for make in (sealed, lambda: sealed.__new__(sealed), lambda: sealed.__new__(Sub), Sub, lambda: Sub(1)):
        with pytest.raises(TypeError, match=how):
            make()


def test_a_timer_whose_init_did_not_run_is_one_that_is_not_set():
    class Careless(timer.Timer):
        def __init__(self, name):
            self.name = name

    forgotten = Careless("x")
    assert "not set" in repr(forgotten)
    assert forgotten.stop() is False
    assert forgotten.reset(0) is False
    assert forgotten.chan.recv(timeout=10) > 0


def test_a_ticker_whose_init_did_not_run_is_one_that_is_stopped():
    class Careless(timer.Ticker):
        def __init__(self):
            pass

    with Careless() as forgotten:
        assert "stopped" in repr(forgotten)
        forgotten.reset(0.001)
        assert forgotten.chan.recv(timeout=10) < forgotten.chan.recv(timeout=10)
    with pytest.raises(ValueError, match="positive"):
        forgotten.reset(0)


@pytest.mark.parametrize(
    "make",
    [
        goloop.Chan,
        sync.Mutex,
        lambda: net.listen("tcp", "127.0.0.1:0"),
        lambda: net.listen_packet("udp", "127.0.0.1:0"),
    ],
    ids=["Chan", "Mutex", "Listener", "PacketConn"],
)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_belongs_to_the_process_is_not_copied(make, duplicate):
    with contextlib.ExitStack() as stack:
        thing = make()
        if hasattr(thing, "close"):
            stack.callback(thing.close)
        with pytest.raises(TypeError):
            duplicate(thing)


def test_private_methods_of_what_has_ended_are_harmless():
    loop = goloop.new_event_loop()
    loop.close()
    assert loop._check_not_foreign() is None
    g = goloop.go(goloop.sleep, 100)
    assert g._task_done(None) is None  # it has no task
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.join()
    assert g._task_done(None) is None
