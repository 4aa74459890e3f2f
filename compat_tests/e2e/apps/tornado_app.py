"""A Tornado server in processes of its own: the program forks, and each child makes its loop through the policy.

Run as a script with the number of processes; prints the port, and for each process the class of its loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import loops
import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.process
import tornado.web


class Pid(tornado.web.RequestHandler):
    async def get(self) -> None:
        await asyncio.sleep(0)
        self.set_header("x-loop", loops.class_name())
        self.write(str(os.getpid()))


class Echo(tornado.web.RequestHandler):
    async def post(self) -> None:
        self.set_header("x-loop", loops.class_name())
        self.write(self.request.body)


def say(line: str) -> None:
    """In one piece: print() makes two, and the processes share the pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1", backlog=1024)
    say(f"port: {sockets[0].getsockname()[1]}")
    tornado.process.fork_processes(int(sys.argv[1]), max_restarts=0)
    loops.install()
    loop = tornado.ioloop.IOLoop()  # makes an asyncio loop through the policy
    loop.make_current()
    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/pid", Pid), ("/echo", Echo)]))
    server.add_sockets(sockets)

    async def end() -> None:
        server.stop()
        await server.close_all_connections()
        loop.stop()

    def on_signal(*_: object) -> None:
        loop.asyncio_loop.create_task(end())

    loop.asyncio_loop.add_signal_handler(signal.SIGTERM, on_signal)
    say(f"up: {os.getpid()} {loops.class_name(loop.asyncio_loop)}")
    loop.start()
    loop.close()
    say(f"down: {os.getpid()}")


if __name__ == "__main__":
    main()
