"""Scores as a matplotlib figure, made without pyplot so that nobody's settings or open figures are touched.

    Scores, Options ──kind by the axes──▶ one picture per cell of the axes that are left: `curves` draws, or a heat map here
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ..errors import RecordError
from . import curves
from .certainty import apart, telling
from .curves import literal as _literal
from .curves import names as _names
from .plot_options import CURVED, PAIR, Options, base_for, fit, ordered, over_and_curves, paired, part_of
from .sketch import named, picture_axes, slices

if TYPE_CHECKING:
    from .scores import Scores

MOST_MAPS = 36
MOST_BARS = 24
COLD, PALE, WARM = "#2c7bb6", "#f7f7f7", "#e66101"


class Picture(Figure):
    """A figure that a notebook shows as an image, whatever backend is in use."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png", bbox_inches="tight")
        return target.getvalue()


def figure(scores: Scores, options: Options | None = None) -> Figure:
    """Bars (or a line, where there are many) for one axis, a heat map for two, one picture per cell of the rest.

    Intervals are whiskers or a band; in a heat map a dot marks the cells whose interval leaves out 0.

    Args:
        scores: What to draw.
        options: How; as fits the axes unless given.

    Raises:
        RecordError: there is nothing to draw, the axes leave too many pictures, or an option does not fit.
    """
    options = options or Options()
    if not scores.values.size:
        raise RecordError("There is nothing to plot: the scores are empty.")
    base = None if options.base is None or isinstance(options.base, float) else options.base
    if _pairs(scores) and options.kind in (None, *CURVED):
        scores, base = paired(scores), paired(base) if base is not None and _pairs(base) else base
    kind, drawn = _kind(scores, options)
    fit(scores, kind, options)
    if base is not None:
        base = base_for(base, scores, drawn[0] if len(drawn) == 1 else over_and_curves(scores, drawn)[0])
    others = [axis for axis in scores.axes if axis not in drawn]
    picture, grid = _paper(scores, others)
    entries: list[curves.Entry] = []
    for place, (cell, part) in zip(grid, slices(scores, others), strict=False):
        entries = _draw(place, part, kind, options, scores, None if base is None else part_of(base, scores, cell))
        place.set_title(_literal(named(cell)))
    if entries:
        _legend(picture, entries, over_and_curves(scores, drawn)[1] if len(drawn) == 2 else None, "outside right upper")
    if scores.name:
        picture.suptitle(_literal(scores.name))
    return picture


def together(title: str, parts: Mapping[str, Scores], kinds: Mapping[str, str] | None = None) -> Figure:
    """Several Scores as small pictures of one figure, each with its name; of more than two axes, the first slice.

    Args:
        title: What stands above all.
        parts: Name -> Scores; none of them empty.
        kinds: Name -> how it is drawn, where that is not what fits its axes.
    """
    across = min(len(parts), 3)
    down = ceil(len(parts) / across)
    picture = Picture(figsize=(max(4.8, 4.2 * across), 3.4 * down + 0.3), layout="constrained")
    grid = picture.subplots(down, across, squeeze=False).reshape(-1)
    for place, (name, whole) in zip(grid, parts.items(), strict=False):
        scores = paired(whole) if _pairs(whole) else whole
        kind, drawn = _kind(scores, Options((kinds or {}).get(name)))
        cell, part = next(slices(scores, [axis for axis in scores.axes if axis not in drawn]))
        entries = _draw(place, part, kind, Options(), part, None)
        place.set_title(_literal(" · ".join(filter(None, [name, named(cell)]))), fontsize="medium")
        if entries:
            _legend(place, entries, over_and_curves(scores, drawn)[1] if len(drawn) == 2 else None, "best")
    for place in grid[len(parts):]:
        place.set_visible(False)
    picture.suptitle(_literal(title), fontsize="medium")
    return picture


def _draw(place: Any, part: Scores, kind: str, options: Options, whole: Scores, base: Scores | None) -> list[curves.Entry]:
    """One picture; colours are those of the whole. Hands back what a legend says."""
    if kind == "map":
        _map(place, part, options, whole)
        return []
    entries = curves.DRAW[kind](place, part, options, base)
    _finish(place, options)
    return entries


def _pairs(scores: Scores) -> bool:
    """Whether pairs of groups can be curves over another axis."""
    return set(PAIR) < set(scores.axes) and "pair" not in scores.axes


