"""Forks of a process with a loop: what the child finds, and what the parent keeps.

Each scenario is a script in an interpreter of its own. The child leaves by os._exit, as a forked child should, so
what it prints must not wait in a buffer, and ``run_loop_script`` sees to that.
"""

from tests.helpers.scripts import run_loop_script

CHILD = """
async def main(text):
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    got = loop.create_future()
    loop.add_reader(reading, lambda: got.done() or got.set_result(os.read(reading, 10)))
    loop.call_later(0.001, os.write, writing, b"byte")
    threading.Thread(target=loop.call_soon_threadsafe, args=(int,)).start()
    await asyncio.sleep(0.001)
    value = await loop.run_in_executor(None, str, text)
    return value, await got

def run_a_loop_of_its_own(text):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print(*runner.run(main(text)))

def in_child(function, *args):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function(*args)
        status = 0
    finally:
        os._exit(status)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(loop, body):
    return run_loop_script(loop, CHILD + body)


def test_a_child_of_a_running_loop_has_no_running_loop(both):
    def scenario(loop):
        return run(
            loop,
            """
def look():
    print(asyncio._get_running_loop(), loop.is_closed())

async def parent():
    return ended(in_child(look)), asyncio.get_running_loop() is loop

print(loop.run_until_complete(parent()))
loop.close()
""",
        )

    assert both(scenario) == (0, "None False\n(0, True)\n")


def test_a_child_of_a_running_loop_runs_a_loop_of_its_own(both):
    def scenario(loop):
        return run(
            loop,
            """
async def parent():
    await main("warm up")
    return await loop.run_in_executor(None, ended, in_child(run_a_loop_of_its_own, "child"))

print(loop.run_until_complete(parent()))
print(*loop.run_until_complete(main("parent")))
loop.close()
""",
        )

    assert both(scenario) == (0, "child b'byte'\n0\nparent b'byte'\n")


def test_a_child_of_an_idle_loop_runs_a_loop_of_its_own(both):
    def scenario(loop):
        return run(
            loop,
            """
loop.run_until_complete(main("warm up"))
print(ended(in_child(run_a_loop_of_its_own, "child")))
print(*loop.run_until_complete(main("parent")))
loop.close()
print(ended(in_child(run_a_loop_of_its_own, "after the close")))
""",
        )

    assert both(scenario) == (0, "child b'byte'\n0\nparent b'byte'\nafter the close b'byte'\n0\n")


def test_a_child_of_a_child_runs_a_loop_too(both):
    def scenario(loop):
        return run(
            loop,
            """
def child():
    run_a_loop_of_its_own("child")
    print(ended(in_child(run_a_loop_of_its_own, "grandchild")))

loop.run_until_complete(main("warm up"))
print(ended(in_child(child)))
loop.close()
""",
        )

    assert both(scenario) == (0, "child b'byte'\ngrandchild b'byte'\n0\n0\n")


def test_the_parents_loop_still_gets_its_wake_ups(both):
    def scenario(loop):
        return run(
            loop,
            """
one, other = socket.socketpair()

async def parent():
    seen = []
    loop.add_reader(one, lambda: seen.append(one.recv(10)))
    for n in range(5):
        pid = in_child(run_a_loop_of_its_own, "child")
        assert await loop.run_in_executor(None, ended, pid) == 0
        other.send(b"%d" % n)
        woken = loop.create_future()
        loop.call_later(0.001, woken.set_result, None)
        await woken
        knock = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, "knock"))
        knock.start()
        while len(seen) < 2 * n + 2:
            await asyncio.sleep(0.001)
    loop.remove_reader(one)
    return sorted(map(str, seen))

print(loop.run_until_complete(parent()))
loop.close()
""",
        )

    status, text = both(scenario)
    assert status == 0
    assert text.endswith(str(sorted(map(str, [b"0", b"1", b"2", b"3", b"4"] + ["knock"] * 5))) + "\n")


def test_a_fork_from_another_thread_leaves_the_loop_alone(both):
    def scenario(loop):
        return run(
            loop,
            """
async def parent():
    return await loop.run_in_executor(None, lambda: ended(in_child(run_a_loop_of_its_own, "child")))

print(loop.run_until_complete(parent()))
print(*loop.run_until_complete(main("parent")))
loop.close()
""",
        )

    assert both(scenario) == (0, "child b'byte'\n0\nparent b'byte'\n")


def test_multiprocessing_children_run_a_loop(both):
    def scenario(loop):
        return run(
            loop,
            """
import multiprocessing

def work(connection, text):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        connection.send(runner.run(main(text)))

async def parent():
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    results = []
    for n in range(2):
        process = context.Process(target=work, args=(there, f"child {n}"))
        process.start()
        results.append(await loop.run_in_executor(None, here.recv))
        await loop.run_in_executor(None, process.join)
        results.append(process.exitcode)
    return results

print(loop.run_until_complete(parent()))
loop.close()
""",
        )

    assert both(scenario) == (0, "[('child 0', b'byte'), 0, ('child 1', b'byte'), 0]\n")


def test_a_child_without_a_loop_just_ends(both):
    def scenario(loop):
        return run(
            loop,
            """
async def parent():
    return [ended(in_child(int)) for _ in range(20)]

print(set(loop.run_until_complete(parent())), asyncio.run(asyncio.sleep(0, "end")))
loop.close()
""",
        )

    assert both(scenario) == (0, "{0} end\n")


def test_a_child_resolves_names_with_threads_of_its_own(both):
    def scenario(loop):
        return run(
            loop,
            """
async def resolve():
    found = await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    return all(kind == socket.SOCK_STREAM for _, kind, *_ in found) and len(found) > 0

def child():
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print("child", runner.run(resolve()))

async def parent():
    before = await resolve()
    pid = in_child(child)
    return before, ended(pid), await resolve()

print("parent", *loop.run_until_complete(parent()))
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
""",
        )

    assert both(scenario) == (0, "child True\nparent True 0 True\n")
