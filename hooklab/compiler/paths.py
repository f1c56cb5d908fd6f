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
from .dictionaries import drops
from .needs import note_needs
from .options import options
from .places import Sites
from .plan.cells import Cell
from .plan.edits import Edit
from .plan.reaches import Reach
from .plan.runs import RunPlan
from .plan.spots import Spot
from .plan.values import Same
from .positions import reach
from .statements import Variants, Where, stepped, variants


def path_patch(ctx: Context, name: str, at: Where, statement: ast.Patch) -> Variants:
    """The receiver's edit at every point; the first pass becomes a hidden run that it takes its value from."""
    if any(drops(ctx, sae) for sae in ctx.saes.values()):
        raise ctx.fail("value", "a path is measured in the model as it is, and a dictionary with error=drop changes it",
                       statement, "leave error=drop out")
    opts = options(ctx, statement.opts, "patch", at.env)
    rest = tuple(opt for opt in statement.opts if opt.name not in ("mlps", "steps"))  # of the whole path
    sender = variants(at, replace(statement, target=replace(statement.target, to=None), opts=rest))
    end = statement.target.to
    assert isinstance(end, ast.Site | ast.Feature)
    receivers = tuple(Sites(ctx, at.env).spots(end))
    mlps = opts.get("mlps", "recompute")
    hidden = f"{name}>{len([n for n in ctx.runs if n.startswith(name + '>')])}"
    cells = tuple(Cell((i,), (*_held(ctx, at, mlps, edit, statement), edit)) for i, edit in enumerate(sender.edits))
    ctx.runs[hidden] = RunPlan(hidden, at.prompt, (), cells, hidden=True,
                               captures=frozenset(Spot(s.site, s.layer) for s in receivers))
    needs = note_needs(ctx, hidden, (edit for cell in cells for edit in cell.edits))
    ctx.runs[hidden] = replace(ctx.runs[hidden], needs=frozenset(needs))
    if isinstance(end.at, ast.AtEach):
        raise ctx.fail("value", "a path ends at fixed positions", end.at, "write @last, or no position for all")
    where = reach(ctx, end.at, at.prompt, at.env, writing=at.writing)
    where = stepped(at, where if where.at is not None else Reach(), opts, statement)
    edits = tuple(Edit("patch", receivers, where, Same(hidden, where.at), (("cell", i),), span=statement.span)
                  for i in range(len(cells)))
    return Variants(sender.axes, edits)


PARTS = {"z": ("q", "k", "v", "rot_q", "rot_k", "scores", "pattern"),
         "mlp_out": ("mlp_pre", "mlp_pre_linear", "mlp_post")}
"""What is inside of what is held: a sender among these sends through its own head, or its own MLP."""


def _held(ctx: Context, at: Where, mlps: Any, sender: Edit, statement: Any) -> tuple[Edit, ...]:
    """What keeps its value of the untouched run in the first pass: every head but the sender's own, perhaps every MLP."""
    if mlps not in ("recompute", "freeze"):
        raise ctx.fail("value", "mlps= is recompute or freeze", statement)
    sites = ["z", *(["mlp_out"] if mlps == "freeze" else [])]
    all_of = [Spot(site, layer) for layer in range(ctx.world.facts.n_layers) for site in sites]
    held = [left for spot in all_of for left in _without(ctx, spot, sender)]
    return tuple(Edit("patch", (spot,), Reach(), Same(at.prompt), span=statement.span) for spot in held)


def _without(ctx: Context, spot: Spot, sender: Edit) -> list[Spot]:
    """What is held of a site, less what the sender is a part of."""
    inside = [part for part in sender.spots if part.layer == spot.layer and part.site in PARTS[spot.site]]
    if not inside:
        return [spot]
    if spot.site == "mlp_out":
        return []
    facts = ctx.world.facts
    free = {head for part in inside for head in _heads(part, facts.n_heads, facts.n_kv_heads)}
    kept = tuple(head for head in range(facts.n_heads) if head not in free)
    return [replace(spot, heads=kept)] if kept else []


def _heads(part: Spot, n_heads: int, n_kv_heads: int) -> list[int]:
    """The query heads that a part of attention belongs to."""
    if part.heads is None:
        return list(range(n_heads))
    group = n_heads // n_kv_heads if "kv_head" in part.axes else 1
    return [head * group + i for head in part.heads for i in range(group)]
