"""What MkDocs does not do by itself: pages that show a file of the repository, a picture from outside of docs/, and a
look at the result.

A page with `source: CONTRIBUTING.md` in its front matter shows that file below its own text, with `section: NAME` only
what stands under that heading. The file's relative links lead to the page that shows their target, else to the
repository. A text that would be written twice is written once this way.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils.meta import get_data

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/goloop-project/goloop/blob/main/"
PICTURES = {"benchmarks/results.svg": "assets/results.svg"}
MARK = re.compile(r"^ *<!-- (not run: .+|continues|run|output) -->\n", re.MULTILINE)  # for the tests of the blocks
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for source, uri in PICTURES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    markdown = MARK.sub("", markdown)
    source = page.meta.get("source")
    if source is None:
        return markdown
    text = (ROOT / source).read_text()
    if section := page.meta.get("section"):
        text = _under(text, section, source)
    elif markdown.strip():  # the page's own text has the title
        text = re.sub(r"\A# .*\n", "", text)
    return markdown + "\n\n" + LINK.sub(lambda link: _moved(link, source, page, files), text)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Nothing of a page may come from elsewhere: readers may be offline, and are told to nobody."""
    for page in Path(config.site_dir).rglob("*.html"):
        text = page.read_text()
        for tag in re.findall(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?https?:[^>]*>", text):
            if 'rel="canonical"' not in tag and "rel=canonical" not in tag:
                raise PluginError(f"{page.relative_to(config.site_dir)} loads something from elsewhere: {tag}")


def _under(text: str, section: str, source: str) -> str:
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise PluginError(f"{source} has no section {section!r}")
    return found[1]


def _moved(link: re.Match[str], source: str, page: Page, files: Files) -> str:
    """Return where a link of a file leads when a page shows that file."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
    if not (ROOT / target).exists():
        raise PluginError(f"{source} links to {link[1]}, which is not there")
    anchor = link[2] or ""
    if target in PICTURES:
        uri = PICTURES[target]
    elif target.startswith("docs/"):
        uri = target.removeprefix("docs/")
    else:
        uri = _shown(files).get(target, "")
    here = posixpath.dirname(page.file.src_uri)
    return posixpath.relpath(uri, here) + anchor if uri else REPOSITORY + target + anchor


def _shown(files: Files) -> dict[str, str]:
    """Which page shows a file, whole."""
    shown = {}
    for file in files.documentation_pages():
        meta: dict[str, Any] = get_data(file.content_string)[1]
        if "source" in meta and "section" not in meta:
            shown[meta["source"]] = file.src_uri
    return shown