def _kind(scores: Scores, options: Options) -> tuple[str, tuple[str, ...]]:
    """What to draw, and the axes that one picture has. Raises RecordError where the kind does not fit the axes."""
    axes, drawn = scores.axes, picture_axes(scores.axes)
    if options.kind is None:
        if len(axes) < 2:
            return ("bars" if _few(scores) else "line"), axes
        left = [axis for axis in axes if axis != "pair"]
        return ("line", axes) if "pair" in axes and len(left) == 1 and ordered(scores, left[0]) else ("map", drawn)
    if options.kind == "map" and len(axes) < 2:
        raise RecordError(f"a map needs two axes, and these scores have {axes[0] if axes else 'none'}: use kind='bars'")
    if options.kind == "bars" and len(axes) > 1:
        raise RecordError(f"bars draw one axis, and these scores have {', '.join(axes)}: use kind='line' or kind='map', or "
                          f"choose with sel({axes[0]}=…)")
    if options.kind in CURVED and not axes:
        raise RecordError(f"one number makes no {options.kind}: use kind='bars'")
    return options.kind, axes if len(axes) < 2 else _curved(scores, drawn) if options.kind in CURVED else drawn


def _curved(scores: Scores, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The two axes of a picture of curves: groups are curves over what stands in an order, wherever there are any."""
    groups = next((axis for axis in ("pair", "group") if axis in scores.axes), None)
    runs = [axis for axis in scores.axes if axis != groups and ordered(scores, axis)]
    return tuple(axis for axis in scores.axes if axis in (groups, runs[0])) if groups and runs else usual


def _few(scores: Scores) -> bool:
    """Whether the entries of an axis are few enough for bars, or have no numbers to lie at."""
    labels = scores.coords[scores.axes[0]] if scores.axes else ("",)
    return len(labels) <= MOST_BARS or not all(isinstance(label, (int, float)) for label in labels)


def _paper(scores: Scores, others: Sequence[str]) -> tuple[Picture, Any]:
    """A figure with room for a picture per cell of the axes that are left. Raises RecordError for too many."""
    count = prod(len(scores.coords[axis]) for axis in others)
    if count > MOST_MAPS:
        raise RecordError(f"{count} maps along {', '.join(others)} are more than the {MOST_MAPS} that fit a figure: "
                          f"choose with sel({others[0]}=…)")
    across = min(count, 4)
    down = ceil(count / across)
    picture = Picture(figsize=(max(6.4, 4.2 * across), 3.8 * down), layout="constrained")
    grid = picture.subplots(down, across, squeeze=False).reshape(-1)
    for place in grid[count:]:
        place.set_visible(False)
    return picture, grid[:count]


def _finish(place: Any, options: Options) -> None:
    """The scale of the numbers, and the line at 0 where there is a 0."""
    if options.log:
        place.set_yscale("log")
    else:
        place.axhline(0, color="grey", linewidth=0.8)
    if options.limits is not None:
        place.set_ylim(*options.limits)


def _legend(where: Any, entries: list[curves.Entry], title: str | None, place: str) -> None:
    """What the curves are, beside them."""
    texts = [_literal(f" {name}" if name.startswith("_") else name) for _, name in entries]  # matplotlib hides "_name"
    where.legend([handle for handle, _ in entries], texts, loc=place, title=title, fontsize="small")


def _map(place: Any, scores: Scores, options: Options, whole: Scores) -> None:
    """A heat map, blue below zero and orange above; cells that are not numbers are grey."""
    values = scores.values.astype(float)
    norm, colours, extend = _scale(whole.values.astype(float), options)
    if options.log:
        values = np.where(values <= 0, norm.vmin, values)  # below the scale, not missing
    image = place.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    for side, axis in ((place.yaxis, scores.axes[0]), (place.xaxis, scores.axes[1])):
        _names(side, scores.coords[axis])
        side.set_label_text(axis)
    place.figure.colorbar(image, ax=place, label=_literal(scores.unit), extend=extend)
    if telling(whole):
        rows, columns = np.nonzero(np.asarray(apart(scores)))
        place.scatter(columns, rows, s=6, color="black", linewidths=0)


def _scale(values: np.ndarray, options: Options) -> tuple[Any, Any, str]:
    """How numbers become colours: the norm, the colours, and on which sides numbers lie beyond the ends.

    Zero is pale and both sides have the same slope; a scale that leaves zero out, and a log scale, go from pale to orange.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    if options.limits is not None:
        low, high = options.limits
    elif options.log:
        low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
        low, high = (low, high) if low < high else (low / 10, low) if np.isfinite(low) else (0.1, 1.0)
    else:
        low, high = -largest, largest
    both = LinearSegmentedColormap.from_list("hooklab", [COLD, PALE, WARM])
    most = max(abs(low), abs(high))
    ends = (low, high) if low < 0 < high else (0.0, most) if high > 0 else (-most, 0.0)
    part = both(np.linspace((ends[0] / most + 1) / 2, (ends[1] / most + 1) / 2, 257))
    colours = LinearSegmentedColormap.from_list("hooklab", part, N=257).with_extremes(bad="#999999")
    under, over = bool((finite < low).any()), bool((finite > high).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((under, over), "neither")
    return (LogNorm if options.log else Normalize)(low, high), colours, extend
