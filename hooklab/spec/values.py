"""Checks of values: amounts, sources, metrics and claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..sites import LAYER_SITES
from . import ast, places
from .checker import Checker, listed
from .names import SIGMA
from .tree import ALIASES
from .verbs import CLAIM_FUNCTIONS, FUNCTIONS, GENERATORS, METRICS

# number of arguments: fewest, most
ARITY = {"mean": (1, 1), "norm": (1, 1), "unit": (1, 1), "cos": (2, 2), "dot": (2, 2), "max": (1, 1), "min": (1, 1),
         "sum": (1, 1), "abs": (1, 1), "proj": (2, 2), "std": (1, 1), "first": (1, 1), "repeat_random": (1, 1),
         "random": (1, 1)}
CLAIM_ARITY = {**ARITY, "max": (1, 99), "min": (1, 99), "sum": (1, 99)}
METRIC_ARITY = {"logit": (0, 1), "logit_diff": (0, 2), "logit_centred": (0, 1), "prob": (0, 1), "logprob": (0, 1),
                "kl": (1, 1), "loss": (0, 0), "rank": (0, 1), "entropy": (0, 0), "top": (0, 0)}
METRIC_EXAMPLES = {"logit": 'logit(" Mary")', "logit_diff": 'logit_diff(" Mary", " John")', "prob": 'prob(" Mary")',
                   "logprob": 'logprob(" Mary")', "kl": "kl(baseline)", "rank": 'rank(" Mary")',
                   "logit_centred": 'logit_centred(" Mary")'}
ASK_ANSWER = ("logit", "logit_diff", "logit_centred", "prob", "logprob", "rank")
GENERATOR_OPTIONS = ("batch", "seed")
AMOUNT, SOURCE, LET, METRIC, CLAIM = "amount", "source", "let", "metric", "claim"


def value(c: Checker, node: Any, role: str) -> None:
    """Check a value, in the role that it plays."""
    if isinstance(node, ast.Binary):
        value(c, node.left, _inner(role))
        value(c, node.right, _inner(role))
    elif isinstance(node, ast.Neg):
        value(c, node.of, _inner(role))
    elif isinstance(node, ast.Name):
        NAMES[role](c, node)
    elif isinstance(node, ast.Call):
        _call(c, node, role)
    elif isinstance(node, ast.Attr):
        _attr(c, node, role)
    elif isinstance(node, ast.Site | ast.Feature) and role == METRIC:
        c.say("value", "this is a place, and a metric is a number",
              f"there are {listed(METRICS)}; a place is kept by save", node)
    elif isinstance(node, ast.Site):
        places.site(c, node, role)
    elif isinstance(node, ast.Feature):
        places.feature(c, node, role)
    elif isinstance(node, ast.EachValue):
        _each(c, node, role)
    elif isinstance(node, ast.Str) and role != SOURCE:
        c.say("value", "text is no value here",
              "a value is a number, a place such as clean.L6.resid @last, or Python between "
              "braces: {vec}", node)
    elif isinstance(node, ast.Word | ast.List | ast.Range):
        c.say("value", "this is no value here", "a value is a number, a place, or Python between braces: {vec}", node)
    if isinstance(node, ast.Site | ast.Feature) and node.at is not None:
        places.position(c, node.at)


def _inner(role: str) -> str:
    """Inside arithmetic a bare run is no source."""
    return AMOUNT if role == SOURCE else role


def _each(c: Checker, node: ast.EachValue, role: str) -> None:
    if isinstance(node.values, ast.List):
        if not node.values.items:
            c.say("value", "there is no value to take in turn", "write each [0, 1, 2]", node)
        for item in node.values.items:
            value(c, item, role)


# Bare names --------------------------------------------------------------------------------------------------------


def _known(c: Checker, node: ast.Name) -> bool:
    """Whether a name is a value; a value made from a run that comes later is none yet."""
    if node.id in c.names.lets:
        if isinstance(c.statement, ast.Let) and c.names.lets[node.id] >= c.index:
            c.say("name", f'the value "{node.id}" is not yet defined here', "a let refers to lets above it", node, node.id)
        elif not isinstance(c.statement, ast.Let):
            for run in sorted(c.let_runs.get(node.id, ())):
                if run in c.names.runs and run not in c.names.prompts and c.names.runs[run] >= c.index:
                    c.say("name", f'"{node.id}" is taken from the run "{run}", which is not over here',
                          "a run takes from prompts and from runs above it", node, node.id)
        return True
    return node.id in c.names.sweeps


def _amount_name(c: Checker, node: ast.Name) -> None:
    if _known(c, node) or node.id == SIGMA:
        return
    what = c.names.what(node.id)
    if what in ("a prompt", "a run") or node.id == "baseline":
        c.say("value", f'"{node.id}" is {what or "a run"}, not a value', f"name a place in it: {node.id}.L6.resid @last",
              node)
        return
    names = [name for name in (*c.names.lets, *c.names.sweeps) if name != getattr(c.statement, "name", None)]
    close = c.meant(node.id, names, " ")
    c.say("name", f'"{node.id}" is no value', f"Python goes between braces: {{{node.id}}}"
          + (f"; {close}" if close.strip() else ""), node, node.id)


def _source_name(c: Checker, node: ast.Name) -> None:
    names = c.names
    if node.id in names.lets or node.id in names.sweeps:
        _known(c, node)
    elif node.id in names.prompts or node.id in names.runs or node.id == "baseline" or names.what(node.id):
        c.source(node.id, node)
    else:
        known = [*names.prompts, *(run for run in names.runs if names.runs[run] < c.index), "baseline", *names.lets]
        c.say("name", f'there is no prompt or run "{node.id}"', c.meant(node.id, known, f"there are {listed(known)}; "
              f"Python goes between braces: {{{node.id}}}"), node, node.id)


def _metric_name(c: Checker, node: ast.Name) -> None:
    """A metric of the table, one defined above, or a value."""
    where = c.names.metrics.get(node.id)
    itself = where == c.index and getattr(c.statement, "name", None) is None
    if node.id in METRICS and (where is None or where >= c.index):
        _metric_call(c, ast.Call(node.id, span=node.span))
    elif where is not None and where >= c.index and not itself:
        c.say("name", f'the metric "{node.id}" is not yet defined here', "a metric refers to metrics above it", node,
              node.id)
    elif (where is None or itself) and not _known(c, node):
        known = [name for name, index in c.names.metrics.items() if index < c.index]
        c.say("name", f'there is no metric "{node.id}"', c.meant(node.id, [*METRICS, *known]), node, node.id)


def _claim_name(c: Checker, node: ast.Name) -> None:
    if node.id in c.names.metrics or node.id in METRICS:
        run = next((run for run in c.names.runs), "baseline")
        c.say("value", f'"{node.id}" of which run?', f"write {run}.{node.id}", node)
    else:
        c.say("name", f'"{node.id}" is no number', "a claim compares numbers and metrics of runs: hooked.logit_diff < 2",
              node, node.id)


def _let_name(c: Checker, node: ast.Name) -> None:
    if node.id in c.names.lets and isinstance(c.statement, ast.Let):
        c.let_runs.setdefault(c.statement.name, set()).update(c.let_runs.get(node.id, ()))
    _amount_name(c, node)


NAMES = {AMOUNT: _amount_name, SOURCE: _source_name, METRIC: _metric_name, CLAIM: _claim_name, LET: _let_name}


# Functions and metrics ---------------------------------------------------------------------------------------------


def _call(c: Checker, node: ast.Call, role: str) -> None:
    if node.at is not None:
        places.position(c, node.at)
    if role == METRIC and node.name in METRICS:
        _metric_call(c, node)
        return
    if node.name in METRICS:
        hint = f"write the metric in a line of its own, then hooked.{node.name}" if role == CLAIM else \
            "Python goes between braces: {vec}"
        c.say("value", f"{node.name} is a metric, and this is no metric line", hint, node)
        return
    if role == METRIC and node.name in FUNCTIONS:
        c.say("value", f"{node.name} is a function of values and claims, and a metric is arithmetic of metrics",
              f"write {_of_claim(c, node.name)}" if node.name in CLAIM_FUNCTIONS else f"there are {listed(METRICS)}", node)
        return
    allowed = CLAIM_FUNCTIONS if role == CLAIM else METRICS if role == METRIC else FUNCTIONS
    if node.name not in allowed:
        kind = "name" if node.name not in GENERATORS else "value"
        c.say(kind, f'there is no function "{node.name}" here', _functions(c, node.name, allowed, role), node)
        return
    arity = CLAIM_ARITY if role == CLAIM else ARITY
    example = _of_claim(c, node.name) if role == CLAIM else "{a} + {b}" if node.name == "sum" else ""
    count(c, node, *arity[node.name], example)
    _no_named(c, node)
    for arg in node.args:
        value(c, arg, _inner(role))


def _functions(c: Checker, name: str, allowed: tuple[str, ...], role: str) -> str:
    """What there is instead of a function that does not exist."""
    if role == CLAIM:
        return f"over the points of a sweep there are {listed(allowed)}"
    return c.meant(name, allowed, f"there are {listed(allowed, 30)}; Python goes between braces: {{{name}(…)}}")


def _of_claim(c: Checker, name: str) -> str:
    """How a function stands in a claim: with a run and a metric of the spec."""
    run = next((run for run in c.names.runs if run not in c.names.prompts), "hooked")
    return f"expect {name}({run}.{next(iter(c.names.metrics), 'logit_diff')}) < 2"


def count(c: Checker, node: ast.Call, fewest: int, most: int, example: str) -> bool:
    """Check the number of arguments of a call."""
    given = len(node.args)
    if fewest <= given <= most:
        return True
    wanted = str(fewest) if fewest == most else f"{fewest} or more" if most > 9 else f"{fewest} or {most}"
    c.say("value", f"{node.name} takes {'no' if most == 0 else wanted} value{'' if most == 1 or wanted == '1' else 's'}, "
          f"and {given} {'is' if given == 1 else 'are'} given", f"write {example or _example(node.name, fewest)}", node)
    return False


def _example(name: str, arguments: int) -> str:
    return f"{name}({', '.join(['{a}', '{b}'][:arguments])})" if arguments else name


def _no_named(c: Checker, node: ast.Call) -> None:
    for opt in node.named:
        c.say("name", f"{node.name} takes no {opt.name}=", f"leave out {opt.name}=", opt)


def _metric_call(c: Checker, node: ast.Call) -> None:
    fewest, most = METRIC_ARITY[node.name]
    _no_named(c, node)
    if node.name == "logit_diff" and len(node.args) == 1:
        fewest = 2
    if not count(c, node, fewest, most, METRIC_EXAMPLES.get(node.name, "")):
        return
    if node.name == "kl":
        _kl(c, node)
        return
    for arg in node.args:
        if isinstance(arg, ast.Name) and arg.id not in c.names.lets and arg.id not in c.names.sweeps:
            c.say("name", f'"{arg.id}" is no answer', f'token text goes between quotes: {node.name}(" {arg.id}")', arg)
        elif not isinstance(arg, ast.Str | ast.Py | ast.Num | ast.Name | ast.Call):
            c.say("value", "this is no answer", f"write {METRIC_EXAMPLES[node.name]}", arg)
    if not node.args and node.name in ASK_ANSWER:
        ask_answer(c, node.name, node)


def _kl(c: Checker, node: ast.Call) -> None:
    if isinstance(node.args[0], ast.Name):
        c.source(node.args[0].id, node.args[0], earlier=False)
    else:
        c.say("value", "kl compares with one run", "write kl(baseline)", node.args[0])


def ask_answer(c: Checker, metric: str, node: ast.Node) -> None:
    """Say that a metric has no answer to look for, if so."""
    if c.doubt.about("answer"):
        return
    answer = c.names.answer
    if answer is None:
        line = 'answer " Mary" vs " John"' if metric == "logit_diff" else 'answer " Paris"'
        c.say("value", f"{metric} needs an answer, and there is none",
              f"add a line: {line}; or write {METRIC_EXAMPLES[metric]}", node)
    elif metric == "logit_diff" and answer.against is None:
        c.say("value", "logit_diff needs a wrong answer too", 'write answer " Mary" vs " John"', node)


def _attr(c: Checker, node: ast.Attr, role: str) -> None:
    """`run.metric`, which only a claim may hold."""
    names = c.names
    run_known = node.run == "baseline" or node.run in names.prompts or node.run in names.runs
    if node.name in LAYER_SITES or node.name in ALIASES:
        c.say("value", f"{node.name} is a site of every layer: say which", f"write {node.run}.L5.{node.name}", node)
    elif role != CLAIM and not run_known:
        c.say("name", f'"{node.run}.{node.name}" is no value', f"Python goes between braces: {{{node.run}.{node.name}}}",
              node,
              node.run)
    elif role != CLAIM:
        c.say("value", f"{node.run}.{node.name} is no value here",
              f"write {node.run}.L5.resid, or compare metrics in expect",
              node)
    else:
        c.source(node.run, node, earlier=False)
        _metric_of_run(c, node)


def _metric_of_run(c: Checker, node: ast.Attr) -> None:
    if node.name in c.names.metrics or c.doubt.about("metric"):
        return
    hint = f"add a line: metric {METRIC_EXAMPLES.get(node.name, node.name) if node.name == 'kl' else node.name}" \
        if node.name in METRICS else c.meant(node.name, c.names.metrics, "add a line: metric logit_diff")
    c.say("name", f'no metric "{node.name}" is computed', hint, node, node.name, r"\.")


def runs_of(node: Any) -> Iterator[str]:
    """Runs that a value is taken from."""
    if isinstance(node, ast.Site | ast.Feature) and node.run:
        yield node.run
    for part in (getattr(node, "left", None), getattr(node, "right", None), getattr(node, "of", None),
                 *getattr(node, "args", ())):
        if part is not None:
            yield from runs_of(part)


def only_numbers(node: Any) -> bool:
    """Whether a value is a number whatever happens."""
    if isinstance(node, ast.Binary):
        return only_numbers(node.left) and only_numbers(node.right)
    return only_numbers(node.of) if isinstance(node, ast.Neg) else isinstance(node, ast.Num)
