"""Lists of runs as text: a line for each, under headings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import html


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> str:
    """Rows under headings as text.

    >>> print(text_table(["run", "loss"], [["a", 0.25]]))
    run  loss
    a    0.25
    """
    def said(cell: Any) -> str:
        return "" if cell is None else html.printable(html.number(cell) if isinstance(cell, float) else cell)

    lines = [[said(cell) for cell in line] for line in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *([note] if note else [])])
