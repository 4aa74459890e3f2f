"""A server with a thread for each client: a table of words that clients set and get.

Run: python threads_before.py 127.0.0.1 0
"""

import argparse
import socketserver
import sys
import threading

table: dict[str, str] = {}
lock = threading.Lock()
slots = threading.BoundedSemaphore(100)  # threads are dear


class Client(socketserver.StreamRequestHandler):
    timeout = 30

    def handle(self) -> None:
        with slots:
            try:
                for line in self.rfile:
                    self.wfile.write(answer(line.decode().split()).encode() + b"\n")
            except OSError:
                pass  # it is gone, or was silent for too long


def answer(words: list[str]) -> str:
    match words:
        case ["set", key, value]:
            with lock:
                before, table[key] = table.get(key, "-"), value
            return before
        case ["get", key]:
            with lock:
                return table.get(key, "-")
        case _:
            return "set KEY VALUE, or get KEY"


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1000


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A table of words that clients set and get, a line each.")
    parser.add_argument("host", nargs="?", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("port", nargs="?", type=int, default=0, help="0: a free one (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    try:
        server = Server((options.host, options.port), Client)
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot listen on {options.host}:{options.port}: {error}")
    with server:
        print("listening on", ":".join(map(str, server.server_address)), flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main()
