"""A Twisted server on the reactor that takes an asyncio loop: it turns lines round, and ends at the line `end`."""

from __future__ import annotations

import asyncio

import loops
from twisted.internet import asyncioreactor

loop = loops.factory()()
asyncio.set_event_loop(loop)
asyncioreactor.install(loop)

from twisted.internet import defer, protocol, reactor, task, threads  # noqa: E402
from twisted.protocols import basic  # noqa: E402


class Reverse(basic.LineReceiver):
    MAX_LENGTH = 100_000
    lines = 0

    def lineReceived(self, line: bytes) -> None:
        Reverse.lines += 1
        if line == b"end":
            self.transport.loseConnection()
            reactor.callLater(0.01, reactor.stop)
        else:
            defer.ensureDeferred(self.answer(line))

    async def answer(self, line: bytes) -> None:
        await task.deferLater(reactor, 0.001)
        await threads.deferToThread(lambda: None)
        await defer.Deferred.fromFuture(asyncio.ensure_future(asyncio.sleep(0)))
        self.sendLine(line[::-1])


def main() -> None:
    factory = protocol.Factory.forProtocol(Reverse)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    reactor.callLater(0, lambda: print(f"on {loops.class_name()}, port {port.getHost().port}", flush=True))
    reactor.run()
    print(f"ended after {Reverse.lines} lines", flush=True)


if __name__ == "__main__":
    main()
