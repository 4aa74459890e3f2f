"""What a goroutine starts from: the whole recursion limit, the whole stack, and nothing of what ran before it."""

import contextvars
import sys
import threading
import traceback

import pytest

import goloop
from goloop import Chan, go, net
from tests.helpers.scripts import run_script

MANY = 150  # more than start in one turn, and more than there are spare runners


def reach():
    """Return how many calls deep Python code gets from here."""

    def deeper(n):
        try:
            return deeper(n + 1)
        except RecursionError:
            return n

    return deeper(0)


def reach_through_c():
    """The same with a C function between any two calls."""

    def deeper(n):
        try:
            return max(map(deeper, (n + 1,)))
        except RecursionError:
            return n

    return deeper(0)


def at_depth(n, function):
    return at_depth(n - 1, function) if n else function()


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def parked(function):
    """MANY goroutines that have parked as function(gate) does, and the gate that lets them go on when it is closed."""
    gate = Chan()
    gs = [go(function, gate) for _ in range(MANY)]
    while any(g.state != "chan receive" for g in gs):
        goloop.gosched()
    return gs, gate


# ------------------------------------------------------------- recursion and stack
@pytest.mark.parametrize("measure", [reach, reach_through_c])
def test_each_goroutine_has_the_whole_recursion_limit_however_deep_others_are_parked(one_worker, measure):
    def body(gate):
        first = measure()
        at_depth(100, lambda: list(gate))
        return first, measure()

    gs, gate = parked(body)
    gate.close()
    got = {g.result(timeout=60) for g in gs}
    assert len(got) == 1 and len(set(*got)) == 1
    assert got.pop()[0] > in_thread(measure) - 20  # the loop that runs them has some calls of its own


def test_each_of_those_that_have_ended_leaves_it_to_the_next_one(one_worker):
    gs, gate = parked(lambda gate: at_depth(300, lambda: list(gate)))
    gate.close()
    for g in gs:
        g.join(timeout=60)
    gs, gate = parked(lambda gate: list(gate) or reach())
    gate.close()
    assert len({g.result(timeout=60) for g in gs}) == 1


def test_goroutines_that_start_each_other_have_the_whole_recursion_limit(one_worker):
    def body(n):
        reached = [reach()]
        return reached + at_depth(100, lambda: go(body, n - 1).result()) if n else reached

    assert len(set(go(body, 30).result(timeout=60))) == 1


def test_a_goroutine_that_is_out_of_recursion_starts_others(one_worker):
    """It parks where there are few calls left, and what it started has all of them."""

    def body():
        def down(n):
            if n:
                return down(n - 1)
            return [g.result() for g in [go(reach) for _ in range(MANY)]]

        before = reach()
        return before, down(before - 30)

    before, reached = go(body).result(timeout=60)
    assert set(reached) == {before + 1}  # without the frame of body()


DEEP = """
import sys, threading
import goloop

threading.stack_size(128 * 1024)

def deep(n, wait):
    if n == 0:
        wait()
        return 0
    return 1 + max(map(deep, (n - 1,), (wait,)))

def threads(gate):
    results = []
    ts = [threading.Thread(target=lambda: results.append(deep(50, gate.wait))) for _ in range(120)]
    for t in ts: t.start()
    gate.set()
    for t in ts: t.join()
    return results

def goroutines(gate):
    gs = [goloop.go(deep, 50, lambda: list(gate)) for _ in range(120)]
    while any(g.state != "chan receive" for g in gs):
        goloop.gosched()
    gate.close()
    return [g.result() for g in gs]

print(set(threads(threading.Event()) if sys.argv[1] == "threads" else goroutines(goloop.Chan())))
"""


@pytest.mark.parametrize("kind", ["threads", "goroutines"])
def test_many_goroutines_deep_in_c_are_no_more_for_a_small_stack_than_as_many_threads(kind):
    """With a stack of 128 KiB, of which each uses a third."""
    assert run_script(f"import sys; sys.argv[1:] = [{kind!r}]\n" + DEEP) == (0, "{50}\n", "")


