"""Scores as a matplotlib figure, made without pyplot so that nobody's settings or open figures are touched."""

from __future__ import annotations

import io
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ..errors import RecordError
from .certainty import apart, telling
from .sketch import named, picture_axes, slices

if TYPE_CHECKING:
    from .scores import Scores

MOST_MAPS = 36
MOST_BARS = 24
MOST_NAMES = 30


class Picture(Figure):
    """A figure that a notebook shows as an image, whatever backend is in use."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png", bbox_inches="tight")
        return target.getvalue()


def figure(scores: Scores) -> Figure:
    """Bars (or a line, where there are many) for one axis, a heat map for two, one map per cell of the rest.

    Intervals are whiskers or a band; in a heat map a dot marks the cells whose interval leaves out 0.

    Raises:
        RecordError: there is nothing to draw, or the axes leave too many maps.
    """
    if not scores.values.size:
        raise RecordError("There is nothing to plot: the scores are empty.")
    drawn = picture_axes(scores.axes)
    others = [axis for axis in scores.axes if axis not in drawn]
    count = prod(len(scores.coords[axis]) for axis in others)
    if count > MOST_MAPS:
        raise RecordError(f"{count} maps along {', '.join(others)} are more than the {MOST_MAPS} that fit a figure: "
                          f"choose with sel({others[0]}=…)")
    across = min(count, 4)
    down = ceil(count / across)
    finite = np.abs(scores.values[np.isfinite(scores.values)].astype(float))
    limit = float(finite.max(initial=0.0)) or 1.0
    picture = Picture(figsize=(max(6.4, 4.2 * across), 3.8 * down), layout="constrained")
    marks = telling(scores)
    grid = picture.subplots(down, across, squeeze=False).reshape(-1)
    for place, (cell, part) in zip(grid, slices(scores, others), strict=False):
        (_map if len(drawn) == 2 else _line)(picture, place, part, limit)
        if marks and len(drawn) == 2:
            rows, columns = np.nonzero(np.asarray(apart(part)))
            place.scatter(columns, rows, s=6, color="black", linewidths=0)
        place.set_title(_literal(named(cell)))
    for place in grid[count:]:
        place.set_visible(False)
    if scores.name:
        picture.suptitle(_literal(scores.name))
    return picture


def _line(picture: Figure, place: Any, scores: Scores, limit: float) -> None:
    axis = scores.axes[0] if scores.axes else ""
    values, names = np.atleast_1d(scores.values), scores.coords.get(axis, ("",))
    if len(values) <= MOST_BARS or not all(isinstance(name, (int, float)) for name in names):
        place.bar(range(len(values)), values, color="#2c7bb6")
        _names(place.xaxis, names)
        at: Any = range(len(values))
    else:
        place.plot(names, values, color="#2c7bb6")
        at = names
    if scores.low is not None:
        _intervals(place, at, scores)
    place.axhline(0, color="grey", linewidth=0.8)
    place.set_xlabel(axis)
    place.set_ylabel(scores.unit)


def _intervals(place: Any, at: Any, scores: Scores) -> None:
    """Whiskers on bars, a band along a line; a bound without end goes past all others."""
    both = np.array([scores.low, scores.high], dtype=float).reshape(2, -1)
    far = 1.5 * float(np.abs(np.append(both[np.isfinite(both)], 1.0)).max())
    low, high = np.nan_to_num(both, nan=np.nan, posinf=far, neginf=-far)
    if place.patches:
        place.vlines(at, low, high, color="#404040", linewidth=1.2)
    else:
        place.fill_between(at, low, high, color="#2c7bb6", alpha=0.2, linewidth=0)


def _map(picture: Figure, place: Any, scores: Scores, limit: float) -> None:
    """A heat map, blue below zero and orange above; cells that are not numbers are grey."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = LinearSegmentedColormap.from_list("hooklab", ["#2c7bb6", "#f7f7f7", "#e66101"])
    colours = ends.with_extremes(bad="#999999")
    image = place.imshow(scores.values.astype(float), cmap=colours, vmin=-limit, vmax=limit, aspect="auto",
                         interpolation="nearest")
    for side, axis in ((place.yaxis, scores.axes[0]), (place.xaxis, scores.axes[1])):
        _names(side, scores.coords[axis])
        side.set_label_text(axis)
    picture.colorbar(image, ax=place, label=scores.unit)


def _names(side: Any, labels: tuple[Any, ...]) -> None:
    """Labels along an axis; where there are many, every n-th."""
    step = ceil(len(labels) / MOST_NAMES) or 1
    side.set_ticks(range(0, len(labels), step), [_literal(str(label)) for label in labels[::step]],
                   rotation=90 if side.axis_name == "x" and any(len(str(label)) > 3 for label in labels) else 0)


def _literal(text: str) -> str:
    """Text that matplotlib shows as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
