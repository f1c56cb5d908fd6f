"""Values and metrics of the spec, with every name in them resolved."""

from __future__ import annotations

import warnings
from typing import Any

from ..errors import HooklabError, HooklabWarning, did_you_mean
from ..spec import ast
from ..spec.verbs import CLAIM_FUNCTIONS, FUNCTIONS, METRICS
from .context import BASELINE, Context, Env, Stop
from .places import Sites
from .plan.claims import Figure
from .plan.measures import Measure, MetricPlan
from .plan.spots import Spot
from .plan.values import Act, Const, Fn, FromFile, Given, Op, Sigma, Value
from .positions import spread

UNITS = {"logit": "logits", "logit_diff": "logits", "logit_centred": "logits", "prob": "probability", "logprob": "nats",
         "kl": "nats", "loss": "nats", "rank": "rank", "entropy": "nats", "top": "probability"}


def value(ctx: Context, expr: ast.Expr, prompt: str, env: Env, spot: Spot | None = None) -> Value:
    """A value as the runtime needs it; `spot` is the place that it is used at, for `sigma`."""

    def lower(node: Any) -> Value:
        """A part of the value."""
        return value(ctx, node, prompt, env, spot)

    if isinstance(expr, ast.Num):
        return Const(expr.value)
    if isinstance(expr, ast.Py):
        ctx.given(expr.source, expr)
        return Given(expr.source)
    if isinstance(expr, ast.Str):
        return FromFile(expr.value)
    if isinstance(expr, ast.Name):
        return _name(ctx, expr, prompt, env, spot)
    if isinstance(expr, ast.Neg):
        return Op("neg", (lower(expr.of),))
    if isinstance(expr, ast.Binary):
        return Op(expr.op, (lower(expr.left), lower(expr.right)))
    if isinstance(expr, ast.Site | ast.Feature):
        return act(ctx, expr, prompt, env)
    if isinstance(expr, ast.Call):
        if expr.name == "first":
            raise ctx.fail("value", "first(…) is the first token of an answer, and this is no answer", expr)
        if expr.name not in FUNCTIONS:
            raise ctx.fail("name", f"there is no function {expr.name!r}", expr,
                           f"there are {', '.join(FUNCTIONS)}.{did_you_mean(expr.name, FUNCTIONS)}")
        return Fn(expr.name, tuple(lower(arg) for arg in expr.args))
    raise ctx.fail("value", "this is no value that an activation can be changed by", expr)


def _name(ctx: Context, expr: ast.Name, prompt: str, env: Env, spot: Spot | None) -> Value:
    if expr.id in env:
        found = env[expr.id]
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return found if isinstance(found, Given) else _fail_text(ctx, expr, found)
        return Const(found)
    if expr.id in ctx.lets:
        return value(ctx, ctx.lets[expr.id].value, prompt, env, spot)
    if expr.id == "sigma":
        if spot is None:
            raise ctx.fail("value", "sigma is the spread of the place that is changed; here is none", expr,
                           "write std(L0.resid_pre) for that of a given site")
        return Sigma(prompt, Spot(spot.site, spot.layer))
    known = [*env, *ctx.lets]
    raise ctx.fail("name", f"{expr.id!r} is no value", expr,
                   f"Python goes between braces: {{{expr.id}}}.{did_you_mean(expr.id, known)}")


def _fail_text(ctx: Context, expr: ast.Name, found: Any) -> Value:
    raise ctx.fail("value", f"{expr.id} is {found!r} here, which is no number", expr)


def act(ctx: Context, expr: ast.Site | ast.Feature, prompt: str, env: Env) -> Act:
    """An activation of another run as a value."""
    run = ctx.untouched(expr.run or BASELINE, prompt, expr)
    spots = Sites(ctx, env).spots(expr)
    if len(spots) != 1:
        raise ctx.fail("value", f"a value is of one place, and this names {len(spots)}", expr, "name one layer")
    source = ctx.runs[run].prompt
    at = expr.at
    if isinstance(at, ast.AtEach):
        raise ctx.fail("value", "a value is taken at fixed positions", at, "write @last, or no position for all")
    return Act(run, spots[0], None if at is None else spread(ctx, at.pos, source, env, at))


# Metrics -----------------------------------------------------------------------------------------------------------


