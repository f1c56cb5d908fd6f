"""What a profile is: rows, a tree of calls, tables, Scores and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import html
from ...errors import HooklabError, did_you_mean
from .naming import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...records import Scores
    from .measuring import Node

BY = ("layer", "component", "module")
OF = {"time": ("ms", 1e3), "memory": ("MiB", 2.0**-20), "flops": ("GFLOP", 1e-9)}
"""What is measured: its unit, and how many of them there are in a second, a byte, an operation."""
MOST_ROWS = 60


class ProfileError(HooklabError, ValueError):
    """A profile that cannot be made or read as asked."""


@dataclass(frozen=True)
class Row:
    """A part of a call.

    Attributes:
        name: `"layer 3"`, `"L3 attn"`, or the path of a module.
        layer: The layer's number, or `"outside"`.
        component: What part of it; "" where that is not asked for.
        calls: Calls of modules.
        time: Seconds. Of modules, everything that they call included; layers and components do not overlap.
        own: Seconds without the modules that it calls; these add up to the whole.
        share: `own` as a share of the whole.
        memory: Bytes of the tensors made.
        flops: Floating-point operations.
    """

    name: str
    layer: int | str
    component: str
    calls: int
    time: float
    own: float
    share: float
    memory: int
    flops: int


@dataclass(frozen=True, repr=False, eq=False)
class Profile:
    """Where a call spends what it takes.

    Attributes:
        by: `"layer"`, `"component"` or `"module"`.
        rows: The parts, in the order of the model.
        tree: The calls of modules: `.children`, `.shares()`, `.own("time")`; the whole call on top.
        times: Seconds of each repeat. Rows are those of the repeat in the middle: medians of each row would not add up.
        output: What the call returned.
        counted: Whether memory and arithmetic were counted.
        title: What was called.
    """

    by: str
    rows: tuple[Row, ...]
    tree: Node
    times: tuple[float, ...]
    output: Any
    counted: bool
    title: str = ""
    parts: Mapping[int, Part] = field(default_factory=dict)

    @property
    def time(self) -> float:
        """Seconds of the whole call: the median of the repeats."""
        return self.tree.time

    def top(self, k: int = 5, of: str = "time") -> list[Row]:
        """The parts that take most, without the modules that they call.

        Raises:
            ProfileError: there is no such quantity, or it was not counted.
        """
        self._check(of)
        own = {row.name: self._own(row, of) for row in self.rows}
        return sorted(self.rows, key=lambda row: -own[row.name])[:max(0, k)]

    def to_scores(self, of: str = "time", share: bool = False) -> Scores:
        """A number for each part: Scores [layer], [layer component] or [module], which `hl.view.of` draws.

        Numbers leave out the modules that a module calls, so they add up to the whole.

        Args:
            of: `"time"`, `"memory"` or `"flops"`.
            share: Shares of the whole instead of milliseconds, MiB and billions of operations.

        Raises:
            ProfileError: there is no such quantity, or it was not counted.
        """
        from ...records import Scores

        self._check(of)
        axes = {"layer": ("layer",), "component": ("layer", "component"), "module": ("module",)}[self.by]
        coords: dict[str, tuple[Any, ...]] = {"module": tuple(row.name for row in self.rows)} if self.by == "module" else {
            axis: tuple(dict.fromkeys(getattr(row, axis) for row in self.rows)) for axis in axes}
        values = np.zeros([len(coords[axis]) for axis in axes])
        unit, factor = OF[of]
        for row in self.rows:
            place = tuple(coords[axis].index(row.name if axis == "module" else getattr(row, axis)) for axis in axes)
            values[place] += self._own(row, of)
        whole = fsum(values.flat)
        values = values / whole if share and whole else values * (1 if share else factor)
        return Scores(values, axes, coords, "share" if share else unit, f"{of} of {self.title}",
                      note="each without the modules that it calls" if self.by == "module" else "")

    def to_pandas(self) -> Any:
        """The rows as a DataFrame: seconds, bytes, operations.

        Raises:
            ProfileError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ProfileError("to_pandas() needs pandas: pip install pandas") from error
        return pandas.DataFrame([vars(row) for row in self.rows], columns=list(Row.__dataclass_fields__))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and text, for a record: the whole, and the rows."""
        return {"by": self.by, "title": self.title, "time": self.time, "times": list(self.times),
                "memory": self.tree.memory if self.counted else None, "flops": self.tree.flops if self.counted else None,
                "rows": [vars(row) for row in self.rows]}

    def plot(self, depth: int = 8) -> Figure:
        """A picture: callers above what they call, as wide as the time they take, down to so many levels.

        Raises:
            ProfileError: the depth is no count from 1.
        """
        from .icicle import figure

        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise ProfileError(f"depth={depth!r}: how many levels of calls are drawn is a count from 1")
        return figure(self.tree, dict(self.parts), f"{self.title} · {self.time * 1e3:.3g} ms", "(call)", depth)

    def _check(self, of: str) -> None:
        if of not in OF:
            raise ProfileError(f"there is no {of!r} in a profile.{did_you_mean(of, OF)} There are {', '.join(OF)}.")
        if of != "time" and not self.counted:
            raise ProfileError(f"{of} was not counted: profile(…, count=True)")

    def _own(self, row: Row, of: str) -> float:
        if of == "time":
            return row.own
        if self.by != "module":
            return getattr(row, of)
        return sum(node.own(of) for node in self.tree.walk() if (node.name or "(call)") == row.name)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        nested = self.by == "module"
        head = [self.by, "calls", "ms", *(["own ms"] if nested else []), "share",
                *(["MiB made", "GFLOP"] if self.counted else [])]
        rows = [[row.name, str(row.calls), f"{row.time * 1e3:.3f}", *([f"{row.own * 1e3:.3f}"] if nested else []),
                 f"{row.share:.1%}", *([f"{row.memory / 2**20:.3f}", f"{row.flops / 1e9:.4g}"] if self.counted else [])]
                for row in self.rows]
        return head, rows

    def _said(self, shown: int) -> str:
        spread = f", {min(self.times) * 1e3:.3g} to {max(self.times) * 1e3:.3g} in {len(self.times)} repeats" \
            if len(self.times) > 1 else ""
        cut = f" The first {shown} of {len(self.rows)} rows; `.rows` has them all." if shown < len(self.rows) else ""
        return f"{self.title}: {self.time * 1e3:.3g} ms{spread}.{cut}"

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        head, rows = self._table()
        table = Table(title=Text(self._said(len(rows))), title_justify="left")
        for i, name in enumerate(head):
            table.add_column(name, justify="right" if i else "left")
        for row in rows:
            table.add_row(*(Text(html.printable(cell)) for cell in row))
        return table

    def __repr__(self) -> str:
        head, rows = self._table()
        shown = [head, *([html.printable(cell) for cell in row] for row in rows[:MOST_ROWS])]
        widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
        lines = ["  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in
                           enumerate(zip(row, widths, strict=True))).rstrip() for row in shown]
        return "\n".join([self._said(min(MOST_ROWS, len(rows))), *("  " + line for line in lines)])

    def _repr_html_(self) -> str:
        head, rows = self._table()
        return html.block(html.table(head, [[row[0], *row[1:]] for row in rows[:MOST_ROWS]],
                                     self._said(min(MOST_ROWS, len(rows)))))
