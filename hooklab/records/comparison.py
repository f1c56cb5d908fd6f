"""Two runs side by side: what is the same, and by how much numbers differ. A replay is judged with this."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import html
from .exact import is_tensor, same
from .run import Run, Text
from .scores import Scores
from .sketch import named

MOST_ROWS = 20
Pair = tuple[str, Any, Any]
_BESIDE = {"low": "lower bounds of", "high": "upper bounds of", "p": "p-values of", "examples": "examples of",
           "ends": "ends of"}
"""What Scores have besides their numbers, in words."""


@dataclass(frozen=True)
class Row:
    """One thing of both runs.

    Attributes:
        what: Its name.
        old: What it is in the old run, in short; empty when it is missing there.
        new: The same in the new run.
        difference: The largest difference between its numbers; infinite when it is missing on one side, has another
            shape, or is text that differs.
        same: Whether it is the same bit for bit.
    """

    what: str
    old: str
    new: str
    difference: float
    same: bool


@dataclass(frozen=True, repr=False)
class Comparison:
    """What two runs have in common.

    >>> compare(Run(metrics={"a": {"prob": 0.5}}), Run(metrics={"a": {"prob": 0.25}})).largest
    0.25

    Attributes:
        rows: One for each thing that either run holds.
        circumstances: What else is different: weights, versions, device, seed. It is told, and counts as no difference.
    """

    rows: tuple[Row, ...]
    circumstances: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether everything is the same bit for bit."""
        return all(row.same for row in self.rows)

    @property
    def largest(self) -> float:
        """The largest difference of any number; infinite when something is missing or cannot be subtracted."""
        return max((row.difference for row in self.rows), default=0.0)

    @property
    def different(self) -> tuple[Row, ...]:
        """The rows that are not the same, the largest difference first."""
        return tuple(sorted((row for row in self.rows if not row.same), key=lambda row: -row.difference))

    def __repr__(self) -> str:
        lines = [f"Comparison · {self._verdict()}"]
        for row in self.different[:MOST_ROWS]:
            lines.append(f"  {html.printable(row.what)}: {_said(row.old)} → {_said(row.new)}"
                         + (f"  (by {html.number(row.difference)})" if math.isfinite(row.difference) else ""))
        more = len(self.different) - MOST_ROWS
        lines += [f"  … {more} more"] if more > 0 else []
        return "\n".join([*lines, *(f"  made with another {html.printable(what)}" for what in self.circumstances)])

    def _repr_html_(self) -> str:
        rows = [[row.what, _said(row.old), _said(row.new), row.difference if math.isfinite(row.difference) else None]
                for row in self.different[:MOST_ROWS]]
        more = len(self.different) - MOST_ROWS
        return html.block(html.heading(self._verdict()), html.table(["", "old", "new", "difference"], rows) if rows else "",
                          html.note(f"{more} more: see `.different`") if more > 0 else "",
                          *(html.note(f"made with another {what}") for what in self.circumstances))

    def _verdict(self) -> str:
        if self.same:
            return f"the same in all {len(self.rows)} entries"
        numbers = [row.difference for row in self.different if math.isfinite(row.difference)]
        others = len(self.different) - len(numbers)
        parts = [f"largest difference {html.number(max(numbers))}"] if numbers else []
        parts += [f"{others} {'is' if others == 1 else 'are'} text, or cannot be subtracted"] if others else []
        return f"{len(self.different)} of {len(self.rows)} entries differ, {'; '.join(parts)}"


def compare(old: Run, new: Run) -> Comparison:
    """Compare tokens, metrics, scores, activations and texts of two runs, and tell what they were made with."""
    return Comparison(tuple(_row(*pair) for part in _PARTS for pair in part(old, new)), _circumstances(old, new))


