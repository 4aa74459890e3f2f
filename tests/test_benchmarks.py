"""The benchmarks' own logic: who takes part, who is dropped, what the tables say. Nothing is measured here."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="the benchmarks print with rich, which is in the extras demo and bench")
pytest.importorskip("aiohttp", reason="the benchmarks measure aiohttp, which is in the extras demo and bench")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import harness
import loops
import processes
import qualify
import report
import run as program
import usage
from harness import Case, Failed, Result, Sample, Unavailable
from rich.console import Console

CONTESTANTS = ["asyncio", "uvloop", "goloop", "zuvloop", "rloop", "C"]
ENVIRONMENT = {"python": "3", "versions": {"goloop": "1"}, "cores": 2, "processor": "p", "kernel": "k", "date": "d"}
SETTINGS = {"repeats": 2, "seconds": 0.5}


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=240)


def said(console):
    return console.file.getvalue()


def case(run, family="family", name="name", **more):
    return Case(family, name, "operation", run, **more)


def sampled(**rates):
    result = Result("family", "name", "operation")
    result.samples = {
        who: [Sample(rate, cpu=1 / rate, system=0.25 / rate, switches=0.5, p50=1, p99=2) for rate in got]
        for who, got in rates.items()
    }
    return result


# ------------------------------------------------------------------------------------------------ contestants
def test_by_default_asyncio_goloop_c_and_every_installed_peer_take_part(monkeypatch):
    monkeypatch.setattr(loops, "installed", lambda name: name in ("uvloop", "rloop"))
    assert loops.default_contestants() == ["asyncio", "uvloop", "goloop", "rloop", "C"]
    monkeypatch.setattr(loops, "installed", lambda name: False)
    assert loops.default_contestants() == ["asyncio", "goloop", "C"]


def test_a_peer_that_is_asked_for_and_not_installed_is_left_out_aloud(monkeypatch, console):
    monkeypatch.setattr(loops, "installed", lambda name: name != "talyn")
    assert program.participants("goloop+GOLOOP_IO=auto,talyn,C", console) == ["goloop+GOLOOP_IO=auto", "C"]
    assert "not installed, and left out: talyn" in said(console)


def test_an_unknown_contestant_ends_the_program_with_the_known_ones(console):
    with pytest.raises(SystemExit, match=r"nosuchloop: known are asyncio, goloop, uvloop"):
        program.participants("goloop,nosuchloop", console)


def test_every_case_has_a_check_and_every_check_belongs_to_a_case():
    families = {case.family for case in program.cases.all_cases(program.cases.Settings(0.1, 0.1))}
    checked = {family for check in qualify.checks() for family in check.families}
    assert families == checked


def test_cases_are_chosen_by_family_and_by_parts_of_their_names_that_may_have_commas():
    chosen = program.chosen(program.cases.Settings(0.1, 0.1), "bulk_streams,timers: set, 1,000 pending,cat")
    assert [case.name for case in chosen] == [
        "set, 1,000 pending",
        "MB that a server sends",
        "MB that a server receives",
        "MB through cat, streams",
    ]


def test_the_others_are_the_peers_without_uvloop():
    assert loops.others(CONTESTANTS) == ["zuvloop", "rloop"]


# ---------------------------------------------------------------------------------------------------- dropping
def test_a_peer_that_fails_in_a_run_is_dropped_from_the_family_with_its_samples_and_the_others_go_on(console):
    ran = []

    def run(who):
        ran.append(who)
        if who == "rloop" and ran.count(who) == 2:
            raise Failed("wrong bytes")
        return Sample(100)

    cases = [case(run, name="first"), case(run, name="second"), case(run, family="another")]
    results = harness.interleave(cases, ["goloop", "rloop"], 3, console, loops.is_peer)
    assert [sorted(result.samples) for result in results] == [["goloop"], ["goloop"], ["goloop", "rloop"]]
    assert [len(result.samples["goloop"]) for result in results] == [3, 3, 3]
    assert [result.dropped for result in results] == [{"rloop": "first: wrong bytes"}] * 2 + [{}]
    assert "family: first, rloop: first: wrong bytes" in said(console)


@pytest.mark.parametrize("who", ["goloop", "asyncio", "C", "goloop+GOLOOP_IO=auto"])
def test_a_failure_of_one_that_is_no_peer_ends_the_run(who, console):
    def run(contestant):
        if contestant == who:
            raise Failed("no answer")
        return Sample(1)

    with pytest.raises(Failed, match="no answer"):
        harness.interleave([case(run)], [who, "uvloop"], 1, console, loops.is_peer)


def test_what_is_not_possible_here_is_a_note_and_no_failure(console):
    def run(who):
        raise Unavailable("wrk is missing")

    (result,) = harness.interleave([case(run)], ["goloop"], 2, console)
    assert result.samples == {} and result.dropped == {} and result.notes == ["goloop: wrk is missing"]


def test_one_without_the_workload_does_not_run_it_not_even_with_variables(console):
    ran = []

    def run(who):
        ran.append(who)
        return Sample(1)

    harness.interleave([case(run, without=("C",))], ["goloop", "C", "C+X=1"], 2, console)
    assert ran == ["goloop", "goloop"]


def test_everyone_has_each_place_in_the_order_once():
    turns = list(harness.turns(case(None), ["a", "b", "c"], 3))
    assert turns == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def wrong(who):
    if who in ("rloop", "zuvloop"):
        raise Failed(f"{who} is wrong")


def test_who_answers_wrong_is_dropped_from_the_families_of_the_check_only(console):
    checks = [qualify.Check("echo", frozenset({"tcp_echo", "idle"}), wrong)]
    dropped = qualify.qualify(CONTESTANTS, ["tcp_echo", "timers"], checks, console)
    assert dropped == {
        ("tcp_echo", "zuvloop"): "echo: zuvloop is wrong",
        ("tcp_echo", "rloop"): "echo: rloop is wrong",
    }
    assert "rloop: wrong in echo: rloop is wrong" in said(console)


def test_a_check_without_families_concerns_all_and_one_of_other_families_is_not_made(console):
    def never(who):
        raise AssertionError("not needed")

    checks = [qualify.Check("starts", frozenset(), wrong), qualify.Check("other", frozenset({"tls"}), never)]
    dropped = qualify.qualify(["rloop", "goloop"], ["timers", "tasks"], checks, console)
    assert set(dropped) == {("timers", "rloop"), ("tasks", "rloop")}


def test_goloop_has_to_pass_the_checks(console):
    def fail(who):
        raise Failed("another order")

    with pytest.raises(Failed, match="another order"):
        qualify.qualify(["goloop"], ["tasks"], [qualify.Check("tasks", frozenset({"tasks"}), fail)], console)


# ------------------------------------------------------------------------------------------- answers, for real
@pytest.mark.parametrize("name", ["callbacks", "tasks", "timers", "threadsafe", "subprocesses"])
def test_goloop_passes_the_checks_of_the_loop(name):
    qualify.inside("goloop", name)


def test_goloop_passes_the_checks_of_servers():
    for check in qualify.checks():
        if check.families & {"tcp_echo", "bulk_streams", "udp_echo", "http"}:
            check.run("goloop")


def test_bytes_that_are_not_those_that_were_sent_are_noticed_with_their_place():
    ours, theirs = socket.socketpair()

    def corrupt():
        with theirs:
            while data := theirs.recv(1 << 16):
                theirs.sendall(data.replace(b"\x00", b"\x01"))

    server = threading.Thread(target=corrupt)
    server.start()
    with pytest.raises(Failed, match=r"echo: 100 bytes instead of 100, different from byte \d+ on"):
        qualify.echo_messages(ours, "echo")
    server.join()


def child(source):
    return [sys.executable, "-c", source]


def test_the_reason_of_a_failed_process_is_its_last_line():
    with pytest.raises(Failed, match=r"^ValueError: no"):
        processes.output_of(child("raise ValueError('no')"), 30)


def test_the_reason_of_a_killed_process_is_the_signal():
    with pytest.raises(Failed, match="killed by SIGABRT"):
        processes.output_of(child("import os; os.abort()"), 30)


def test_one_that_does_not_answer_in_time_has_failed():
    with pytest.raises(Failed, match=r"no answer within 0\.1 s"):
        processes.output_of(child("import signal; signal.pause()"), 0.1)
    with (
        processes.Lines(child("import signal; signal.pause()")) as silent,
        pytest.raises(Failed, match=r"no answer within 0\.1 s"),
    ):
        silent.line(0.1)


def test_a_server_that_does_not_start_has_failed_with_what_it_said(capsys):
    with pytest.raises(Failed, match="no address"):
        processes.Server(child("raise SystemExit('no address')"))
    assert "no address" in capsys.readouterr().err


def test_what_a_process_says_is_shown(capsys):
    assert processes.output_of(child("import sys; print(1); print('careful', file=sys.stderr)"), 30) == "1\n"
    assert "careful" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- processes
def test_what_is_started_pinned_runs_on_that_core_and_the_starter_where_it_did():
    everywhere = os.sched_getaffinity(0)
    core = max(everywhere)
    with processes.pinned(core):
        said = processes.output_of(child("import os; print(os.sched_getaffinity(0))"), 30)
    assert said.strip() == str({core}) and os.sched_getaffinity(0) == everywhere


def test_a_busy_machine_has_a_process_on_each_core_for_as_long_as_the_block(monkeypatch):
    started = []
    popen = subprocess.Popen

    def start(*args, **kwargs):
        process = popen(*args, **kwargs)
        started.append((process, os.sched_getaffinity(process.pid)))
        return process

    monkeypatch.setattr(processes.subprocess, "Popen", start)
    with contextlib.suppress(KeyError), processes.busy():
        assert [affinity for _, affinity in started] == [{core} for core in processes.cores()]
        assert all(process.poll() is None for process, _ in started)
        raise KeyError
    assert [process.returncode for process, _ in started] == [-signal.SIGKILL] * len(started)


def test_a_meter_counts_processor_time_and_switches_of_all_threads_of_all_its_processes():
    source = """
