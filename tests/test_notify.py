"""context.notify(): a context that a signal cancels."""

import asyncio
import os
import signal
import threading

import pytest

import goloop
from goloop import context, go
from tests.helpers.actors import InThread
from tests.helpers.scripts import run_python
from tests.helpers.waiting import SECONDS, until

BACKGROUND = context.background()
SIGNAL = signal.SIGUSR1


@pytest.fixture(autouse=True)
def seen():
    """What a handler that was there before has seen; it is back after the test."""
    seen = []

    def handler(signum, frame):
        seen.append(signum)

    before = signal.signal(SIGNAL, handler)
    yield seen
    assert signal.getsignal(SIGNAL) is handler
    signal.signal(SIGNAL, before)


def send(signum=SIGNAL):
    os.kill(os.getpid(), signum)


def test_a_signal_cancels_the_context_and_is_its_cause(seen):
    with context.notify(BACKGROUND, SIGNAL, signal.SIGUSR2) as ctx:
        waiting = go(ctx.done().recv)
        assert ctx.err() is None
        send()
        with pytest.raises(goloop.ChannelClosed):
            waiting.result(SECONDS)
        assert isinstance(ctx.err(), context.Canceled)
        cause = context.cause(ctx)
        assert isinstance(cause, context.SignalReceived) and cause.signum == SIGNAL
        assert str(cause) == f"signal {int(SIGNAL)} was received"
        send()  # has nothing to do
    assert seen == []
    send()
    until(lambda: seen == [SIGNAL])


def test_a_signal_ends_waits_of_the_main_thread_and_of_its_loop(seen):
    with context.notify(BACKGROUND, SIGNAL) as ctx:
        threading.Timer(0.05, send).start()
        with pytest.raises(goloop.ChannelClosed):
            ctx.done().recv(SECONDS)

    async def main():
        with context.notify(BACKGROUND, SIGNAL) as ctx:
            threading.Timer(0.05, send).start()
            with pytest.raises(goloop.ChannelClosed):
                await ctx.done().async_recv(SECONDS)

    goloop.run(main())
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    until(lambda: threading.active_count() < 20)


def test_several_contexts_of_a_signal_are_all_cancelled(seen):
    with context.notify(BACKGROUND, SIGNAL) as one:
        with context.notify(BACKGROUND, SIGNAL) as other:
            pass
        assert isinstance(other.err(), context.Canceled) and one.err() is None
        with context.notify(BACKGROUND, SIGNAL) as third:
            send()
            until(third.err)
            assert one.err() is not None
    send()
    until(lambda: seen == [SIGNAL])


def test_the_parent_cancels_it():
    parent, cancel = context.with_cancel(BACKGROUND)
    ctx, stop = context.notify(parent, SIGNAL)
    cancel()
    assert ctx.err() is not None and isinstance(context.cause(ctx), context.Canceled)
    stop()


@pytest.mark.parametrize("kind", ["goroutine", "thread"])
def test_a_cancel_function_that_is_called_elsewhere_gives_the_next_signal_back(seen, kind):
    ctx, stop = context.notify(BACKGROUND, SIGNAL)
    (go(stop) if kind == "goroutine" else InThread(stop, ())).join()
    assert ctx.err() is not None
    send()
    until(lambda: seen == [SIGNAL])


def test_a_handler_that_was_set_meanwhile_stays(seen):
    handler = signal.getsignal(SIGNAL)
    with context.notify(BACKGROUND, SIGNAL):
        signal.signal(SIGNAL, signal.SIG_IGN)
    assert signal.getsignal(SIGNAL) == signal.SIG_IGN
    signal.signal(SIGNAL, handler)


def test_the_default_action_comes_back():
    done = run_python(
        "-c",
        """
import os, signal
from goloop import context, go
with context.notify(context.background(), signal.SIGTERM) as ctx:
    os.kill(os.getpid(), signal.SIGTERM)
    print(context.cause(ctx), flush=True)
ctx, stop = context.notify(context.background(), signal.SIGTERM)
go(stop).join()
os.kill(os.getpid(), signal.SIGTERM)
print("not reached")
""",
    )
    assert (done.stdout, done.returncode) == ("signal 15 was received\n", -signal.SIGTERM)


def test_keyboard_interrupt_is_back_behind_it():
    done = run_python(
        "-c",
        """
import os, signal
from goloop import context
with context.notify(context.background(), signal.SIGINT) as ctx:
    os.kill(os.getpid(), signal.SIGINT)
    assert ctx.err() is not None
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("raised")
""",
    )
    assert done.stdout == "raised\n", done.stderr


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: context.notify(BACKGROUND), TypeError),
        (lambda: context.notify(BACKGROUND, "SIGTERM"), TypeError),
        (lambda: context.notify(SIGNAL, SIGNAL), TypeError),
        (lambda: context.notify(BACKGROUND, SIGNAL, 1000), ValueError),
        (lambda: context.notify(BACKGROUND, SIGNAL, signal.SIGKILL), OSError),
    ],
)
def test_misuse_is_an_error_and_leaves_the_handlers_alone(make, error):
    with pytest.raises(error):
        make()


def test_it_is_called_in_the_main_thread():
    with pytest.raises(RuntimeError, match="in the main thread: call notify"):
        go(context.notify, BACKGROUND, SIGNAL).result(SECONDS)
