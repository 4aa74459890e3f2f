"""Names for what a snapshot has, what is waited for, and circles of waits in it."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from goloop.core.look.chains import TaskLook
from goloop.debug._snapshot import Deadlock, Goroutine, Primitive, Task, Thread, WaitReason

_ASYNCIO = (
    asyncio.Lock,
    asyncio.Event,
    asyncio.Condition,
    asyncio.BoundedSemaphore,
    asyncio.Semaphore,
    asyncio.Barrier,
    asyncio.PriorityQueue,
    asyncio.LifoQueue,
    asyncio.Queue,
)
_WORDS = {"chan": "chan", "conn": "connection", "waitgroup": "waitgroup", "cond": "cond", "once": "once"}
_ANY = frozenset(("select", "wait"))  # one of several is enough to end it
_EXCLUSIVE = frozenset(("Mutex", "RWMutex", "asyncio.Lock", "Once"))  # the holder alone can end the wait


def title_of_task(name: str) -> str:
    """Return what a text calls a task: "task 17" for asyncio's "Task-17"."""
    return f"task {name[5:]}" if name.startswith("Task-") and name[5:].isdigit() else f"task {name}"


class Titles:
    """What a text calls actors and things, by key; looked up when it is needed."""

    def __init__(self, look: TaskLook, threads: Iterable[Thread]) -> None:
        self._look = look
        self._known = {thread.key: f"thread {thread.name or thread.ident}" for thread in threads}

    def add(self, key: str, title: str) -> None:
        """Say what a thing is called."""
        self._known[key] = title

    def __getitem__(self, key: str) -> str:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._title(key)
        return known

    def _title(self, key: str) -> str:
        actor: Task | Goroutine | None = self._look.actor(key)
        kind, _, number = key.partition("-")
        if kind == "goroutine":
            return f"goroutine {number}{f' {actor.name}' if actor is not None and actor.name else ''}"
        return title_of_task(actor.name) if actor is not None else f"a {kind}"


def _letters(n: int) -> str:
    """0: A, 25: Z, 26: AA."""
    text = ""
    n += 1
    while n:
        n, digit = divmod(n - 1, 26)
        text = string.ascii_uppercase[digit] + text
    return text


def primitives(look: TaskLook, names: Titles) -> tuple[Primitive, ...]:
    """Return what goroutines, tasks and threads wait for, but one another."""
    found = []
    counts: dict[str, int] = {}
    waited = look.waited_for()
    locks = [key for key, (thing, _) in waited.items() if isinstance(thing, (asyncio.Lock, asyncio.Semaphore))]
    holders_of = look.lock_holders(locks)
    for key, (thing, waiters) in waited.items():
        described = look.describe(thing)
        if described is not None:
            kind, detail, holder, ended = described
            holders: tuple[str, ...] = (holder,) if holder else ()
        elif key.startswith("asyncio-"):
            kind, detail, ended = _kind_in_asyncio(thing), "", False
            holders = tuple(holders_of.get(key, ()))
        else:
            continue
        word = _word(key, kind)
        letter = counts[word] = counts.get(word, -1) + 1
        names.add(key, f"{word} {_letters(letter)}")
        found.append(
            Primitive(
                key=key,
                kind=kind,
                name=names[key],
                detail=detail,
                holders=holders,
                held_by=_held_by(holders, ended, names),
                waiters=waiters,
            )
        )
    return tuple(found)


def _kind_in_asyncio(thing: Any) -> str:
    for cls in _ASYNCIO:
        if cls in type(thing).__mro__:
            return f"asyncio.{cls.__name__}"
    return type(thing).__qualname__


def _word(key: str, kind: str) -> str:
    word = key.partition("-")[0]
    if word == "asyncio":
        kind = kind.rpartition(".")[2].lower()
        return "queue" if kind.endswith("queue") else "semaphore" if kind.endswith("semaphore") else kind
    if word == "lock":
        return "semaphore" if kind == "Semaphore" else "lock"
    return _WORDS.get(word, word)


def _held_by(holders: tuple[str, ...], ended: bool, names: Titles) -> str:
    texts = []
    for key in holders[:3]:
        texts.append(f"{names[key]}, which has ended" if ended else names[key])
    if len(holders) > 3:
        texts.append(f"{len(holders) - 3} more")
    return ", ".join(texts)


# --------------------------------------------------------------------- circles
def find(look: TaskLook, things: Iterable[Primitive], names: Titles) -> tuple[Deadlock, ...]:
    """Return the circles of waits that nothing in them can end."""
    holders = {thing.key: thing.holders[:1] for thing in things if thing.kind in _EXCLUSIVE and thing.holders}
    # Who is in a circle has something that others wait for, or is awaited itself.
    candidates = {key for line in holders.values() for key in line} | look.waited_for().keys()
    edges = {key: list(line) for key, line in holders.items()}
    edges.update((key, list(reason.on)) for key, reason in look.reasons_of(candidates).items() if _binds(reason))
    # A goroutine that is a coroutine is the same actor as its task, which is what others may know of it.
    twins = {}
    for key in candidates:
        actor = look.actor(key)
        if isinstance(actor, Goroutine) and actor.task:
            twins[actor.task] = key
            edges[key] = [actor.task]
    found = []
    for circle in circles(edges):
        if not any(look.ends_by_itself(key) for key in circle if key.startswith("task-")):
            circle = _without_twins(circle, twins)
            path = " → ".join(names[key] for key in (*circle, circle[0]))
            found.append(Deadlock(tuple(circle), path))
    return tuple(found)


def _binds(reason: WaitReason) -> bool:
    return bool(reason.on) and reason.until is None and not (reason.kind in _ANY and len(reason.on) > 1)


def _without_twins(circle: list[str], twins: Mapping[str, str]) -> list[str]:
    """Leave out the tasks that stand for goroutines, and begin with an actor."""
    kept = [key for key in circle if key not in twins] or circle
    first = next((i for i, key in enumerate(kept) if key.startswith(("task-", "goroutine-", "thread-"))), 0)
    return kept[first:] + kept[:first]


def circles(edges: dict[str, list[str]]) -> Iterator[list[str]]:
    """Yield a circle for each knot of a graph: a list of nodes, each with an edge to the next one.

    Whoever is in one knot can reach all others of it (Tarjan's strongly connected components, without recursion).
    """
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    inside: set[str] = set()
    for start in edges:
        if start in number:
            continue
        work = [(start, iter(edges.get(start, ())))]
        number[start] = low[start] = len(number)
        stack.append(start)
        inside.add(start)
        while work:
            node, rest = work[-1]
            for target in rest:
                if target not in number:
                    number[target] = low[target] = len(number)
                    stack.append(target)
                    inside.add(target)
                    work.append((target, iter(edges.get(target, ()))))
                    break
                if target in inside:
                    low[node] = min(low[node], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    knot = []
                    while True:
                        member = stack.pop()
                        inside.discard(member)
                        knot.append(member)
                        if member == node:
                            break
                    if len(knot) > 1 or node in edges.get(node, ()):
                        yield _circle_in(node, set(knot), edges)


def _circle_in(start: str, knot: set[str], edges: dict[str, list[str]]) -> list[str]:
    """Return the shortest way from a node of a knot back to itself."""
    came: dict[str, str] = {}
    queue = [start]
    for node in queue:
        for target in edges.get(node, ()):
            if target == start:
                path = [node]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return path[::-1]
            if target in knot and target not in came:
                came[target] = node
                queue.append(target)
    raise AssertionError("a knot has a circle through each of its nodes")
