"""A strict reader of Chrome's Trace Event Format: what a viewer would quietly drop or misplace is an error here."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

Event = dict[str, Any]
KEYS = {
    "X": {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"},
    "M": {"ph", "name", "pid", "tid", "ts", "args"},
    "i": {"ph", "s", "name", "cat", "pid", "tid", "ts", "args"},
    "s": {"ph", "id", "name", "cat", "pid", "tid", "ts"},
    "f": {"ph", "bp", "id", "name", "cat", "pid", "tid", "ts"},
    "b": {"ph", "id", "name", "cat", "pid", "tid", "ts", "args"},
    "e": {"ph", "id", "name", "cat", "pid", "tid", "ts", "args"},
}


class Document:
    """A trace that has passed every check."""

    def __init__(self, source: str | Path | bytes) -> None:
        if isinstance(source, bytes):
            text = source.decode()
        elif str(source).endswith(".gz"):
            text = gzip.decompress(Path(source).read_bytes()).decode()
        else:
            text = Path(source).read_text()
        self.top: dict[str, Any] = json.loads(text, parse_constant=_refuse)
        self.events: list[Event] = self.top["traceEvents"]
        self._check_top()
        for event in self.events:
            _check_event(event)
        self.slices: dict[tuple[int, int], list[Event]] = defaultdict(list)  # by lane, in order
        for event in self.of("X"):
            self.slices[_lane(event)].append(event)
        for lane, slices in self.slices.items():
            slices.sort(key=lambda event: (_ns(event["ts"]), -_ns(event["dur"])))
            _check_nesting(lane, slices)
        self.names = self._check_names()
        self.flows = self._check_flows()
        self.spans = self._check_spans()

    def of(self, *phases: str) -> list[Event]:
        """The events of some kinds."""
        return [event for event in self.events if event["ph"] in phases]

    def lanes(self, process: str) -> dict[str, list[Event]]:
        """The slices of each lane, by its name, of the processes whose names begin so."""
        found: dict[str, list[Event]] = {}
        for (pid, tid), name in self.names.items():
            if self._processes[pid].startswith(process):
                assert name not in found, f"two lanes have the name {name}"
                found[name] = self.slices[pid, tid]
        return found

    def tasks(self) -> dict[str, list[Event]]:
        """The lanes of tasks: name -> slices."""
        return self.lanes("tasks")

    def goroutines(self) -> dict[str, list[Event]]:
        """The lanes of goroutines: name -> slices."""
        return self.lanes("goroutines")

    def threads(self) -> dict[str, list[Event]]:
        """The lanes of threads: name -> slices."""
        return self.lanes("threads")

    def _check_top(self) -> None:
        assert set(self.top) == {"displayTimeUnit", "otherData", "traceEvents"}
        assert self.top["displayTimeUnit"] in ("ms", "ns")

    def _check_names(self) -> dict[tuple[int, int], str]:
        self._processes: dict[int, str] = {}
        names: dict[tuple[int, int], str] = {}
        for event in self.of("M"):
            name = event["args"]["name"]
            assert isinstance(name, str) and name
            if event["name"] == "process_name":
                assert event["pid"] not in self._processes, "a process has two names"
                self._processes[event["pid"]] = name
            else:
                assert event["name"] == "thread_name"
                assert _lane(event) not in names, "a lane has two names"
                names[_lane(event)] = name
        for event in self.of("X", "i", "s", "f"):
            assert _lane(event) in names, f"the lane of {event} has no name"
            assert event["pid"] in self._processes
        return names

    def _check_flows(self) -> list[tuple[Event, Event]]:
        """Each arrow has one beginning and one end, in this order, and each of them is on a slice."""
        ends: dict[int, dict[str, Event]] = defaultdict(dict)
        for event in self.of("s", "f"):
            assert event["ph"] not in ends[event["id"]], f"two ends of one arrow: {event}"
            ends[event["id"]][event["ph"]] = event
            assert self.slice_at(event) is not None, f"there is no slice below {event}"
        for pair in ends.values():
            assert set(pair) == {"s", "f"}
            assert pair["s"]["ts"] <= pair["f"]["ts"] and pair["s"]["name"] == pair["f"]["name"]
        return [(pair["s"], pair["f"]) for pair in ends.values()]

    def slice_at(self, event: Event) -> Event | None:
        """The innermost slice of the event's lane at its time."""
        found = None
        for each in self.slices[_lane(event)]:
            start, at = _ns(each["ts"]), _ns(event["ts"])
            if start <= at <= start + _ns(each["dur"]):
                found = each
        return found

    def _check_spans(self) -> list[tuple[str, float, Event]]:
        """Name, length in microseconds, and beginning of each span."""
        begun: dict[tuple[Any, ...], Event] = {}
        found = []
        for event in sorted(self.of("b", "e"), key=lambda e: (_ns(e["ts"]), e["ph"])):
            key = event["pid"], event["cat"], event["id"], event["name"]
            if event["ph"] == "b":
                assert key not in begun, f"begun twice: {event}"
                begun[key] = event
            else:
                start = begun.pop(key)
                found.append((event["name"], event["ts"] - start["ts"], start))
        assert not begun, f"never ended: {begun}"
        return found


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def _lane(event: Event) -> tuple[int, int]:
    return event["pid"], event["tid"]


def _ns(microseconds: float) -> int:
    return round(microseconds * 1000)


def _check_event(event: Event) -> None:
    assert event["ph"] in KEYS, f"an unknown phase: {event}"
    assert set(event) == KEYS[event["ph"]], f"keys are missing or unknown: {event}"
    assert type(event["pid"]) is int and type(event["tid"]) is int and event["pid"] > 0 and event["tid"] >= 0
    assert isinstance(event["ts"], (int, float)) and event["ts"] >= 0
    assert isinstance(event["name"], str) and event["name"], f"it has no name: {event}"
    assert isinstance(event.get("cat", "x"), str) and event.get("cat", "x")
    assert isinstance(event.get("args", {}), dict)
    assert event.get("dur", 0) >= 0
    assert event.get("bp", "e") == "e" and event.get("s", "t") in ("t", "p", "g")


def _check_nesting(lane: tuple[int, int], slices: list[Event]) -> None:
    """Of two slices in one lane one is inside the other, or they do not overlap."""
    open_until: list[int] = []
    for each in slices:
        start, end = _ns(each["ts"]), _ns(each["ts"]) + _ns(each["dur"])
        while open_until and open_until[-1] <= start:
            open_until.pop()
        assert not open_until or end <= open_until[-1], f"slices of lane {lane} cross: {each}"
        open_until.append(end)


def run_slices(slices: list[Event]) -> Iterator[Event]:
    """Of a lane those in which it ran, and did not wait."""
    return (each for each in slices if each["cat"] == "run")


def waits(slices: list[Event]) -> list[str]:
    """What a lane waited for, in order."""
    return [each["name"] for each in slices if each["cat"] == "wait"]
