"""Runs: a prompt with its edits and what is read, perhaps swept, perhaps written on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spec.ast import Span
from .cells import Axis, Cell
from .measures import MetricPlan
from .readings import Keep, Reading
from .spots import Spot


@dataclass(frozen=True)
class Writing:
    """Generation: how many tokens, and how they are chosen."""

    count: int
    options: tuple[tuple[str, Any], ...] = ()
    span: Span | None = field(default=None, compare=False)

    def option(self, name: str, default: Any = None) -> Any:
        """A setting."""
        return dict(self.options).get(name, default)


@dataclass(frozen=True)
class RunPlan:
    """One run: a prompt with edits, perhaps swept.

    Attributes:
        name: Its name; that of the prompt for an untouched run.
        prompt: Name of the prompt.
        axes: Axes of the sweep; none for a single pass.
        cells: The points of the sweep in row-major order; one cell without edits for an untouched run.
        samples: Independent draws of each cell.
        needs: Names of runs that must be there first.
        captures: Whole sites that later runs, or the user, will ask for.
        metrics: Metrics to evaluate.
        hidden: A run that only serves another (the first half of path patching).
    """

    name: str
    prompt: str
    axes: tuple[Axis, ...] = ()
    cells: tuple[Cell, ...] = (Cell((), ()),)
    samples: int = 1
    needs: frozenset[str] = frozenset()
    captures: frozenset[Spot] = frozenset()
    keeps: tuple[Keep, ...] = ()
    metrics: tuple[MetricPlan, ...] = ()
    readings: tuple[Reading, ...] = ()
    writing: Writing | None = None
    hidden: bool = False


def answering(source: RunPlan, user: RunPlan, number: int) -> int | None:
    """The cell of a swept run that answers to cell `number` of a run that takes from it: the same point of the same axes.

    None when the two do not vary over the same things.

    >>> pair = (Axis("layer", (0, 1)), Axis("value", (5, 6, 7)))
    >>> swept = RunPlan("a", "p", pair[1:], tuple(Cell((i,), ()) for i in range(3)))
    >>> user = RunPlan("b", "p", pair, tuple(Cell((i, j), ()) for i in range(2) for j in range(3)))
    >>> answering(swept, user, 4), answering(user, swept, 0)
    (1, None)
    """
    if len(source.cells) == 1:
        return 0
    if source.name == user.name:
        return number
    places = {(axis.name, axis.labels): i for i, axis in enumerate(user.axes)}
    flat = 0
    for axis in source.axes:
        place = places.get((axis.name, axis.labels))
        if place is None:
            return None
        flat = flat * len(axis.labels) + user.cells[number].index[place]
    return flat if source.axes else None
