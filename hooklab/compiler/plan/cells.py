"""Cells: the points of a sweep, and the axes that they lie along."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from .edits import Edit


@dataclass(frozen=True)
class Axis:
    """An axis of a sweep: its name, the label of each value, and the `sweep` variable that makes it, if one does."""

    name: str
    labels: tuple[Any, ...]
    variable: str | None = field(default=None, compare=False)


def named_apart(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Axes with names of their own: a second `layer` becomes `layer_2`.

    >>> [axis.name for axis in named_apart((Axis("layer", ()), Axis("layer_2", ()), Axis("layer", ())))]
    ['layer', 'layer_2', 'layer_3']
    """
    found: list[Axis] = []
    for axis in axes:
        taken = {one.name for one in found}
        names = (axis.name if n == 1 else f"{axis.name}_{n}" for n in itertools.count(1))
        found.append(replace(axis, name=next(name for name in names if name not in taken)))
    return tuple(found)


@dataclass(frozen=True)
class Cell:
    """One point of a sweep: the index along each axis and the edits that apply there."""

    index: tuple[int, ...]
    edits: tuple[Edit, ...]
