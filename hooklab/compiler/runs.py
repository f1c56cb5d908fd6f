"""Run blocks to `RunPlan`s: sweeps laid out as cells, reads and generation attached, sources noted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..spec import ast
from .context import IMPLICIT, Context
from .dictionaries import drops
from .keeps import kept, kept_once
from .needs import note_needs, note_reading
from .options import options
from .plan.edits import sources
from .plan.runs import RunPlan, answering
from .plan.spots import Spot
from .reads import reading
from .statements import EDITS
from .sweeps import cells_of
from .writing import writing as write_on

READS = ("attribute", "score", "lens")


def add_runs(ctx: Context, spec: ast.Spec) -> None:
    """Compile every run of a spec into `ctx.runs`."""
    blocks = [s for s in spec.body if isinstance(s, ast.Run)]
    loose = [s for s in spec.body if s.verb in (*EDITS, *READS, "save", "generate")]
    shared = [s for s in loose if isinstance(s, ast.Generate)] if blocks else []
    rest = [s for s in loose if s not in shared]
    for i, block in enumerate(blocks):
        with ctx.going_on():
            name = block.name or _free(ctx, IMPLICIT if i == 0 else f"{IMPLICIT}_{i + 1}")
            body = list(block.body)
            if not any(isinstance(s, ast.Generate) for s in body):
                body += shared
            _add(ctx, name, block.on, body, block)
    dropped = [sae for sae in ctx.saes.values() if drops(ctx, sae)]
    if rest or ((loose or dropped) and not blocks):
        with ctx.going_on():
            on = _only_prompt(ctx, rest or loose or dropped)
            edited = bool(dropped) or any(s.verb in EDITS for s in rest)
            _add(ctx, _free(ctx, IMPLICIT) if edited else on, on, rest or loose, (rest or loose or dropped)[0])


def _free(ctx: Context, name: str) -> str:
    count, base = 2, name
    while name in ctx.runs:
        name, count = f"{base}_{count}", count + 1
    return name


def _only_prompt(ctx: Context, statements: list[Any]) -> str:
    """The prompt that verbs outside a block act on: the only one, or the one that is not their source."""
    sources = {getattr(s, "source", None) for s in statements if isinstance(s, ast.Attribute)}
    left = [name for name in ctx.prompts if name not in sources]
    if len(left) == 1:
        return left[0]
    raise ctx.fail("value", f"which of the prompts {', '.join(ctx.prompts)} is this for?", statements[0],
                   f"write it in a block: run on {left[-1] if left else 'NAME'}:")


def _add(ctx: Context, name: str, on: str, body: list[Any], where: Any) -> None:
    base = ctx.runs.get(on)
    if base is None:
        raise ctx.fail("name", f"there is no prompt or run {on!r}", where, f"there are {', '.join(ctx.runs)}")
    writing = [s for s in body if isinstance(s, ast.Generate)]
    edits = [s for s in body if s.verb in EDITS]
    untouched = name == on
    axes, cells = cells_of(ctx, name, base, edits, body, bool(writing))
    if ctx.problems:  # what else is wrong in this run is worth knowing too
        axes, cells = base.axes, base.cells
    run = RunPlan(name, base.prompt, axes, cells, max([base.samples, *(_samples(ctx, s) for s in edits)]),
                  captures=base.captures if untouched else frozenset())
    ctx.runs[name] = run
    needs = note_needs(ctx, name, (edit for cell in cells for edit in cell.edits))
    lines = {name: edit.span for cell in cells[:1] for edit in cell.edits for name in sources(edit)}
    _check_sources(ctx, run, lines)
    saves = [s for s in body if isinstance(s, ast.Save)]
    keeps = kept_once(ctx, ctx.each(lambda s: kept(ctx, run, s, bool(writing)), saves))
    written = ctx.each(lambda lines: write_on(ctx, lines, base.prompt), [writing])
    readings = ctx.each(lambda s: reading(ctx, run, s), [s for s in body if s.verb in READS])
    needs |= {str(r.option("source")) for r in readings if r.option("source")}
    captured = {Spot(spot.site, spot.layer) for keep in keeps for spot in keep.spots}
    ctx.runs[name] = replace(ctx.runs[name], needs=frozenset(needs - {name}), keeps=keeps, readings=readings,
                             captures=ctx.runs[name].captures | (frozenset() if writing else frozenset(captured)),
                             writing=written[0] if written else None)
    _check_sources(ctx, run, {str(r.option("source")): r.span for r in readings if r.option("source")})
    for r in readings:
        note_reading(ctx, r)


def _check_sources(ctx: Context, run: RunPlan, lines: dict[str, Any]) -> None:
    """A run that takes from a swept one, at the line that says so, must vary over the same things."""
    for name, where in lines.items():
        source = ctx.runs[name]
        if not source.hidden and answering(source, run, 0) is None:
            axes = ", ".join(axis.name for axis in source.axes)
            ctx.problem("value", f"{name} is swept over {axes}, and {run.name}, which takes from it, is not", where,
                        f"sweep both over the same, or write run {run.name} on {name}:")


def _samples(ctx: Context, statement: Any) -> int:
    given = tuple(opt for opt in statement.opts if opt.name == "samples")  # which no sweep can change
    count = options(ctx, given, statement.verb).get("samples", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ctx.fail("value", f"samples= takes a whole number from 1 up, not {count!r}", statement)
    return count
