"""A page of its own: views with their script, their data and the answers to what they may ask, and nothing fetched.

Every view stands there as plain HTML first, so the page shows something even where scripts do not run.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import html
from ..errors import HooklabError, RecordError, ViewError
from ..files import write_whole
from . import registry, wire
from .assets import asset

if TYPE_CHECKING:
    from .base import View

MOST_ANSWERS = 48 * 2**20
"""Bytes of answers that a page carries, before they are compressed."""
MOST_PLAIN = 100 * 2**10
"""Characters of a form without script, at most: every saved output holds them."""
TRAITS = ("facts", "selection", "options", "_spec")

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>:root {{ color-scheme: light dark }} body {{ margin: 1.5rem; font-family: system-ui, sans-serif; background: Canvas;
color: CanvasText }} .hooklab-place {{ margin: 0 0 2rem }}</style>
<style>{css}</style></head><body>
"""


def page(shown: Sequence[View | str]) -> str:
    """The page as text; views that share their selection do so there as well.

    Args:
        shown: Views and, between them, pieces of HTML that hooklab wrote.

    Raises:
        ViewError: there is nothing to show, or one of the views was closed.
    """
    if not shown:
        raise ViewError("a page needs at least one view")
    views = [one for one in shown if not isinstance(one, str)]
    title = html.safe(" · ".join(dict.fromkeys(view._title or type(view).__name__ for view in views)) or "hooklab")
    for view in views:
        view._check_open()
    scripts = {view.KIND: asset(f"{view.KIND}.js") for view in views}
    parts = [HEAD.format(title=title, css="".join(asset(f"{kind}.css") for kind in scripts))]
    numbers = iter(range(len(views)))
    for one in shown:
        place, drawn = ("", one) if isinstance(one, str) else (f' data-place="{next(numbers)}"', one.static())
        parts.append(f'<div class="hooklab-place"{place}>{html.block(drawn)}</div>\n')
    state = {"scripts": scripts, "views": [{**_state(view), "group": _group(view, views)} for view in views]}
    parts.append(f'<script type="application/json" id="hooklab-state">{_inert(state)}</script>\n')
    parts.append(f'<script type="module">{asset("host.js")}</script>\n</body></html>\n')
    return "".join(parts)


def plain_form(name: str, text: str, room: int = MOST_PLAIN) -> str:
    """A form without script or, where it would make every saved output too long, a line that says so."""
    if len(text) <= room:
        return text
    return html.note(f"{name} is too large to be shown without script: run the cell, or write a page with .to_html(path) or "
                     "a picture with .to_png(path).")


def write_new(path: Path, data: bytes) -> Path:
    """Write a file that is not there yet.

    Raises:
        RecordError: it is there, or cannot be written.
    """
    path = path.expanduser()
    try:
        return write_whole(path, data)
    except FileExistsError as error:
        raise RecordError(f"{path} exists: choose another name, or remove it first.") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} could not be written: {getattr(error, 'strerror', None) or error}.") from error


def _state(view: View) -> dict[str, Any]:
    """The traits of a view, and what it would answer, as far as it fits."""
    answers, size, left_out = [], 0, 0
    for name, given in view.answers():
        if size > MOST_ANSWERS:
            left_out += 1
            continue
        try:
            reply, buffers = view.answer(name, given)
        except HooklabError as error:
            answers.append({"ask": name, "with": wire.plain(given), "error": html.printable(error)})
            continue
        size += sum(map(len, buffers))
        answers.append({"ask": name, "with": wire.plain(given), "reply": wire.plain(reply),
                        "buffers": [_packed(one) for one in buffers]})
    return {"kind": view.KIND, "traits": {name: wire.plain(getattr(view, name)) for name in TRAITS},
            "blob": _packed(view.blob), "answers": answers, "left_out": left_out, "shared": list(view.shared)}


def _group(view: View, views: Sequence[View]) -> int:
    """The first of the views that this one shares its selection with."""
    others = registry.linked(view)
    return next(i for i, one in enumerate(views) if one is view or one in others)


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _inert(state: Any) -> str:
    """JSON that cannot end its script element, nor be read as markup."""
    text = json.dumps(state, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
