"""The same workloads on goroutines, greenlets of gevent and tasks of asyncio: one module for each contestant.

Each module has `run(function, *args)`, which runs it in a goroutine (greenlet, task) and returns its result, the
workloads of OPERATIONS, functions that do n operations, those of TOOLS that it has a counterpart for, `park(n)`, which
leaves n parked, and `serve()`, an echo server in blocking style that calls its argument with the port and never
returns.
"""

OPERATIONS = {
    "spawn": "spawn and join",
    "yield_": "yield to each other",
    "pingpong": "park and ready, round trip",
    "unbuffered": "unbuffered channel",
    "buffered": "channel of 100",
}

# name: (title, who has it)
TOOLS = {
    "timeout": ("timeout around a block", ("asyncio", "gevent", "goloop", "Go")),
    "event": ("Event: set, wait, clear", ("asyncio", "gevent", "goloop")),
    "future": ("Future: made, set, taken", ("asyncio", "gevent", "goloop", "Go")),
    "each": ("map, 20 at a time", ("asyncio", "gevent", "goloop", "Go")),
    "atomic": ("AtomicInt.add", ("goloop", "Go")),
    "table": ("Map: load, store", ("goloop", "Go")),
    "pool": ("Pool: get, put", ("goloop", "Go")),
    "limiter": ("Limiter.allow", ("goloop",)),
    "flight": ("singleflight.Group.do", ("goloop",)),
}
