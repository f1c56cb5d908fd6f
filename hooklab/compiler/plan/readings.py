"""Readings: what is taken from a run, activations as they are or an analysis of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spec.ast import Span
from .cells import Axis
from .reaches import Reach, Spread
from .spots import Spot


@dataclass(frozen=True)
class Keep:
    """Activations to hand to the user."""

    name: str | None
    spots: tuple[Spot, ...]
    reach: Reach
    span: Span | None = field(default=None, compare=False)
    cells: tuple[Keep, ...] = ()

    def cell(self, number: int) -> Keep:
        """What is kept in one cell: the same in all of them, unless the places follow a sweep variable."""
        return self.cells[number] if self.cells else self


@dataclass(frozen=True)
class Reading:
    """An analysis of a run: `attribute`, `score` or `lens`.

    Attributes:
        spots: Where.
        each: Positions singled out one by one, per example; None for no position axis.
        options: Method, metric, source and so on.
        axes: The axes of the result, with their labels.
    """

    verb: str
    name: str
    spots: tuple[Spot, ...]
    axes: tuple[Axis, ...]
    at: Spread | None = None
    each: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    value: Any = None
    span: Span | None = field(default=None, compare=False)

    def option(self, name: str, default: Any = None) -> Any:
        """A setting."""
        return dict(self.options).get(name, default)
