"""Places that Python computed, as places of the language."""

from __future__ import annotations

import re
import reprlib
from typing import Any

from ..address import parse as parse_address
from ..errors import SiteError
from ..spec import ast

_FEATURE = re.compile(r"([A-Za-z_]\w*)\.F(\*|\d+|\d*:\d*(?::\d+)?|\[ *\d+(?: *, *\d+)* *\])")


def from_python(item: Any) -> ast.Where:
    """A place that Python computed: an address, or a pair (layer, head)."""
    if isinstance(item, str):
        if feature := _FEATURE.fullmatch(item.strip()):
            return ast.Feature(feature[1], _index_text(feature[2].replace(" ", "")))  # type: ignore[arg-type]
        parsed = parse_address(item)
        site = ast.Site(parsed.site, _index_text(parsed.layers), _index_text(parsed.heads), _index_text(parsed.neurons))
        return site
    if isinstance(item, tuple) and len(item) == 2 and all(isinstance(n, int) for n in item):
        return ast.Site("result", item[0], item[1])
    if isinstance(item, dict) and isinstance(item.get("layer"), int) and isinstance(item.get("head"), int):
        return ast.Site("result", item["layer"], item["head"])
    if isinstance(item, tuple) and item and isinstance(item[0], dict):  # what Scores.top gives
        return from_python(item[0])
    raise SiteError(f'{reprlib.repr(item)} is no place; give addresses such as "L9H6" or pairs (layer, head)')


def _index_text(text: str | None) -> ast.Index | None:
    if text is None:
        return None
    if text.startswith("["):
        return tuple(int(p) if p.strip().lstrip("-").isdigit() else p.strip() for p in text[1:-1].split(","))
    return int(text) if text.lstrip("-").isdigit() else text
