"""Keeps: what `save` lines hand to the user, and keeps of one run put side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..spec import ast
from .context import Context, Env
from .options import options
from .places import Sites
from .plan.readings import Keep
from .plan.runs import RunPlan
from .plan.spots import Spot
from .positions import place_of, reach
from .statements import Where, stepped
from .sweeps import sweep_values, variables_in


def kept(ctx: Context, run: RunPlan, statement: ast.Save, writing: bool) -> Keep:
    """What a `save` line keeps; one that follows a sweep variable keeps something else in each cell."""
    swept = {axis.variable for axis in run.axes if axis.variable} & variables_in(ctx, [statement])
    if not swept:
        return _keep_at(ctx, run, statement, {}, writing)
    values = {name: sweep_values(ctx, ctx.sweeps[name])[1] for name in sorted(swept)}
    cells = []
    for cell in run.cells:
        env = {axis.variable: values[axis.variable][i] for axis, i in zip(run.axes, cell.index, strict=True)
               if axis.variable in swept}
        cells.append(_keep_at(ctx, run, statement, env, writing))
    places = {len(keep.spots) for keep in cells}
    if len(places) > 1:
        raise ctx.fail("value", "this saves different numbers of places along the sweep", statement)
    name = statement.name or str(ast.Spec((replace(statement, opts=()),))).removeprefix("save ").partition(" @")[0]
    spots = tuple(dict.fromkeys(spot for keep in cells for spot in keep.spots))
    return Keep(name, spots, cells[0].reach, statement.span, tuple(replace(keep, name=name) for keep in cells))


def _keep_at(ctx: Context, run: RunPlan, statement: ast.Save, env: Env, writing: bool) -> Keep:
    """What a `save` line keeps at one point of the sweep."""
    spots = Sites(ctx, env).choice(replace(statement.target, each=False)).cells[0]
    at = place_of(ctx, statement.target)
    if isinstance(at, ast.AtEach):
        at = None if at.pos is None else ast.At(at.pos, span=at.span)
    where = stepped(Where(ctx, run.prompt, env, writing), reach(ctx, at, run.prompt, env, writing=writing),
                    options(ctx, statement.opts, statement.verb, env), statement)
    return Keep(statement.name, spots, where, statement.span)


def kept_once(ctx: Context, keeps: Iterable[Keep]) -> tuple[Keep, ...]:
    """Keeps without repeats; one place kept at other positions under the same name is a problem."""
    seen: dict[str, Keep] = {}
    found = []
    for keep in keeps:
        if keep.name is not None:
            found.append(keep)
            continue
        left: list[Spot] = []
        for spot in dict.fromkeys(keep.spots):
            first = seen.setdefault(str(spot), keep)
            if first is keep:
                left.append(spot)
            elif first.reach != keep.reach:
                ctx.problem("value", f"{spot} is kept twice, at different positions", keep.span or first.span,
                            f"give one of them a name: save {spot} @last as end")
        if left:
            found.append(replace(keep, spots=tuple(left)))
    return tuple(found)
