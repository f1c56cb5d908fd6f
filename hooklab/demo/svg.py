"""Pictures as SVG text: heat maps with exact values on hover, no script, no outside file.

A cell is one colour, more or less opaque over the colour of zero: orange above zero, blue below, centred at zero; or
one blue from zero up. The colours come from `STYLE`, which has a set for light pages and one for dark ones; both sets
keep their order under the common kinds of colour blindness and in grey. Numbers in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CELL = 34
STRONG = 0.58
"""From this share of the limit on, a cell is so full of colour that its number changes to the contrasting ink."""

STYLE = """
:root { --zero: #f4f4f2; --pos: #662f06; --neg: #053061; --seq: #08306b; --strong: #fff; --grid: #dcdcd8; }
@media (prefers-color-scheme: dark) { :root { --zero: #212327; --pos: #f2a055; --neg: #7db4e6; --seq: #8fbfe8;
  --strong: #0c0c0c; --grid: #3a3d42; } }
svg.map { max-width: 100%; height: auto; } svg.map text { font: 12px ui-monospace, monospace; fill: var(--ink); }
svg.map .zero { fill: var(--zero); } svg.map .pos { fill: var(--pos); } svg.map .neg { fill: var(--neg); }
svg.map .seq { fill: var(--seq); } svg.map .cell { stroke: var(--grid); stroke-width: .6; }
svg.map text.num { font-size: 11px; text-anchor: middle; pointer-events: none; }
svg.map text.strong { fill: var(--strong); }
"""


def shade(value: float, limit: float, *, centred: bool = True) -> tuple[str, float]:
    """Which colour a value has, and how much of it, from 0 (the colour of zero) to 1.

    >>> shade(-0.5, 2.0), shade(0.5, 0.25), shade(0.5, 2.0, centred=False)
    (('neg', 0.25), ('pos', 1.0), ('seq', 0.25))
    """
    share = min(1.0, abs(value) / limit) if limit else 0.0
    return ("seq" if not centred else "neg" if value < 0 else "pos"), share


def decimal(value: float, digits: int = 2) -> str:
    """A number with a fixed count of digits and no minus before zero.

    >>> decimal(-0.001), decimal(-0.5), decimal(0.12344, 4)
    ('0.00', '-0.50', '0.1234')
    """
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def heatmap(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], *, title: str,
            row_axis: str, column_axis: str, limit: float = 0.0, centred: bool = True, cell: int = CELL) -> str:
    """A heat map of `values` [rows columns] with its scale.

    Every cell has its exact value as a tooltip, and shows it rounded where there is room. The scale ends at the
    largest magnitude among the values, or at `limit` if that is larger.
    """
    limit = max(limit, *(abs(v) for row in values for v in row)) or 1.0
    left, top = 12 + 8 * max(len(r) for r in rows), 16 + 7 * max(len(c) for c in columns)
    slant = 4 * max(len(c) for c in columns)  # column names lean over the right edge
    below = top + cell * len(rows)
    width = max(left + cell * len(columns) + slant, left + 7 * CELL)
    parts = [_column_name(name, left + cell * j + cell / 2, top - 6) for j, name in enumerate(columns)]
    for i, name in enumerate(rows):
        y = top + cell * i
        parts.append(f'<text x="{left - 6}" y="{y + cell / 2 + 4:.0f}" text-anchor="end">{escape(name)}</text>')
        for j, column in enumerate(columns):
            label = f"{row_axis} {name} · {column_axis} {column}: {values[i][j]:.4f}"
            parts.append(_cell(left + cell * j, y, cell, values[i][j], limit, label, centred=centred))
    parts.append(_scale(left, below + 14, limit, centred=centred))
    return _svg(parts, width, below + 46, title)


def bars(labels: Sequence[str], values: Sequence[float], *, title: str, unit: str) -> str:
    """Horizontal bars from 0 to the largest value, in the order given."""
    left, length, row = 12 + 8 * max(len(label) for label in labels), 330, 26
    limit = max(values) or 1.0
    parts = []
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        y, end = 4 + row * i, max(1.0, length * value / limit)
        parts.append(f'<text x="{left - 6}" y="{y + 16}" text-anchor="end">{escape(label)}</text>'
                     f'<rect class="seq" x="{left}" y="{y + 3}" width="{end:.0f}" height="{row - 8}">'
                     f"<title>{escape(label)}: {value:.6f} {escape(unit)}</title></rect>"
                     f'<text x="{left + end + 6:.0f}" y="{y + 16}">{decimal(value, 4)}</text>')
    return _svg(parts, left + length + 90, row * len(labels) + 8, title)


def _svg(parts: Sequence[str], width: float, height: float, title: str) -> str:
    return (f'<svg class="map" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'aria-label="{escape(title)}">{"".join(parts)}</svg>')


def _column_name(name: str, x: float, y: float) -> str:
    return f'<text transform="translate({x:.0f},{y}) rotate(-60)">{escape(name)}</text>'


def _cell(x: float, y: float, size: int, value: float, limit: float, label: str, *, centred: bool) -> str:
    """One value: a square of its colour with a tooltip, and a number if it is neither tiny nor lost in the square."""
    colour, share = shade(value, limit, centred=centred)
    box = f'x="{x}" y="{y}" width="{size}" height="{size}"'
    square = (f'<rect class="zero" {box}/><rect class="cell {colour}" {box} fill-opacity="{share:.3f}">'
              f"<title>{escape(label)}</title></rect>")
    if size < 30 or share < 0.05:
        return square
    ink = "num strong" if share >= STRONG else "num"
    return f'{square}<text class="{ink}" x="{x + size / 2}" y="{y + size / 2 + 4:.0f}">{decimal(value)}</text>'


def _scale(x: float, y: float, limit: float, *, centred: bool) -> str:
    """The legend: swatches from the smallest to the largest value that the map can show, with their values."""
    steps = [-1.0, -0.5, 0.0, 0.5, 1.0] if centred else [0.0, 0.25, 0.5, 0.75, 1.0]
    parts = []
    for i, step in enumerate(steps):
        colour, share = shade(step, 1.0, centred=centred)
        box = f'x="{x + 46 * i}" y="{y}" width="46" height="10"'
        parts.append(f'<rect class="zero" {box}/><rect class="cell {colour}" {box} fill-opacity="{share:.3f}"/>'
                     f'<text class="num" x="{x + 46 * i + 23}" y="{y + 23}">{decimal(step * limit)}</text>')
    return "".join(parts)
