"""What users of Python packages expect without thinking: star imports, dir(), where names say they live, signatures."""

import importlib
import inspect
import types

import pytest

import goloop
from tests.helpers.scripts import run_python

NAMES = ("chan", "context", "debug", "errgroup", "monkey", "net", "policy", "rate", "singleflight", "sync", "timer")
MODULES = [goloop, *(importlib.import_module(f"goloop.{name}") for name in (*NAMES, "testing"))]

# C types check more than an annotation could say, and two methods of the loop are asyncio's own.
C_TYPES = {"goloop.net.copy.target", "goloop.net.copy.source", "goloop.net.Conn.read.n"}
C_TYPES |= {"goloop.net.Conn.readline.limit", "goloop.net.Conn.read_exactly.n"}
C_TYPES |= {"goloop.net.PacketConn.read.n", "goloop.net.PacketConn.read_from.n"}
BORROWED = {goloop.Loop.create_unix_connection, goloop.Loop.create_unix_server}


def public(module):
    return {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}


def functions():
    for module in MODULES:
        for path, x in public(module).items():
            if inspect.isclass(x):
                for name, y in vars(x).items():
                    if not name.startswith("_") and type(y) in (types.FunctionType, type(goloop.go)):
                        yield f"{path}.{name}", y
            elif callable(x):
                yield path, x


def test_a_star_import_brings_all_public_names_and_warns_of_nothing():
    code = "from goloop import *; import goloop; print(set(goloop.__all__) - set(dir()))"
    done = run_python("-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_dir_lists_all_public_names(module):
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_public_names_say_that_they_live_in_goloop(module):
    places = {path: getattr(x, "__module__", "goloop") for path, x in public(module).items()}
    assert {path for path, place in places.items() if place.partition(".")[0] != "goloop"} == set()


def test_signatures_of_all_functions_and_methods_have_annotations():
    found = dict(functions())
    assert {"goloop.go", "goloop.Chan.send", "goloop.net.Conn.read"} <= found.keys()
    bare = set()
    for path, function in found.items():
        if function in BORROWED:
            continue
        signature = inspect.signature(function)
        for name, parameter in signature.parameters.items():
            if parameter.annotation is inspect.Parameter.empty and name != "self":
                bare.add(f"{path}.{name}")
        if signature.return_annotation is inspect.Signature.empty:
            bare.add(path)
    assert bare - C_TYPES == set()