import sys, threading, time
def spin():
    while time.process_time() < 0.2: pass
input()
threads = [threading.Thread(target=spin) for _ in range(2)]
for t in threads: t.start()
for t in threads: t.join()
print("done", flush=True)
input()
"""
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(processes.Lines(child(source), stdin=subprocess.PIPE)) for _ in range(2)]
        meter = usage.Meter([one.process.pid for one in both])
        for one in both:
            one.process.stdin.write("\n")
            one.process.stdin.flush()
        assert [one.line(60) for one in both] == ["done", "done"]
        used = meter.stop()
    assert used.cpu > 0.2 and used.switches > 0 and 0 <= used.system <= used.cpu


def test_another_unit_changes_the_rate_and_what_an_operation_costs():
    sample = Sample(10, cpu=4, system=2, switches=8, p50=3, memory=5).per(2)
    assert sample == Sample(20, cpu=2, system=1, switches=4, p50=3, memory=5)


# ---------------------------------------------------------------------------------------------------- report
def test_the_best_other_has_the_best_median_and_neither_uvloop_nor_c_is_one():
    result = sampled(asyncio=[1, 1], uvloop=[900, 900], goloop=[200, 200], zuvloop=[50, 150], rloop=[80, 90], C=[999])
    assert result.best(loops.others(CONTESTANTS)) == "zuvloop"  # 100 against 85
    assert result.best(loops.others(CONTESTANTS), "cpu") == "rloop"  # less is better; medians 11.8 and 13.3 ms
    assert report.best_other(result, CONTESTANTS) == "2.67 zuvloop"  # the median of 200 / 50 and 200 / 150
    assert sampled(goloop=[1]).best(loops.others(CONTESTANTS)) is None


def test_less_memory_and_less_processor_time_are_better():
    result = Result("idle", "memory", "connection", figure="memory", target=1.0)
    result.samples = {who: [Sample(0, memory=m)] for who, m in {"goloop": 50, "zuvloop": 100, "uvloop": 60}.items()}
    assert result.best(["goloop", "zuvloop"]) == "goloop" and report.reached(result)
    result.samples["goloop"] = [Sample(0, memory=70)]
    assert report.reached(result) is False


def test_the_markdown_has_ratios_costs_and_who_was_left_out():
    result = sampled(asyncio=[100, 100], uvloop=[1000, 1000], goloop=[2000, 2200], zuvloop=[500, 500])
    result.dropped = {"rloop": "echo: wrong bytes"}
    second = Result("family", "second", "operation", dropped={"rloop": "echo: wrong bytes"})
    lines = report.markdown([result, second], CONTESTANTS, ENVIRONMENT, SETTINGS).splitlines()
    assert (
        "| workload | asyncio | uvloop | goloop | zuvloop | rloop | C | / asyncio | / uvloop | / C | / best other |"
        in lines
    )
    row = "| family: name | 100 ±0% | 1k ±0% | 2.1k ±5% | 500 ±0% | - | - | 21.00 | 2.10 | - | 4.20 zuvloop |"
    assert row in lines
    costs = "| family: name | 477 (358 + 119) ±5% | 0.5 | 1 / 2 | 1000 (750 + 250) ±0% | 0.5 | 1 / 2 |"
    assert f"{costs} zuvloop 2000 (1500 + 500) ±0% | 0.5 | 1 / 2 | 0.48 | 0.24 zuvloop |" in lines
    assert "* rloop is left out of family: echo: wrong bytes" in lines
    assert "The best other is the best one in that row of zuvloop, rloop." in lines[0]


def test_without_further_peers_no_column_speaks_of_them():
    text = report.markdown([sampled(asyncio=[1], uvloop=[2], goloop=[4])], CONTESTANTS[:3], ENVIRONMENT, SETTINGS)
    assert "best other" not in text and "4.00 | 2.00 |" in text


def test_both_tables_are_shown_and_the_dropped_are_named(console):
    result = sampled(asyncio=[100], uvloop=[1000], goloop=[2000], zuvloop=[500])
    result.dropped = {"rloop": "echo: [wrong] bytes"}
    report.show([result], CONTESTANTS, console)
    assert "4.00 zuvloop" in said(console) and "0.25 zuvloop" in said(console)
    assert "rloop is left out of family: echo: [wrong] bytes" in said(console)


def test_the_chart_has_a_bar_for_uvloop_and_one_for_the_best_other():
    result = sampled(asyncio=[100], uvloop=[1000, 1000], goloop=[2000, 3000], zuvloop=[500, 500])
    assert [(name, pairs) for name, _, pairs in report.bars([result], CONTESTANTS)] == [
        ("family: name", [2, 3]),
        ("  / zuvloop", [4, 6]),
    ]


def test_what_was_saved_is_read_back(tmp_path):
    result = sampled(goloop=[1, 2])
    result.dropped = {"rloop": "why"}
    harness.save(tmp_path / "x.json", ENVIRONMENT, SETTINGS, [result])
    assert harness.load(tmp_path / "x.json") == (ENVIRONMENT, SETTINGS, [result])
