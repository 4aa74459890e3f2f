"""net.pipe(): a connection inside of the process, in which each write waits for its readers."""

import asyncio
import errno
import os
import ssl
import threading

import pytest

import goloop
from goloop import context, go, net, timeout
from goloop.net import ClosedError
from tests.helpers.waiting import SECONDS, until

SOON = 0.01


@pytest.fixture
def ends():
    one, other = net.pipe()
    with one, other:
        yield one, other


def parked(g):
    until(lambda: g.state == "IO wait")
    return g


def test_a_write_waits_until_all_of_it_was_read(ends, start):
    one, other = ends
    writer = start(one.write, b"abcdef")
    assert other.read(4) == b"abcd"
    assert other.read() == b"ef"
    assert writer.result(SECONDS) == 6


def test_a_read_waits_for_a_write(ends, start):
    one, other = ends
    reader = start(other.read)
    assert start(one.write, b"x").result(SECONDS) == 1
    assert reader.result(SECONDS) == b"x"


def test_it_carries_both_ways_at_once(ends):
    one, other = ends

    def echo():
        while data := other.read():
            other.write(data.upper())

    echoing = go(echo)
    for n in range(200):
        word = f"word {n}\n".encode()
        writing = go(one.write, word)
        assert one.readline() == word.upper()
        writing.result(SECONDS)
    one.close()
    echoing.result(SECONDS)


def test_every_way_to_read(ends):
    one, other = ends
    writer = go(one.write, b"line\nexact" + bytes(200_000) + b"into")
    room = bytearray(10)
    assert other.readline() == b"line\n"
    assert other.read_exactly(5) == b"exact"
    assert other.read_exactly(200_000) == bytes(200_000)
    assert other.readinto(room) == 4
    assert room[:4] == b"into"
    assert other.read(0) == b""
    assert writer.result(SECONDS) == 200_014


def test_lines_are_iterated_to_the_end(ends):
    one, other = ends
    writer = go(lambda: (one.write(b"a\nb\nc"), one.close()))
    assert list(other) == [b"a\n", b"b\n", b"c"]
    writer.result(SECONDS)


def test_an_empty_write_does_not_wait(ends):
    assert ends[0].write(b"") == 0


def test_writes_of_several_goroutines_do_not_mix(ends):
    one, other = ends
    writers = [go(one.write, bytes([65 + n]) * 1000) for n in range(20)]
    seen = [other.read_exactly(1000) for _ in writers]
    assert sorted(seen) == [bytes([65 + n]) * 1000 for n in range(20)]
    for writer in writers:
        assert writer.result(SECONDS) == 1000


def test_thousands_of_pipes_move_through_goroutines_and_threads():
    def work(n):
        one, other = net.pipe()
        with one, other:
            writing = go(one.write, b"%d" % n)
            seen.append(int(other.read()))
            writing.result(SECONDS)

    seen = []
    goroutines = [go(work, n) for n in range(1000)]
    threads = [threading.Thread(target=work, args=(n,)) for n in range(1000, 1008)]
    for thread in threads:
        thread.start()
    for worker in (*goroutines, *threads):
        worker.join(SECONDS)
    assert sorted(seen) == list(range(1008))


# ------------------------------------------------------------------------ closing
def test_the_end_of_one_is_the_end_of_the_stream_for_the_other(ends):
    one, other = ends
    reader = parked(go(other.read))
    one.close()
    assert reader.result(SECONDS) == b"" and other.read() == b""
    with pytest.raises(BrokenPipeError) as caught:
        other.write(b"x")
    assert caught.value.bytes_written == 0


def test_a_close_ends_what_is_under_way_on_its_own_end(ends):
    one, other = ends
    reader, writer = parked(go(one.read)), parked(go(one.write, b"x"))
    one.close()
    for g in reader, writer:
        with pytest.raises(ClosedError):
            g.result(SECONDS)
    assert other.read() == b""  # the write that failed left nothing behind
    with pytest.raises(ClosedError):
        one.read()
    one.close()


def test_a_write_fails_when_its_reader_closes(ends):
    one, other = ends
    writer = parked(go(one.write, b"abc"))
    assert other.read(2) == b"ab"
    other.close()
    with pytest.raises(BrokenPipeError) as caught:
        writer.result(SECONDS)
    assert caught.value.bytes_written == 2


