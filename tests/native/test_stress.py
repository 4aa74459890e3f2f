"""The programs beside this one under ThreadSanitizer, plain, and under valgrind.

Each run has its own seed. helgrind is left out: it does not know C's atomics and takes each of them for
a race, while ThreadSanitizer knows them and checks the orderings.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "goloop" / "core"
INCLUDE = [f"-I{CORE / name / 'native'}" for name in ("poll", "sched", "system")]
CC = shutil.which(os.environ.get("CC", "gcc"))
THREAD = "-fsanitize=thread"
CASES = {"a": "inbox", "b": "parking", "c": "files", "d": "both", "e": "churn", "f": "fork"}
ALL = "".join(CASES)
NO_FORK = ALL.replace("f", "")  # ThreadSanitizer does not support threads in a forked child
TSAN_OPTIONS = "halt_on_error=1:atexit_sleep_ms=0"

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler is installed")


def run(command):
    """Run a command; return its exit status and everything that it printed."""
    env = os.environ | {"TSAN_OPTIONS": TSAN_OPTIONS}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=60)
    return done.returncode, done.stdout


def build(directory, source, *flags):
    program = directory / source.stem
    command = [CC, "-std=gnu11", "-O1", "-g", "-Wall", "-pthread", *flags, *INCLUDE, source, "-o", program]
    return program, *run(command)


@pytest.fixture(scope="module")
def plain_build(tmp_path_factory):
    """Compiles a source; returns the command that runs it."""

    def compiled(name):
        program, status, output = build(tmp_path_factory.mktemp("plain"), HERE / name, "-Werror")
        assert status == 0, output
        return [program]

    return compiled


@pytest.fixture(scope="module")
def sanitized_build(tmp_path_factory):
    """Compiles a source with ThreadSanitizer; returns the command that runs it."""
    directory = tmp_path_factory.mktemp("tsan")
    nothing = directory / "nothing.c"
    nothing.write_text("int main(void) { return 0; }\n")
    probe, status, output = build(directory, nothing, THREAD)
    if status != 0:
        pytest.skip(f"the compiler has no ThreadSanitizer runtime: {output.strip()[-200:]}")
    prefix = []
    status, output = run([probe])
    if "unexpected memory mapping" in output:  # more random address bits than the runtime can take
        prefix = ["setarch", "-R"]
        status, output = run([*prefix, probe])
    assert status == 0, output

    def compiled(name):
        program, status, output = build(directory, HERE / name, THREAD)
        assert status == 0, output
        return [*prefix, program]

    return compiled


@pytest.fixture(scope="module")
def plain(plain_build):
    return plain_build("stress.c")


@pytest.fixture(scope="module")
def sanitized(sanitized_build):
    return sanitized_build("stress.c")


@pytest.fixture(scope="module")
def monitor(plain_build):
    return plain_build("monitor_stress.c")


@pytest.fixture(scope="module")
def sanitized_monitor(sanitized_build):
    return sanitized_build("monitor_stress.c")


def check(command, seed, milliseconds, cases):
    """Run stress and hold it to its promise: status 0, no report, one line a case."""
    status, output = run([*command, str(seed), str(milliseconds), cases])
    assert status == 0, output
    assert "WARNING: ThreadSanitizer" not in output
    assert [line.split()[:3] for line in output.splitlines() if " ok: " in line] == [
        [letter, CASES[letter], "ok:"] for letter in cases
    ], output


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_thread_sanitizer(sanitized, seed):
    check(sanitized, seed, 350, NO_FORK)


@pytest.mark.parametrize("seed", [5, 6])
def test_plain(plain, seed):
    check(plain, seed, 350, ALL)


@pytest.mark.parametrize("seed", [7, 8])
def test_valgrind(plain, seed):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind is not installed")
    options = ["-q", "--error-exitcode=9", "--leak-check=full", "--fair-sched=try"]
    check([valgrind, *options, *plain], seed, 200, ALL)


def check_monitor(command, *arguments):
    status, output = run([*command, *map(str, arguments)])
    assert status == 0, output
    assert output.startswith("ok: "), output


@pytest.mark.parametrize("seed", [1, 2])
def test_monitor_thread_sanitizer(sanitized_monitor, seed):
    check_monitor(sanitized_monitor, seed, 500)


@pytest.mark.parametrize("seed", [3, 4])
def test_monitor_plain(monitor, seed):
    check_monitor(monitor, seed, 500, "fork")


def test_monitor_valgrind(monitor):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind is not installed")
    options = ["-q", "--error-exitcode=9", "--leak-check=full", "--fair-sched=try"]
    check_monitor([valgrind, *options, *monitor], 5, 300, "fork")


@pytest.fixture(scope="module")
def offload(plain_build):
    return plain_build("stress_offload.c")


@pytest.fixture(scope="module")
def sanitized_offload(sanitized_build):
    return sanitized_build("stress_offload.c")


OFFLOAD_CASES = {"a": "streams", "b": "faults", "c": "resets", "d": "close", "e": "fork"}


def check_offload(command, seed, milliseconds, cases="abcde"):
    status, output = run([*command, str(seed), str(milliseconds), cases])
    assert status == 0, output
    assert "WARNING: ThreadSanitizer" not in output
    done = [line.split()[:3] for line in output.splitlines()]
    assert done == [[letter, OFFLOAD_CASES[letter], "ok:"] for letter in cases], output


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_offload_thread_sanitizer(sanitized_offload, seed):
    check_offload(sanitized_offload, seed, 400, "abcd")  # it does not support threads in a forked child


@pytest.mark.parametrize("seed", [4, 5])
def test_offload_plain(offload, seed):
    check_offload(offload, seed, 400)


def test_offload_valgrind(offload):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind is not installed")
    options = ["-q", "--error-exitcode=9", "--leak-check=full", "--fair-sched=try"]
    # In a forked child the stacks of the parent's threads are "possibly lost".
    options += ["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]
    check_offload([valgrind, *options, *offload], 6, 200)


@pytest.fixture(scope="module")
def outbox(plain_build):
    return plain_build("stress_outbox.c")


@pytest.fixture(scope="module")
def sanitized_outbox(sanitized_build):
    return sanitized_build("stress_outbox.c")


def check_outbox(command, seed, milliseconds):
    status, output = run([*command, str(seed), str(milliseconds)])
    assert status == 0, output
    assert "WARNING: ThreadSanitizer" not in output
    assert output.startswith("ok: ")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_outbox_thread_sanitizer(sanitized_outbox, seed):
    check_outbox(sanitized_outbox, seed, 800)


@pytest.mark.parametrize("seed", [4, 5])
def test_outbox_plain(outbox, seed):
    check_outbox(outbox, seed, 800)


def test_outbox_valgrind(outbox):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind is not installed")
    check_outbox([valgrind, "-q", "--error-exitcode=9", "--leak-check=full", "--fair-sched=try", *outbox], 6, 500)


@pytest.fixture(scope="module")
def trace(plain_build):
    return plain_build("stress_trace.c")


@pytest.fixture(scope="module")
def sanitized_trace(sanitized_build):
    return sanitized_build("stress_trace.c")


def check_trace(command, *arguments):
    status, output = run([*command, *map(str, arguments)])
    assert status == 0, output
    assert "WARNING: ThreadSanitizer" not in output
    assert output.startswith("ok: ")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_trace_thread_sanitizer(sanitized_trace, seed):
    check_trace(sanitized_trace, seed, 500)


@pytest.mark.parametrize("seed", [4, 5])
def test_trace_plain(trace, seed):
    check_trace(trace, seed, 500, "fork")


def test_trace_valgrind(trace):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind is not installed")
    options = ["-q", "--error-exitcode=9", "--leak-check=full", "--fair-sched=try"]
    # In a forked child the stacks of the parent's threads are "possibly lost".
    options += ["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]
    check_trace([valgrind, *options, *trace], 6, 300, "fork")
