"""What works on connections in memory, limits and timeouts goes by a bubble's clock, too."""

import pytest

import goloop
from goloop import net, rate, sync
from goloop.testing import DeadlockError, bubble, explore


def test_a_pipe_carries_bytes_and_its_deadlines_are_virtual():
    with bubble() as loop:
        ours, theirs = net.pipe()

        def serve():
            while data := theirs.read(100):
                goloop.sleep(1)
                theirs.write(data.upper())
            theirs.close()

        goloop.go(serve)
        ours.write(b"hello")
        assert ours.read(100) == b"HELLO"
        assert loop.time() == 2
        ours.set_deadline(3600)
        with pytest.raises(TimeoutError):
            ours.read(1)
        assert loop.time() == 3602
        ours.close()


def test_a_read_of_a_pipe_to_which_nobody_writes_is_a_deadlock():
    with pytest.raises(DeadlockError, match="IO wait"), bubble():
        ours, theirs = net.pipe()
        with ours, theirs:
            ours.read(1)


def test_a_timeout_ends_its_block_at_its_time():
    with bubble() as loop:
        with pytest.raises(TimeoutError):
            with goloop.timeout(3600):
                goloop.sleep(10_000)
        assert loop.time() == 3601


def test_a_limiter_gives_its_tokens_in_virtual_time():
    with bubble() as loop:
        limiter = rate.Limiter(2, 1)
        for _ in range(11):
            limiter.wait()
        assert loop.time() == pytest.approx(6)


def test_an_event_wakes_all_with_every_schedule():
    def main():
        event = sync.Event()
        waiters = [goloop.go(event.wait) for _ in range(3)]
        goloop.sleep(1)
        event.set()
        for g in waiters:
            g.join()

    explore(main, seeds=50)
