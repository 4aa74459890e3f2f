"""choose(): select with bodies; RecvChan and SendChan: channels of one direction."""

import asyncio
import subprocess
import sys

import pytest

import goloop
from goloop import Chan, ChannelClosed, RecvChan, SendChan, async_choose, choose, go, recv, send
from tests.helpers.waiting import SECONDS


def test_the_body_of_the_operation_that_was_done_is_called():
    full, empty = Chan(1), Chan(1)
    full.send("value")
    result = choose(
        (recv(empty), lambda value, ok: "received from the empty one"),
        (recv(full), lambda value, ok: ("received", value, ok)),
        (None, lambda value, ok: "never ready"),
    )
    assert result == ("received", "value", True)
    assert choose((send(empty, 5), lambda: "sent"), (recv(full), lambda value, ok: "received")) == "sent"
    assert empty.recv() == 5


def test_a_closed_channel_tells_so():
    chan = Chan()
    chan.close()
    assert choose((recv(chan), lambda value, ok: (value, ok))) == (None, False)
    with pytest.raises(ChannelClosed):
        choose((send(chan, 1), lambda: None))


def test_otherwise_is_for_when_nothing_is_ready():
    assert choose((recv(Chan()), lambda value, ok: value), otherwise=lambda: "otherwise") == "otherwise"
    with pytest.raises(TimeoutError):
        choose((recv(Chan()), lambda value, ok: value), timeout=0.01)


def test_it_waits_and_a_body_may_wait_too():
    chan, other = Chan(), Chan()
    g = go(choose, (recv(chan), lambda value, ok: value + other.recv()))
    chan.send(1)
    other.send(2)
    assert g.result(SECONDS) == 3
    with pytest.raises(KeyError):
        choose((recv(chan), lambda value, ok: {}[value]), (send(Chan(1), 1), lambda: {}["sent"]))


def test_coroutines_use_async_choose():
    async def body(value, ok):
        await asyncio.sleep(0)
        return value, ok

    async def main():
        chan = Chan(1)
        assert await async_choose((recv(chan), body), otherwise=lambda: "none") == "none"
        assert await async_choose((send(chan, 4), lambda: "sent"), (recv(chan), body)) == "sent"
        assert await async_choose((recv(chan), body)) == (4, True)
        with pytest.raises(TimeoutError):
            await async_choose((recv(chan), body), timeout=0.01)
        with pytest.raises(RuntimeError, match="async"):
            choose((recv(chan), print))

    goloop.run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda: choose(recv(Chan())),
        lambda: choose((recv(Chan()), 1)),
        lambda: choose((recv(Chan()), print, print)),
        lambda: choose((1, print)),
        lambda: choose((recv(Chan(1)), print), otherwise=1),
        lambda: choose((recv(Chan(1)), print), timeout="1"),
    ],
)
def test_misuse_is_an_error_at_the_call(make):
    with pytest.raises(TypeError):
        make()


# --------------------------------------------------------------------------- views
def test_at_run_time_a_view_is_the_channel():
    def produce(out: SendChan[int]) -> None:
        for n in range(3):
            out.send(n)
        out.close()

    def consume(source: RecvChan[int]) -> list[int]:
        return list(source)

    chan: Chan[int] = Chan()
    go(produce, chan)
    assert go(consume, chan).result(SECONDS) == [0, 1, 2]


TYPED = """
from goloop import Chan, RecvChan, SendChan, recv, select, send

class Animal: ...
class Cat(Animal): ...

def good(source: RecvChan[Animal], out: SendChan[Cat], both: Chan[Cat]) -> None:
    animal: Animal = source.recv()
    for animal in source: ...
    out.send(Cat())
    out.close()
    select(recv(source), send(out, Cat()))
    good(both, Chan[Animal](), both)

def bad(source: RecvChan[int], out: SendChan[int]) -> None:
    source.send(1)
    source.close()
    out.recv()
    out.send("text")
    select(recv(out))
    bad(Chan[str](), out)
"""


def test_to_a_type_checker_a_view_has_one_direction(tmp_path):
    pytest.importorskip("mypy")
    path = tmp_path / "typed.py"
    path.write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(path)],
        capture_output=True,
        text=True,
        timeout=110,
    )
    lines = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    first = TYPED[: TYPED.index("    source.send(1)")].count("\n") + 1
    assert lines == [first + i for i in range(6)], done.stdout + done.stderr
