"""Which entries of a site's tensor, as the text between brackets: `[:, -1, [0, 2]]`.

`keep` leaves every axis in place (`-1:` instead of `-1`), which arithmetic between tensors needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..compiler.plan.reaches import Spread
from ..compiler.plan.spots import Spot
from ..sites import SITES
from .text import Leaf, Text, cat, joined, listed

PAIRS = ("scores", "pattern")


@dataclass(frozen=True)
class Entries:
    """Columns of every row of a batch.

    Attributes:
        columns: For each row, its columns.
        width: Columns of the batch.
        every: All tokens are meant; columns that are padding may then be changed too, which nothing notices.
    """

    columns: tuple[tuple[int, ...], ...]
    width: int
    every: bool = False

    @property
    def common(self) -> tuple[int, ...] | None:
        """The columns that all rows share, or None when they differ."""
        return self.columns[0] if len(set(self.columns)) == 1 else None

    @property
    def rows(self) -> list[int]:
        """The row of each entry."""
        return [row for row, columns in enumerate(self.columns) for _ in columns]

    @property
    def flat(self) -> list[int]:
        """The column of each entry."""
        return [column for columns in self.columns for column in columns]


def entries(tokens: Any, at: Spread | None, rows: int) -> Entries:
    """Positions of a prompt's examples as columns of a batch of `rows` rows."""
    found = []
    for row in range(rows):
        example = row % len(tokens)
        chosen = range(tokens.lengths[example]) if at is None else at[example]
        found.append(tuple(tokens.column(example, p) for p in chosen))
    return Entries(tuple(found), int(tokens.width), at is None)


@dataclass(frozen=True)
class Part:
    """One axis of an index: numbers, or None for all of them."""

    kind: str
    numbers: tuple[int, ...] | None
    size: int | None = None

    def is_list(self) -> bool:
        """Whether it takes a list of numbers, which behaves unlike a slice."""
        return self.numbers is not None and len(self.numbers) > 1 and not _contiguous(self.numbers)

    def leaf(self, keep: bool, nested: int = 0) -> str | Leaf:
        """The text of this axis."""
        numbers = self.numbers
        if numbers is None:
            return ":"
        first, stop = numbers[0], numbers[-1] + 1
        last = self.kind == "at" and stop == self.size and first > 0
        if len(numbers) == 1 and not keep:
            return Leaf(self.kind, "-1" if last else str(first), str(first))
        if len(numbers) == 1:
            return Leaf(self.kind, "-1:" if last else f"{first}:{stop}", str(first), "{0}:{0} + 1")
        if _contiguous(numbers):
            end = "" if stop == self.size else str(stop)
            return Leaf(self.kind, f"{first or ''}:{end}", f"slice({first}, {stop})")
        return Leaf(self.kind, listed(numbers, nested), listed(numbers, nested))


def _contiguous(numbers: Sequence[int]) -> bool:
    return list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))


def index(found: Entries, spot: Spot, sizes: dict[str, int], *, keep: bool = False) -> Text:
    """The brackets that pick a spot's heads and units at some entries; the same text reads and writes."""
    pairs, axes = spot.site in PAIRS, SITES[spot.site].axes
    heads = Part("head", spot.heads, next((sizes[a] for a in axes if a in ("head", "kv_head")), None))
    units = Part("unit", spot.units, sizes.get(axes[-1]))
    headed = "head" in axes or "kv_head" in axes
    common = None if found.every else found.common
    if found.every or common is not None:
        at = Part("at", common, found.width)
        parts = [heads, at] if pairs else [at, *([heads] if headed else []), units]
        return _brackets([":", *_leaves(parts, keep)])
    lists = [part for part in (heads, units) if part.is_list() or (part.numbers is not None and not pairs)]
    rows = Leaf("rows", listed(found.rows, len(lists)), listed(found.rows, len(lists)))
    columns = Leaf("columns", listed(found.flat, len(lists)), listed(found.flat, len(lists)))
    inner = _lists(heads, units) if headed else _lists(units)
    return _brackets([rows, heads.leaf(True), columns] if pairs else [rows, columns, *inner])


def _leaves(parts: list[Part], keep: bool) -> list[str | Leaf]:
    """Several lists are crossed with each other by nesting all but the last."""
    left = sum(part.is_list() for part in parts)
    out = []
    for part in parts:
        left -= part.is_list()
        out.append(part.leaf(keep, left if part.is_list() else 0))
    return out


def _lists(*parts: Part) -> list[str | Leaf]:
    """Parts beside lists of rows and columns: lists too, so that all are crossed."""
    given = [part for part in parts if part.numbers is not None]
    out: list[str | Leaf] = []
    for part in parts:
        if part.numbers is None:
            out.append(":")
        else:
            text = listed(part.numbers, len(given) - 1 - given.index(part))
            out.append(Leaf(part.kind, text, text))
    return out


def _brackets(parts: list[Any]) -> Text:
    while len(parts) > 1 and parts[-1] == ":":
        parts.pop()
    return cat("[", joined(parts, ", "), "]")
