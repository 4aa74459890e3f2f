"""What goroutines, coroutines and threads change together without a lock of their own: AtomicInt, Map, Pool.

None of it waits. Each change is made under a lock that is held for no longer; it may be taken again in the same thread,
as a finalizer or a key's __eq__() may come back here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar, overload

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
_D = TypeVar("_D")
_MISSING: Any = object()


class AtomicInt:
    """A number that many change at once (Go: sync/atomic.Int64), of any size.

    value: the number to begin with, an int; TypeError for anything else. From any thread, goroutine or coroutine; no
    method waits.
    """

    __slots__ = ("_lock", "_value")

    def __init__(self, value: int = 0) -> None:
        self._value = _int(value)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"AtomicInt({self._value})"

    def load(self) -> int:
        """Return the number (Go: Load). From any thread, goroutine or coroutine."""
        return self._value

    def store(self, value: int) -> None:
        """Set the number (Go: Store). From any thread, goroutine or coroutine.

        value: an int; TypeError for anything else.
        """
        value = _int(value)
        with self._lock:
            self._value = value

    def add(self, delta: int = 1) -> int:
        """Add to the number and return the sum (Go: Add). From any thread, goroutine or coroutine.

        delta: an int, which may be negative; TypeError for anything else.
        """
        delta = _int(delta)
        with self._lock:
            self._value += delta
            return self._value

    def swap(self, value: int) -> int:
        """Set the number and return the one before (Go: Swap). From any thread, goroutine or coroutine.

        value: an int; TypeError for anything else.
        """
        value = _int(value)
        with self._lock:
            before, self._value = self._value, value
            return before

    def compare_and_swap(self, old: int, new: int) -> bool:
        """Set the number to new if it is old, and return whether it was (Go: CompareAndSwap).

        old, new: ints; TypeError for anything else. From any thread, goroutine or coroutine.
        """
        old, new = _int(old), _int(new)
        with self._lock:
            if self._value != old:
                return False
            self._value = new
            return True


def _int(value: int) -> int:
    if not isinstance(value, int):
        raise TypeError(f"an AtomicInt is an int, got {value!r}")
    return int(value)


class Map(Generic[_K, _V]):
    """A dict with operations that look and change in one step (Go: sync.Map).

    Where one step is enough, as in `d[key] = value`, a plain dict will do. From any thread, goroutine or coroutine; no
    method waits.
    """

    def __init__(self) -> None:
        self._items: dict[_K, _V] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Map of {len(self._items)}>"

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    @overload
    def load(self, key: _K) -> _V | None: ...
    @overload
    def load(self, key: _K, default: _D) -> _V | _D: ...
    def load(self, key: _K, default: Any = None) -> Any:
        """Return the value of a key (Go: Load). From any thread, goroutine or coroutine.

        key: a hashable object. default: what to return if there is none.
        """
        return self._items.get(key, default)

    def store(self, key: _K, value: _V) -> None:
        """Set the value of a key (Go: Store). From any thread, goroutine or coroutine.

        key: a hashable object. value: any object.
        """
        with self._lock:
            self._items[key] = value

    def load_or_store(self, key: _K, value: _V) -> tuple[_V, bool]:
        """Return the value of a key, and whether it had one; set it if not (Go: LoadOrStore).

        key: a hashable object. value: any object. From any thread, goroutine or coroutine.
        """
        with self._lock:
            before = self._items.get(key, _MISSING)
            if before is not _MISSING:
                return before, True
            self._items[key] = value
            return value, False

    @overload
    def load_and_delete(self, key: _K) -> _V | None: ...
    @overload
    def load_and_delete(self, key: _K, default: _D) -> _V | _D: ...
    def load_and_delete(self, key: _K, default: Any = None) -> Any:
        """Take a key out and return its value (Go: LoadAndDelete, Delete). From any thread, goroutine or coroutine.

        key: a hashable object. default: what to return if there is none.
        """
        with self._lock:
            return self._items.pop(key, default)

    @overload
    def swap(self, key: _K, value: _V) -> _V | None: ...
    @overload
    def swap(self, key: _K, value: _V, default: _D) -> _V | _D: ...
    def swap(self, key: _K, value: _V, default: Any = None) -> Any:
        """Set the value of a key and return the one before (Go: Swap). From any thread, goroutine or coroutine.

        key: a hashable object. value: any object. default: what to return if there was none.
        """
        with self._lock:
            before = self._items.get(key, default)
            self._items[key] = value
            return before

    def compare_and_swap(self, key: _K, old: _V, new: _V) -> bool:
        """Set the value of a key to new if it equals old, and return whether it did (Go: CompareAndSwap).

        key: a hashable object. old, new: any objects. False, too, if the key has no value. From any thread, goroutine
        or coroutine.
        """
        with self._lock:
            if not self._has(key, old):
                return False
            self._items[key] = new
            return True

    def compare_and_delete(self, key: _K, old: _V) -> bool:
        """Take a key out if its value equals old, and return whether it did (Go: CompareAndDelete).

        key: a hashable object. old: any object. From any thread, goroutine or coroutine.
        """
        with self._lock:
            if not self._has(key, old):
                return False
            del self._items[key]
            return True

    def _has(self, key: _K, value: _V) -> bool:
        here = self._items.get(key, _MISSING)
        return here is value or (here is not _MISSING and bool(here == value))

    def items(self) -> Iterator[tuple[_K, _V]]:
        """Iterate over keys and values as they are now (Go: Range). From any thread, goroutine or coroutine."""
        with self._lock:
            return iter(list(self._items.items()))

    def clear(self) -> None:
        """Take everything out (Go: Clear). From any thread, goroutine or coroutine."""
        with self._lock:
            self._items.clear()


class Pool(Generic[_V]):
    """Objects to be used again, as they are dear to make (Go: sync.Pool).

    new: a function without arguments that makes one when there is none; TypeError unless callable. limit: how many that
    are not in use are kept, an int of at least 0 (else TypeError, ValueError); None: all. The last one that was put
    comes first. From any thread, goroutine or coroutine; no method waits, unless new() does.
    """

    def __init__(self, new: Callable[[], _V], *, limit: int | None = None) -> None:
        if not callable(new):
            raise TypeError(f"a Pool takes a function that makes an object, got {new!r}")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise TypeError(f"a Pool's limit is an int or None, got {limit!r}")
        if limit is not None and limit < 0:
            raise ValueError(f"a Pool's limit is at least 0, got {limit}")
        self._new = new
        self._idle: deque[_V] = deque(maxlen=limit)

    def __repr__(self) -> str:
        return f"<Pool of {self._new!r}, {len(self._idle)} idle>"

    def get(self) -> _V:
        """Return an object that is not in use, or a new one (Go: Get). From any thread, goroutine or coroutine."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._new()

    def put(self, value: _V) -> None:
        """Give an object back (Go: Put). From any thread, goroutine or coroutine.

        value: the object, which the caller does not use any more. Beyond the limit, the oldest is dropped.
        """
        self._idle.append(value)
