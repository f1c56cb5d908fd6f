"""Pages of the documentation as tests see them: their Python runs block by block, and the names in them exist."""

from __future__ import annotations

import linecache
import re
from typing import Any

import hooklab as hl


def blocks(text: str) -> list[str]:
    """The blocks of Python of a page, in order."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(code: str, file: str, names: dict[str, Any]) -> None:
    """Run a block among `names`; its source can be read under `file`, as traces and experiments do."""
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    exec(compile(code, file, "exec"), names)


def missing(text: str) -> list[str]:
    """What a page calls `hl.something` and hooklab does not have."""
    return [name for name in re.findall(r"hl\.([A-Za-z_.]+[A-Za-z_])", text) if not _is_there(name)]


def _is_there(name: str) -> bool:
    found: Any = hl
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True
