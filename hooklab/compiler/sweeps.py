"""Sweeps: the cells of a run, one for each value of its variables and each place taken in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from math import prod
from typing import Any

from ..positions import marks_in
from ..positions.select import Selector
from ..spec import ast
from .context import Context, Env
from .dictionaries import attached, drops, written_into
from .options import in_turn
from .paths import path_patch
from .places import Sites
from .plan.cells import Axis, Cell, named_apart
from .plan.edits import Edit
from .plan.reaches import Reach
from .plan.runs import RunPlan
from .plan.values import Given
from .statements import Where, variants

MAX_CELLS = 200_000


def cells_of(ctx: Context, name: str, base: RunPlan, edits: list[Any], body: list[Any],
             writing: bool) -> tuple[tuple[Axis, ...], tuple[Cell, ...]]:
    """The cells of a run: those of the run it stacks on, times its sweep variables, times its own `each`.

    A variable that the run below is swept over has the same value in this one.
    """
    used = variables_in(ctx, body)
    swept = {v: sweep_values(ctx, s) for v, s in ctx.sweeps.items() if v in used}
    below = {axis.variable: place for place, axis in enumerate(base.axes) if axis.variable in swept}
    free = [v for v in swept if v not in below]
    outer = tuple(Axis(v, swept[v][0], variable=v) for v in free)
    points = prod(len(values) for _, values in swept.values())
    own: tuple[Axis, ...] | None = None
    first = () if name == base.name else _splices(ctx)
    cells: list[Cell] = []
    cached: dict[Any, list[Any]] = {}
    for base_cell in base.cells:
        held = {str(v): base_cell.index[place] for v, place in below.items()}
        for index, picked in _product([swept[v][1] for v in free]):
            env: Env = {v: swept[v][1][i] for v, i in held.items()} | dict(zip(free, picked, strict=True))
            key = (*held.values(), *index)
            parts = cached.get(key)
            if parts is None:
                drawn = dict(ctx.drawn)
                at = Where(ctx, base.prompt, env, writing)
                parts = cached[key] = list(ctx.each(lambda s, at=at: _statement(ctx, name, at, s), edits))  # type: ignore[misc]
                if len(parts) < len(edits):
                    return (), ()
                if len(cached) < points:
                    ctx.drawn = drawn  # a line draws the same numbers at every value of a sweep variable
            axes = tuple(axis for part in parts for axis in part.axes)
            if own is not None and axes != own:
                raise ctx.fail("value", "the places swept over change with a sweep variable", edits[0],
                               "sweep over one of the two")
            own = axes if own is None else own
            for place, chosen in _product([part.edits for part in parts]):
                inner = tuple(n for i, part in zip(place, parts, strict=True) for n in _unravel(i, part.axes))
                cells.append(Cell((*base_cell.index, *index, *inner), (*(base_cell.edits or first), *chosen)))
                if len(cells) > MAX_CELLS:
                    raise ctx.fail("value", f"this sweep has more than {MAX_CELLS} points", edits[0], "sweep over less")
    return named_apart((*base.axes, *outer, *(own or ()))), tuple(cells)


def _splices(ctx: Context) -> tuple[Edit, ...]:
    """What runs other than a prompt's own begin with: sites that dictionaries with error=drop stand for."""
    found = []
    sites = Sites(ctx, {})
    for name, sae in ctx.saes.items():
        if drops(ctx, sae):
            spot = replace(attached(sites, sae.site), sae=name, into=written_into(sites, sae))
            found.append(Edit("splice", (spot,), Reach(new=True), span=sae.span))
    return tuple(found)


def _statement(ctx: Context, name: str, at: Where, statement: Any) -> Any:
    if isinstance(statement, ast.Patch) and isinstance(statement.target.to, ast.Site | ast.Feature):
        return path_patch(ctx, name, at, statement)
    if statement.target.to is not None and statement.verb != "cut":
        raise ctx.fail("value", f"{statement.verb} acts on places; only cut and patch act on edges", statement.target.to)
    return variants(at, statement)


def _product(groups: list[Any]) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """Every combination, with its indices."""
    for combined in itertools.product(*(list(enumerate(group)) for group in groups)):
        yield tuple(i for i, _ in combined), tuple(item for _, item in combined)


def _unravel(flat: int, axes: tuple[Axis, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for axis in reversed(axes):
        flat, rest = divmod(flat, len(axis.labels))
        index.append(rest)
    return tuple(reversed(index))


def sweep_values(ctx: Context, statement: ast.Sweep) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Labels and values of a sweep variable."""
    values = statement.values
    if isinstance(values, ast.Py):
        plain, labels = in_turn(ctx, values, statement)
        if not plain:
            raise ctx.fail("value", f"{{{values.source}}} is nothing to sweep over", statement, "give a list of values")
        return labels, tuple(item if isinstance(item, (int, float, str)) else Given(values.source, i)
                             for i, item in enumerate(plain))
    found: list[Any] = []
    if isinstance(values, ast.Range):
        start, stop, *step = (int(part) if part else None for part in values.text.split(":"))
        if stop is None:
            raise ctx.fail("value", "this range has no end", statement, f"write sweep {statement.name} in 0:12")
        found = list(range(start or 0, stop, *(n for n in step if n)))
    else:
        for item in values.items:
            if isinstance(item, ast.Neg) and isinstance(item.of, ast.Num):
                found.append(-item.of.value)
            elif isinstance(item, ast.Num | ast.Str):
                found.append(item.value)
            else:
                raise ctx.fail("value", "a sweep takes numbers and texts", item, "compute others in Python: {values}")
    if not found:
        raise ctx.fail("value", "there is nothing to sweep over", statement, "give at least one value")
    return tuple(found), tuple(found)


def variables_in(ctx: Context, nodes: Iterable[Any]) -> set[str]:
    """Names that statements use: in values, in indices, in positions, and through lets."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name | ast.Word):
            if node.id in ctx.lets and node.id not in found:
                found |= variables_in(ctx, [ctx.lets[node.id].value])
            found.add(node.id)
        elif isinstance(node, str) and node.startswith("$"):
            found.add(node[1:])
        elif isinstance(node, Selector):
            found |= marks_in(node)
        elif isinstance(node, tuple):
            found |= variables_in(ctx, node)
        elif isinstance(node, ast.Ref) and node.group in ctx.groups:
            found |= variables_in(ctx, [ctx.groups[node.group].target])
        if isinstance(node, ast.Node):
            found |= variables_in(ctx, [getattr(node, f.name) for f in fields(node) if f.name != "span"])
    return found
