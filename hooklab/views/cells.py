"""A cell of a sweep: the spec that does it alone, and running it on the model that the sweep was made with.

In: the text of a sweep and the labels of a cell. Out: text, or what a run of it measures. The model is held weakly.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError, ViewError
from ..records import Run, Scores
from ..records.views import following
from ..spec.narrow import Book, narrow
from ..spec.parser import parse
from .text import shown

if TYPE_CHECKING:
    from ..model.model import Model

PATIENCE = 5.0
"""Seconds to wait for a model that is busy with a cell of the notebook."""
MOST_NEXT = 5
NO_MODEL = "The model of this sweep is not open any more: open it, and make the view with model=…"


@dataclass(frozen=True)
class Cells:
    """What the cells of a sweep stand for.

    Attributes:
        scores: The numbers of the sweep.
        text: The spec that was swept.
        run: The name of the swept run.
        model: Gives the model, or None once it is gone.
        values: What the text's braces stand for.
    """

    scores: Scores
    text: str
    run: str
    model: Callable[[], Model | None]
    values: Mapping[str, Any] = field(default_factory=dict)

    def labels(self, selection: Mapping[str, int]) -> dict[str, Any]:
        """The labels of a cell, from the place of each along its axis."""
        return {axis: self.scores.coords[axis][i] for axis, i in selection.items()}

    def spell(self, places: Mapping[str, int]) -> str:
        """The spec of one cell. Raises RecordError, SpecError where it cannot be written alone."""
        return narrow(self.text, self.run, self.labels(places), self.scores.coords)

    @property
    def runnable(self) -> bool:
        """Whether there is a model to run a cell on."""
        return self.model() is not None

    def measure(self, places: Mapping[str, int], *, patience: float = PATIENCE) -> dict[str, Any]:
        """Run one cell: its metrics, each beside the number in the sweep where there is one, and the likeliest next tokens.

        Raises:
            ViewError: the model is gone, or busy for longer than `patience` seconds.
            SpecError: the spec cannot be run.
        """
        model = self.model()
        if model is None:
            raise ViewError(NO_MODEL)
        text = self.spell(places)
        lock = model.interleaver.lock
        if not lock.acquire(timeout=patience):
            raise ViewError("The model is busy: a cell of the notebook is using it. Run this again when that is done.")
        try:
            run = model.run(text, values=dict(self.values))
        finally:
            lock.release()
        name = self.run if self.run in run.metrics else next(reversed(run.metrics), self.run)
        found = [[shown(metric), value, self._swept(metric, places)] for metric, value in run.metrics.get(name, {}).items()]
        return {"run": shown(name), "metrics": found, "next": _next(run, name)}

    def _swept(self, metric: str, places: Mapping[str, int]) -> float | None:
        """The number of the same cell in the sweep, on the metric's own scale."""
        scores = self.scores
        if metric != scores.name or (scores.ends is None and scores.unit == "fraction"):
            return None
        raw = scores if scores.ends is None else scores.raw
        return float(raw.values[tuple(places[axis] for axis in raw.axes)])


def of_run(run: Run, key: str, model: Any = None) -> Cells:
    """The cells of one of a run's scores."""
    return Cells(run.scores[key], run.spec, key.partition(".")[0], _weakly(model) or run.__dict__.get("_model") or _none,
                 run.given)


def of_scores(scores: Scores, model: Any = None, run: str | None = None) -> Cells | None:
    """The cells of scores that carry the spec of a sweep; None where they carry none.

    Raises:
        ViewError: the spec has no such run.
    """
    if not scores.spec or not scores.values.size:
        return None
    try:
        names = list(Book(parse(scores.spec)).runs)
    except Exception:  # scores may carry any text; without a spec there are only numbers to show
        return None
    if run is not None and run not in names:
        raise ViewError(f"the spec of these scores has no run {run!r}; it has {', '.join(names) or 'none'}")
    for name in [run] if run is not None else names:
        cells = Cells(scores, scores.spec, name, _weakly(model) or _none)
        try:
            cells.spell(dict.fromkeys(scores.axes, 0))
        except RecordError:
            continue
        return cells
    return None


def pick(run: Run, score: str | None) -> str:
    """The key of the scores of a run that were swept over: the first, or those asked for (`"patched.prob"`, `"prob"`).

    Raises:
        ViewError: there are no such scores.
        RecordError: nothing was swept.
    """
    if score is None:
        grid = run.grid
        return next(key for key, one in run.scores.items() if one is grid)
    found = [key for key in run.scores if score in (key, key.rpartition(".")[2])]
    if not found:
        from ..errors import did_you_mean

        raise ViewError(f"this run has no scores {score!r}.{did_you_mean(score, run.scores)} It has "
                        f"{', '.join(run.scores) or 'none'}.")
    return found[0]


def prompts(run: Run, swept: str, axis_keys: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The prompts of a run as rows of tokens over an axis of positions, those that are the same once.

    Each is `{"name", "labels", "odd"}`: `odd` says where a row differs from the first.
    """
    rows: dict[tuple[str, ...], str] = {}
    for name, tokens in run.tokens_of.items():
        pieces = tokens.pieces[0]
        if all(isinstance(key, int) and 0 <= key < len(pieces) for key in axis_keys):
            labels = tuple(shown(pieces[key]) for key in axis_keys)
            rows.setdefault(labels, name)
    if len(rows) < 2:
        return []
    first = next(iter(rows))
    return [{"name": shown(name), "labels": list(labels), "odd": [a != b for a, b in zip(labels, first, strict=True)]
             if labels != first else [any(labels[i] != other[i] for other in rows) for i in range(len(labels))]}
            for labels, name in list(rows.items())[:3]]


def _next(run: Run, name: str) -> list[list[Any]]:
    for title, scores in following(run):
        if title.partition(" · ")[0] == name and scores.labels is not None:
            texts, chances = scores.labels.tolist()[:MOST_NEXT], np.asarray(scores.values).tolist()[:MOST_NEXT]
            return [[shown(text), chance] for text, chance in zip(texts, chances, strict=True)]
    return []


def _weakly(model: Any) -> Callable[[], Any] | None:
    return None if model is None else weakref.ref(model)


def _none() -> None:
    return None
