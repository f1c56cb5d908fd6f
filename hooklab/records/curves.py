"""Scores over one axis as bars, lines or stacked areas, drawn into axes of matplotlib.

Intervals are whiskers on bars and bands along lines. Every function hands back what a legend says: a handle and its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError
from .plot_options import Options, averaged, ordered, over_and_curves

if TYPE_CHECKING:
    from .scores import Scores

Entry = tuple[Any, str]
BLUE = "#2c7bb6"
DARK = "#404040"
COLOURS = ("#2c7bb6", "#e66101", "#1b9e77", "#984ea3", "#a6761d", "#d01c8b", "#666666", "#4dac26")
"""For curves that stand in no order; where there are more, and for those that do, a scale of colours."""
MOST_CURVES = 24
MOST_NAMES = 30


def bars(place: Any, scores: Scores, options: Options, base: Scores | None) -> list[Entry]:
    """One axis as bars, with a moving average and a base line on them where they are asked for."""
    axis = scores.axes[0] if scores.axes else ""
    values = np.atleast_1d(scores.values)
    at = np.arange(len(values))
    place.bar(at, values, color=BLUE)
    names(place.xaxis, scores.coords.get(axis, ("",)))
    _whiskers(place, at, scores)
    place.set_xlabel(axis)
    place.set_ylabel(literal(scores.unit))
    entries: list[Entry] = []
    if options.smooth is not None:
        entries += _line(place, at, averaged(values, options.smooth), DARK, f"mean of {options.smooth}", linewidth=2.0)
    return entries + _base(place, at, options, base, DARK)


def line(place: Any, scores: Scores, options: Options, base: Scores | None) -> list[Entry]:
    """One axis as a line; of two, a line for each entry of the one that `over_and_curves` takes for curves."""
    over, curves = _axes(scores)
    at = _along(place, scores, over)
    entries: list[Entry] = []
    for i, (name, colour) in enumerate(_curves(scores, curves)):
        values, low, high = (_row(array, scores, curves, i) for array in (scores.values, scores.low, scores.high))
        if low is not None and high is not None:
            place.fill_between(at, *_ends(low, high), color=colour, alpha=0.2, linewidth=0)
        if options.smooth is None:
            entries += _line(place, at, values, colour, name)
        else:
            _line(place, at, values, colour, "", linewidth=0.8, alpha=0.5)
            said = f"mean of {options.smooth}" if curves is None else name
            entries += _line(place, at, averaged(np.asarray(values), options.smooth), colour, said, linewidth=2.0)
        if base is not None and curves in base.axes:
            _base(place, at, options, _one(base, curves, i), colour)
    if base is None or curves is None or curves not in base.axes:
        entries += _base(place, at, options, base, DARK)
    place.set_ylabel(literal(scores.unit))
    alone = curves is None and options.smooth is None and options.base is None
    return [] if alone else entries


def area(place: Any, scores: Scores, options: Options, base: Scores | None) -> list[Entry]:
    """One axis as a filled area; of two, bands that lie on each other."""
    over, curves = _axes(scores)
    at = _along(place, scores, over)
    entries: list[Entry] = []
    floor = np.zeros(len(at))
    for i, (name, colour) in enumerate(_curves(scores, curves)):
        top = floor + np.asarray(_row(scores.values, scores, curves, i), dtype=float)
        entries.append((place.fill_between(at, floor, top, color=colour, alpha=0.85, linewidth=0), name))
        floor = top
    place.set_ylabel(literal(scores.unit))
    shown = [] if curves is None else entries[::-1]  # the uppermost band first, as it is drawn
    return shown + _base(place, at, options, base, DARK)


DRAW = {"bars": bars, "line": line, "area": area}


def names(side: Any, labels: Sequence[Any]) -> None:
    """Labels along an axis; where there are many, every n-th."""
    step = ceil(len(labels) / MOST_NAMES) or 1
    side.set_ticks(range(0, len(labels), step), [literal(str(label)) for label in labels[::step]],
                   rotation=90 if side.axis_name == "x" and any(len(str(label)) > 3 for label in labels) else 0)


def literal(text: str) -> str:
    """Text that matplotlib shows as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def _axes(scores: Scores) -> tuple[str, str | None]:
    """The axis that curves run over, and the one whose entries they are. Raises RecordError where they are too many."""
    if len(scores.axes) < 2:
        return scores.axes[0], None
    over, curves = over_and_curves(scores, scores.axes)
    if (count := len(scores.coords[curves])) > MOST_CURVES:
        raise RecordError(f"{count} curves, one for each {curves}, are more than the {MOST_CURVES} that can be told apart: "
                          f"choose with sel({curves}=[…]), or draw kind='map'")
    return over, curves


def _along(place: Any, scores: Scores, over: str) -> np.ndarray:
    """Where the entries of an axis lie: at their numbers where these rise, else one after the other."""
    labels = scores.coords[over]
    place.set_xlabel(over)
    if all(isinstance(label, (int, float)) for label in labels):
        at = np.asarray(labels, dtype=float)
        if np.isfinite(at).all() and (np.diff(at) > 0).all():
            if all(isinstance(label, int) for label in labels):
                place.xaxis.get_major_locator().set_params(integer=True)
            return at
    names(place.xaxis, labels)
    return np.arange(len(labels), dtype=float)


def _curves(scores: Scores, curves: str | None) -> list[tuple[str, Any]]:
    """The name and the colour of each curve."""
    if curves is None:
        return [(scores.name or "value", BLUE)]
    labels = scores.coords[curves]
    if len(labels) <= len(COLOURS) and not ordered(scores, curves):
        return list(zip(map(str, labels), COLOURS, strict=False))
    from matplotlib import colormaps

    scale = colormaps["viridis"]
    return [(str(label), scale(0.9 * i / max(1, len(labels) - 1))) for i, label in enumerate(labels)]


def _row(array: np.ndarray | None, scores: Scores, curves: str | None, i: int) -> Any:
    if array is None or curves is None:
        return array
    return np.take(array, i, axis=scores.axes.index(curves))


def _one(base: Scores, curves: str | None, i: int) -> Scores:
    from .select import take

    return base if curves is None or curves not in base.axes else take(base, curves, i)


def _line(place: Any, at: np.ndarray, values: Any, colour: Any, name: str, **look: Any) -> list[Entry]:
    alone = len(at) == 1 and "marker" not in look  # a single point draws no line
    (drawn,) = place.plot(at, values, color=colour, **({"marker": "o"} if alone else {}), **look)
    return [(drawn, name)]


def _base(place: Any, at: np.ndarray, options: Options, base: Scores | None, colour: Any) -> list[Entry]:
    """The number, or the curve, that the others are compared with."""
    if isinstance(options.base, float):
        return [(place.axhline(options.base, color=DARK, linewidth=1.2, linestyle="--"), f"base {options.base:g}")]
    if base is None:
        return []
    return _line(place, at, base.values, colour, base.name or "base", linestyle="--", linewidth=1.2)


def _ends(low: Any, high: Any) -> np.ndarray:
    """Bounds that can be drawn: one without end goes past all others."""
    both = np.array([low, high], dtype=float).reshape(2, -1)
    far = 1.5 * float(np.abs(np.append(both[np.isfinite(both)], 1.0)).max())
    return np.nan_to_num(both, nan=np.nan, posinf=far, neginf=-far)


def _whiskers(place: Any, at: np.ndarray, scores: Scores) -> None:
    if scores.low is not None and scores.high is not None:
        place.vlines(at, *_ends(scores.low, scores.high), color=DARK, linewidth=1.2)
