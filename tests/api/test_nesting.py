"""A loop that runs inside of its own callbacks, once nest_asyncio or nest_asyncio2 has been applied.

Both exchange parts of asyncio for good, so each test is a script.
"""

import asyncio

import pytest

import goloop
from tests.helpers.scripts import run_loop_script

MODULES = ["nest_asyncio", "nest_asyncio2"]
each_module = pytest.mark.parametrize("module", MODULES)


def nested(module, source):
    """Run a script in which the module is `nest`, with a loop of ours; its standard output, line by line."""
    loop = goloop.new_event_loop()
    try:
        code, output = run_loop_script(loop, f"import {module} as nest\n" + source)
    finally:
        loop.close()
    assert code == 0
    return output.splitlines()


def test_without_them_a_loop_does_not_nest(both):
    async def scenario(loop):
        coroutine = asyncio.sleep(0)
        try:
            loop.run_until_complete(coroutine)
        except RuntimeError as exc:
            return str(exc), hasattr(loop, "_nest_patched")
        finally:
            coroutine.close()

    assert both(scenario) == ("This event loop is already running", False)


@each_module
def test_the_class_is_left_alone_and_every_loop_works(module):
    source = """
asyncio.set_event_loop(loop)
before = dict(vars(new_loop))
nest.apply(loop)
print(before == dict(vars(new_loop)), nest.apply(loop), loop._nest_patched)
for each in loop, new_loop():
    print(each.run_until_complete(asyncio.sleep(0, 5)))
    each.close()
"""
    assert nested(module, source) == ["True None True", "5", "5"]


@each_module
def test_a_coroutine_runs_the_loop_and_others_run_meanwhile(module):
    source = """
asyncio.set_event_loop(loop)
seen = []
over = asyncio.Event()

async def other():
    for n in range(3):
        seen.append((n, asyncio.current_task().get_name()))
        await asyncio.sleep(0.001)
    over.set()
    return "other's result"

async def inner():
    task = asyncio.current_task()
    await over.wait()
    return "inner", task is asyncio.current_task()

async def main():
    nest.apply()
    me = asyncio.current_task()
    task = asyncio.create_task(other(), name="other")
    print(asyncio.run(inner()), me is asyncio.current_task(), asyncio.get_running_loop() is loop)
    print(seen, task.done())
    print(loop.run_until_complete(task), loop.run_until_complete(asyncio.sleep(0, "again")))
    await asyncio.sleep(0)
    return "main"

print(loop.run_until_complete(main()))
loop.close()
"""
    assert nested(module, source) == [
        "('inner', True) True True",
        "[(0, 'other'), (1, 'other'), (2, 'other')] True",
        "other's result again",
        "main",
    ]


@each_module
def test_runs_nest_as_deep_as_one_likes_and_return_from_the_inside(module):
    source = """
asyncio.set_event_loop(loop)
nest.apply(loop)

async def level(n):
    await asyncio.sleep(0)
    below = loop.run_until_complete(level(n - 1)) if n else 0
    await asyncio.sleep(0)
    return below + 1

async def broken():
    await asyncio.sleep(0)
    raise ArithmeticError("from the inside")

async def main():
    print(loop.run_until_complete(level(20)))
    try:
        loop.run_until_complete(broken())
    except ArithmeticError as exc:
        print(exc)

loop.run_until_complete(main())
loop.close()
"""
    assert nested(module, source) == ["21", "from the inside"]


@each_module
def test_a_timeout_inside_ends_the_task_inside(module):
    source = """
asyncio.set_event_loop(loop)

async def inner():
    me = asyncio.current_task()
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(100)
    except TimeoutError:
        return me.get_name(), asyncio.current_task() is me

async def main():
    nest.apply()
    task = asyncio.create_task(inner(), name="inner")
    print(loop.run_until_complete(task))
    print(asyncio.current_task().get_name(), asyncio.current_task().cancelling())
    print(asyncio.run(asyncio.wait_for(inner(), 10))[1])

loop.run_until_complete(loop.create_task(main(), name="main"))

async def afterwards():
    async with asyncio.timeout(100):
        return asyncio.current_task().get_name()

print(loop.run_until_complete(loop.create_task(afterwards(), name="afterwards")))
loop.close()
"""
    assert nested(module, source) == ["('inner', True)", "main 0", "True", "afterwards"]


