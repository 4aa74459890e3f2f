"""The server of threads_before.py with a goroutine for each client. Ten thousand of them share a few threads.

Run: python threads_after.py 127.0.0.1 0
"""

import argparse
import sys

from goloop import go, net, sync

table: dict[str, str] = {}
lock = sync.Mutex()


def serve(conn: net.Conn) -> None:
    with conn:
        try:
            while True:
                conn.set_deadline(30)
                line = conn.readline()
                if not line:
                    return
                conn.write(answer(line.decode().split()).encode() + b"\n")
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


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A table of words that clients set and get, a line each.")
    parser.add_argument("host", nargs="?", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("port", nargs="?", type=int, default=0, help="0: a free one (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    try:
        listener = net.listen("tcp", f"{options.host}:{options.port}")
    except (OSError, ValueError) as error:
        sys.exit(f"cannot listen on {options.host}:{options.port}: {error}")
    with listener:
        print("listening on", listener.addr, flush=True)
        try:
            for conn in listener:
                go(serve, conn)
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main()