def _circumstances(old: Run, new: Run) -> tuple[str, ...]:
    """Entries of the provenance that differ, the moment of the run apart."""
    a, b = (_leaves(run.provenance) for run in (old, new))
    return tuple(f"{key} ({a.get(key, 'none')} → {b.get(key, 'none')})" for key in dict.fromkeys((*a, *b))
                 if key != "made" and a.get(key) != b.get(key))


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found.update(_leaves(value, f"{prefix}{key} ") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found


def _spec(old: Run, new: Run) -> Iterator[Pair]:
    yield "spec", old.spec, new.spec


def _tokens(old: Run, new: Run) -> Iterator[Pair]:
    ids = [{key: one.ids for key, one in run.tokens_of.items()} for run in (old, new)]
    yield from _paired("tokens of ", *ids)


def _metrics(old: Run, new: Run) -> Iterator[Pair]:
    yield from _paired("metric ", _flat(old.metrics), _flat(new.metrics))
    yield from _paired("examples of ", _flat(old.examples), _flat(new.examples))


def _flat(nested: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{run}.{name}": value for run, row in nested.items() for name, value in row.items()}


def _scores(old: Run, new: Run) -> Iterator[Pair]:
    for what, left, right in _paired("scores ", old.scores, new.scores):
        yield from _apart(what, left, right)


def _apart(what: str, old: Scores | None, new: Scores | None) -> Iterator[Pair]:
    """Scores of both runs; what else they have per cell comes apart from the numbers where it is not the same."""
    if old is None or new is None or old.axes != new.axes:
        yield what, old, new
        return
    other = [word for word in (*_BESIDE, "labels", "control") if not same(getattr(old, word), getattr(new, word))]
    without: dict[str, Any] = dict.fromkeys(other)
    without |= {"low": None, "high": None} if {"low", "high"} & without.keys() else {}
    yield what, replace(old, **without), replace(new, **without)
    for word in other:
        if word == "labels":
            yield from _labels(what, old, new)
        elif word == "control":
            yield from _apart(f"control of {what}", old.control, new.control)
        else:
            found = (getattr(scores, word) for scores in (old, new))
            left, right = (None if one is None else np.asarray(one) for one in found)
            yield f"{_BESIDE[word]} {what}", left, right


def _labels(what: str, old: Scores, new: Scores) -> Iterator[Pair]:
    """The first text of a cell that is another, and how many more are."""
    if old.labels is None or new.labels is None or old.shape != new.shape:
        yield f"texts of {what}", None if old.labels is None else "texts", None if new.labels is None else "texts"
        return
    apart = np.argwhere(old.labels != new.labels)
    first = tuple(apart[0])
    cell = named({axis: old.coords[axis][i] for axis, i in zip(old.axes, first, strict=True)})
    more = f", and {len(apart) - 1} more" if len(apart) > 1 else ""
    yield f"text of {what} at {cell}{more}", str(old.labels[first]), str(new.labels[first])


def _activations(old: Run, new: Run) -> Iterator[Pair]:
    yield from _paired("", old.data, new.data)
    for key, axes in old.axes.items():
        if axes != new.axes.get(key, axes):
            yield f"axes of {key}", " ".join(axes), " ".join(new.axes[key])


def _texts(old: Run, new: Run) -> Iterator[Pair]:
    flat = [{f"{run}[{i}]": text for run, several in one.texts.items() for i, text in enumerate(several)}
            for one in (old, new)]
    yield from _paired("text ", *flat)


_PARTS: tuple[Callable[[Run, Run], Iterator[Pair]], ...] = (_spec, _tokens, _metrics, _scores, _activations, _texts)


def _paired(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Pair]:
    for key in dict.fromkeys([*old, *new]):
        yield prefix + key, old.get(key), new.get(key)


def _row(what: str, old: Any, new: Any) -> Row:
    equal = same(old, new)
    return Row(what, _short(old), _short(new), 0.0 if equal else _difference(old, new), equal)


def _difference(old: Any, new: Any) -> float:
    """The largest difference of two things that are not the same bit for bit."""
    if old is None or new is None or isinstance(old, (str, tuple, Text)):
        return math.inf
    if isinstance(old, Scores) and (old.axes, old.coords) != (new.axes, new.coords):
        return math.inf
    left, right = _array(old), _array(new)
    if left is None or right is None or left.shape != right.shape:
        return math.inf
    with np.errstate(invalid="ignore"):
        apart = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0.0, np.abs(left - right))
    return float(np.nan_to_num(apart, nan=math.inf, posinf=math.inf).max(initial=0.0))


def _array(value: Any) -> np.ndarray | None:
    """Numbers as float64 (or complex); None for what has none, or is ragged."""
    if is_tensor(value):
        plain = value.detach().cpu()
        value = (plain if plain.dtype.is_complex else plain.double()).numpy()
    try:
        array = np.asarray(value.values if isinstance(value, Scores) else value)
    except ValueError:
        return None
    return array if array.dtype.kind == "c" else array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _short(value: Any) -> str:
    """A value in a few words."""
    if value is None:
        return ""
    if isinstance(value, Text):
        value = value.new
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:60] + "…")
    if isinstance(value, (int, float)):
        return f"{value:.9g}"
    if isinstance(value, tuple):
        return "·".join(str(len(ids)) for ids in value) + " tokens"
    numbers = value.values if isinstance(value, Scores) else value
    return f"{str(numbers.dtype).removeprefix('torch.')} {'×'.join(map(str, numbers.shape)) or 'number'}"


def _said(text: str) -> str:
    return html.printable(text) if text else "missing"
