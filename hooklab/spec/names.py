"""Which names a spec declares, and which of them cannot stand.

    Spec ──collect──▶ Names (every table of names) + Faults (what is wrong with the declarations)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..positions.select import RESERVED as POSITION_WORDS
from ..sites import MODEL_SITES
from . import ast

BASELINE, MAIN, IMPLICIT, SIGMA = "baseline", "main", "hooked", "sigma"
NAME = re.compile(r"[A-Za-z_]\w*")
INDEX = re.compile(r"([LHNF])[\d:*\[-]")
UNITS = {"L": "layer", "H": "head", "N": "neuron", "F": "feature"}
MEANS = {BASELINE: "the untouched run", "each": "one at a time", "all": "every position", "first": "the first position",
         "last": "the last position", SIGMA: "the standard deviation of a site, in noise"}

# what declares a name -> what it is, and the table of names that must differ
KINDS: dict[type, tuple[str, str]] = {
    ast.Prompt: ("a prompt", "values"), ast.Run: ("a run", "values"), ast.Let: ("a value", "values"),
    ast.Sweep: ("a sweep variable", "values"), ast.Group: ("a group of places", "groups"),
    ast.Sae: ("a dictionary of features", "dictionaries"), ast.Mark: ("a mark", "positions"),
    ast.Metric: ("a metric", "metrics")}
EDITS = (ast.Zero, ast.Ablate, ast.Patch, ast.Freeze, ast.Steer, ast.Scale, ast.Set, ast.Clamp, ast.ProjectOut, ast.Noise,
         ast.Cut)
READS = (ast.Save, ast.Attribute, ast.Score, ast.Lens)


@dataclass
class Names:
    """Every name of a spec, with the index of the statement that declares it."""

    prompts: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    lets: dict[str, int] = field(default_factory=dict)
    sweeps: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    saes: dict[str, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, int] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    answer: ast.Answer | None = None

    def what(self, name: str) -> str:
        """What kind of thing a name is, in words; empty when it is none.

        >>> Names(prompts={"clean": 0}).what("clean")
        'a prompt'
        """
        words = {"a prompt": self.prompts, "a run": self.runs, "a value": self.lets, "a sweep variable": self.sweeps,
                 "a group of places": self.groups, "a dictionary of features": self.saes, "a mark": self.marks,
                 "a metric": self.metrics, "a saved activation": self.saved}
        return next((word for word, table in words.items() if name in table), "")


@dataclass(frozen=True)
class Fault:
    """Something wrong with a declaration, and the name that the caret goes under."""

    statement: ast.Statement
    name: str
    message: str
    hint: str = "choose another name"


def collect(spec: ast.Spec) -> tuple[Names, list[Fault]]:
    """The names of a spec, and what is wrong with them."""
    names, faults = Names(), []
    seen: dict[tuple[str, str], ast.Statement] = {}
    counts: dict[str, int] = {}
    for i, statement in enumerate(spec.body):
        for table, name in _declared(statement):
            first = seen.setdefault((table, name), statement)
            if first is not statement:
                faults.append(_twice(first, statement, name))
        faults += _unfit(statement)
        _register(names, i, statement, counts)
    for body in (spec.body, *(s.body for s in spec.body if isinstance(s, ast.Run))):
        faults += _saved_twice(body)
    return names, faults + list(_implicit(spec, names))


def _declared(statement: ast.Statement) -> Iterator[tuple[str, str]]:
    """The names that a statement declares, each with its table."""
    _, table = KINDS.get(type(statement), ("", ""))
    name = MAIN if isinstance(statement, ast.Prompt) and statement.name is None else getattr(statement, "name", None)
    if isinstance(statement, ast.Mark) and statement.prompt is not None:
        table = f"positions in {statement.prompt}"  # one name may mark other positions in each prompt
    if table and name is not None:
        yield table, name
        if isinstance(statement, ast.Sweep):
            yield "positions", name


def _twice(first: ast.Statement, again: ast.Statement, name: str) -> Fault:
    if isinstance(again, ast.Prompt) and again.name is None:
        return Fault(again, "", "there are two prompts without a name", 'name them: prompt clean = "…"')
    line = f", on line {first.span.line}" if first.span else ""
    return Fault(again, name, f'"{name}" is defined twice: it is {KINDS[type(first)][0]} already{line}')


def _unfit(statement: ast.Statement) -> Iterator[Fault]:
    """Why the name that a statement declares can never be meant."""
    name = getattr(statement, "name", None)
    if name is None or (type(statement) not in KINDS and not isinstance(statement, ast.Save)):
        return
    taken = {BASELINE, "each", "all", "first", "last"}
    if isinstance(statement, ast.Mark):
        taken |= set(POSITION_WORDS)
    elif not isinstance(statement, ast.Save):
        taken |= set(MODEL_SITES)
    if isinstance(statement, (ast.Let, ast.Sweep)):
        taken.add(SIGMA)
    if not NAME.fullmatch(name):
        yield Fault(statement, name, f'"{name}" is no name', "a name is one word of letters, digits and _")
    elif match := INDEX.match(name):
        yield Fault(statement, name, f'"{name}" cannot be a name: it looks like a {UNITS[match[1]]}')
    elif name in taken:
        means = MEANS.get(name) or ("a position" if isinstance(statement, ast.Mark) else "a site")
        yield Fault(statement, name, f'"{name}" cannot be a name: it always means {means}')


def _saved_twice(body: tuple[ast.Statement, ...]) -> Iterator[Fault]:
    seen: dict[str, ast.Save] = {}
    for statement in body:
        if isinstance(statement, ast.Save) and statement.name is not None:
            first = seen.setdefault(statement.name, statement)
            if first is not statement:
                line = f", on line {first.span.line}" if first.span else ""
                yield Fault(statement, statement.name, f'"{statement.name}" is saved twice in one run{line}')


def _register(names: Names, i: int, statement: ast.Statement, counts: dict[str, int]) -> None:
    tables = {ast.Prompt: names.prompts, ast.Run: names.runs, ast.Let: names.lets, ast.Sweep: names.sweeps,
              ast.Group: names.groups, ast.Sae: names.saes, ast.Mark: names.marks}
    table = tables.get(type(statement))
    if isinstance(statement, ast.Metric):
        names.metrics[_metric_name(statement, names.metrics, counts)] = i
    elif isinstance(statement, ast.Answer):
        names.answer = names.answer or statement
    elif isinstance(statement, ast.Prompt):
        names.prompts.setdefault(statement.name or MAIN, i)
    elif table is not None and getattr(statement, "name", None) is not None:
        table.setdefault(statement.name, i)  # type: ignore[attr-defined]
    for inner in statement.body if isinstance(statement, ast.Run) else (statement,):
        if isinstance(inner, ast.Save) and inner.name is not None:
            names.saved.setdefault(inner.name, i)


def _metric_name(statement: ast.Metric, taken: dict[str, int], counts: dict[str, int]) -> str:
    """What results call a metric: its own name or that of its function, numbered where that is taken."""
    value = statement.value
    base = statement.name or (value.id if isinstance(value, ast.Name) else
                              value.name if isinstance(value, ast.Call) else "metric")
    name = base
    while name in taken:
        counts[base] = counts.get(base, 1) + 1
        name = f"{base}_{counts[base]}"
    return name


def _implicit(spec: ast.Spec, names: Names) -> Iterator[Fault]:
    """Register the run made of lines outside of runs; nothing else may have its name."""
    outside = [i for i, s in enumerate(spec.body) if isinstance(s, (*EDITS, *READS, ast.Generate))]
    unnamed = any(isinstance(s, ast.Run) and s.name is None for s in spec.body)
    if outside and (IMPLICIT in names.runs or IMPLICIT in names.prompts):
        clash = next(s for s in spec.body if getattr(s, "name", None) == IMPLICIT)
        yield Fault(clash, IMPLICIT, f'"{IMPLICIT}" is the run made of the lines outside of runs')
    if outside or unnamed:
        names.runs.setdefault(IMPLICIT, outside[-1] if outside else len(spec.body))
