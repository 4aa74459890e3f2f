"""The crawler of gevent_before.py on goloop: the pool is a call, and the timeout is the standard library's exception.

Run: python gevent_after.py http://127.0.0.1:8000/
"""

import argparse
import re
import sys
import urllib.parse
import urllib.request

import goloop

goloop.monkey.patch_all()  # here as well as in the first line


def fetch(url: str) -> tuple[str, str]:
    with goloop.timeout(10), urllib.request.urlopen(url) as answer:
        return url, answer.read().decode()


def crawl(start: str, at_once: int = 20) -> dict[str, str]:
    """Follow every link, level by level. Returns the titles by address."""
    titles: dict[str, str] = {}
    seen, level = {start}, [start]
    while level:
        below = []
        for url, html in goloop.map_unordered(fetch, level, limit=at_once):
            (titles[url],) = re.findall("<title>(.*)</title>", html)
            for link in re.findall('href="(.*?)"', html):
                target = urllib.parse.urljoin(url, link)
                if target not in seen:
                    seen.add(target)
                    below.append(target)
        level = below
    return titles


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Crawl every page of a site, twenty at a time.")
    parser.add_argument("url", help="the first page, such as http://127.0.0.1:8000/")
    options = parser.parse_args()
    try:
        titles = crawl(options.url)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot crawl {options.url}: {error}")
    print(f"{len(titles)} pages, from {min(titles.values())!r} to {max(titles.values())!r}")
