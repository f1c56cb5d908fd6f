"""The `attribute` line as a reading: which method, of what, with what held, and how much of it is checked."""

from __future__ import annotations

import sys
from typing import Any

from ..spec import ast
from ..spec.verbs import ATTRIBUTIONS, HOLDS
from .aims import aim
from .context import Context
from .lower import metric
from .options import options
from .places import Sites
from .plan.cells import Axis
from .plan.measures import Measure
from .plan.reaches import Spread
from .plan.readings import Reading
from .plan.runs import RunPlan
from .plan.spots import Spot
from .plan.values import Const, Op

Layout = tuple[tuple[Axis, ...], tuple[Spot, ...]]
Positions = tuple[tuple[Axis, ...], Spread | None, bool]


def layout(ctx: Context, target: ast.Target, sites: Sites) -> Layout:
    """Axes over places: layer and head for one site, a `site` axis for a list."""
    choice = sites.choice(ast.Target(target.sites, True, target.excluding))
    return choice.axes, tuple(cell[0] for cell in choice.cells)


def attribution(ctx: Context, run: RunPlan, statement: ast.Attribute, positions: Positions) -> Reading:
    """What an `attribute` line asks for; `positions` are those of its places."""
    method = statement.method or ("patch" if statement.source else "grad")
    if method not in ATTRIBUTIONS:
        raise ctx.fail("name", f"there is no attribution {method!r}", statement, f"there are {', '.join(ATTRIBUTIONS)}")
    opts = options(ctx, statement.opts, statement.verb)
    _check_options(ctx, run, statement, method, opts)
    axes, spots = layout(ctx, statement.target, Sites(ctx, {}))
    pos_axes, at, each = positions
    source = _source(ctx, run, statement, method)
    settings = {"method": method, "source": source, "steps": int(opts.get("steps", 20)), "hold": _held(opts),
                "check": _checked(ctx, statement, opts), "draw": opts.get("seed", hash(ctx.draw(statement)))}
    lowered = None
    if "target" in opts:
        found = aim(ctx, run, statement, opts["target"], at, each=each,
                    spots=tuple(spot.written if spot.into else spot for spot in spots))
        settings |= {"metric": found.name, "aim": found}
    else:
        name, expr = _metric_of(ctx, statement)
        lowered = metric(ctx, name, expr, run.prompt)
        settings["metric"] = name
        if method == "dla" and not _linear(lowered.value):
            raise ctx.fail("value", f"direct attribution splits a logit, or a difference of logits; {name} is neither",
                           statement, "add `to logit_diff`, or take `with grad`")
    return Reading("attribute", "attribute", spots, (*axes, *pos_axes), at, each, tuple(settings.items()),
                   lowered, statement.span)


def _check_options(ctx: Context, run: RunPlan, statement: ast.Attribute, method: str, opts: dict[str, Any]) -> None:
    """Refuse options that would do nothing here."""
    refused = (
        ("steps", method != "ig", f"steps= is for integrated gradients, and this is {method}", "write … with ig"),
        ("hold", method == "dla", "direct attribution holds the final norm anyway, and passes no other", "leave hold= out"),
        ("target", method == "dla", "direct attribution is to logits, and target= is an activation", "write … with grad"),
        ("target", statement.metric is not None and statement.metric in ctx.metrics,
         "this attributes to a metric and to an activation at once", f"leave out `to {statement.metric}`, or target="),
        ("check", bool(run.axes), "check= is for a run that is not swept", "leave it out, or the sweep"),
        ("seed", "check" not in opts, "seed= draws the cells that check= checks", "add check=20"),
    )
    for name, wrong, message, hint in refused:
        if name in opts and wrong:
            raise ctx.fail("value", message, next(opt for opt in statement.opts if opt.name == name), hint)


def _checked(ctx: Context, statement: ast.Attribute, opts: dict[str, Any]) -> int:
    """How many cells are checked."""
    count = opts.get("check", 0)
    if count == "all":
        return sys.maxsize
    if "check" in opts and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ctx.fail("value", f"check= is a number of cells, 1 or more, or all, not {count!r}",
                       next(opt for opt in statement.opts if opt.name == "check"), "write check=20")
    return int(count)


def _held(opts: dict[str, Any]) -> tuple[str, ...]:
    word = opts.get("hold")
    return HOLDS[:-1] if word == "all" else () if word is None else (str(word),)


def _source(ctx: Context, run: RunPlan, statement: ast.Attribute, method: str) -> str | None:
    """The run that values come from, token for token beside this one."""
    if statement.source is None:
        if method == "patch":
            raise ctx.fail("value", "attribution patching needs a run to patch from", statement, "… with patch from clean")
        return None
    if method in ("grad", "dla"):
        raise ctx.fail("value", f"{method} compares with no other run", statement,
                       f"leave out `from {statement.source}`, or write with patch or with ig")
    source = ctx.untouched(statement.source, run.prompt, statement)
    if ctx.tokens(ctx.runs[source].prompt).lengths != ctx.tokens(run.prompt).lengths:
        raise ctx.fail("value", f"{source} and {run.prompt} have different numbers of tokens", statement,
                       "attribution compares position by position: use prompts of one length")
    return source


def _linear(value: Any) -> bool:
    """Whether a metric is made of logits by sums and constant factors."""
    if isinstance(value, Measure):
        return value.fn in ("logit", "logit_diff", "logit_centred")
    if isinstance(value, Op):
        constant = [isinstance(arg, Const) for arg in value.args]
        if value.op in ("+", "-", "neg"):
            return all(_linear(arg) for arg in value.args)
        rest = [arg for arg, c in zip(value.args, constant, strict=True) if not c]
        return len(rest) == 1 and _linear(rest[0]) and (value.op == "*" or constant[1])
    return False


def _metric_of(ctx: Context, statement: ast.Attribute) -> tuple[str, Any]:
    """The metric that is attributed: the one named, the first declared, or what the answer suggests."""
    if statement.metric is not None:
        if statement.metric in ctx.metrics:
            return statement.metric, ctx.metrics[statement.metric].value
        return statement.metric, ast.Name(statement.metric, span=statement.span)
    if ctx.metrics:
        return next((name, m.value) for name, m in ctx.metrics.items())
    if ctx.answer is None:
        raise ctx.fail("value", "there is no metric to attribute", statement, "add a line: metric logit_diff")
    name = "logit" if ctx.answer.against is None else "logit_diff"
    return name, ast.Name(name, span=statement.span)

