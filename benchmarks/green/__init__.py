"""The same workloads on goroutines, greenlets of gevent and tasks of asyncio: one module for each contestant.

Each module has `run(function, *args)`, which runs it in a goroutine (greenlet, task) and returns its result, the
workloads of OPERATIONS, functions that do n operations, `park(n)`, which leaves n parked, and `serve()`, an echo
server in blocking style that calls its argument with the port and never returns.
"""

OPERATIONS = {
    "spawn": "spawn and join",
    "yield_": "yield to each other",
    "pingpong": "park and ready, round trip",
    "unbuffered": "unbuffered channel",
    "buffered": "channel of 100",
}
