"""The server of threads_before.py with a goroutine for each client. Ten thousand of them share a few threads.

Run: python threads_after.py 127.0.0.1 0
"""

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


if __name__ == "__main__":
    with net.listen("tcp", f"{sys.argv[1]}:{sys.argv[2]}") as listener:
        print("listening on", listener.addr, flush=True)
        try:
            for conn in listener:
                go(serve, conn)
        except KeyboardInterrupt:
            print("bye")
