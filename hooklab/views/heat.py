"""A map of numbers without a browser: as HTML with an inline picture, and as a matplotlib figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from . import colours, wire

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..records import Scores

MOST_WRITTEN = 400
"""Cells that are written out as a table; a larger map is a picture."""
WIDEST, TALLEST = 720, 480
MOST_BYTES = 60 * 1024
MOST_NAMES = 32
MOST_DOTS = 600
STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)


def scale_for(scores: Scores, *, signed: bool, limit: float = 0.0) -> wire.Scale:
    """The scale of Scores: symmetric about zero where signs matter, else from zero up; `limit` is its end."""
    values = scores.values
    below = bool((values < 0).any())
    chance = scores.unit == "probability" and not below and not signed
    found = wire.fitting(values, kind="diverging" if signed or below else "probability" if chance else None)
    return wire.Scale(found.kind, -limit if found.kind == "diverging" else 0.0, limit) if limit else found


def picture(values: np.ndarray, scale: wire.Scale, *, caption: str, rows: Sequence[str], columns: Sequence[str],
            axes: tuple[str, str], unit: str) -> str:
    """A map [rows columns] as HTML: a table with its numbers where it is small, else a picture with its ends named."""
    if values.size <= MOST_WRITTEN:
        return html.heat(values.tolist(), list(rows), list(columns), caption=caption, unit=unit, axes=axes,
                         limit=max(abs(scale.low), abs(scale.high)))
    ends = " · ".join(f"{axis} {names[0]} to {names[-1]}" for axis, names in zip(axes, (rows, columns), strict=True))
    says = f"{caption}: {axes[0]} down, {axes[1]} across; {ends}"
    return (html.heading(caption) + f'<img alt="{html.safe(says)}" src="{_png(values, scale)}" style="image-rendering:'
            f'pixelated;max-width:100%;border:1px solid rgb(128 128 128 / .4)">'
            + html.note(f"{says}. Colours from {html.number(scale.low)} to {html.number(scale.high)} {unit}".rstrip()))


def strongest(cells: Sequence[tuple[str, float]], unit: str, *, of: int) -> str:
    """A table of the strongest cells."""
    rows = [[name, value] for name, value in cells]
    return html.table(["cell", unit or "value"], rows, f"strongest {len(rows)} of {of:,}") if rows else ""


def _png(values: np.ndarray, scale: wire.Scale) -> str:
    """The picture as a data address, as large as fits; cells smaller than a pixel are pooled to their strongest."""
    middle = wire.ZERO if scale.kind == "diverging" else wire.FIRST
    codes = scale.codes(values)
    for part in (1, 2, 3, 4, 6):
        data = _encoded(shrunk(codes, middle, TALLEST // part, WIDEST // part), scale)
        if len(data) <= MOST_BYTES:
            break
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _encoded(codes: np.ndarray, scale: wire.Scale) -> bytes:
    from PIL import Image

    across = max(1, min(16, WIDEST // codes.shape[1]))
    down = max(1, min(16, TALLEST // codes.shape[0]))
    image = Image.fromarray(np.repeat(np.repeat(codes, down, 0), across, 1), "P")
    table = colours.for_codes(scale.kind)
    image.putpalette(table[:, :3].tobytes())
    target = io.BytesIO()
    image.save(target, "PNG", transparency=bytes(table[:, 3]), optimize=True)
    return target.getvalue()


def shrunk(codes: np.ndarray, middle: int, most_rows: int, most_columns: int) -> np.ndarray:
    """Codes [rows columns] in no more rows and columns than given, each the strongest of those that it stands for.

    >>> shrunk(np.array([[130, 140, 120, 131]], np.uint8), 130, 4, 2).tolist()
    [[140, 120]]
    """
    for axis, most in ((0, most_rows), (1, most_columns)):
        if (size := codes.shape[axis]) > most:
            starts = np.arange(most) * size // most
            weight = np.where(codes == wire.MASKED, -1,
                              np.where(codes < wire.FIRST, 300 - codes.astype(int), np.abs(codes.astype(int) - middle)))
            # Weight and code in one number, so that the strongest brings its code along.
            both = np.maximum.reduceat((weight + 1) * 256 + codes, starts, axis=axis)
            codes = (both % 256).astype(np.uint8)
    return codes


def figure(values: np.ndarray, scale: wire.Scale, *, title: str, rows: Sequence[str], columns: Sequence[str],
           axes: tuple[str, str], unit: str, ax: Any = None) -> Figure:
    """The map as a matplotlib figure in the view's own colours, or into `ax`."""
    from matplotlib.colors import PowerNorm

    from ..records.plot import Picture

    if ax is None:
        width = min(11.0, max(4.0, 1.8 + 0.32 * min(len(columns), MOST_NAMES)))
        made = Picture(figsize=(width, min(8.0, max(2.4, 1.4 + 0.28 * min(len(rows), MOST_NAMES)))), layout="constrained")
        ax = made.subplots()
    norm: Any = (PowerNorm(0.5, scale.low, scale.high) if scale.kind == "probability" else None)
    limits = {} if norm is not None else {"vmin": scale.low, "vmax": scale.high}
    import matplotlib

    colour = matplotlib.colormaps[colours.NAMES[scale.kind]].with_extremes(bad="#808080")
    sides = (-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5)
    image = ax.imshow(_furthest(values.astype(float)), cmap=colour, norm=norm, aspect="auto", interpolation="nearest",
                      extent=sides, **limits)
    for side, name, labels in ((ax.yaxis, axes[0], rows), (ax.xaxis, axes[1], columns)):
        _name(side, name, labels)
    ax.set_title(_literal(title))
    ax.figure.colorbar(image, ax=ax, label=_literal(unit))
    found: Figure = ax.figure
    return found


def _furthest(values: np.ndarray) -> np.ndarray:
    """Numbers [rows columns], no more than a figure has dots for: of several, the one furthest from zero, nan before all."""
    for axis in (0, 1):
        if (size := values.shape[axis]) > MOST_DOTS:
            starts = np.arange(MOST_DOTS) * size // MOST_DOTS
            blocks = np.split(np.nan_to_num(np.abs(values), nan=np.inf), starts[1:], axis=axis)
            best = np.stack([block.argmax(axis=axis) + start for block, start in zip(blocks, starts, strict=True)], axis)
            values = np.take_along_axis(values, best, axis)
    return values


def _name(side: Any, name: str, labels: Sequence[str]) -> None:
    step = next((step for step in STEPS if len(labels) <= step * MOST_NAMES), -(-len(labels) // MOST_NAMES))
    upright = side.axis_name == "x" and any(len(label) > 3 for label in labels)
    side.set_ticks(range(0, len(labels), step), [_literal(label) for label in labels[::step]], rotation=90 if upright else 0)
    side.set_label_text(name)


def _literal(text: str) -> str:
    """Text that matplotlib shows as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
