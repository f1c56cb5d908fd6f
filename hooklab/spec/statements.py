"""Checks of single statements: one function for each kind that has rules of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from . import ast, places
from .checker import Checker, listed
from .options import number_of
from .values import (
    AMOUNT,
    ASK_ANSWER,
    CLAIM,
    GENERATOR_OPTIONS,
    LET,
    METRIC,
    SOURCE,
    ask_answer,
    count,
    only_numbers,
    runs_of,
    value,
)
from .verbs import ABLATIONS, ATTRIBUTIONS, GENERATORS, METRICS, SCORES, VERBS, VIEW_SYNONYMS, VIEWS

LONGEST_SWEEP = 100_000

# Declarations ------------------------------------------------------------------------------------------------------


def _prompt(c: Checker, s: ast.Prompt) -> None:
    if isinstance(s.value, ast.List):
        _texts(c, s.value, "prompt")
    elif isinstance(s.value, ast.Call):
        _generator(c, s.value)


def _texts(c: Checker, values: ast.List, what: str) -> None:
    if not values.items:
        c.say("value", f"this list has no {what}", 'write ["one text", "another"]', values)
    for item in values.items:
        if isinstance(item, ast.Name):
            c.say("name", f'"{item.id}" is no text', f'text goes between quotes, Python between braces: {{{item.id}}}', item)
        elif not isinstance(item, ast.Str | ast.Py | ast.Num):
            c.say("value", f"this is no {what}", 'write ["one text", "another"]', item)


def _generator(c: Checker, call: ast.Call) -> None:
    if call.name not in GENERATORS:
        c.say("name", f'"{call.name}" makes no prompt', c.meant(call.name, GENERATORS,
                                                                f"there are {listed(GENERATORS)}; Python "
              f"goes between braces: {{{call.name}(…)}}"), call)
        return
    example = f"{call.name}(50, batch=10, seed=0)"
    if count(c, call, 1, 1, example):
        number = call.args[0]
        if isinstance(number, ast.Py):
            pass
        elif not isinstance(number, ast.Num) or not isinstance(number.value, int) or number.value < 1:
            c.say("value", f"{call.name} takes a number of tokens, 1 or more", f"write {example}", number)
    seen: set[str] = set()
    for opt in call.named:
        if opt.name not in GENERATOR_OPTIONS:
            c.say("name", f'{call.name} has no "{opt.name}"', c.meant(opt.name, GENERATOR_OPTIONS), opt)
        elif opt.name in seen:
            c.say("value", f"{opt.name}= is given twice", "leave one of them out", opt)
        elif not isinstance(opt.value, ast.Py) and (not isinstance(opt.value, ast.Num) or not isinstance(opt.value.value,
                                                                                                         int)
                                                    or opt.value.value < (1 if opt.name == "batch" else 0)):
            c.say("value", f"{opt.name}= is a whole number{', 1 or more' if opt.name == 'batch' else ''}",
                  f"write {example}", opt)
        seen.add(opt.name)
    if call.at is not None:
        c.say("value", "a prompt has no position", f"write {example}", call.at)


def _answer(c: Checker, s: ast.Answer) -> None:
    sides = [side for side in (s.value, s.against) if side is not None]
    for side in sides:
        if isinstance(side, ast.List):
            _texts(c, side, "answer")
        elif isinstance(side, ast.Call):
            if side.name != "first":
                c.say("name", f'"{side.name}" makes no answer', 'for the first token of a text write first(" New York")',
                      side)
            elif count(c, side, 1, 1, 'first(" New York")') and not isinstance(side.args[0], ast.Str | ast.Py | ast.List):
                c.say("value", "first takes a text", 'write first(" New York")', side.args[0])
    lengths = [len(side.items) for side in sides if isinstance(side, ast.List)]
    if len(lengths) == 2 and lengths[0] != lengths[1] and 1 not in lengths:
        c.say("value", f"there are {lengths[0]} right answers and {lengths[1]} wrong ones", "give one of each per prompt", s)


def _mark(c: Checker, s: ast.Mark) -> None:
    places.selector(c, s.pos, s)
    if s.prompt is not None and s.prompt not in c.names.prompts:
        c.say("name", f'there is no prompt "{s.prompt}"', c.meant(s.prompt, c.names.prompts), s, s.prompt, r"\bin\b")


def _sae(c: Checker, s: ast.Sae) -> None:
    for site in (s.site, s.to):
        if site is not None:
            _sae_end(c, site)


def _sae_end(c: Checker, site: Any) -> None:
    """The site that a dictionary reads, or the one that it writes to."""
    if isinstance(site, ast.PySite):
        if site.at is not None:
            c.say("value", "a dictionary is attached to a whole site, at every position", f"write at {{{site.source}}}",
                  site)
        return
    if not isinstance(site, ast.Site):
        c.say("value", "a dictionary is attached to a site", f"write {VERBS['sae'].example}", site)
        return
    before = len(c.problems)
    places.site(c, site, "sae")
    if len(c.problems) > before:
        return
    if site.head is not None or site.neuron is not None or site.comp in places.HEADS:
        c.say("value", "a dictionary reads a whole vector of the stream, not heads or neurons",
              "write sae enc = {my_sae} at "
              "L8.resid_pre", site)
    elif site.layer is not None and not isinstance(site.layer, int):
        c.say("value", "a dictionary is attached to one layer", "write sae enc = {my_sae} at L8.resid_pre", site)
    elif site.at is not None or site.run is not None or site.dims is not None:
        c.say("value", "a dictionary is attached to a whole site, in every run", "write sae enc = {my_sae} at L8.resid_pre",
              site)


def _let(c: Checker, s: ast.Let) -> None:
    c.let_runs.setdefault(s.name, set()).update(runs_of(s.value))
    value(c, s.value, LET)


def _group(c: Checker, s: ast.Group) -> None:
    if s.target.each:
        c.say("value", "a group is only places", f"write each where it is used: zero each {s.name}", s, "each")


def _sweep(c: Checker, s: ast.Sweep) -> None:
    values = s.values
    if isinstance(values, ast.List):
        if not values.items:
            c.say("value", "a sweep over nothing", f"write sweep {s.name} in [0, 2, 4]", values)
        for item in values.items:
            if not isinstance(item, ast.Str):
                value(c, item, LET)
    elif isinstance(values, ast.Range):
        problem = _range_problem(values.text)
        if problem:
            c.say("value", problem, f"write sweep {s.name} in 0:12, the end left out", values)


def _range_problem(text: str) -> str:
    """Why a range is no sweep; empty when it is one.

    >>> _range_problem("-3:0"), _range_problem("3:3")
    ('', 'the range 3:3 names no number')
    """
    try:
        start, stop, step = ([int(part) if part else None for part in text.split(":")] + [None])[:3]
    except ValueError:
        return f"{text!r} is no range"
    if stop is None:
        return f"the range {text} has no end"
    if step is not None and step < 1:
        return "a range of numbers goes up, in steps of 1 or more"
    size = -((start or 0) - stop) // (step or 1)
    if size < 1:
        return f"the range {text} names no number"
    return f"a sweep over {size} values is more than the {LONGEST_SWEEP} that one may have" if size > LONGEST_SWEEP else ""


def _metric(c: Checker, s: ast.Metric) -> None:
    value(c, s.value, METRIC)


def _expect(c: Checker, s: ast.Expect) -> None:
    value(c, s.left, CLAIM)
    value(c, s.right, CLAIM)


def _header(c: Checker, s: ast.Header) -> None:
    if s.version < 1:
        c.say("value", f"there is no version {s.version} of the hook language", f"write hookspec {ast.VERSION}", s)


# Edits -------------------------------------------------------------------------------------------------------------


def _amount(c: Checker, s: Any) -> None:
    if s.amount is not None:
        value(c, s.amount, AMOUNT)


def _ablate(c: Checker, s: ast.Ablate) -> None:
    if s.method is not None and s.method not in ABLATIONS:
        c.say("name", f'no way to ablate is called "{s.method}"', c.meant(s.method, ABLATIONS,
                                                                          f"there are {listed(ABLATIONS)}"), s,
              s.method, r"\bwith\b")
    if s.method == "zero" and s.over is not None:
        c.say("value", "zero is taken over nothing", "write with mean over …, or leave out over", s.over)
    if isinstance(s.over, ast.Name):
        c.source(s.over.id, s.over)


def _patch(c: Checker, s: ast.Patch) -> None:
    value(c, s.source, SOURCE)


def _freeze(c: Checker, s: ast.Freeze) -> None:
    if s.to is not None:
        c.source(s.to, s, after=r"\bto\b")


def _project_out(c: Checker, s: ast.ProjectOut) -> None:
    value(c, s.along, AMOUNT)
    if only_numbers(s.along):
        c.say("value", "a direction is a vector, not a number", f"write {VERBS['project_out'].example}", s.along)


def _clamp(c: Checker, s: ast.Clamp) -> None:
    given = {opt.name for opt in s.opts}
    low, high = number_of(s, "min"), number_of(s, "max")
    if not given & {"min", "max"}:
        c.say("value", "clamp needs a bound", f"write {VERBS['clamp'].example}", s)
    elif low is not None and high is not None and low > high:
        c.say("value", f"min={low} is above max={high}", f"write {VERBS['clamp'].example}", s, "min")


def _cut(c: Checker, s: ast.Cut) -> None:
    if s.target.to is None:
        c.say("value", "cut needs edges, from keys to queries", f"write {VERBS['cut'].example}", s)


# Reads -------------------------------------------------------------------------------------------------------------


def _attribute(c: Checker, s: ast.Attribute) -> None:
    if s.method is not None and s.method not in ATTRIBUTIONS:
        c.say("name", f'no way to attribute is called "{s.method}"', c.meant(s.method, ATTRIBUTIONS, "there are "
              f"{listed(ATTRIBUTIONS)}"), s, s.method, r"\bwith\b")
    if s.metric is not None and s.metric not in c.names.metrics:
        _metric_by_name(c, s, s.metric)
    if s.source is not None:
        c.source(s.source, s, after=r"\bfrom\b")
    if s.method == "patch" and s.source is None:
        c.say("value", "attribution by patching compares with another prompt", "write with patch from clean", s, "patch")
    aimed = any(opt.name == "target" for opt in s.opts)
    if not aimed and s.metric is None and not c.names.metrics and c.names.answer is None and not (
            c.doubt.about("metric") or c.doubt.about("answer")):
        c.say("value", "attribute needs a metric, and there is none", "add a line: metric logit_diff", s)


def _metric_by_name(c: Checker, s: ast.Attribute, metric: str) -> None:
    """A metric that is named and has no line of its own."""
    if metric not in METRICS:
        c.say("name", f'there is no metric "{metric}"', c.meant(metric, [*c.names.metrics, *METRICS]), s, metric, r"\bto\b")
    elif metric in ASK_ANSWER:
        ask_answer(c, metric, s)
    elif metric == "kl":
        c.say("value", "kl compares with one run", "add a line: metric kl(baseline)", s, metric, r"\bto\b")


def _score(c: Checker, s: ast.Score) -> None:
    if isinstance(s.method, ast.Word) and s.method.id not in SCORES:
        c.say("name", f'no way to score is called "{s.method.id}"', c.meant(s.method.id, SCORES,
                                                                            f"there are {listed(SCORES)}; "
              f"Python goes between braces: {{{s.method.id}}}"), s.method)


def _lens(c: Checker, s: ast.Lens) -> None:
    if isinstance(s.target, ast.At | ast.AtEach):
        places.position(c, s.target)


def _generate(c: Checker, s: ast.Generate) -> None:
    if s.count < 1:
        c.say("value", "generate writes at least 1 token", "write generate 20", s, str(s.count))


def _show(c: Checker, s: ast.Show) -> None:
    if s.view not in VIEWS:
        other = f"attention {s.view}" if re.match(r"L\d", s.view) else VIEW_SYNONYMS.get(s.view)
        hint = f"write show {other}" if other else c.meant(s.view, VIEWS, f"there are {listed(VIEWS)}")
        c.say("name", f'there is no view "{s.view}"', hint, s, s.view)
    if s.count is not None and s.count < 1:
        c.say("value", "show draws at least 1", "write show top 10", s, str(s.count))
    for where in s.sites:
        places.place(c, where, "show")


CHECKS: dict[type, Callable[[Checker, Any], None]] = {
    ast.Header: _header, ast.Prompt: _prompt, ast.Answer: _answer, ast.Mark: _mark, ast.Sae: _sae, ast.Let: _let,
    ast.Group: _group, ast.Sweep: _sweep, ast.Metric: _metric, ast.Expect: _expect, ast.Ablate: _ablate,
    ast.Patch: _patch, ast.Freeze: _freeze,
    ast.Steer: _amount, ast.Scale: _amount, ast.Set: _amount, ast.Noise: _amount, ast.ProjectOut: _project_out,
    ast.Clamp: _clamp, ast.Cut: _cut, ast.Attribute: _attribute, ast.Score: _score, ast.Lens: _lens, ast.Generate: _generate,
    ast.Show: _show}
