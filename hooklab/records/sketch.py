"""How Scores look: as a block of text, and as a piece of HTML. What is drawn depends on the axes alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from . import certainty
from .select import take

if TYPE_CHECKING:
    from .scores import Scores

APART = ("batch", "sample", "rank")
"""Axes that make separate pictures when there are others to draw."""
PLACES = ("layer", "head", "kv_head", "pos", "query_pos", "key_pos", "site", "neuron", "feature")
MOST_MAPS = 6
STRONGEST = 5
"""Cells that a table under the picture names, where there is something to say of how sure they are."""


def text(scores: Scores) -> str:
    """Name, axes, unit, range, the strongest cells and how sure they are."""
    sizes = " · ".join(f"{axis} {size}" for axis, size in zip(scores.axes, scores.shape, strict=True)) or "one number"
    lines = [f"Scores {html.printable(scores.name)}".rstrip(), f"  {sizes}", f"  {spread(scores)}"]
    cells = scores._strongest(3)
    sure = [certainty.beside(scores, cell) for cell in cells]
    width = max(map(len, sure), default=0)
    for i, (cell, beside) in enumerate(zip(cells, sure, strict=True)):
        value = f"{html.number(float(scores.values.flat[cell]), 4):>9}" + (f"  {beside:<{width}}" if width else "")
        lines.append(f"  {'top' if not i else '   '}  {value}  {named(scores._labels(cell))}".rstrip())
    lines += [f"  {html.printable(line)}" for line in certainty.notes(scores)]
    if scores.note:
        lines.append(f"  {html.printable(scores.note)}")
    return "\n".join(lines)


def spread(scores: Scores) -> str:
    """Unit and range: `logits, -0.5 to 2`."""
    finite = scores.values[np.isfinite(scores.values)]
    unit = f"{scores.unit}, " if scores.unit else ""
    odd = scores.values.size - finite.size
    rest = f", {odd} not finite" if odd else ""
    if not finite.size:
        return unit + ("empty" if not scores.values.size else f"no finite number{rest}")
    low, high = html.number(finite.min(), 4), html.number(finite.max(), 4)
    return f"{unit}{low}{f' to {high}' if high != low else ''}{rest}"


def named(cell: dict[str, Any]) -> str:
    """A cell in words: `layer 3 · head 1`."""
    return " · ".join(f"{axis} {html.printable(label)}" for axis, label in cell.items())


def fragment(scores: Scores, caption: str = "") -> str:
    """A heat table for two axes, bars for one, several heat tables for more; a number for none."""
    caption = caption or scores.name
    if not scores.values.size:
        return html.note(f"{caption}: empty".lstrip(": "))
    drawn = picture_axes(scores.axes)
    finite = scores.values[np.isfinite(scores.values)]
    limit = float(np.abs(finite.astype(np.float64)).max(initial=0.0))
    others = [axis for axis in scores.axes if axis not in drawn]
    shown = list(islice(slices(scores, others), MOST_MAPS))
    marks = scores.labels is None and certainty.telling(scores)
    parts = []
    for cell, part in shown:
        title = " · ".join(filter(None, [caption, named(cell)]))
        parts.append(DRAW[len(drawn)](part, title, limit, marks))
    parts += [html.scale(limit, scores.unit, html.below([scores.values.flat]))] if len(drawn) == 2 else []
    left = prod(len(scores.coords[axis]) for axis in others) - MOST_MAPS
    if left > 0:
        parts.append(html.note(f"{left} more along {', '.join(others)}: choose with .sel(…)"))
    parts.append(_surety(scores, marks))
    return "".join(parts) + (html.note(scores.note) if scores.note else "")


def _surety(scores: Scores, marks: bool) -> str:
    """The strongest cells with their intervals, and what a reader should know of them; nothing where nothing is known."""
    cells = scores._strongest(STRONGEST) if scores.axes else []
    names, columns = certainty.columns(scores, cells)
    rows = [[named(scores._labels(cell)), float(scores.values.flat[cell]), *row]
            for cell, row in zip(cells, columns, strict=True)]
    said = [*([f"{certainty.MARK} the interval leaves out 0"] if marks else []), *certainty.notes(scores)]
    return (html.table(["strongest", scores.unit, *names], rows) if names and rows else "") + (
        html.note(" · ".join(said)) if said else "")


def picture_axes(axes: tuple[str, ...]) -> tuple[str, ...]:
    """The one or two axes that one picture shows: places of the model before variables of a sweep.

    >>> picture_axes(("batch", "layer", "pos", "rank")), picture_axes(("batch", "rank")), picture_axes(("head",))
    (('layer', 'pos'), ('batch', 'rank'), ('head',))
    >>> picture_axes(("c", "layer", "pos")), picture_axes(("c", "layer"))
    (('layer', 'pos'), ('c', 'layer'))
    """
    if {"query_pos", "key_pos"} <= set(axes):
        return tuple(axis for axis in axes if axis in ("query_pos", "key_pos"))
    own = [axis for axis in axes if axis not in APART]
    chosen = sorted(own, key=lambda axis: axis not in PLACES)[:2]
    chosen += [axis for axis in reversed(axes) if axis not in chosen][: 2 - len(chosen)]
    return tuple(axis for axis in axes if axis in chosen)


def slices(scores: Scores, axes: list[str]) -> Iterator[tuple[dict[str, Any], Scores]]:
    """The parts of Scores along some axes, each with the labels that it stands for."""
    for index in product(*(range(len(scores.coords[axis])) for axis in axes)):
        part, cell = scores, {}
        for axis, i in zip(axes, index, strict=True):
            part, cell[axis] = take(part, axis, i), scores.coords[axis][i]
        yield cell, part


def _one(scores: Scores, caption: str, limit: float, marks: bool) -> str:
    label = "" if scores.labels is None else f" {scores.labels[()]}"
    names, (sure,) = certainty.columns(scores, [0])
    return (html.table([scores.unit, "", *names], [[caption or scores.name, float(scores), *sure]])
            + (html.note(label) if label else ""))


def _bars(scores: Scores, caption: str, limit: float, marks: bool) -> str:
    (axis,) = scores.axes
    names = _names(scores, axis)
    if scores.labels is not None:
        names = [f"{name}  {html.printable(label)}" for name, label in zip(names, scores.labels, strict=True)]
    elif marks:
        names = certainty.marked(scores, names)
    return html.bars(names, scores.values.tolist(), caption=caption, unit=scores.unit, axis=axis, limit=limit)


def _map(scores: Scores, caption: str, limit: float, marks: bool) -> str:
    down, across = scores.axes
    labels = None if scores.labels is None else [[html.printable(text) for text in row] for row in scores.labels.tolist()]
    if marks:
        digits = html.decimals(scores.values.tolist(), limit)
        shown = certainty.marked(scores, [html.steady(value, digits) for value in scores.values.reshape(-1).tolist()])
        labels = np.array(shown, dtype=object).reshape(scores.shape).tolist()
    return html.heat(scores.values.tolist(), _names(scores, down), _names(scores, across), caption=caption,
                     unit=scores.unit, axes=(down, across), labels=labels, limit=limit, key="")


def _names(scores: Scores, axis: str) -> list[str]:
    return [html.printable(label) for label in scores.coords[axis]]


DRAW = {0: _one, 1: _bars, 2: _map}
