"""The variables in goloop's table: what each may say, and what becomes of the rest."""

import os
import signal
import warnings

import pytest

import goloop
from goloop import _environment
from tests.helpers.scripts import run_python

SWITCHES = ["GOLOOP_DEBUG", "GOLOOP_HANDOFF", "GOLOOP_WATCH"]
YES = ["1", "true", "yes", "on", "TRUE", "Yes", "oN"]
NO = ["0", "false", "no", "off", "FALSE", "No", "oFF"]
GOOD = {
    "GOLOOP_DEBUG": {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)},
    "GOLOOP_DEBUG_DIR": {"/tmp": "/tmp", "/A/b": "/A/b"},
    "GOLOOP_DUMP": {
        **dict.fromkeys(YES, signal.SIGQUIT),
        **dict.fromkeys(NO, False),
        **dict.fromkeys(["USR2", "usr2", "SIGUSR2", "sigusr2"], signal.SIGUSR2),
    },
    "GOLOOP_HANDOFF": {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)},
    "GOLOOP_IO": {"inline": "inline", "offload": "offload", "auto": "auto", "Inline": "inline", "AUTO": "auto"},
    "GOLOOP_MAXTHREADS": {"1": 1, "512": 512, "007": 7},
    "GOLOOP_MONKEY": {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)},
    "GOLOOP_PANIC": {"report": "report", "crash": "crash", "Crash": "crash"},
    "GOLOOP_SCHEDTRACE": {"1": 1, "1000": 1000, "007": 7},
    "GOLOOP_SHUTDOWN_TIMEOUT": {"0": 0.0, "1.5": 1.5, "5": 5.0, "1e3": 1000.0},
    "GOLOOP_WATCH": {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)},
}
BAD = {
    "GOLOOP_DEBUG": ["2", "maybe", " 1", "1 ", "t", "none"],
    "GOLOOP_DEBUG_DIR": ["tmp", "./tmp", "1", "~/tmp"],
    "GOLOOP_DUMP": ["2", "maybe", " 1", "USR", "_DFL", "SIG", "none"],
    "GOLOOP_HANDOFF": ["2", "maybe", " 1", "1 ", "t", "none"],
    "GOLOOP_IO": ["on", "1", " auto", "inline,offload"],
    "GOLOOP_MAXTHREADS": ["0", "-1", "many", "3.0", "1_000", " 3", "+3", "³"],
    "GOLOOP_MONKEY": ["2", "maybe", " 1", "1 ", "t", "none"],
    "GOLOOP_PANIC": ["1", "exit", "crash!"],
    "GOLOOP_SCHEDTRACE": ["0", "-1", "often", "0.5", " 3", "+3"],
    "GOLOOP_SHUTDOWN_TIMEOUT": ["-1", "soon", "nan", "inf"],
    "GOLOOP_WATCH": ["2", "maybe", " 1", "1 ", "t", "none"],
}
SAID = {
    "GOLOOP_DEBUG": "1/0, true/false, yes/no, on/off",
    "GOLOOP_DEBUG_DIR": "an absolute path",
    "GOLOOP_DUMP": "1/0, true/false, yes/no, on/off, or the name of a signal, such as USR2",
    "GOLOOP_HANDOFF": "1/0, true/false, yes/no, on/off",
    "GOLOOP_IO": "inline, offload, auto",
    "GOLOOP_MAXTHREADS": "a number of threads, at least 1",
    "GOLOOP_MONKEY": "1/0, true/false, yes/no, on/off",
    "GOLOOP_PANIC": "report, crash",
    "GOLOOP_SCHEDTRACE": "a number of milliseconds, at least 1",
    "GOLOOP_SHUTDOWN_TIMEOUT": "a number of seconds, at least 0",
    "GOLOOP_WATCH": "1/0, true/false, yes/no, on/off",
}
DEFAULTS = {
    "GOLOOP_DEBUG": None,
    "GOLOOP_DEBUG_DIR": None,
    "GOLOOP_DUMP": None,
    "GOLOOP_HANDOFF": None,
    "GOLOOP_IO": "auto",
    "GOLOOP_MAXTHREADS": 512,
    "GOLOOP_MONKEY": None,
    "GOLOOP_PANIC": "report",
    "GOLOOP_SCHEDTRACE": None,
    "GOLOOP_SHUTDOWN_TIMEOUT": 5.0,
    "GOLOOP_WATCH": None,
}


