"""Panels of the pictures: maps of heads, lines with a null band, bars beside their null; light, and without pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, DARK = "#2c7bb6", "#e66101", "#a0a0a0", "#404040"
_COLOURS = LinearSegmentedColormap.from_list("found", [BLUE, "#f7f7f7", ORANGE])


def figure(columns: int, widths: Sequence[float] | None = None, height: float = 3.1) -> tuple[Figure, list[Any]]:
    """A row of panels."""
    made = Figure(figsize=(10.4, height), layout="constrained", facecolor="white")
    row = made.subplots(1, columns, width_ratios=widths, squeeze=False)[0]
    return made, list(row)


def heat(place: Any, values: np.ndarray, title: str, limit: float, unit: str = "") -> None:
    """A map [layer head], 0 in the middle of the colours."""
    image = place.imshow(values, cmap=_COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    place.set_title(title, fontsize=10)
    place.set(xlabel="head", ylabel="layer", xticks=range(values.shape[1]), yticks=range(values.shape[0]))
    for (layer, head), value in np.ndenumerate(values):
        if abs(value) >= limit / 4:
            place.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                       color="white" if abs(value) > 0.8 * limit else DARK)
    if unit:
        place.figure.colorbar(image, ax=place, label=unit)


def lines(place: Any, at: Sequence[float], rows: dict[str, Any], title: str, x: str, y: str) -> None:
    """The first row in orange, the others (nulls) in greys; a row of several draws is its mean with a band of its range."""
    styles = [(ORANGE, "-"), (BLUE, "--"), (GREY, ":")]
    for (name, row), (colour, style) in zip(rows.items(), styles, strict=False):
        row = np.atleast_2d(np.asarray(row, dtype=float))
        place.plot(at, row.mean(0), style, color=colour, marker="o", markersize=3.5, label=name)
        if len(row) > 1:
            place.fill_between(at, row.min(0), row.max(0), color=colour, alpha=0.2, linewidth=0)
    _plain(place, title, x, y)
    place.legend(fontsize=8, frameon=False)


def bars(place: Any, rows: dict[str, float], nulls: Sequence[str], title: str, y: str) -> None:
    """Bars from left to right; those that are a null are grey."""
    place.bar(range(len(rows)), list(rows.values()), width=0.62, color=[GREY if name in nulls else BLUE for name in rows])
    for i, value in enumerate(rows.values()):
        place.annotate(f"{value:.{2 if abs(value) >= 0.01 else 3}f}", (i, value), (0, 2 if value >= 0 else -10),
                       textcoords="offset points", ha="center", fontsize=8)
    place.set_xticks(range(len(rows)), list(rows), fontsize=8)
    place.margins(y=0.12)
    place.axhline(0, color=DARK, linewidth=0.8)
    _plain(place, title, "", y)


def _plain(place: Any, title: str, x: str, y: str) -> None:
    place.set_title(title, fontsize=10)
    place.set(xlabel=x, ylabel=y)
    place.spines[["top", "right"]].set_visible(False)