def test_a_server_whose_handlers_are_deep_answers_all_clients(one_worker):
    def handle(conn):
        def answer():
            with conn:
                conn.write(conn.read(100))

        at_depth(40, answer)

    def serve(listener):
        for conn in listener:
            go(handle, conn)

    def ask(address, gate):
        with net.dial("tcp", address) as conn:
            list(gate)
            conn.write(b"question")
            return conn.read(100)

    with net.listen("tcp", "127.0.0.1:0") as listener:
        server = go(serve, listener)
        gate = Chan()
        clients = [go(ask, listener.addr, gate) for _ in range(60)]
        while any(g.state != "chan receive" for g in clients):
            goloop.gosched()
        gate.close()
        assert [g.result(timeout=60) for g in clients] == [b"question"] * 60
    server.join(timeout=10)


# ------------------------------------------------------- state of the interpreter
def names(frame):
    return [f.f_code.co_name for f, _ in traceback.walk_stack(frame)]


VAR = contextvars.ContextVar("var", default="unset")


def surroundings():
    """What a goroutine sees of whatever parked for it to run."""
    try:
        raise KeyError("own")
    except KeyError as exc:
        context = exc.__context__
    return sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], context, names(sys._getframe())


class Finalized:
    def __init__(self, function):
        self.function = function

    def __del__(self):
        self.function()


def while_handling(start):
    try:
        raise ValueError
    except ValueError:
        return start()


def while_unwinding(start):
    got = []

    def unwind():
        try:
            raise ValueError("unwinds")
        finally:
            got.append(start())

    with pytest.raises(ValueError, match="unwinds"):
        unwind()
    return got[0]


def in_a_finalizer(start):
    got = []
    Finalized(lambda: got.append(start()))
    return got[0]


def in_a_generator(start):
    def generate():
        try:
            raise ValueError
        except ValueError:
            yield start()

    return next(generate())


@pytest.mark.parametrize("where", [while_handling, while_unwinding, in_a_finalizer, in_a_generator])
def test_a_goroutine_sees_no_exception_and_no_frame_of_the_one_that_parked(one_worker, where):
    """Started in a new runner and in a used one; and the one that parked finds its own again."""

    def start():
        before = sys.exc_info()
        frames = names(sys._getframe())
        others = [go(surroundings) for _ in range(3)]
        got = [g.result() for g in others]
        assert sys.exc_info() == before and names(sys._getframe()) == frames
        return got

    for _ in range(2):
        assert go(where, start).result(timeout=10) == [(None, None, ["surroundings"])] * 3


def test_exceptions_of_goroutines_that_take_turns_do_not_mix(one_worker):
    def body(n):
        seen = []
        try:
            raise ValueError(n)
        except ValueError as mine:
            for _ in range(20):
                goloop.gosched()
                seen.append(sys.exc_info()[1] is mine)
                try:
                    raise KeyError(n)
                except KeyError as inner:
                    goloop.gosched()
                    seen.append(inner.__context__ is mine and sys.exc_info()[1] is inner)
        return all(seen) and sys.exc_info() == (None, None, None)

    assert [g.result(timeout=20) for g in [go(body, n) for n in range(70)]] == [True] * 70


def test_a_goroutine_does_not_see_what_the_one_before_set_in_its_context(one_worker):
    def body():
        VAR.set("set")
        return go(VAR.get).result(), started.result()

    started = go(VAR.get)
    assert go(body).result(timeout=10) == ("set", "unset")
    assert go(VAR.get).result(timeout=10) == "unset"


def test_a_changed_recursion_limit_is_that_of_every_goroutine(one_worker):
    """Of those that are parked, too: what they have used counts, and not what was left to them."""
    before = sys.getrecursionlimit()

    def body(gate):
        list(gate)
        return reach()

    gs, gate = parked(body)
    full = go(lambda: reach()).result(timeout=10)
    sys.setrecursionlimit(before + 500)
    try:
        gate.close()
        assert {g.result(timeout=10) for g in gs} == {full + 500}
        assert go(lambda: reach()).result(timeout=10) == full + 500
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("setting", ["settrace", "setprofile"])
def test_a_trace_function_is_the_threads_and_goes_on_over_switches(one_worker, setting):
    """As sys.settrace() says. A debugger or a coverage tool that was set up for a thread sees all that runs on it."""
    seen = []

    def tracer(frame, what, argument):
        if what == "call" and frame.f_code is surroundings.__code__:
            seen.append(what)
        return None

    def body():
        getattr(sys, setting)(tracer)
        try:
            for g in [go(surroundings) for _ in range(3)]:
                g.join()
        finally:
            getattr(sys, setting)(None)

    go(body).join(timeout=10)
    assert seen == ["call"] * 3
    go(surroundings).join(timeout=10)
    assert len(seen) == 3
