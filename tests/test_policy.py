"""goloop's own ways in: run, new_event_loop, install, EventLoopPolicy."""

import asyncio
import gc
import os
import selectors
import sys
import threading
import warnings

import pytest

import goloop
from tests.helpers.outcomes import outcome_of
from tests.helpers.scripts import PATH, run_python

has_policies = pytest.mark.skipif(sys.version_info >= (3, 16), reason="Python 3.16 has no event loop policies")
pytestmark = pytest.mark.filterwarnings("ignore:.*olicy.*:DeprecationWarning")


async def which():
    return asyncio.get_running_loop()


def in_thread(function, *args):
    results = []
    thread = threading.Thread(target=lambda: results.append(outcome_of(function, *args)))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture
def restored_policy():
    """Put the policy, and the loop of the main thread, back as they were."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.set_event_loop_policy(None)


# run and new_event_loop


def test_run_returns_the_result_and_closes_the_loop():
    loop = goloop.run(which())
    assert isinstance(loop, goloop.Loop)
    assert loop.is_closed()


def test_run_raises_what_the_coroutine_raises():
    async def fail():
        raise ValueError("text")

    with pytest.raises(ValueError, match="text"):
        goloop.run(fail())


@pytest.mark.parametrize("debug", [None, True, False])
def test_run_sets_debug_mode(debug):
    async def look():
        return asyncio.get_running_loop().get_debug()

    default = sys.flags.dev_mode or bool(os.environ.get("PYTHONASYNCIODEBUG"))
    assert goloop.run(look(), debug=debug) is (default if debug is None else debug)


def test_run_takes_a_loop_factory():
    made = []

    def factory():
        made.append(goloop.Loop(watch=True))
        return made[-1]

    assert goloop.run(which(), loop_factory=factory) is made[0]
    assert len(made) == 1 and made[0].is_closed()
    assert type(goloop.run(which(), loop_factory=asyncio.SelectorEventLoop)) is asyncio.SelectorEventLoop


@pytest.mark.parametrize("switch", ["handoff", "watch"])
def test_run_with_a_loop_factory_refuses_what_only_the_factory_could_pass_on(switch):
    coroutine = which()
    with pytest.raises(TypeError, match="loop_factory has to pass them on itself"):
        goloop.run(coroutine, loop_factory=goloop.Loop, **{switch: True})
    coroutine.close()


def test_run_wants_a_coroutine():
    with pytest.raises((ValueError, TypeError)):
        goloop.run(which)


def test_run_is_refused_inside_a_running_loop():
    async def main():
        coroutine = which()
        outcome = outcome_of(goloop.run, coroutine)
        coroutine.close()
        return outcome

    kind, text = goloop.run(main())
    assert kind == "RuntimeError"
    assert text.endswith("cannot be called from a running event loop")


def test_run_leaves_no_loop_behind_for_the_thread():
    def work():
        goloop.run(which())
        return outcome_of(asyncio.get_running_loop)[0]

    assert in_thread(work) == "RuntimeError"


def test_new_event_loop_makes_a_new_one_each_time():
    one, other = goloop.new_event_loop(), goloop.new_event_loop()
    one.close()
    assert isinstance(one, goloop.Loop)
    assert isinstance(one, asyncio.AbstractEventLoop)
    assert one is not other
    assert not other.is_closed()
    other.close()


def test_a_runner_takes_the_class_and_the_function():
    for factory in (goloop.Loop, goloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert isinstance(runner.run(which()), goloop.Loop)


def test_the_public_names_are_listed():
    assert {"Loop", "new_event_loop", "run", "install"} <= set(goloop.__all__)
    assert all(hasattr(goloop, name) for name in goloop.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        goloop.no_such_name  # noqa: B018


# Policies: what asyncio's own policy does, ours does with our loops


@pytest.fixture(params=["asyncio", "goloop"])
def policy(request):
    if request.param == "goloop":
        yield goloop.EventLoopPolicy()
    else:
        yield asyncio.DefaultEventLoopPolicy()


@has_policies
def test_the_policy_is_asyncios_kind():
    policy = goloop.EventLoopPolicy()
    loop = policy.new_event_loop()
    loop.close()
    assert isinstance(loop, goloop.Loop)
    assert isinstance(policy, asyncio.AbstractEventLoopPolicy)


@has_policies
def test_a_loop_that_was_set_is_got_back(policy):
    loop = policy.new_event_loop()
    policy.set_event_loop(loop)
    loop.close()
    assert policy.get_event_loop() is loop


@has_policies
def test_each_thread_has_its_own_loop(policy):
    loop = policy.new_event_loop()
    policy.set_event_loop(loop)
    loop.close()

    def work():
        before = outcome_of(policy.get_event_loop)[0]
        own = policy.new_event_loop()
        policy.set_event_loop(own)
        own.close()
        return before, policy.get_event_loop() is own

    assert in_thread(work) == ("RuntimeError", True)
    assert policy.get_event_loop() is loop


@has_policies
def test_after_none_there_is_no_loop(policy):
    policy.set_event_loop(None)
    with pytest.raises(RuntimeError, match="There is no current event loop in thread 'MainThread'"):
        policy.get_event_loop()


@has_policies
def test_only_loops_can_be_set(policy):
    with pytest.raises((TypeError, AssertionError)):
        policy.set_event_loop("loop")


@has_policies
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 makes no loop on demand")
def test_the_main_thread_gets_a_loop_on_demand(policy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = policy.get_event_loop()
    again = policy.get_event_loop()
    loop.close()
    assert again is loop
    assert isinstance(loop, goloop.Loop) == isinstance(policy, goloop.EventLoopPolicy)


@has_policies
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 makes no loop on demand")
def test_another_thread_gets_no_loop_on_demand(policy):
    kind, text = in_thread(policy.get_event_loop)
    assert kind == "RuntimeError"
    assert text.startswith("There is no current event loop in thread ")


@has_policies
def test_asyncio_run_uses_the_policy(restored_policy):
    asyncio.set_event_loop_policy(goloop.EventLoopPolicy())
    assert isinstance(asyncio.run(which()), goloop.Loop)
    assert isinstance(in_thread(lambda: asyncio.run(which())), goloop.Loop)


@has_policies
def test_set_event_loop_goes_to_the_policy(restored_policy):
    asyncio.set_event_loop_policy(goloop.EventLoopPolicy())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()
    assert isinstance(loop, goloop.Loop)
    assert asyncio.get_event_loop() is loop


# install


def test_install_makes_goloop_the_loop_of_asyncio_run():
    source = """
