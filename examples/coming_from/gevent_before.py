"""A crawler on gevent: every page of a site, twenty at a time.

Run: python gevent_before.py http://127.0.0.1:8000/
"""

from gevent import monkey

monkey.patch_all()

import re
import sys
import urllib.parse
import urllib.request

import gevent
from gevent.pool import Pool


def fetch(url: str) -> tuple[str, str]:
    with gevent.Timeout(10), urllib.request.urlopen(url) as answer:
        return url, answer.read().decode()


def crawl(start: str, at_once: int = 20) -> dict[str, str]:
    """Follow every link, level by level. Returns the titles by address."""
    titles: dict[str, str] = {}
    seen, level = {start}, [start]
    pool = Pool(at_once)
    while level:
        below = []
        for url, html in pool.imap_unordered(fetch, level):
            (titles[url],) = re.findall("<title>(.*)</title>", html)
            for link in re.findall('href="(.*?)"', html):
                target = urllib.parse.urljoin(url, link)
                if target not in seen:
                    seen.add(target)
                    below.append(target)
        level = below
    return titles


if __name__ == "__main__":
    titles = crawl(sys.argv[1])
    print(f"{len(titles)} pages, from {min(titles.values())!r} to {max(titles.values())!r}")
