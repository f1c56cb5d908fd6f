"""Path patching: the effect of a sender on a receiver, every other head held still.

Wang et al. 2022 (arXiv:2211.00593): in a first pass the sender takes its value from the source while all heads keep
theirs from the untouched run, and the receiver's value is read; in a second pass only the receiver takes that value.
MLPs are computed anew in the first pass, so paths through them count; `mlps=freeze` holds them too. Other lines of the run
act in the second pass only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..spec import ast
from .context import Context
from .options import options
from .places import Sites, reach
from .plan import Cell, Edit, Reach, RunPlan, Same, Spot
from .statements import Variants, Where, variants


def path_patch(ctx: Context, name: str, at: Where, statement: ast.Patch) -> Variants:
    """The receiver's edit at every point; the first pass becomes a hidden run that it takes its value from."""
    from .runs import note_needs

    sender = variants(at, replace(statement, target=replace(statement.target, to=None)))
    end = statement.target.to
    assert isinstance(end, ast.Site | ast.Feature)
    receivers = tuple(Sites(ctx, at.env).spots(end))
    held = _held(ctx, at, options(ctx, statement.opts, "patch").get("mlps", "recompute"), statement)
    hidden = f"{name}>{len([n for n in ctx.runs if n.startswith(name + '>')])}"
    cells = tuple(Cell((i,), (*held, edit)) for i, edit in enumerate(sender.edits))
    ctx.runs[hidden] = RunPlan(hidden, at.prompt, (), cells, hidden=True,
                               captures=frozenset(Spot(s.site, s.layer) for s in receivers))
    needs = note_needs(ctx, hidden, (edit for cell in cells for edit in cell.edits))
    ctx.runs[hidden] = replace(ctx.runs[hidden], needs=frozenset(needs))
    if isinstance(end.at, ast.AtEach):
        raise ctx.fail("value", "a path ends at fixed positions", end.at, "write @last, or no position for all")
    where = reach(ctx, end.at, at.prompt, at.env, writing=at.writing)
    where = where if where.at is not None else Reach()
    edits = tuple(Edit("patch", receivers, where, Same(hidden, where.at), (("cell", i),), span=statement.span)
                  for i in range(len(cells)))
    return Variants(sender.axes, edits)


def _held(ctx: Context, at: Where, mlps: Any, statement: Any) -> tuple[Edit, ...]:
    """What keeps its value of the untouched run in the first pass."""
    if mlps not in ("recompute", "freeze"):
        raise ctx.fail("value", "mlps= is recompute or freeze", statement)
    sites = ["z", *(["mlp_out"] if mlps == "freeze" else [])]
    return tuple(Edit("patch", (Spot(site, layer),), Reach(), Same(at.prompt), span=statement.span)
                 for layer in range(ctx.world.facts.n_layers) for site in sites)