import asyncio, goloop

async def which():
    return type(asyncio.get_running_loop()) is goloop.Loop

goloop.install()
goloop.install()
loop = asyncio.new_event_loop()
print(asyncio.run(which()), type(loop) is goloop.Loop)
loop.close()
with asyncio.Runner() as runner:
    print(runner.run(which()))
"""
    done = run_python("-W", "error::ResourceWarning", "-c", source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\nTrue\n", "")


def test_importing_changes_nothing():
    source = """
import asyncio, goloop, threading

async def which():
    return type(asyncio.get_running_loop()) is goloop.Loop

print(asyncio.run(which()), threading.active_count())
"""
    done = run_python("-c", source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False 1\n", "")


WAYS = """
import asyncio, sys, warnings

warnings.simplefilter("ignore")

async def which():
    return asyncio.get_running_loop()

def made_on_demand():
    if sys.version_info >= (3, 14):  # which makes none
        return asyncio.new_event_loop()
    asyncio.set_event_loop_policy(None)
    return asyncio.get_event_loop()

def by_the_default_policy():
    asyncio.set_event_loop_policy(None)
    return asyncio.new_event_loop()

def by_a_policy_of_uvloop():
    import uvloop
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return asyncio.new_event_loop()

def by_uvloop_install():
    import uvloop
    uvloop.install()
    return asyncio.new_event_loop()

def by_uvloop(use):
    def make():
        import uvloop
        return use(uvloop)
    return make

class Selected(asyncio.SelectorEventLoop):
    pass

def with_runner(factory=None):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(which())

import selectors

ways = [
    lambda: asyncio.run(which()),
    with_runner,
    lambda: with_runner(asyncio.SelectorEventLoop),
    lambda: asyncio.new_event_loop(),
    lambda: asyncio.events.new_event_loop(),
    lambda: asyncio.SelectorEventLoop(),
    lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()),
    lambda: asyncio.unix_events.SelectorEventLoop(),
    lambda: getattr(asyncio, "EventLoop", asyncio.SelectorEventLoop)(),
    Selected,
    made_on_demand,
    by_the_default_policy,
    by_uvloop(lambda uvloop: uvloop.Loop()),
    by_uvloop(lambda uvloop: uvloop.new_event_loop()),
    by_uvloop(lambda uvloop: uvloop.run(which())),
    by_uvloop(lambda uvloop: uvloop.run(which(), debug=True)),
    by_uvloop(lambda uvloop: with_runner(uvloop.new_event_loop)),
    by_a_policy_of_uvloop,
    by_uvloop_install,
]

