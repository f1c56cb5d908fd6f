"""Table: rows of things with names and numbers, to search, narrow, sort and look into. `nodes` and `store` are drawn by it.

    Column, Column, … ──Table──▶ texts, numbers and picks for the front end; a chosen row is looked into when it is asked for
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import traitlets

from .. import html
from ..errors import ViewError, did_you_mean
from . import allowed
from .axes import Axis
from .base import Answer, View
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 5000
"""Rows that a view holds."""
MOST_STATIC = 60
MOST_PLOTTED = 30
MOST_DETAILS = 100
"""Rows that a page without a kernel can look into."""
MOST_LABELS = 24
"""Different texts of a column up to which rows can be narrowed by it; and about half as many as there are rows."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its heading.
        values: Numbers [row], NaN where there is none; or texts.
        pick: Whether rows can be narrowed by it.
    """

    name: str
    values: np.ndarray | Sequence[str]
    pick: bool = False

    @cached_property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return isinstance(self.values, np.ndarray)

    @cached_property
    def labels(self) -> list[str]:
        """Its different texts, numbers before words, in order."""
        texts = {shown(one) for one in self.values}
        return sorted(texts, key=lambda one: (not one.lstrip("-").isdigit(), int(one) if one.isdigit() else 0, one))

    def text(self, row: int) -> str:
        """What stands in a row."""
        value = self.values[row]
        if not self.numeric:
            return shown(value)
        return "" if np.isnan(value) else html.number(float(value), 4)


class Table(View):
    """Rows to choose from; `selection` has the chosen one under its axis word, and what it says on other axes."""

    KIND = "table"
    WORD: ClassVar[str] = "row"
    """The axis word of a row."""
    OPTIONS = {"order": ("value", "size")}

    def __init__(self, keys: Sequence[str], columns: Sequence[Column], *, axes: Sequence[Axis] = (), by: str = "",
                 down: bool = True, narrow: Sequence[Column] = (), signed: bool = False, total: int | None = None,
                 note: str = "", title: str = "", source: Any = None, **options: Any) -> None:
        """Rows and their columns.

        Args:
            keys: The name of each row.
            columns: What stands beside it.
            axes: Those that a row also says something on; see `said`.
            by: The column that rows are sorted by at first.
            down: Whether the largest stand first then.
            narrow: Columns that rows can be narrowed by but that are not drawn.
            signed: Whether rows can be sorted by the size of numbers.
            total: How many rows there would be, if not all of them are here.
            note: What a reader should know.
            title: A heading.
            source: What linked views were made from.
            options: `order="value"` or `"size"`.
        """
        self._columns, self._narrow, self._signed = tuple(columns), tuple(narrow), signed
        self._by, self._down, self._note = by, down, note
        self._total = len(keys) if total is None else total
        rows = Axis(self.WORD, tuple(keys), tuple(map(shown, keys)))
        super().__init__([rows, *axes], title=title, source=source, **options)
        self.draw()

    # What a kind of table says about itself ------------------------------------------------------------------------------

    def said(self) -> Mapping[str, Mapping[str, Any]]:
        """Row -> what it says on other axes, such as its layer."""
        return {name: {} for name in self.names}

    def look(self, row: int) -> tuple[list[tuple[str, str]], list[tuple[str, list[str], list[list[Any]]]], str]:
        """What there is to see in a row: names and texts; tables, each a title, a heading and lines; a note."""
        return [], [], ""

    # What is drawn -------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[Any, ...]:
        """The name of each row."""
        return self._axes[self.WORD].keys

    def describe(self) -> dict[str, Any]:
        texts = [column for column in self._columns if not column.numeric]
        numbers = [column for column in self._columns if column.numeric]
        at = {id(column): i for kind in (texts, numbers) for i, column in enumerate(kind, 1 if kind is texts else 0)}
        first = {"name": self.WORD, "numeric": False, "at": 0}
        told = [first, *({"name": shown(one.name), "numeric": one.numeric, "at": at[id(one)]} for one in self._columns)]
        names = [one["name"] for one in told]
        return {"word": self.WORD, "columns": told, "note": self._note, "total": self._total, "signed": self._signed,
                "texts": [list(self._axes[self.WORD].labels), *([shown(one) for one in column.values] for column in texts)],
                "picks": [{"name": shown(one.name), "labels": one.labels} for one in self._picks],
                "sorted": names.index(shown(self._by)) if self._by else -1, "down": self._down}

    @property
    def _picks(self) -> list[Column]:
        every = [*self._narrow, *(column for column in self._columns if column.pick)]
        return [column for column in every if 1 < len(column.labels) <= min(MOST_LABELS, len(column.values) // 2 + 1)]

    def arrays(self) -> dict[str, np.ndarray]:
        found = {}
        if numbers := [column.values for column in self._columns if column.numeric]:
            found["numbers"] = np.asarray(numbers, dtype=np.float32)
        if self._picks:
            found["picks"] = np.array([[column.labels.index(shown(one)) for one in column.values] for column in self._picks],
                                      dtype=np.int32)
        return found

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        return {"detail": self._detail}

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        chosen = [self.selection[self.WORD]] if self.WORD in self.selection else []
        first = [self.names[row] for row in self._order()[:MOST_DETAILS]]
        yield from (("detail", {"key": key}) for key in dict.fromkeys([*chosen, *first]))

    def _detail(self, key: str) -> Answer:
        if not self._axes[self.WORD].has(key):
            raise ViewError(f"there is no {self.WORD} {key!r} in this view.{did_you_mean(str(key), map(str, self.names))}")
        about, tables, note = self.look(self._axes[self.WORD].index(key))
        return {"about": [[shown(name), shown(text, 600)] for name, text in about], "note": note,
                "tables": [{"title": title, "head": head, "rows": [
                    [shown(cell, 200) if isinstance(cell, str) else cell for cell in line] for line in lines]}
                    for title, head, lines in tables]}, []

    # Choosing ------------------------------------------------------------------------------------------------------------

    @traitlets.validate("selection")
    def _checked_selection(self, proposal: Any) -> dict[str, Any]:
        """A row brings along what it says on other axes; these, when they name one row, bring the row."""
        return allowed.together(super()._checked_selection(proposal), self.selection, self.WORD, self.said())

    # Without a front end -------------------------------------------------------------------------------------------------

    def _order(self) -> list[int]:
        """The rows as they are sorted at first."""
        column = next((one for one in self._columns if one.name == self._by), None)
        if column is None:
            return list(range(len(self.names)))
        if not column.numeric:
            return sorted(range(len(self.names)), key=lambda row: column.text(row), reverse=self._down)
        values = np.asarray(column.values, dtype=np.float64)
        size = np.abs(values) if self.options["order"] == "size" else values
        return np.argsort(np.where(np.isnan(size), np.inf, -size if self._down else size), kind="stable").tolist()

    def _lines(self, most: int) -> list[list[str]]:
        labels = self._axes[self.WORD].labels
        return [[labels[row], *(column.text(row) for column in self._columns)] for row in self._order()[:most]]

    def _left_out(self, most: int) -> str:
        left = self._total - min(most, len(self.names))
        return f"{left:,} more {self.WORD}s" if left > 0 else ""

    def static(self) -> str:
        head = [self.WORD, *(column.name for column in self._columns)]
        notes = [one for one in (self._left_out(MOST_STATIC), self._note) if one]
        return html.heading(self._title) + html.table(head, self._lines(MOST_STATIC)) + "".join(map(html.note, notes))

    def plot(self, ax: Any = None, *, dark: bool = False) -> Figure:
        """The first rows as a table in plain letters, the chosen one marked; `dark` for a page with light letters."""
        from . import night, table_figure

        self._check_open()
        order, lines = self._order()[:MOST_PLOTTED], self._lines(MOST_PLOTTED)
        chosen = self._axes[self.WORD].index(self.selection[self.WORD]) if self.WORD in self.selection else -1
        marked = [i for i, row in enumerate(order) if row == chosen]
        for i in marked:
            lines[i][0] = f"● {lines[i][0]}"
        notes = ["" if lines else f"There are no {self.WORD}s.", self._left_out(MOST_PLOTTED), self._note]
        return table_figure.figure(
            [self.WORD, *(column.name for column in self._columns)], lines, night.DARK if dark else night.LIGHT,
            right=[False, *(column.numeric for column in self._columns)], chosen=marked, title=self._title,
            notes=[one for one in notes if one], ax=ax)

    def release(self) -> None:
        super().release()
        self._columns = self._narrow = ()

    def __repr__(self) -> str:
        parts = (self._title, f"{self._total:,} {self.WORD}s")
        return f"{type(self).__name__}({' · '.join(part for part in parts if part)})"