def metric_name(statement: ast.Metric, taken: Any = ()) -> str:
    """What a metric is called: its own name, or that of its function."""
    expr = statement.value
    name = statement.name or (expr.id if isinstance(expr, ast.Name) else expr.name if isinstance(expr, ast.Call)
                              else "metric")
    count, base = 2, name
    while name in taken:
        name, count = f"{base}_{count}", count + 1
    return name


def metric(ctx: Context, name: str, expr: ast.Expr, prompt: str) -> MetricPlan:
    """A metric on one prompt: answers as token ids, positions as numbers."""
    fn = expr.id if isinstance(expr, ast.Name) else expr.name if isinstance(expr, ast.Call) else ""
    reason = ctx.world.missing("logits")
    if reason is not None:
        raise ctx.fail("model", f"a metric needs logits: {reason}", expr)
    return MetricPlan(name, _measure(ctx, expr, prompt), UNITS.get(fn, ""), expr.span)


def _measure(ctx: Context, expr: ast.Expr, prompt: str) -> Any:
    if isinstance(expr, ast.Num):
        return Const(expr.value)
    if isinstance(expr, ast.Neg):
        return Op("neg", (_measure(ctx, expr.of, prompt),))
    if isinstance(expr, ast.Binary):
        return Op(expr.op, (_measure(ctx, expr.left, prompt), _measure(ctx, expr.right, prompt)))
    if isinstance(expr, ast.Py):
        if not callable(ctx.given(expr.source, expr)):
            raise ctx.fail("value", f"{{{expr.source}}} is no function", expr,
                           "a metric in Python takes what the model returned: {lambda out: out.logits[:, -1, 7]}")
        return Given(expr.source)
    if isinstance(expr, ast.Name) and expr.id in ctx.metrics and expr.id not in METRICS:
        return _measure(ctx, ctx.metrics[expr.id].value, prompt)
    if isinstance(expr, ast.Name):
        expr = ast.Call(expr.id, span=expr.span)
    if not isinstance(expr, ast.Call) or expr.name not in METRICS:
        name = getattr(expr, "name", getattr(expr, "id", "this"))
        raise ctx.fail("name", f"there is no metric {name!r}", expr,
                       f"there are {', '.join(METRICS)}.{did_you_mean(str(name), METRICS)}")
    return _call(ctx, expr, prompt)


def _call(ctx: Context, expr: ast.Call, prompt: str) -> Measure:
    at = None if expr.at is None else spread(ctx, expr.at.pos, prompt, {}, expr.at)
    if expr.name == "loss" and expr.at is not None:
        raise ctx.fail("value", "loss is over all tokens of the prompt, so it takes no position", expr, "write loss")
    if expr.name == "kl":
        if len(expr.args) != 1 or not isinstance(expr.args[0], ast.Name):
            raise ctx.fail("value", "kl compares with one run", expr, "write kl(baseline)")
        ref = ctx.untouched(expr.args[0].id, prompt, expr.args[0])
        ref_at = None if expr.at is None else spread(ctx, expr.at.pos, ctx.runs[ref].prompt, {}, expr.at)
        return Measure("kl", ref=ref, at=at, ref_at=ref_at)
    if expr.name in ("loss", "entropy", "top"):
        return Measure(expr.name, at=at)
    size = ctx.inputs[prompt].size
    given = list(expr.args)
    if not given and ctx.answer is not None:
        given = [ctx.answer.value, *([ctx.answer.against] if ctx.answer.against is not None else [])]
    need = 2 if expr.name == "logit_diff" else 1
    if len(given) < need:
        raise ctx.fail("value", f"{expr.name} needs {'a right and a wrong answer' if need == 2 else 'an answer'}", expr,
                       'add a line: answer " Mary" vs " John"')
    ids = [answer(ctx, item, size) for item in given[:need]]
    return Measure(expr.name, ids[0], ids[1] if need == 2 else None, at=at)


