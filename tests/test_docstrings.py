"""The docstring of each public name stands on its own: its arguments by name, and the threads that may call it."""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

import goloop

PACKAGES = ("chan", "context", "debug", "errgroup", "errors", "monkey", "net", "policy", "rate", "singleflight", "sync")
MODULES = ["goloop"] + [f"goloop.{name}" for name in (*PACKAGES, "testing", "timer")]
CALLERS = re.compile(r"(?i)\b(threads?|goroutines?|coroutines?)\b")
ALL_CALLERS = re.compile(r"(?i)from any thread|all methods")
REFERENCE = re.compile(r"^(as|see|undo) [\w.]+\(|^[\w.]+\(\)\W*$", re.IGNORECASE)


def _ours(module):
    return module.split(".")[0] == "goloop"


def _public(module):
    """The names of a module, or those that it defines where it has no __all__."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [n for n, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__]
    gone = {"EventLoopPolicy"} - vars(goloop.policy).keys()  # with Python 3.16
    return [n for n in names if not n.startswith("_") and n not in gone]


def _stub(cls):
    """The parameters of a compiled class, which only its stub knows; none for a class that functions make."""
    path = Path(sys.modules[cls.__module__].__file__)
    tree = ast.parse(path.with_name(path.name.split(".")[0] + ".pyi").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__).body
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name in ("__init__", "__new__"):
            if isinstance(node.returns, ast.Name) and node.returns.id == "NoReturn":
                return []
            return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)][1:]
    return []


def _of_class(cls):
    """The arguments of a class. A class whose docstring says that functions make its objects is called by nobody."""
    if "ade by " in (cls.__doc__ or "") or issubclass(cls, BaseException):
        return []
    if sys.modules[cls.__module__].__file__.endswith(".so"):
        return _stub(cls)
    return _parameters(cls.__init__)[1:] if "__init__" in vars(cls) else []


def _parameters(function):
    return list(inspect.signature(function).parameters)


def _members(cls):
    """The public attributes that classes of goloop give to this one, by name."""
    found = {}
    for base in cls.__mro__:
        if _ours(base.__module__):
            for name, x in vars(base).items():
                if not name.startswith("_") and _ours(getattr(x, "__module__", None) or "goloop"):
                    found.setdefault(name, x)
    return found


def _attributes(cls):
    """The names that only the docstring of the class can tell of."""
    names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    for name, x in _members(cls).items():
        doc = getattr(x, "__doc__", None) or ""
        if not callable(x) and (not inspect.isdatadescriptor(x) or not doc or doc.startswith("Alias for field")):
            names.append(name)
    return names


def _cases():
    seen = {}
    for module in map(importlib.import_module, MODULES):
        yield module.__name__, module, None
        for name in _public(module):
            x = getattr(module, name)
            if inspect.ismodule(x) or id(x) in seen:
                continue
            seen[id(x)] = x
            yield f"{module.__name__}.{name}", x, None
            if inspect.isclass(x):
                for member, y in _members(x).items():
                    if member not in _attributes(x):
                        yield f"{module.__name__}.{name}.{member}", y, x


def faults(x, owner):
    """What a docstring lacks."""
    doc = " ".join((x.__doc__ or "").split())
    if not doc:
        return ["it has no docstring"]
    found = []
    if REFERENCE.search(doc):
        found.append("it begins with a reference to another docstring")
    if inspect.isclass(x):
        found += [f"it does not mention the attribute {a}" for a in _attributes(x) if not _mentions(doc, a)]
        names = _of_class(x)
    else:
        names = _parameters(x)[owner is not None :] if callable(x) else []
    found += [f"it does not mention the argument {name}" for name in names if not _mentions(doc, name)]
    said = CALLERS.search(doc) or (owner is not None and ALL_CALLERS.search(" ".join(owner.__doc__.split())))
    if _needs_callers(x) and not said:
        found.append("it does not say which threads, goroutines or coroutines may call it")
    return found


def _mentions(doc, name):
    return re.search(rf"(?<![\w.]){re.escape(name)}\b", doc) is not None


def _needs_callers(x):
    return callable(x) and not (inspect.isclass(x) and issubclass(x, (BaseException, tuple)))


@pytest.mark.parametrize(("x", "owner"), [pytest.param(x, owner, id=name) for name, x, owner in _cases()])
def test_a_public_name_has_a_docstring_that_tells_its_arguments_and_its_callers(x, owner):
    assert faults(x, owner) == []


def test_the_walk_reaches_compiled_methods_and_attributes():
    names = {name for name, _, _ in _cases()}
    assert {"goloop.Chan.async_recv", "goloop.net.Conn.read", "goloop.Loop.call_soon", "goloop.go"} <= names
    assert {"cap", "closed"} <= set(_attributes(goloop.Chan))


def test_the_walk_sees_each_kind_of_fault():
    def nothing(): ...

    def reference(timeout=None):
        """As wait(), for coroutines."""

    def silent(timeout=None):
        """Wait for the end."""

    def complete(timeout=None):
        """Wait for the end, in a goroutine. timeout: seconds."""

    assert faults(nothing, None) == ["it has no docstring"]
    assert faults(reference, None) == [
        "it begins with a reference to another docstring",
        "it does not mention the argument timeout",
    ]
    assert faults(silent, None) == [
        "it does not mention the argument timeout",
        "it does not say which threads, goroutines or coroutines may call it",
    ]
    assert faults(complete, None) == []
