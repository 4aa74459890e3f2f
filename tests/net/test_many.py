"""Many connections on few threads, descriptors whose numbers are used again, and forks."""

import os
import random
import threading
import time
import warnings

import pytest

import goloop
from goloop import net
from goloop.errors import ClosedError
from tests.helpers.waiting import until


def test_500_connections_on_fewer_than_40_threads(serve):
    count, most = 500, 0
    here = goloop.Chan()

    def handle(conn):
        for line in conn:
            conn.write(line)

    listener = serve(net.listen("tcp", "127.0.0.1:0"), handle)

    def client(i):
        with net.dial("tcp", listener.addr) as conn:
            conn.write(b"%d\n" % i)
            assert conn.readline() == b"%d\n" % i
            here.recv()
            conn.write(b"again %d\n" % i)
            return conn.readline()

    clients = [goloop.go(client, i) for i in range(count)]
    for _ in range(count):
        here.send(None, timeout=60)
        most = max(most, threading.active_count())
    assert [g.result(timeout=60) for g in clients] == [b"again %d\n" % i for i in range(count)]
    assert most < 40


@pytest.mark.parametrize("seed", range(4))
def test_a_number_used_again_is_never_read_by_a_late_reader(seed):
    """Connections are closed under their readers while new ones get their numbers; each sees its own bytes only."""
    rng = random.Random(seed)
    failures = []

    with net.listen("tcp", "127.0.0.1:0") as listener:

        def serve():
            for conn in listener:
                goloop.go(echo, conn)

        def echo(conn):
            with conn:
                try:
                    name = conn.readline()
                    while conn.read(1):
                        conn.write(name)
                except OSError:
                    pass

        def read(conn, name):
            try:
                while True:
                    line = conn.readline()
                    if line and line != name:
                        failures.append((name, line))
                    if not line:
                        return
            except OSError:
                pass

        def one(i):
            name = b"connection %d\n" % i
            with net.dial("tcp", listener.addr, 60) as conn:
                conn.write(name)
                readers = [goloop.go(read, conn, name) for _ in range(rng.randint(1, 3))]
                for _ in range(rng.randint(1, 5)):
                    conn.write(b"x" * rng.randint(1, 20))
                    if rng.random() < 0.3:
                        goloop.sleep(rng.random() / 1000)
            for reader in readers:
                reader.join(timeout=60)

        def locked(numbers):
            with goloop.lock_os_thread():
                for i in numbers:
                    one(i)

        def in_thread(numbers):
            for i in numbers:
                one(i)

        accepting = goloop.go(serve)
        running = [goloop.go(locked, range(n, n + 60)) for n in (0, 1000)]
        running += [goloop.go(one, 2000 + i) for i in range(60)]
        thread = threading.Thread(target=in_thread, args=(range(3000, 3040),))
        thread.start()
        for g in running:
            g.join(timeout=60)
        thread.join(60)
        assert not thread.is_alive()
        listener.close()
        accepting.result(timeout=20)
    assert not failures


@pytest.mark.parametrize("seed", range(3))
def test_closes_deadlines_and_cancellations_at_random_times(seed):
    rng = random.Random(seed)
    total = 60

    def use(conn, mine):
        try:
            while True:
                what = mine.random()
                if what < 0.4:
                    conn.write(bytes(mine.randint(1, 300_000)))
                elif what < 0.8:
                    conn.read(mine.randint(1, 100_000))
                elif what < 0.9:
                    conn.set_deadline(mine.random() / 100)
                else:
                    conn.set_deadline(None)
        except TimeoutError:
            conn.set_deadline(None) if not conn.closed else None
        except OSError:
            pass

    with net.listen("tcp", "127.0.0.1:0") as listener:
        for round_ in range(total // 10):
            ends = []
            for _ in range(5):
                ends += [net.dial("tcp", listener.addr), listener.accept()]
            users = [goloop.go(use, rng.choice(ends), random.Random(seed * 1000 + round_ * 50 + i)) for i in range(30)]
            for _ in range(10):
                time.sleep(rng.random() / 500)
                rng.choice(users).cancel()
            for conn in ends:
                conn.close()
            until(lambda: all(g.done() for g in users))  # noqa: B023
            for conn in ends:
                with pytest.raises(ClosedError):
                    conn.read()


def test_children_of_a_fork_accept_on_a_listener_that_goroutines_use():
    with net.listen("tcp", "127.0.0.1:0") as listener:
        accepts = goloop.go(listener.accept)
        until(lambda: accepts.state == "IO wait")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later: there are other threads
            pid = os.fork()
        if pid == 0:
            try:

                def serve():
                    with listener.accept() as conn:
                        conn.write(b"child")

                goloop.go(serve).result(timeout=20)
                os._exit(0)
            except BaseException:
                os._exit(1)
        answers = []
        while b"child" not in answers:  # either of them takes a connection
            with net.dial("tcp", listener.addr) as conn:
                until(lambda g=accepts: g.done() or os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
                if accepts.done():
                    with accepts.result() as server:
                        server.write(b"parent")
                    accepts = goloop.go(listener.accept)
                answers.append(conn.read())
        assert os.waitpid(pid, 0)[1] == 0
        listener.close()
        with pytest.raises(ClosedError):
            accepts.result(timeout=20)