def pairs(table):
    return [(name, text) for name, texts in table.items() for text in texts]


@pytest.fixture(autouse=True)
def _none_is_set(monkeypatch):
    for name in list(os.environ):
        if name.startswith(_environment.PREFIX):
            monkeypatch.delenv(name)


def test_these_tests_know_every_variable():
    assert set(GOOD) == set(BAD) == set(SAID) == set(DEFAULTS) == set(_environment.VARIABLES)


@pytest.mark.parametrize(("name", "text"), pairs(GOOD))
def test_a_value_is_read_in_any_case_of_its_letters(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    assert _environment.get(name) == GOOD[name][text]
    _environment.check()


@pytest.mark.parametrize(("name", "text"), pairs(BAD))
def test_any_other_value_is_an_error_that_names_the_variable_and_its_values(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    for read in (lambda: _environment.get(name), _environment.check):
        with pytest.raises(ValueError, match=name) as caught:
            read()
        assert SAID[name] in str(caught.value) and repr(text) in str(caught.value)


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_variable_counts_as_unset(monkeypatch, name):
    assert _environment.get(name) == DEFAULTS[name]
    monkeypatch.setenv(name, "")
    assert _environment.get(name) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "closest"),
    [("GOLOOP_HANDOF", "GOLOOP_HANDOFF"), ("GOLOOP_MAX_THREADS", "GOLOOP_MAXTHREADS"), ("GOLOOP_io", "GOLOOP_IO")],
)
def test_an_unknown_name_is_warned_of_with_the_closest_known_one(monkeypatch, name, closest):
    monkeypatch.setenv(name, "1")
    with pytest.warns(RuntimeWarning, match=f"{name} is not an environment variable of goloop; .* {closest}$"):
        _environment.check()


def test_names_of_others_are_left_alone(monkeypatch):
    monkeypatch.setenv("MY_GOLOOP_HANDOFF", "maybe")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _environment.check()


def test_the_description_has_every_variable_with_its_default():
    text = " ".join(_environment.describe().split())
    assert all(name in text for name in _environment.VARIABLES)
    assert "default" in text and "512" in text


# Where they are read


def loop_with(**options):
    loop = goloop.Loop(**options)
    loop.close()
    return loop


@pytest.mark.parametrize(("text", "on"), [("1", True), ("false", False), ("0", False), ("", False)])
def test_handoff_is_as_the_variable_says(monkeypatch, text, on):
    monkeypatch.setenv("GOLOOP_HANDOFF", text)
    assert loop_with()._handoff is on
    assert loop_with(handoff=False)._handoff is False


@pytest.mark.parametrize(
    ("text", "plain", "debug"), [("1", True, True), ("off", False, False), ("", False, True), (None, False, True)]
)
def test_the_watch_is_as_the_variable_says_and_else_as_debug_mode(monkeypatch, text, plain, debug):
    if text is not None:
        monkeypatch.setenv("GOLOOP_WATCH", text)
    loop = loop_with()
    loop.set_debug(False)
    assert loop._watches() is plain
    loop.set_debug(True)
    assert loop._watches() is debug
    assert loop_with(watch=True)._watches() is True


@pytest.mark.parametrize("name", ["GOLOOP_HANDOFF", "GOLOOP_IO", "GOLOOP_WATCH"])
def test_a_loop_with_a_bad_value_is_not_made(monkeypatch, name):
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(ValueError, match=f"{name} must be one of .*, not 'maybe'"):
        goloop.Loop()


def test_the_import_says_what_is_wrong(tmp_path):
    def imported(*options, **variables):
        done = run_python(*options, "-c", "import goloop", env=variables)
        return done.returncode, done.stderr

    for name in _environment.VARIABLES:
        status, said = imported(**{name: "maybe"})
        assert status == 1 and f"ValueError: {name} " in said and said.endswith("not 'maybe'\n")
    status, said = imported(GOLOOP_HANDOF="1", GOLOOP_HANDOFF="false")
    assert status == 0 and said.count("RuntimeWarning") == 1
    assert said.startswith("<string>:1: RuntimeWarning: GOLOOP_HANDOF is not an environment variable of goloop; ")
    assert imported("-W", "error", GOLOOP_HANDOFF="off") == (0, "")