def test_close_write_leaves_the_other_direction_open(ends):
    one, other = ends
    one.close_write()
    one.close_write()
    assert other.read() == b""
    with pytest.raises(BrokenPipeError):
        one.write(b"x")
    writer = go(other.write, b"answer")
    assert one.read() == b"answer"
    writer.result(SECONDS)
    one.close()
    with pytest.raises(ClosedError):
        one.close_write()


# ---------------------------------------------------------------------- deadlines
def test_a_deadline_ends_a_read_and_a_write(ends, start):
    one, _ = ends
    one.set_deadline(SOON)
    for method, args in ((one.read, ()), (one.write, (b"x",))):
        with pytest.raises(TimeoutError, match="the deadline has passed"):
            start(method, *args).result(SECONDS)


def test_a_deadline_that_is_set_meanwhile_ends_a_read(ends, start):
    one, other = ends
    reader = start(one.read)
    one.set_read_deadline(0)
    with pytest.raises(TimeoutError):
        reader.result(SECONDS)


def test_a_write_that_its_deadline_ends_says_how_much_was_read(ends):
    one, other = ends
    writer = parked(go(one.write, b"abcdef"))
    assert other.read(2) == b"ab"
    one.set_write_deadline(0)
    with pytest.raises(TimeoutError) as caught:
        writer.result(SECONDS)
    assert caught.value.bytes_written == 2
    one.set_write_deadline(None)
    writer = go(one.write, b"XY")
    assert other.read() == b"XY"  # nothing of the first one
    writer.result(SECONDS)


def test_a_context_and_a_timeout_end_a_read(ends):
    one, _ = ends

    def body():
        with context.with_timeout(context.background(), SOON) as ctx:
            one.set_read_deadline(ctx)
            with pytest.raises(context.DeadlineExceeded):
                one.read()
        one.set_read_deadline(None)
        with pytest.raises(TimeoutError), timeout(SOON):
            one.read()

    go(body).result(SECONDS)


def test_a_cancelled_write_takes_its_data_back(ends):
    one, other = ends
    writer = parked(go(one.write, b"lost"))
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        writer.result(SECONDS)
    writer = go(one.write, b"x")
    assert other.read() == b"x"
    writer.result(SECONDS)


def test_a_cancelled_exact_read_leaves_what_it_had_for_the_next_one(ends):
    one, other = ends
    reader = go(other.read_exactly, 10)
    go(one.write, b"abc").result(SECONDS)
    parked(reader).cancel()
    with pytest.raises(asyncio.CancelledError):
        reader.result(SECONDS)
    assert other.read() == b"abc"


# --------------------------------------------------------------------------- rest
def test_it_is_a_conn_without_a_descriptor(ends):
    one, _ = ends
    assert isinstance(one, net.Conn)
    assert one.fileno() == -1 and one.local_addr == one.remote_addr == "pipe" and not one.closed
    assert repr(one) == "<PipeConn pipe>"
    for call in (lambda: one.setsockopt(1, 2, 3), lambda: one.getsockopt(1, 2)):
        with pytest.raises(OSError, match="a pipe is no socket") as caught:
            call()
        assert caught.value.errno == errno.ENOTSOCK
    one.close()
    assert one.closed and repr(one) == "<PipeConn closed>"


def test_tls_does_not_take_one(ends):
    with pytest.raises(TypeError, match=r"a pipe\(\) has none"):
        net.TLSConn(ends[0], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True)
    with pytest.raises(TypeError, match=r"made by goloop.net.pipe\(\)"):
        type(ends[0])()


def test_on_a_loops_thread_it_does_not_wait(ends):
    async def main():
        with pytest.raises(RuntimeError, match="asyncio's streams"):
            ends[0].read()

    goloop.run(main())


def test_an_end_that_is_not_closed_warns(ends):
    ends = list(net.pipe())
    with pytest.warns(ResourceWarning, match="unclosed <PipeConn"):
        del ends[0]
    with ends[0] as other:
        assert other.read() == b""


def test_a_child_of_a_fork_has_ends_of_its_own(ends):
    one, other = ends
    writer = parked(go(one.write, b"the parent's"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            other.set_read_deadline(0)
            with pytest.raises(TimeoutError):
                other.read()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert other.read() == b"the parent's"
    writer.result(SECONDS)