def answer(ctx: Context, node: Any, size: int) -> tuple[int, ...]:
    """The token ids of an answer, one for each example.

    An answer must be a single token: `first(" New York")` takes the first of several, in so many words.
    """
    first = isinstance(node, ast.Call) and node.name == "first"
    if first:
        node = node.args[0]
    if isinstance(node, ast.Py):
        items = ctx.given(node.source, node)
        items = items.tolist() if hasattr(items, "tolist") else items
        items = [items] if isinstance(items, str) or not hasattr(items, "__iter__") else list(items)
    elif isinstance(node, ast.List):
        items = [getattr(item, "value", item) for item in node.items]
    else:
        items = [getattr(node, "value", node)]
    found = tuple(_token(ctx, item, node, first=first) for item in items)
    if len(found) == 1:
        return found * size
    if len(found) != size:
        raise ctx.fail("value", f"there are {len(found)} answers for {size} prompts", node,
                       "give one answer, or one for each prompt")
    return found


def _token(ctx: Context, item: Any, node: Any, *, first: bool) -> int:
    if isinstance(item, bool) or not isinstance(item, (str, int)):
        raise ctx.fail("value", f"{item!r} is no answer", node, 'an answer is a text such as " Mary", or a token id')
    if isinstance(item, int):
        if not 0 <= item < ctx.world.facts.d_vocab:
            raise ctx.fail("value", f"there is no token {item}", node, f"the vocabulary has {ctx.world.facts.d_vocab}")
        return item
    with ctx.catch(node, "value"):
        ids = ctx.world.token_ids(item)
        if not ids:
            raise ctx.fail("value", "this answer has no token", node)
        if len(ids) == 1 or first:
            _warn_of_space(ctx, item, ids)
            return ids[0]
        pieces = " ".join(repr(ctx.world.piece(i)) for i in ids)
        spaced = " " + item.strip()
        with_space = not item.startswith(" ") and len(ctx.world.token_ids(spaced)) == 1
        raise ctx.fail("value", f"{item!r} is {len(ids)} tokens: {pieces}", node,
                       f'write "{spaced}", with the space before it' if with_space
                       else f'an answer is one token; for the first of them write first("{item}")')
    raise Stop


def _warn_of_space(ctx: Context, item: str, ids: list[int]) -> None:
    """A word without the space before it is another token than the word inside a text."""
    if not item[:1].isalpha():
        return
    try:
        spaced = ctx.world.token_ids(" " + item)
    except HooklabError:
        return
    if len(spaced) == 1 and spaced != ids[:1]:
        warnings.warn(f'the answer "{item}" is the token that starts a text; inside a text the word is " {item}", with a '
                      f'space before it.', HooklabWarning, stacklevel=2)


# Claims ------------------------------------------------------------------------------------------------------------


def claim(ctx: Context, expr: Any, around: str | None) -> Any:
    """One side of an `expect`: numbers and metrics of runs; `baseline` is that of the prompt of `around`."""
    if isinstance(expr, ast.Num):
        return Const(expr.value)
    if isinstance(expr, ast.Neg):
        return Op("neg", (claim(ctx, expr.of, around),))
    if isinstance(expr, ast.Binary):
        return Op(expr.op, (claim(ctx, expr.left, around), claim(ctx, expr.right, around)))
    if isinstance(expr, ast.Call) and expr.name in CLAIM_FUNCTIONS:
        return Fn(expr.name, tuple(claim(ctx, arg, around) for arg in expr.args))
    if isinstance(expr, ast.Attr):
        run = expr.run
        if run == BASELINE:
            run = ctx.runs[around].prompt if around in ctx.runs else next(iter(ctx.prompts))
        if run not in ctx.runs:
            raise ctx.fail("name", f"there is no run {run!r}", expr, f"there are {', '.join(ctx.runs)}."
                           + did_you_mean(run, ctx.runs))
        if expr.name not in ctx.metrics:
            raise ctx.fail("name", f"there is no metric {expr.name!r}", expr,
                           f"there are {', '.join(ctx.metrics) or 'none; add a line: metric logit_diff'}."
                           + did_you_mean(expr.name, ctx.metrics))
        return Figure(run, expr.name)
    raise ctx.fail("value", "a claim compares numbers and metrics of runs", expr, "write hooked.logit_diff < 2")


def runs_named(expr: Any) -> list[str]:
    """The runs that a claim names, `baseline` apart."""
    if isinstance(expr, ast.Attr):
        return [] if expr.run == BASELINE else [expr.run]
    parts = [getattr(expr, name, None) for name in ("left", "right", "of")] + list(getattr(expr, "args", ()))
    return [name for part in parts if part is not None for name in runs_named(part)]
