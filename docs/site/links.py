"""Links between files of the repository, as links between pages of the site."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOVED = ((r"docs/(.+)", r"\1"), (r"benchmarks/results/(.+\.md)", r"benchmarks/\1"),
         (r"notebooks/(.+\.ipynb)", r"tutorials/\1"), (r"README\.md", "index.md"),
         (r"CONTRIBUTING\.md", "contributing.md"), (r"CHANGELOG\.md", "changes.md"))
"""Where files of the repository are found on the site."""
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def onsite(file: str) -> str | None:
    """The place on the site of a file, both relative to their roots; None when it has none.

    >>> onsite("benchmarks/results/store.md"), onsite("hooklab/sites.py")
    ('benchmarks/store.md', None)
    """
    for pattern, put in MOVED:
        if re.fullmatch(pattern, file):
            return re.sub(pattern, put, file)
    return None


def relinked(text: str, file: Path, page: Path) -> str:
    """The text of a file whose links lead to pages of the site; a file that is not on it is named instead.

    Args:
        text: Markdown.
        file: Where the text stands in the repository, from its root.
        page: Where it will stand on the site, from its root.
    """
    def link(found: re.Match[str]) -> str:
        picture, words, target, part = found[1], found[2], found[3], found[4] or ""
        place = (ROOT / file.parent / target).resolve()
        if re.match(r"[a-z]+:", target) or not place.is_relative_to(ROOT):
            return found[0]
        inside = place.relative_to(ROOT).as_posix()
        if place.is_file() and (there := onsite(inside)):
            return f"{picture}[{words}]({os.path.relpath(there, page.parent)}{part})"
        return words if words.strip("`") == inside else f"{words} (`{inside}`)"

    return LINK.sub(link, text)