@each_module
def test_streams_and_servers_work_inside(module):
    source = """
asyncio.set_event_loop(loop)
nest.apply(loop)

async def serve(reader, writer):
    line = await reader.readline()
    # in a handler, while its own connection is open
    writer.write(loop.run_until_complete(upper(line)))
    writer.close()

async def upper(line):
    await asyncio.sleep(0.001)
    return line.upper()

async def ask(address, text):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text + b"\\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        print([loop.run_until_complete(ask(address, text)) for text in (b"one", b"two")])

loop.run_until_complete(main())
loop.close()
"""
    assert nested(module, source) == ["[b'ONE\\n', b'TWO\\n']"]


@each_module
def test_work_of_the_callback_that_runs_the_loop_waits_for_its_end(module):
    """A reader whose descriptor stays ready, and a callback in a context that is entered: neither is lost."""
    source = """
asyncio.set_event_loop(loop)
nest.apply(loop)
import contextvars
seen = []
reports = []
loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
one, other = socket.socketpair()
shared = contextvars.copy_context()

def in_shared():
    loop.call_soon(seen.append, "shared later", context=shared)
    loop.run_until_complete(asyncio.sleep(0.01))
    seen.append("shared")

def readable():
    seen.append("reader begins")
    parks = loop._stats()["parks"]
    loop.run_until_complete(asyncio.sleep(0.01))
    print(loop._stats()["parks"] > parks)  # it slept: nothing went round and round meanwhile
    other.recv(1)
    seen.append("reader ends")

loop.call_soon(in_shared, context=shared)
loop.run_until_complete(asyncio.sleep(0.05))
loop.add_reader(other, readable)
one.send(b"xy")
while seen.count("reader ends") < 2:
    loop.run_until_complete(asyncio.sleep(0.01))
loop.remove_reader(other)
print(*seen, sep=", ")
print(reports, loop._is_nested())
loop.close()
"""
    assert nested(module, source) == [
        "True",
        "True",
        "shared, shared later" + ", reader begins, reader ends" * 2,
        "[] False",
    ]


@each_module
def test_stop_ends_the_runs_from_the_inside_out(module):
    source = """
asyncio.set_event_loop(loop)
nest.apply(loop)

def inside():
    loop.call_soon(loop.stop)
    try:
        loop.run_until_complete(asyncio.sleep(100))
    except RuntimeError as exc:
        print(exc)

loop.call_soon(inside)
loop.run_forever()
print("the run outside has ended, too")

def forever():
    loop.call_soon(loop.stop)
    loop.run_forever()
    print("only the run inside has ended")
    loop.call_soon(loop.stop)

loop.call_soon(forever)
loop.run_forever()
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
"""
    assert nested(module, source) == [
        "Event loop stopped before Future completed.",
        "the run outside has ended, too",
        "only the run inside has ended",
    ]


@each_module
def test_another_loop_runs_inside_of_a_task(module):
    source = """
asyncio.set_event_loop(loop)
nest.apply(loop)
second = new_loop()

async def inner():
    await asyncio.sleep(0)
    return asyncio.get_running_loop() is second

async def main():
    me = asyncio.current_task()
    print(second.run_until_complete(inner()))
    print(asyncio.get_running_loop() is loop, asyncio.current_task() is me)
    await asyncio.sleep(0)

loop.run_until_complete(main())
second.close()
loop.close()
"""
    assert nested(module, source) == ["True", "True True"]


@each_module
def test_from_another_thread_and_with_handoff_it_is_refused(module):
    source = """
asyncio.set_event_loop(loop)
nest.apply(loop)

def run(loop):
    coroutine = asyncio.sleep(0)
    try:
        loop.run_until_complete(coroutine)
    except RuntimeError as exc:
        print(exc)
    finally:
        coroutine.close()

async def main():
    await loop.run_in_executor(None, run, loop)
    await loop.shutdown_default_executor()

async def handed_off():
    run(asyncio.get_running_loop())

loop.run_until_complete(main())
loop.close()
second = new_loop(handoff=True)
second.run_until_complete(handed_off())
second.close()
"""
    assert nested(module, source) == [
        "This event loop is already running",
        "an event loop with handoff=True cannot run inside of itself",
    ]