def others():
    import goloop
    for number, way in enumerate(ways):
        loop = way()
        loop.close()
        if not isinstance(loop, goloop.Loop):
            yield number, type(loop)
"""

FAKE_UVLOOP = """
def fail(*args, **kwargs):
    raise AssertionError("this is uvloop's own")

Loop = new_event_loop = run = install = EventLoopPolicy = fail
"""


@pytest.fixture
def with_ways(tmp_path):
    """Run a script that can import the ways to make a loop, and something that looks like uvloop."""
    (tmp_path / "ways.py").write_text(WAYS)
    (tmp_path / "uvloop.py").write_text(FAKE_UVLOOP)

    def run(source, *options, **kwargs):
        return run_python(*options, "-c", source, path=os.pathsep.join([str(tmp_path), PATH]), **kwargs)

    return run


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="the ways with policies are gone in Python 3.16")
@pytest.mark.parametrize("before", ["", "import uvloop, multiprocessing.spawn"], ids=["uvloop later", "uvloop before"])
def test_after_install_every_ordinary_way_makes_a_goloop_loop(with_ways, before):
    done = with_ways(f"import goloop\n{before}\ngoloop.install()\nimport ways\nprint(*ways.others())")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_the_real_uvloop_makes_goloop_loops_too():
    pytest.importorskip("uvloop", reason="uvloop is not installed: pip install uvloop")
    source = """
import goloop, warnings
warnings.simplefilter("ignore")
goloop.install()
import asyncio, uvloop

async def which():
    return type(asyncio.get_running_loop()) is goloop.Loop

print(uvloop.run(which()), isinstance(uvloop.new_event_loop(), goloop.Loop))
uvloop.install()
print(asyncio.run(which()), isinstance(asyncio.get_event_loop_policy(), uvloop.EventLoopPolicy))
"""
    done = run_python("-c", source)
    assert (done.returncode, done.stdout) == (0, "True True\nTrue True\n")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_run_on_goloop(with_ways, tmp_path, method):
    # The module makes its loop when it is imported, which for a fresh interpreter is before the function runs.
    (tmp_path / "work.py").write_text(
        "import asyncio\n"
        "at_import = asyncio.SelectorEventLoop()\n"
        "at_import.close()\n"
        "def work(queue):\n"
        "    loops = at_import, asyncio.new_event_loop()\n"
        "    loops[1].close()\n"
        "    queue.put([type(loop).__module__ for loop in loops])\n"
    )
    source = f"""
import goloop
goloop.install()
import multiprocessing, work

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    queue = context.Queue()
    child = context.Process(target=work.work, args=(queue,))
    child.start()
    print(queue.get())
    child.join()
    print(child.exitcode)
"""
    done = with_ways(source)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{['goloop._eventloop.loop'] * 2}\n0\n"


def test_a_replaced_module_keeps_its_own_loader(with_ways):
    source = """
import goloop
goloop.install()
import importlib, inspect, uvloop
print(type(uvloop.__loader__).__name__, uvloop.__spec__.loader is uvloop.__loader__)
print("uvloop's own" in inspect.getsource(uvloop))
importlib.reload(uvloop)
print(uvloop.Loop is goloop.Loop)
"""
    done = with_ways(source)
    assert (done.stdout, done.stderr) == ("SourceFileLoader True\nTrue\nTrue\n", "")


def test_without_uvloop_its_import_still_fails(tmp_path):
    source = """
import sys
import goloop
goloop.install()
sys.meta_path[1:] = []
try:
    import uvloop
except ModuleNotFoundError as exc:
    print(exc)
"""
    done = run_python("-c", source)
    assert (done.stdout, done.stderr) == ("No module named 'uvloop'\n", "")


# the selector that asyncio.SelectorEventLoop takes


def test_a_selector_of_the_standard_library_is_closed():
    selector = selectors.DefaultSelector()
    loop = goloop.Loop(selector)
    loop.close()
    assert selector.get_map() is None


def test_a_selector_of_a_program_is_refused():
    class Own(selectors.DefaultSelector):
        pass

    with Own() as selector, pytest.raises(TypeError, match="a goloop loop does not wait in a selector"):
        goloop.Loop(selector)
    gc.collect()  # nothing is said of an unclosed loop
