"""What a plot of Scores may be asked for, checked before anything is drawn; and what a moving average is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError, did_you_mean
from .select import take

if TYPE_CHECKING:
    from .scores import Scores

KINDS = ("bars", "line", "area", "map")
CURVED = ("line", "area")
"""The kinds that draw an axis as curves over another one."""
PAIR = ("group", "other")
"""Two axes that are drawn as one, an entry of which is a pair, where there is a third to draw them over."""
UNORDERED = ("head", "kv_head", "neuron", "feature", "batch", "sample", "dims", "d_model", "pair", *PAIR)
"""Axes whose entries are numbered but stand in no order."""
PLACED = ("layer", "pos", "query_pos", "key_pos", "step")
"""Axes whose entries stand in an order, whatever they are called."""


@dataclass(frozen=True)
class Options:
    """How Scores are drawn.

    Attributes:
        kind: `"bars"`, `"line"`, `"area"`, `"map"`; None for what fits the axes.
        log: A log colour scale (of a map) or a log axis.
        limits: Ends of the colour scale or of the axis.
        smooth: Over how many entries a moving average goes.
        base: A number, or Scores of the same axis, to compare with.
    """

    kind: str | None = None
    log: bool = False
    limits: tuple[float, float] | None = None
    smooth: int | None = None
    base: float | Scores | None = None


def checked(kind: str | None, log: bool, limits: Any, smooth: Any, base: Any) -> Options:
    """Options that make sense by themselves.

    >>> checked("line", False, (0, 1), 3, None).limits
    (0.0, 1.0)

    Raises:
        RecordError: one of them does not.
    """
    if kind is not None and kind not in KINDS:
        raise RecordError(f"scores are drawn as {', '.join(KINDS)}, not {kind!r}.{did_you_mean(str(kind), KINDS)}")
    if smooth is not None and (isinstance(smooth, bool) or not isinstance(smooth, (int, np.integer)) or smooth < 1
                               or smooth % 2 == 0):
        near = f": {smooth - 1} and {smooth + 1} have a middle" if isinstance(smooth, int) and smooth > 1 else ""
        raise RecordError(f"smooth={smooth!r}: a centred average goes over an odd number of entries, such as 5{near}")
    return Options(kind, bool(log), _two(limits, bool(log)), None if smooth is None else int(smooth), _base(base))


def _two(limits: Any, log: bool) -> tuple[float, float] | None:
    if limits is None:
        return None
    try:
        low, high = (float(end) for end in limits)
    except (TypeError, ValueError) as error:
        raise RecordError(f"limits= are two numbers, as in limits=(0, 1), not {limits!r}") from error
    if not (isfinite(low) and isfinite(high) and low < high):
        raise RecordError(f"limits=({low:g}, {high:g}): the first must be below the second, and both finite")
    if log and low <= 0:
        raise RecordError(f"limits=({low:g}, {high:g}): a log scale begins above 0, as in limits=({high / 1000:g}, {high:g})"
                          if high > 0 else "a log scale shows numbers above 0: give limits above 0, or leave log out")
    return low, high


def _base(base: Any) -> float | Scores | None:
    from .scores import Scores

    if base is None or isinstance(base, Scores):
        return base
    try:
        number = float(base)
    except (TypeError, ValueError) as error:
        raise RecordError(f"base= is a number, or Scores of the same axis, not {type(base).__name__}") from error
    if not isfinite(number):
        raise RecordError(f"base={number}: a base line is a finite number")
    return number


def fit(scores: Scores, kind: str, options: Options) -> None:
    """Refuse what this kind of drawing, or these numbers, cannot have. Raises RecordError, which names another way."""
    values = np.asarray(scores.values, dtype=float)
    if kind == "map" and (options.smooth is not None or options.base is not None):
        word = "smooth" if options.smooth is not None else "base"
        raise RecordError(f"{word}= is drawn beside curves, and these scores are drawn as a map: add kind='line', or choose "
                          f"one row with sel({scores.axes[0]}=…)")
    if kind == "area":
        _fit_area(values, options)
    if options.log and options.limits is None and (odd := int((values <= 0).sum())):
        most = abs(float(values[np.isfinite(values)].max(initial=0.0))) or 1.0
        raise RecordError(f"log=True needs numbers above 0, and {odd} of {values.size} are not: say where the scale begins, "
                          f"as in limits=({most / 1000:.3g}, {most:.3g}), or leave log out")


def _fit_area(values: np.ndarray, options: Options) -> None:
    if options.log:
        raise RecordError("an area has no log scale, because its heights add up: use kind='line'")
    if options.smooth is not None:
        raise RecordError("smooth= is drawn beside a line: use kind='line'")
    if below := int((values < 0).sum()):
        raise RecordError(f"an area stacks what adds up, and {below} of {values.size} numbers are below 0: use kind='line'")
    if odd := int((~np.isfinite(values)).sum()):
        raise RecordError(f"an area stacks finite numbers, and {odd} of {values.size} are not: use kind='line'")


def averaged(values: np.ndarray, n: int) -> np.ndarray:
    """The centred mean of n entries along the last axis; at the ends, and where numbers lack, of those that are there.

    >>> averaged(np.array([1.0, 2.0, 6.0, 4.0]), 3).tolist()
    [1.5, 3.0, 4.0, 5.0]
    """
    values = np.asarray(values, dtype=float)
    there = np.isfinite(values)
    half = n // 2
    pad = [(0, 0)] * (values.ndim - 1) + [(half + 1, half)]
    sums, counts = (np.pad(one, pad).cumsum(-1) for one in (np.where(there, values, 0.0), there.astype(float)))
    size = values.shape[-1]
    total, count = (one[..., 2 * half + 1:][..., :size] - one[..., :size] for one in (sums, counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def ordered(scores: Scores, axis: str) -> bool:
    """Whether the entries of an axis stand in an order.

    >>> import hooklab as hl
    >>> one = hl.Scores(np.eye(2), ("layer", "head"))
    >>> ordered(one, "layer"), ordered(one, "head")
    (True, False)
    """
    labels = scores.coords[axis]
    return axis in PLACED or (axis not in UNORDERED and all(
        isinstance(label, (int, float)) and not isinstance(label, bool) for label in labels))


def over_and_curves(scores: Scores, axes: tuple[str, ...]) -> tuple[str, str]:
    """Of two axes, the one that curves run over and the one whose entries are curves: the ordered one and the other; of
    two of a kind, the longer one and the shorter. Steps are always run over.

    >>> import hooklab as hl
    >>> over_and_curves(hl.Scores(np.zeros((3, 8)), ("layer", "head")), ("layer", "head"))
    ('layer', 'head')
    """
    first, second = axes

    def rank(axis: str) -> tuple[bool, bool, int]:
        return axis == "step", ordered(scores, axis), len(scores.coords[axis])

    return (first, second) if rank(first) >= rank(second) else (second, first)


def paired(scores: Scores) -> Scores:
    """Scores whose axes `group` and `other` are one axis `pair`; a pair stands there once where both orders are the same.

    >>> import hooklab as hl
    >>> both = hl.Scores(np.array([[[1.0, 2.0], [2.0, 3.0]]]), ("layer", "group", "other"), {"group": "ab", "other": "ab"})
    >>> paired(both).coords["pair"], paired(both).values.tolist()
    (('a · a', 'a · b', 'b · b'), [[1.0, 2.0, 3.0]])
    """
    rest = tuple(axis for axis in scores.axes if axis not in PAIR)
    first, second = (scores.coords[axis] for axis in PAIR)
    order = [scores.axes.index(axis) for axis in (*rest, *PAIR)]
    arrays = {word: np.asarray(array).transpose(order) for word in ("values", "low", "high")
              if (array := getattr(scores, word)) is not None}
    same = first == second and all(np.array_equal(one, one.swapaxes(-1, -2), equal_nan=True) for one in arrays.values())
    cells = [(i, j) for i in range(len(first)) for j in range(len(second)) if not same or i <= j]
    at = (..., [i for i, _ in cells], [j for _, j in cells])
    coords = {axis: scores.coords[axis] for axis in rest} | {"pair": tuple(f"{first[i]} · {second[j]}" for i, j in cells)}
    return replace(scores, axes=(*rest, "pair"), coords=coords, labels=None, examples=None, p=None, control=None,
                   values=arrays["values"][at], low=arrays["low"][at] if "low" in arrays else None,
                   high=arrays["high"][at] if "high" in arrays else None)


def base_for(base: Scores, scores: Scores, over: str) -> Scores:
    """Scores to compare with, when they are over the same axis; further axes they share with what is drawn.

    Raises:
        RecordError: they are not.
    """
    if over not in base.axes or not set(base.axes) <= set(scores.axes) or any(
            base.coords[axis] != scores.coords[axis] for axis in base.axes):
        sizes = " · ".join(f"{axis} {len(base.coords[axis])}" for axis in base.axes) or "one number"
        raise RecordError(f"base= must be over the same {over} as the scores, with the same labels, and is over {sizes}: "
                          f"choose with sel(…), or give a number, such as base=float(other.values.mean())")
    return base


def part_of(base: Scores, scores: Scores, cell: dict[str, Any]) -> Scores:
    """The part of `base` that belongs to a part of the scores, told by its labels."""
    for axis, label in cell.items():
        if axis in base.axes:
            base = take(base, axis, scores.coords[axis].index(label))
    return base
