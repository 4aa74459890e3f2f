"""A crawler in blocking style: a goroutine for each page, twenty at a time, over a site that it serves itself.

Run: python examples/crawler.py [pages]
"""

import argparse
import re
import time

from goloop import Chan, go, net, sleep


# -------------------------------------------------------------------- the site
def serve(listener: net.Listener, pages: int) -> None:
    """A site of numbered pages: page n links to 2n+1 and 2n+2, and to the first one. Each takes 20 ms."""

    def answer(conn: net.Conn) -> None:
        with conn:
            path = conn.readline().split()[1].decode()
            while conn.readline().strip():
                pass  # headers
            sleep(0.02)
            n = int(path.strip("/") or 0)
            links = [f'<a href="/{m}">page {m}</a>' for m in (0, 2 * n + 1, 2 * n + 2) if m < pages]
            body = f"<title>Page {n}</title>\n" + "\n".join(links)
            conn.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    for conn in listener:
        go(answer, conn)


# ----------------------------------------------------------------- the crawler
def fetch(address: str, path: str) -> str:
    """Plain blocking code; it parks the goroutine, not the thread."""
    with net.dial("tcp", address, timeout=5) as conn:
        conn.set_deadline(5)
        conn.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        headers = b"".join(iter(conn.readline, b"\r\n")).decode()
        (length,) = re.findall(r"Content-Length: (\d+)", headers)
        body: bytes = conn.read_exactly(int(length))
        return body.decode()


def crawl(address: str, at_once: int = 20) -> dict[str, str]:
    """Follow every link from the first page. Returns the titles by path."""
    titles: dict[str, str] = {}
    found: Chan[tuple[str, str]] = Chan()
    slots: Chan[None] = Chan(at_once)  # a buffered channel counts the goroutines at work

    def visit(path: str) -> None:
        slots.send(None)
        try:
            found.send((path, fetch(address, path)))
        finally:
            slots.recv()

    seen, waiting = {"/0"}, 1
    go(visit, "/0")
    while waiting:
        path, html = found.recv()
        waiting -= 1
        (titles[path],) = re.findall("<title>(.*)</title>", html)
        for link in re.findall('href="(.*?)"', html):
            if link not in seen:
                seen.add(link)
                waiting += 1
                go(visit, link)
    return titles


def main() -> None:
    parser = argparse.ArgumentParser(description="Crawl a site that the program serves itself.")
    parser.add_argument("pages", nargs="?", type=int, default=100, help="how many it has (default: %(default)s)")
    pages = parser.parse_args().pages
    if pages < 1:
        parser.error(f"a site has at least one page, not {pages}")
    with net.listen("tcp", "127.0.0.1:0") as listener:
        go(serve, listener, pages)
        start = time.perf_counter()
        titles = crawl(listener.addr)
        took = time.perf_counter() - start
    print(f"{len(titles)} pages, from {titles['/0']!r} to {titles[f'/{pages - 1}']!r}")
    print(f"{took:.1f} s; one after the other they take at least {pages * 0.02:.1f} s")


if __name__ == "__main__":
    main()
