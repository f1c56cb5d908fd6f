"""A sweep as a Python loop: variables for what runs along one axis, tables for what does not follow its labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from ..compiler.plan.cells import Axis
from .text import CodeError, Leaf, Names, Text, literal, plain, ranged

PLACES = ("pos", "query_pos", "key_pos")


class Loop:
    """The points of a run and how to write them as a loop; a run without a sweep is a loop of one point.

    Attributes:
        axes: Axes of the sweep.
        index: The index of each point along every axis.
        tables: Lines that go before the loop.
    """

    def __init__(self, axes: tuple[Axis, ...], index: Sequence[tuple[int, ...]], names: Names) -> None:
        if not axes and len(index) > 1:
            axes, index = (Axis("case", tuple(range(len(index)))),), [(n,) for n in range(len(index))]
        self.axes, self.index, self.names = axes, list(index), names
        if axes and len(self.index) != prod(len(axis.labels) for axis in axes):
            raise CodeError("a sweep whose points are no grid cannot be written as a loop")
        self.variables = [names.shared(axis.name) for axis in axes]
        self.cell = names.shared("point") if axes else ""
        self.labels: list[list[str] | None] = [_natural(axis) for axis in axes]
        self.tables: dict[str, str] = {}
        self.counted = False

    @property
    def swept(self) -> bool:
        """Whether there is anything to go over."""
        return bool(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(axis.labels) for axis in self.axes)

    # Reading the texts of all points -------------------------------------------------------------------------------

    def learn(self, texts: dict[int, Text]) -> None:
        """Let position axes run over columns where a text of theirs is a column at every point."""
        for leaves in _leaves(texts):
            axis = self._axis({cell: leaf.core for cell, leaf in leaves.items()})
            if axis is None or self.labels[axis] is not None or self.axes[axis].name not in PLACES:
                continue
            along = self._along(axis, {cell: leaf.core for cell, leaf in leaves.items()})
            if len(along) == len(self.axes[axis].labels) and all(core.isdigit() for core in along.values()):
                self.labels[axis] = [along[n] for n in sorted(along)]

    def fill(self, texts: dict[int, Text]) -> str:
        """One text for all points of `texts` (point -> text; all of one skeleton)."""
        first = next(iter(texts.values()))
        filled = iter([self._leaf(leaves) for leaves in _leaves(texts)])
        return "".join(piece if isinstance(piece, str) else next(filled) for piece in first)

    def _leaf(self, leaves: dict[int, Leaf]) -> str:
        found = list(leaves.values())
        if len({leaf.text for leaf in found}) == 1:
            return found[0].text
        wraps = {leaf.wrap for leaf in found}
        cores = {cell: leaf.core if len(wraps) == 1 else _whole(leaf) for cell, leaf in leaves.items()}
        wrap = found[0].wrap if len(wraps) == 1 else "{0}"
        return wrap.format(self._variable(found[0].kind, cores))

    def _variable(self, kind: str, cores: dict[int, str]) -> str:
        """A loop variable, or a look-up by one, that is `cores[point]` at every point."""
        axis = self._axis(cores)
        if axis is None:
            self.counted = True
            if all(core == str(cell) for cell, core in cores.items()):
                return self.cell
            return self._look_up(kind, self.cell, {str(cell): core for cell, core in cores.items()})
        labels, along = self._labels(axis), self._along(axis, cores)
        if all(labels[n] == core for n, core in along.items()):
            return self.variables[axis]
        return self._look_up(kind, self.variables[axis], {labels[n]: core for n, core in along.items()})

    def _look_up(self, kind: str, variable: str, entries: dict[str, str]) -> str:
        if list(entries) == [str(n) for n in range(len(entries))]:
            table = "[" + ", ".join(entries.values()) + "]"
        else:
            table = "{" + ", ".join(f"{key}: {core}" for key, core in entries.items()) + "}"
        for name, known in self.tables.items():
            if known == table:
                return f"{name}[{variable}]"
        name = self.names.shared(f"{kind}_of", sum(known.startswith(f"{kind}_of") for known in self.tables))
        self.tables[name] = table
        return f"{name}[{variable}]"

    def _axis(self, cores: dict[int, str]) -> int | None:
        """The axis that alone decides a text, or None."""
        for axis in range(len(self.axes)):
            seen: dict[int, str] = {}
            if all(seen.setdefault(self.index[cell][axis], core) == core for cell, core in cores.items()):
                return axis
        return None

    def _along(self, axis: int, cores: dict[int, str]) -> dict[int, str]:
        return {self.index[cell][axis]: core for cell, core in cores.items()}

    def _labels(self, axis: int) -> list[str]:
        found = self.labels[axis]
        if found is None:
            found = [literal(label) for label in self.axes[axis].labels]
        if len(set(found)) < len(found):
            found = [str(n) for n in range(len(found))]
        self.labels[axis] = found
        return found

    def only(self, cells: Iterable[int]) -> str:
        """The condition under which a point is among some; empty when all are."""
        chosen = set(cells)
        if len(chosen) == len(self.index):
            return ""
        for axis, variable in enumerate(self.variables):
            numbers = sorted({self.index[cell][axis] for cell in chosen})
            if chosen == {cell for cell, at in enumerate(self.index) if at[axis] in numbers}:
                return _among(variable, [self._labels(axis)[n] for n in numbers])
        self.counted = True
        return _among(self.cell, [str(cell) for cell in sorted(chosen)])

    # Writing -------------------------------------------------------------------------------------------------------

    def head(self) -> list[str]:
        """Tables and the `for` line."""
        overs = [_over(self._labels(axis)) for axis in range(len(self.axes))]
        names = ", ".join(self.variables)
        over = overs[0] if len(overs) == 1 else f"product({', '.join(overs)})"
        if self.counted:
            names = f"{self.cell}, {names}" if len(overs) == 1 else f"{self.cell}, ({names})"
            over = f"enumerate({over})"
        return [*(f"{name} = {table}" for name, table in self.tables.items()), f"for {names} in {over}:"]


def _leaves(texts: dict[int, Text]) -> list[dict[int, Leaf]]:
    """The leaves at each place of texts of one skeleton, by point."""
    rows = {cell: [piece for piece in text if isinstance(piece, Leaf)] for cell, text in texts.items()}
    if len({len(row) for row in rows.values()}) != 1:
        raise CodeError(f"these lines differ too much to be one: {plain(next(iter(texts.values())))}")
    return [{cell: row[n] for cell, row in rows.items()} for n in range(len(next(iter(rows.values()))))]


def _whole(leaf: Leaf) -> str:
    if ":" in leaf.wrap:  # a slice is written otherwise outside of brackets
        return f"slice({leaf.core}, {leaf.core} + 1)"
    return leaf.wrap.format(leaf.core)


def _natural(axis: Axis) -> list[str] | None:
    """What a loop over an axis runs over; None for positions, which are looked at first."""
    if axis.name in PLACES and any(isinstance(label, str) for label in axis.labels):
        return None
    return [literal(label) for label in axis.labels]


def _over(labels: list[str]) -> str:
    if labels and all(label.isdigit() for label in labels):
        found = ranged([int(label) for label in labels])
        return found if found.startswith("range") else "[" + ", ".join(labels) + "]"
    return "[" + ", ".join(labels) + "]"


def _among(name: str, values: list[str]) -> str:
    return f"{name} == {values[0]}" if len(values) == 1 else f"{name} in ({', '.join(values)})"
