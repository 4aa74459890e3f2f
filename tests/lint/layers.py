"""Check that imports, cimports and headers go one way: down the table below, and in no circle within a package.

    python tests/lint/layers.py FOLDER   # the one that goloop/ is in

An import inside a function counts, too. One under TYPE_CHECKING has to go down as well, but may close a circle.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# From the bottom up: a package or module, and what stands directly below it. It may use that, and what that may use.
BELOW = {
    "goloop.errors": "",
    "goloop._environment": "",
    "goloop._backoff": "",
    "goloop._main_interpreter": "",
    "goloop._on_signal": "",
    "goloop._shared": "",
    "goloop._views": "",
    "goloop.core": "",
    "goloop.core.system": "goloop.errors goloop._environment",
    "goloop.core.poll": "goloop.core.system",
    "goloop.core.loop": "goloop.core.poll",
    "goloop.core.transports": "goloop.core.loop",
    "goloop.core.sched": "goloop.core.loop",
    "goloop.core.sync": "goloop.core.sched",
    "goloop.core.net": "goloop.core.sync",
    "goloop.core.patch": "goloop.core.net",
    "goloop.core.look": "goloop.core.patch goloop.core.transports",
    "goloop.runtime.ports": "",
    "goloop._eventloop": "goloop.core.look goloop.runtime.ports goloop._backoff",
    "goloop.runtime": "goloop._eventloop",
    **dict.fromkeys(
        ("goloop._choose", "goloop.debug", "goloop._local", "goloop._takeover", "goloop.timer"), "goloop.runtime"
    ),
    "goloop.chan": "goloop._choose goloop._views",
    "goloop.sync": "goloop._local goloop._shared",
    "goloop.policy": "goloop._takeover",
    "goloop.context": "goloop._on_signal goloop.chan goloop.sync goloop.timer",
    "goloop.errgroup": "goloop.context",
    "goloop._together": "goloop.errgroup",
    "goloop.net": "goloop.context",
    "goloop.rate": "goloop.context",
    "goloop.singleflight": "goloop.sync",
    "goloop.monkey": "goloop.chan",
    "goloop.contrib": "goloop.policy goloop.monkey goloop.sync goloop.debug",
    "goloop.testing": "goloop.policy goloop.errgroup goloop.net goloop.monkey goloop.debug",
    "goloop": "goloop._together goloop.rate goloop.singleflight goloop.testing goloop._main_interpreter",
    "goloop.__main__": "goloop",
}
ALLOWED: dict[str, set[str]] = {}
for _name, _below in BELOW.items():
    ALLOWED[_name] = {"", _name}.union(*(ALLOWED[each] for each in _below.split()))
CYTHON = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?c?import[ \t]+(\([^)]*\)|[^\n]+)", re.MULTILINE)
DOCSTRING = re.compile(r'"""(?:[^\\]|\\.)*?"""', re.DOTALL)
HEADER = re.compile(r'"(?:\.\./)+(\w+)/native/\w+\.h"')


def layer(module: str) -> str:
    """Return the entry of BELOW for a module, its own or that of the package around it; "" if there is none."""
    while module not in BELOW and module:
        module = module.rpartition(".")[0]
    return module


def python_imports(text: str) -> Iterator[tuple[str, bool]]:
    """Give the names that a Python file imports, each with whether the import runs."""
    nodes = list(ast.walk(ast.parse(text)))
    guards = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")]
    idle = {node for guard in guards for child in guard.body for node in ast.walk(child)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield from ((f"{'.' * node.level}{node.module or ''}.{a.name}", node not in idle) for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, node not in idle) for a in node.names)


def cython_imports(text: str) -> Iterator[tuple[str, bool]]:
    """Give the names that a Cython file imports and cimports, and the packages whose headers it includes."""
    yield from ((f"goloop.core.{package}", True) for package in HEADER.findall(text))
    for source, names in CYTHON.findall(re.sub(r"#.*|\\\n", "", DOCSTRING.sub("", text))):
        for name in re.findall(r"([\w.*]+)(?:\s+as\s+\w+)?", names):
            yield f"{source}.{name}" if source else name, True


def check(root: Path) -> Iterator[str]:
    """Give a sentence for each import that goes up or is relative, for a circle, and for a module without a place."""
    files = sorted(path for path in (root / "goloop").rglob("*") if path.suffix in (".py", ".pyx", ".pxd"))
    modules = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in files]
    uses: dict[str, set[str]] = defaultdict(set)
    for path, module in zip(files, modules, strict=True):
        home = layer(module)
        if not home or (home == "goloop" and module != home):
            yield f"{path.relative_to(root)}: {module} has no place in the table of layers.py"
            continue
        for name, runs in sorted(set((python_imports if path.suffix == ".py" else cython_imports)(path.read_text()))):
            used = name if name in modules or name in BELOW else name.rpartition(".")[0]
            if name.startswith("."):
                yield f"{path.relative_to(root)}: a relative import; write the whole name"
            elif layer(used) == home and used != module and runs:
                uses[module].add(used)
            elif layer(used) not in ALLOWED[home]:
                yield f"{path.relative_to(root)}: {home} must not use {used}"
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as exc:
        yield f"a circle: {' uses '.join(reversed(exc.args[1]))}"


if __name__ == "__main__":
    sys.exit("\n".join(check(Path(sys.argv[1]))) or 0)
