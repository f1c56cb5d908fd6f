"""How sure Scores are, in words and as pieces of HTML: the interval beside a number, and what a reader should know of it.

Nothing is computed from examples here; what the scores do not carry is not said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html

if TYPE_CHECKING:
    from .scores import Scores

MARK = "*"
FEW = 6
"""Examples below which no p-value can fall under 0.05, and the true mean is often outside of what is called its interval."""


def apart(scores: Scores) -> np.ndarray | None:
    """Which cells have an interval that leaves out 0; None when the scores have no intervals."""
    if scores.low is None or scores.high is None:
        return None
    return np.asarray((scores.low > 0) | (scores.high < 0))


def bounds(scores: Scores, cell: int) -> str:
    """The interval of a cell, counted through all axes: `[0.1, 0.5]`; nothing when it has none."""
    if scores.low is None or scores.high is None or np.isnan(scores.low.flat[cell]):
        return ""
    return f"[{html.number(scores.low.flat[cell])}, {html.number(scores.high.flat[cell])}]"


def chance(scores: Scores, cell: int) -> str:
    """The p-value of a cell: `p 0.002`; nothing when it has none."""
    return "" if scores.p is None or np.isnan(scores.p.flat[cell]) else f"p {html.number(scores.p.flat[cell], 2)}"


def beside(scores: Scores, cell: int) -> str:
    """Interval and p-value of a cell."""
    return "  ".join(filter(None, [bounds(scores, cell), chance(scores, cell)]))


def notes(scores: Scores) -> list[str]:
    """Over how many examples, how many cells stand out, what 0 and 1 mean, what the control gives: a line each."""
    said = [_intervals(scores)] if scores.low is not None or scores.p is not None else []
    if scores.ends is not None:
        zero, one = (f"{html.number(end)} {scores.raw_unit}".rstrip() for end in scores.ends)
        said.append(f"0 stands for {zero}, 1 for {one}")
    if scores.control is not None:
        said.append(_control(scores))
    return said


def _control(scores: Scores) -> str:
    control = scores.control
    assert control is not None
    finite = control.values[np.isfinite(control.values)]
    ends = dict.fromkeys(html.number(end) for end in (finite.min(), finite.max())) if finite.size else ["no finite number"]
    name = f" ({control.name})" if control.name not in ("", scores.name) else ""
    return f"control{name}: {' to '.join(ends)}"


def _intervals(scores: Scores) -> str:
    count = None if scores.examples is None else len(scores.examples)
    if count == 1:
        return "one example: nothing can be said of others"
    over = "" if count is None else f" over {count} examples"
    clear = apart(scores)
    if clear is None:
        return f"p-values{over}"
    said = f"{percent(scores)} interval{over}" if clear.size == 1 else f"{percent(scores)} intervals{over}"
    if clear.size > 1:
        there = int((~np.isnan(np.asarray(scores.low))).sum())
        luck = round((1 - scores.level) * there)
        said += f"; {clear.sum()} of {there} leave out 0" + (f" (about {luck} would by chance)" if luck else "")
    return said + (f"; {count} are few, so they are too narrow" if count is not None and count < FEW else "")


def percent(scores: Scores) -> str:
    """The level of the intervals: `95 %`."""
    return f"{html.number(100 * scores.level, 4)} %"


def telling(scores: Scores) -> bool:
    """Whether a mark at the cells whose interval leaves out 0 tells anything: some do, and some do not."""
    clear = apart(scores)
    return clear is not None and bool(clear.any()) and bool((~clear & ~np.isnan(np.asarray(scores.low))).any())


def marked(scores: Scores, texts: list[str]) -> list[str]:
    """The texts of the cells, with a mark at those whose interval leaves out 0."""
    clear = apart(scores)
    assert clear is not None
    return [f"{text}{MARK}" if sure else text for text, sure in zip(texts, clear.reshape(-1), strict=True)]


def columns(scores: Scores, cells: list[int]) -> tuple[list[str], list[list[Any]]]:
    """For a table of some cells: the names of the columns that say how sure they are, and a row for each cell."""
    found: dict[str, list[Any]] = {}
    if scores.low is not None:
        found[f"{percent(scores)} interval"] = [bounds(scores, cell) for cell in cells]
    if scores.p is not None:
        found["p"] = [None if np.isnan(scores.p.flat[cell]) else html.number(scores.p.flat[cell], 2) for cell in cells]
    if scores.control is not None:
        found["control"] = [float(scores.control.values.flat[cell]) for cell in cells]
    return list(found), [[column[i] for column in found.values()] for i in range(len(cells))]
