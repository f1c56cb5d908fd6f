"""Spec and model facts to `Plan`: every name resolved, every problem reported at once.

    declarations ─▶ prompts as tokens ─▶ runs: cells of edits, reads ─▶ metrics and claims ─▶ Plan
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..problems import SpecError
from ..spec import ast
from ..spec.check import check
from ..spec.verbs import METRICS
from .context import MAIN, Context, Stop, World
from .dictionaries import attached
from .lower import claim, metric, metric_name, runs_named
from .options import options
from .places import Sites
from .plan.claims import Claim
from .plan.plan import Plan
from .plan.runs import RunPlan, answering
from .runs import add_runs
from .statements import corpus
from .views import add_view

DECLARED: dict[type, str] = {ast.Let: "lets", ast.Group: "groups", ast.Sweep: "sweeps", ast.Sae: "saes"}


def compile_spec(spec: ast.Spec, world: World, values: Mapping[str, Any] | None = None) -> Plan:
    """Compile a spec for a model.

    Args:
        spec: What is asked.
        world: What the model is.
        values: Python source between braces -> its value.

    Raises:
        SpecError: with every problem, in the order of the text.
    """
    ctx = Context(world, dict(values or {}))
    if spec.text is None:
        ctx.problems += check(spec)
    if not ctx.problems:
        _declare(ctx, spec)
        _inputs(ctx, spec)
    plan = None
    if not ctx.problems:
        add_runs(ctx, spec)
        plan = _finish(ctx, spec)
    if ctx.problems:
        raise SpecError(ctx.problems, spec.text or str(spec))
    assert plan is not None
    return plan


def _declare(ctx: Context, spec: ast.Spec) -> None:
    for statement in spec.body:
        if isinstance(statement, ast.Prompt):
            ctx.prompts[statement.name or MAIN] = statement
        elif isinstance(statement, ast.Mark):
            ctx.marks.append(statement)
        elif isinstance(statement, ast.Answer):
            ctx.answer = statement
        elif isinstance(statement, ast.Seed):
            ctx.seed = statement.value
        elif isinstance(statement, ast.Metric):
            ctx.metrics[metric_name(statement, ctx.metrics)] = statement
            if statement.name in METRICS and statement.name != metric_name(ast.Metric(None, statement.value)):
                ctx.problem("name", f"{statement.name} is a metric of its own, and this is another", statement,
                            "give it another name")
        elif type(statement) in DECLARED:
            getattr(ctx, DECLARED[type(statement)])[statement.name] = statement  # type: ignore[attr-defined]
    if not ctx.prompts:
        ctx.problem("value", "there is no prompt to run", None, 'add a line: prompt "The capital of France is"')
    for mark in ctx.marks:
        if mark.prompt is not None and mark.prompt not in ctx.prompts:
            ctx.problem("name", f"there is no prompt {mark.prompt!r}", mark)


def _inputs(ctx: Context, spec: ast.Spec) -> None:
    """Every prompt, and every corpus given in Python, as tokens."""
    for name, statement in ctx.prompts.items():
        with ctx.going_on(), ctx.catch(statement):
            opts = options(ctx, statement.opts, statement.verb)
            value = statement.value
            given = random_prompt(ctx, value, statement) if isinstance(value, ast.Call) else _plain(ctx, value)
            ctx.inputs[name] = ctx.world.prompt(given, image=opts.get("image"), chat=bool(opts.get("chat", False)))
    for inner in _statements(spec):
        over = getattr(inner, "over", None)
        if isinstance(over, ast.Py) and corpus(ctx, over) not in ctx.inputs:
            with ctx.going_on(), ctx.catch(over):
                ctx.inputs[corpus(ctx, over)] = ctx.world.prompt(ctx.given(over.source, over))
    for name in ctx.inputs:
        ctx.runs[name] = RunPlan(name, name)


def _statements(spec: ast.Spec) -> list[ast.Statement]:
    return [inner for s in spec.body for inner in (s.body if isinstance(s, ast.Run) else (s,))]


def _plain(ctx: Context, value: Any) -> Any:
    if isinstance(value, ast.Py):
        return ctx.given(value.source, value)
    if isinstance(value, ast.List):
        return [getattr(item, "value", item) for item in value.items]
    return value.value


def random_prompt(ctx: Context, call: ast.Call, statement: ast.Prompt) -> list[list[int]]:
    """`random(n)`: n tokens drawn alike; `repeat_random(n)`: the same n tokens twice. Each line draws its own."""
    opts = options(ctx, call.named)
    if len(call.args) != 1 or not isinstance(call.args[0], ast.Num) or not isinstance(call.args[0].value, int):
        raise ctx.fail("value", f"{call.name} takes the number of tokens", call, f"write {call.name}(20, batch=4, seed=0)")
    batch, seed = opts.get("batch", 1), opts.get("seed", hash(ctx.draw(statement)))
    if call.args[0].value < 1 or not isinstance(batch, int) or batch < 1:
        raise ctx.fail("value", f"{call.name} needs at least one token and one example", call)
    draw = random.Random(seed)
    words = list(ctx.world.vocabulary())
    rows = []
    for _ in range(batch):
        drawn = [draw.choice(words) for _ in range(call.args[0].value)]
        rows.append([*ctx.world.opening(), *drawn, *(drawn if call.name == "repeat_random" else ())])
    return rows


# Metrics, claims and views -----------------------------------------------------------------------------------------


def _finish(ctx: Context, spec: ast.Spec) -> Plan:
    _metrics(ctx)
    claims: list[Claim] = []
    views = []
    for statement in spec.body:
        with ctx.going_on():
            if isinstance(statement, ast.Expect):
                claims.append(_claim(ctx, statement))
            elif isinstance(statement, ast.Show):
                views.append(add_view(ctx, statement))
    saes: dict[str, Any] = {}
    for name, sae in ctx.saes.items():
        with ctx.going_on():
            source = sae.source
            saes[name] = (ctx.given(source.source, source) if isinstance(source, ast.Py) else source.value,
                          attached(Sites(ctx, {}), sae.site))
    runs = _needed(ctx)
    return Plan(spec.text or str(spec), runs, {run.prompt: ctx.inputs[run.prompt] for run in runs}, saes,
                dict(ctx.values), tuple(claims), tuple(views), ctx.seed, ctx.world)


def _claim(ctx: Context, statement: ast.Expect) -> Claim:
    named = runs_named(statement.left) + runs_named(statement.right)
    around = named[0] if named else None
    return Claim(str(ast.Spec((statement,))), claim(ctx, statement.left, around), statement.op,
                 claim(ctx, statement.right, around), statement.span)


def _metrics(ctx: Context) -> None:
    """Put every metric on every run that it can be computed for.

    Answers that do not fit a prompt's number of examples are a problem on prompts that something runs on; a prompt that
    only lends its activations goes without.
    """
    targets = {run.prompt for name, run in ctx.runs.items() if name not in ctx.inputs}
    named = targets or set(ctx.prompts)
    names = list(ctx.runs)
    for place, (name, run) in enumerate(list(ctx.runs.items())):
        if run.hidden or run.prompt not in ctx.prompts:
            continue
        made = []
        for metric_, statement in ctx.metrics.items():
            known = len(ctx.problems)
            try:
                plan = metric(ctx, metric_, statement.value, run.prompt)
            except Stop:
                if run.prompt not in named:
                    del ctx.problems[known:]
                continue
            apart = [ref for ref in _refs(plan.value) if answering(ctx.runs[ref], run, 0) is None]
            if apart and name not in ctx.inputs:
                ctx.problem("value", f"{metric_} compares {name} with {apart[0]}, which is swept over axes that "
                            f"{name} lacks", statement, "sweep both over the same axes, or compare with baseline")
                continue
            if apart:
                continue
            later = [ref for ref in _refs(plan.value) if names.index(ref) > place]
            if not later:
                made.append(plan)
            elif name not in ctx.inputs:
                ctx.problem("value", f"{metric_} compares {name} with {later[0]}, which comes later", statement,
                            f"put run {later[0]} first, or compare with baseline")
        needs = frozenset(ref for plan in made for ref in _refs(plan.value) if ref != name)
        ctx.runs[name] = replace(run, metrics=tuple(made), needs=run.needs | needs)


def _refs(value: Any) -> list[str]:
    ref = getattr(value, "ref", None)
    return [ref] if ref else [r for arg in getattr(value, "args", ()) for r in _refs(arg)]


def _needed(ctx: Context) -> tuple[RunPlan, ...]:
    """The runs to do, each after those that it needs; a corpus that nobody asks for is left out."""
    wanted = {name for name, run in ctx.runs.items() if run.prompt in ctx.prompts}
    stack = list(wanted)
    while stack:
        for need in ctx.runs[stack.pop()].needs:
            if need not in wanted:
                wanted.add(need)
                stack.append(need)
    done: list[RunPlan] = []
    names: set[str] = set()

    def visit(name: str) -> None:
        """Put a run behind those that it needs."""
        if name in names:
            return
        names.add(name)
        for need in sorted(ctx.runs[name].needs):
            visit(need)
        done.append(ctx.runs[name])

    for name in ctx.runs:
        if name in wanted:
            visit(name)
    return tuple(done)
