"""A chat server: one goroutine for each client's lines, one for each client's screen, and one that knows everybody.

No locks: the room is a goroutine, and channels are the way to talk to it. Run: python examples/chat.py [address],
then `nc 127.0.0.1 8000` from several terminals.
"""

import argparse
import sys

from goloop import Chan, go, net, recv, select

Joins = Chan[tuple[str, Chan[str]]]  # a name, and the channel with what its client is to see
Said = Chan[tuple[str, str]]  # a name and a line


def room(join: Joins, leave: Chan[str], said: Said) -> None:
    """Pass what one client says to all others. Only this goroutine touches `screens`."""
    screens: dict[str, Chan[str]] = {}

    def tell(text: str, but: str) -> None:
        for name, screen in screens.items():
            if name != but:
                screen.try_send(text)  # a client that does not read misses something and holds up none

    while True:
        index, value, _ = select(recv(join), recv(leave), recv(said))
        if index == 0:
            name, screen = value
            tell(f"* {name} is here", but=name)
            screens[name] = screen
            screen.try_send(f"* {len(screens)} in the room")
        elif index == 1:
            screens.pop(value).close()
            tell(f"* {value} has left", but=value)
        else:
            name, text = value
            tell(f"{name}: {text}", but=name)


def show(conn: net.Conn, screen: Chan[str]) -> None:
    for text in screen:
        conn.write(text.encode() + b"\n")


def client(conn: net.Conn, join: Joins, leave: Chan[str], said: Said) -> None:
    with conn:
        conn.write(b"your name?\n")
        name = f"{conn.readline().decode(errors='replace').strip() or 'somebody'} ({conn.remote_addr})"
        screen: Chan[str] = Chan(100)
        join.send((name, screen))
        shows = go(show, conn, screen)
        try:
            for line in conn:
                said.send((name, line.decode(errors="replace").rstrip()))
        except OSError:
            pass  # the line is dead, which is a way to leave
        leave.send(name)
        shows.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat server: connect with `nc 127.0.0.1 8000`. Ctrl-C ends it.")
    parser.add_argument("address", nargs="?", default="127.0.0.1:8000", help="HOST:PORT (default: %(default)s)")
    address = parser.parse_args().address
    try:
        listener = net.listen("tcp", address)
    except (OSError, ValueError) as error:
        sys.exit(f"chat.py: cannot listen on {address}: {error}")
    join: Joins = Chan()
    leave: Chan[str] = Chan()
    said: Said = Chan()
    go(room, join, leave, said)
    with listener:
        print(f"listening on {listener.addr}", flush=True)
        try:
            for conn in listener:
                go(client, conn, join, leave, said)
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main()
