"""A crawler on gevent: every page of a site, twenty at a time.

Run: python gevent_before.py http://127.0.0.1:8000/
"""

from gevent import monkey

monkey.patch_all()

import argparse
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
    parser = argparse.ArgumentParser(description="Crawl every page of a site, twenty at a time.")
    parser.add_argument("url", help="the first page, such as http://127.0.0.1:8000/")
    options = parser.parse_args()
    try:
        titles = crawl(options.url)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot crawl {options.url}: {error}")
    print(f"{len(titles)} pages, from {min(titles.values())!r} to {max(titles.values())!r}")
