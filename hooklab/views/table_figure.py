"""Rows as a matplotlib figure: a table in plain letters, on a light or a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .night import Inks
from .strip_plot import LINE, drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONTS = ["sans-serif", "monospace"]
SIZE = 9.0
GAP = 0.2
"""Inches between two columns."""
EDGE = 0.15
LONGEST = 48
"""Letters of a cell, at most."""


def figure(head: Sequence[str], rows: Sequence[Sequence[str]], inks: Inks, *, right: Sequence[bool],
           chosen: Sequence[int] = (), title: str = "", notes: Sequence[str] = (), ax: Any = None) -> Figure:
    """A table as a figure as large as it needs, or into `ax`, made smaller where it does not fit.

    Args:
        head: What stands above the columns.
        rows: Their cells.
        inks: The colours.
        right: Which columns end in line, as numbers do.
        chosen: Rows that stand on a colour of their own.
        title: A line above.
        notes: Lines below.
        ax: Axes to draw into.
    """
    cells = [[_cut(drawable(cell)) for cell in row] for row in (head, *rows)]
    below = [drawable(note) for note in notes]
    ends = _ends(cells)
    width = max([ends[-1] - GAP, *map(_width, below), _width(drawable(title), 11)])
    height = len(cells) + len(below)
    ax, size = _paper(width, height, inks, bool(title)) if ax is None else (ax, _fitting(ax, width, height))
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.axis("off")
    write: dict[str, Any] = {"va": "center", "fontsize": size, "family": FONTS, "parse_math": False}
    for at in chosen:
        ax.axhspan(at + 1, at + 2, color=inks.chosen, linewidth=0)
    for line, row in enumerate(cells):
        for text, start, end, ends_in_line in zip(row, (0.0, *ends), ends, right, strict=False):
            ax.text(end - GAP if ends_in_line else start, line + 0.5, text, ha="right" if ends_in_line else "left",
                    color=inks.ink if line else inks.quiet, **write)
        ax.axhline(line + 1, color=inks.quiet if not line else inks.line, linewidth=0.6)
    for line, note in enumerate(below, len(cells)):
        ax.text(0, line + 0.5, note, color=inks.quiet, **write)
    if title:
        ax.set_title(drawable(title), loc="left", fontsize=11, color=inks.ink, parse_math=False)
    found: Figure = ax.figure
    return found


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST - 1] + "…"


def _ends(cells: Sequence[Sequence[str]]) -> list[float]:
    """Where each column ends, with the gap after it, in inches."""
    ends, at = [], 0.0
    for column in zip(*cells, strict=True):
        at += max(map(_width, column)) + GAP
        ends.append(at)
    return ends


def _width(text: str, size: float = SIZE) -> float:
    """Inches that a text takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    found: float = text_to_path.get_text_width_height_descent(text, FontProperties(family=FONTS, size=size), False)[0]
    return found / 72


def _paper(width: float, height: int, inks: Inks, titled: bool) -> tuple[Any, float]:
    """Axes of a new figure in which a line is as high and a letter as wide as it is drawn, and the size of the letters."""
    from ..records.plot import Picture

    above = 0.4 if titled else EDGE
    wide, high = width + 2 * EDGE, LINE * height + above + EDGE
    made = Picture(figsize=(wide, high), facecolor=inks.paper)
    return made.add_axes((EDGE / wide, EDGE / high, width / wide, LINE * height / high)), SIZE


def _fitting(ax: Any, width: float, height: int) -> float:
    box, (wide, high) = ax.get_position(), ax.figure.get_size_inches()
    return SIZE * min(1.0, box.width * wide / width, box.height * high / (LINE * height))
