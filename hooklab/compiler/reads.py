"""Analysing verbs to readings: attribute, score, lens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..spec import ast
from ..spec.verbs import SCORES
from .attributions import attribution, layout
from .context import Context
from .lower import metric
from .options import options
from .places import Sites
from .plan.cells import Axis
from .plan.reaches import Spread
from .plan.readings import Reading
from .plan.runs import RunPlan
from .plan.spots import Spot
from .positions import place_of, spread, spread_groups

STREAM = ("embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def reading(ctx: Context, run: RunPlan, statement: Any) -> Reading:
    """What an analysing line asks for."""
    makers: dict[str, Any] = {"attribute": _attribute, "score": _score, "lens": _lens}
    made: Reading = makers[statement.verb](ctx, run, statement)
    return made


def _positions(ctx: Context, run: RunPlan, place: Any) -> tuple[tuple[Axis, ...], Spread | None, bool]:
    """The position axis of a reading: one by one under `@each`, together otherwise."""
    if isinstance(place, ast.AtEach):
        groups, labels = spread_groups(ctx, place, run.prompt, {})
        if any(len(row) != 1 for group in groups for row in group):
            raise ctx.fail("value", "one position at a time is read here", place,
                           "write @each, or @each[subject.last, last]")
        return (Axis("pos", labels),), tuple(tuple(group[e][0] for group in groups) for e in range(len(groups[0]))), True
    if place is None:
        return (), None, False
    return (), spread(ctx, place.pos, run.prompt, {}, place), False


def _attribute(ctx: Context, run: RunPlan, statement: ast.Attribute) -> Reading:
    return attribution(ctx, run, statement, _positions(ctx, run, place_of(ctx, statement.target)))


def _score(ctx: Context, run: RunPlan, statement: ast.Score) -> Reading:
    method = statement.method
    if place_of(ctx, statement.target) is not None:
        raise ctx.fail("value", "heads are scored over all tokens, so this takes no position", statement, "leave the @ out")
    axes, spots = layout(ctx, statement.target, Sites(ctx, {}, "pattern"))
    if any(spot.site not in ("result", "pattern", "scores", "z") for spot in spots):
        raise ctx.fail("value", "heads are scored", statement, "write score each L*H* with induction")
    spots = tuple(Spot("pattern", spot.layer, spot.heads) for spot in spots)
    if any(spot.heads is None for spot in spots):
        raise ctx.fail("value", "this names layers but no heads", statement, "write score each L*H* with induction")
    if isinstance(method, ast.Py):
        if not callable(ctx.given(method.source, method)):
            raise ctx.fail("value", f"{{{method.source}}} is no function", method,
                           "it takes a pattern [batch query_pos key_pos] and the tokens, and returns a number")
        return Reading("score", "score", spots, axes, options=(("method", ""), ("source_text", method.source)),
                       span=statement.span)
    if method.id not in SCORES:
        raise ctx.fail("name", f"there is no score {method.id!r}", statement, f"there are {', '.join(SCORES)}")
    return Reading("score", method.id, spots, axes, options=(("method", method.id),), span=statement.span)


def _lens(ctx: Context, run: RunPlan, statement: ast.Lens) -> Reading:
    for site in ("ln_final", "logits"):
        reason = ctx.world.missing(site)
        if reason is not None:
            raise ctx.fail("model", f"a lens reads through the final norm and the unembedding: {reason}", statement)
    target = statement.target
    place = target if isinstance(target, ast.At | ast.AtEach) else None
    if not isinstance(target, ast.Target):
        target = ast.Target((ast.Site("resid_post", "*"),))
    else:
        place = place_of(ctx, target)
    axes, spots = layout(ctx, target, Sites(ctx, {}))
    wrong = [spot for spot in spots if spot.units or spot.sae or (spot.site not in STREAM and not _is_head(spot))]
    if wrong:
        raise ctx.fail("value", f"{wrong[0]} is no vector of the stream", statement,
                       f"a lens reads {', '.join(STREAM)}, and heads: lens L*H*")
    pos_axes, at, each = _positions(ctx, run, place if place is not None else ast.AtEach())
    opts = options(ctx, statement.opts, statement.verb)
    settings = (("top", int(opts.get("top", 1))), ("norm", opts.get("norm", "own")), ("tuned", _tuned(ctx, statement, opts)))
    if opts.get("norm") == "frozen":  # through the divisor of the last stream
        last = Spot("resid_post", ctx.world.facts.n_layers - 1)
        ctx.runs[run.name] = replace(ctx.runs[run.name], captures=ctx.runs[run.name].captures | {last})
    value = None
    if ctx.answer is not None:
        name = "logit_diff" if ctx.answer.against is not None else "prob"
        value = metric(ctx, name, ast.Name(name, span=statement.span), run.prompt)
    return Reading("lens", "lens", spots, (*axes, *pos_axes), at, each, settings, value, statement.span)


def _is_head(spot: Spot) -> bool:
    return spot.site == "result" and spot.heads is not None


def _tuned(ctx: Context, statement: ast.Lens, opts: dict[str, Any]) -> str | None:
    """The source text of the tuned lens of a line."""
    if "tuned" not in opts:
        return None
    opt = next(opt for opt in statement.opts if opt.name == "tuned")
    if not isinstance(opt.value, ast.Py) or not callable(opts["tuned"]):
        raise ctx.fail("value", "tuned= takes a tuned lens in braces", opt, "write tuned={my_lens}")
    if opts.get("norm", "own") != "own":
        raise ctx.fail("value", "a tuned lens was fitted through the norm that each vector has itself", opt,
                       "leave norm= out, or tuned=")
    return str(opt.value.source)
