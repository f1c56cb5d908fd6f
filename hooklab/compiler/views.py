"""`show` lines: what a view draws must have been kept, so a view may ask runs to keep more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..spec import ast
from .context import Context
from .keeps import kept_once
from .options import options
from .places import Sites
from .plan.cells import Axis
from .plan.reaches import Reach
from .plan.readings import Keep, Reading
from .plan.runs import RunPlan
from .plan.spots import Spot
from .plan.views import View
from .positions import spread_groups


def add_view(ctx: Context, statement: ast.Show) -> View:
    """A view, with what it needs asked of the runs that are not swept."""
    default = "pattern" if statement.view == "attention" else None
    sites = Sites(ctx, {}, default)
    places: list[str] = []
    spots: list[Spot] = []
    for where in statement.sites:
        if isinstance(where, ast.Ref) and where.group in ctx.runs:
            places.append(where.group)
            continue
        found = sites.spots(where)
        spots += found
        places += map(str, found)
    if statement.view == "attention":
        _patterns(ctx, statement, spots)
    elif statement.view == "resid":
        _lengths(ctx)
    return View(statement.view, statement.count, tuple(places), tuple(options(ctx, statement.opts, statement.verb).items()))


def _shown(ctx: Context) -> list[RunPlan]:
    return [run for run in ctx.runs.values() if not run.hidden and not run.axes and run.prompt in ctx.prompts]


def _patterns(ctx: Context, statement: ast.Show, spots: list[Spot]) -> None:
    """Keep the patterns of the layers that are shown."""
    if not spots:
        raise ctx.fail("value", "which attention is to be shown?", statement, "write show attention L5H1, or L5 for a layer")
    whole = tuple(dict.fromkeys(Spot("pattern", spot.layer) for spot in spots))
    for run in _shown(ctx):
        keep = Keep(None, whole, Reach(None, True, True), statement.span)  # the same as of a line that saves it
        captures = run.captures if run.writing is not None else run.captures | set(whole)
        ctx.runs[run.name] = replace(run, keeps=kept_once(ctx, (*run.keeps, keep)), captures=captures)


def _lengths(ctx: Context) -> None:
    """Measure the stream at every layer and position."""
    layers: tuple[Any, ...] = tuple(range(ctx.world.facts.n_layers))
    spots = tuple(Spot("resid_post", layer) for layer in layers)
    for run in _shown(ctx):
        if len(set(ctx.tokens(run.prompt).lengths)) > 1:
            continue
        groups, labels = spread_groups(ctx, ast.AtEach(), run.prompt, {})
        at = tuple(tuple(group[e][0] for group in groups) for e in range(len(groups[0])))
        found = Reading("resid", "resid", spots, (Axis("layer", layers), Axis("pos", labels)), at, True)
        ctx.runs[run.name] = replace(run, readings=(*run.readings, found))
