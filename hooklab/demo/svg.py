"""Pictures as SVG text: heat maps with exact values on hover, no script, no outside file.

Diverging maps run from blue through white to orange and are centred at zero; sequential ones run from white to a
dark blue. Both keep their order under the common kinds of colour blindness and in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CELL = 34
BLUE, WHITE, ORANGE, NAVY = (33, 102, 172), (247, 247, 247), (217, 95, 2), (8, 48, 107)


def mix(low: tuple[int, int, int], high: tuple[int, int, int], share: float) -> str:
    """The colour a share of the way from low to high.

    >>> mix((0, 0, 0), (200, 100, 50), 0.5)
    'rgb(100,50,25)'
    """
    share = min(1.0, max(0.0, share))
    return "rgb(" + ",".join(str(round(a + (b - a) * share)) for a, b in zip(low, high, strict=True)) + ")"


def diverging(value: float, limit: float) -> str:
    """Blue below zero, white at zero, orange above."""
    share = value / limit if limit else 0.0
    return mix(WHITE, ORANGE, share) if share >= 0 else mix(WHITE, BLUE, -share)


def sequential(value: float, limit: float) -> str:
    """White at zero, dark blue at the limit."""
    return mix(WHITE, NAVY, value / limit if limit else 0.0)


def heatmap(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], *, title: str,
            row_axis: str, column_axis: str, centred: bool = True, cell: int = CELL) -> str:
    """An SVG heat map of `values` [rows columns]; every cell carries its exact value as a tooltip, and
    shows it where there is room."""
    limit = max((abs(v) for row in values for v in row), default=1.0) or 1.0
    left, top = 12 + 8 * max(len(r) for r in rows), 16 + 7 * max(len(c) for c in columns)
    slant = 4 * max(len(c) for c in columns)  # column names lean over the right edge
    width, height = left + cell * len(columns) + slant, top + cell * len(rows) + 12
    colour = diverging if centred else sequential
    parts = [f'<svg class="map" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
             f'aria-label="{escape(title)}"><title>{escape(title)}</title>']
    for j, name in enumerate(columns):
        x = left + cell * j + cell / 2
        parts.append(f'<text transform="translate({x:.0f},{top - 6}) rotate(-60)">{escape(name)}</text>')
    for i, name in enumerate(rows):
        y = top + cell * i + cell / 2 + 4
        parts.append(f'<text x="{left - 6}" y="{y:.0f}" text-anchor="end">{escape(name)}</text>')
        for j, column in enumerate(columns):
            value = values[i][j]
            label = f"{row_axis} {name} · {column_axis} {column}: {value:.4f}"
            parts.append(f'<rect x="{left + cell * j}" y="{top + cell * i}" width="{cell - 1}" height="{cell - 1}" '
                         f'fill="{colour(value, limit)}"><title>{escape(label)}</title></rect>')
            if cell >= 30 and abs(value) >= 0.05 * limit:
                dark = abs(value) > (0.75 if centred else 0.5) * limit
                parts.append(f'<text class="num" x="{left + cell * j + (cell - 1) / 2}" y="{y:.0f}" '
                             f'fill="{"#fff" if dark else "#222"}">{value:.2f}</text>')
    return "".join(parts) + "</svg>"


def bars(labels: Sequence[str], values: Sequence[float], *, title: str, unit: str) -> str:
    """Horizontal bars, longest first as given."""
    left, width, row = 12 + 8 * max(len(label) for label in labels), 420, 26
    limit = max(values) or 1.0
    height = row * len(labels) + 8
    parts = [f'<svg class="map" role="img" viewBox="0 0 {left + width} {height}" width="{left + width}" '
             f'height="{height}" aria-label="{escape(title)}"><title>{escape(title)}</title>']
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        y, length = 4 + row * i, max(1.0, (width - 90) * value / limit)
        parts.append(f'<text x="{left - 6}" y="{y + 16}" text-anchor="end">{escape(label)}</text>'
                     f'<rect x="{left}" y="{y + 3}" width="{length:.0f}" height="{row - 8}" fill="{mix(WHITE, NAVY, .7)}">'
                     f"<title>{escape(label)}: {value:.4f} {escape(unit)}</title></rect>"
                     f'<text x="{left + length + 6:.0f}" y="{y + 16}">{value:.3f}</text>')
    return "".join(parts) + "</svg>"
