"""Coloured text as a matplotlib figure: fixed-width letters, wrapped, each token on its tint."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from . import tints, wire

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 0.235
"""Inches from line to line."""
LETTER = 0.0837
"""Inches that a letter of ten points is wide."""
SIZE = 10
FONTS = ["monospace", "sans-serif"]


def wide(text: str) -> int:
    """Columns that a text takes: two for East Asian letters and emoji, none for marks on the letter before.

    >>> wide("ab"), wide("語"), wide("e\\u0301")
    (2, 2, 1)
    """
    return sum(0 if unicodedata.combining(c) or unicodedata.category(c) in ("Cf", "Mn") else
               2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def laid(pieces: Sequence[str], across: int) -> Iterator[tuple[int, int, int, str]]:
    """(token, line, column, text) of every part of running text; a token that ends a line breaks it.

    >>> list(laid(["ab", "c↵\\n", "d"], 10))
    [(0, 0, 0, 'ab'), (1, 0, 2, 'c↵'), (2, 1, 0, 'd')]
    """
    line = column = 0
    for i, piece in enumerate(pieces):
        parts = piece.split("\n")
        for n, part in enumerate(parts):
            if n:
                line, column = line + 1, 0
            while part:
                if column and column + wide(part) > across:
                    line, column = line + 1, 0
                taken = part[:across]
                yield i, line, column, taken
                column += wide(taken)
                part = part[across:]


def figure(rows: Sequence[tuple[str, Sequence[str]]], values: np.ndarray | None, unit: str, scale: wire.Scale | None, *,
           title: str, most: int, across: int, ax: Any = None) -> Figure:
    """Rows of tokens, label above each where there are several, as a figure or into `ax`."""
    placed, height = _placed(rows, most, across)
    bar = None
    if ax is None:
        ax, bar = _paper(across, height, title=bool(title), bar=scale is not None)
    elif scale is not None:
        bar = ax.inset_axes((0, -0.06, 0.4, 0.03))
    box = ax.get_position()
    letter = box.width * ax.figure.get_size_inches()[0] / across
    size = min(SIZE, SIZE * letter / LETTER)
    ax.set_xlim(0, across)
    ax.set_ylim(height, 0)
    ax.axis("off")
    codes = None if values is None or scale is None else scale.codes(values)
    for token, line, column, text in placed:
        if token is not None and codes is not None and scale is not None:
            colour = tints.over(tints.tint(scale), int(codes[token]))
            ax.add_patch(_box(column, line, wide(text), colour))
        ax.text(column, line + 0.5, drawable(text), va="center", fontsize=size, family=FONTS, parse_math=False,
                color="black" if token is not None else "#555555")
    if title:
        ax.set_title(drawable(title), loc="left", fontsize=11, parse_math=False)
    if scale is not None:
        _bar(bar, scale, drawable(unit))
    found: Figure = ax.figure
    return found


def _paper(across: int, height: int, *, title: bool, bar: bool) -> tuple[Any, Any]:
    """Axes in which a letter is as wide as it is drawn, and below them some for the key to the colours."""
    from ..records.plot import Picture

    edge, above, below = 0.15, 0.4 if title else 0.1, 0.62 if bar else 0.1
    wide_, high = 2 * edge + LETTER * across, above + LINE * height + below
    made = Picture(figsize=(wide_, high))
    ax = made.add_axes((edge / wide_, below / high, LETTER * across / wide_, LINE * height / high))
    return ax, made.add_axes((edge / wide_, 0.42 / high, 2.4 / wide_, 0.1 / high)) if bar else None


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset().union(*(get_font(findfont(FontProperties(family=[one]))).get_charmap() for one in FONTS))


def drawable(text: str) -> str:
    """Text with a box, as wide as it was, for every letter that the fonts at hand do not have."""
    known = _letters()
    return "".join(c if ord(c) in known else "□" * wide(c) for c in text)


def _placed(rows: Sequence[tuple[str, Sequence[str]]], most: int, across: int
            ) -> tuple[list[tuple[int | None, int, int, str]], int]:
    placed: list[tuple[int | None, int, int, str]] = []
    line = start = 0
    left = most
    for label, pieces in rows:
        if len(rows) > 1 and label:
            placed.append((None, line, 0, label))
            line += 1
        parts = list(laid(pieces[:max(0, left)], across))
        placed += [(start + i, line + down, column, text) for i, down, column, text in parts]
        line += (parts[-1][1] if parts else 0) + 1
        start += len(pieces)
        left -= len(pieces)
        if left < 0:
            placed.append((None, line, 0, f"The first {most} of {sum(len(one) for _, one in rows):,} tokens."))
            return placed, line + 1
    return placed, line


def _box(column: int, line: int, width: int, colour: tuple[float, float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column, line + 0.08), width, 0.84, facecolor=colour, edgecolor="white", linewidth=0.6)


def _bar(ax: Any, scale: wire.Scale, unit: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import ListedColormap, Normalize, PowerNorm

    name = tints.tint(scale)
    colours = [tints.over(name, code) for code in range(5 if name == "both" else 4, 256)]
    norm = PowerNorm(0.5, scale.low, scale.high) if scale.kind == "probability" else Normalize(scale.low, scale.high)
    bar = Colorbar(ax, ScalarMappable(norm, ListedColormap(colours)), orientation="horizontal")
    bar.set_label(unit, fontsize=8.5, parse_math=False, loc="left")
    bar.ax.tick_params(labelsize=7.5, length=2)
    bar.outline.set_linewidth(0.4)
