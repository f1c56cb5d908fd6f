"""What can be known to be wrong without a model: names, options, words that mean nothing.

    Spec ──names──▶ Names ──one check per statement──▶ problems, in the order of the text
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problems import Problem
from . import ast, places, statements
from .ast import VERSION, Spec
from .checker import MOST, Checker, Doubt, Enough
from .names import EDITS, READS, collect
from .options import options
from .verbs import VERBS

ONCE = (ast.ModelName, ast.Seed, ast.Answer)
OUTSIDE = (*EDITS, *READS)


def check(spec: Spec) -> list[Problem]:
    """Every problem of a spec that needs no model to be seen.

    Example:
        >>> from hooklab.spec import ast
        >>> [p.message for p in check(ast.Spec((ast.Prompt(None, ast.Str("a")), ast.Show("gird"))))]
        ['there is no view "gird"']
    """
    return problems_of(spec, Doubt())


def problems_of(spec: Spec, doubt: Doubt) -> list[Problem]:
    """The same for a spec some of whose lines could not be read; what those may have said is not held against it."""
    newer = _version(spec)
    if newer:
        return newer
    names, faults = collect(spec)
    c = Checker(spec, names, doubt)
    try:
        for fault in faults:
            c.statement = fault.statement
            c.say("name", fault.message, fault.hint, fault.statement, fault.name)
        _shape(c)
        for c.index, statement in enumerate(spec.body):
            _statement(c, statement)
    except Enough:
        pass
    return c.problems


def _version(spec: Spec) -> list[Problem]:
    for statement in spec.body:
        if isinstance(statement, ast.Header) and statement.version > VERSION:
            line, column = (statement.span.line, statement.span.column) if statement.span else (0, 0)
            return [Problem("version", f"this is version {statement.version} of the hook language; this hooklab reads "
                            f"version {VERSION}", line, column, len("hookspec"), "upgrade: pip install --upgrade hooklab")]
    return []


def _shape(c: Checker) -> None:
    """What must be there, once, and where."""
    first: dict[type, ast.Statement] = {}
    for i, statement in enumerate(c.spec.body):
        c.statement = statement
        if isinstance(statement, ast.Header) and i:
            c.say("syntax", "hookspec stands on the first line", f"move it up: hookspec {VERSION}", statement)
        if isinstance(statement, ONCE) and first.setdefault(type(statement), statement) is not statement:
            c.say("value", f"there is a second {statement.verb} line", "a spec has one; leave the others out", statement)
    acting = next((s for s in c.spec.body if isinstance(s, (*OUTSIDE, ast.Generate, ast.Show))), None)
    c.statement = acting
    if acting is not None and not c.names.prompts and not c.doubt.about("prompt"):
        c.say("value", "there is no prompt to run", 'add a line above: prompt "The capital of France is"', acting)
    _outside(c)


def _outside(c: Checker) -> None:
    """Lines outside of runs act on the only prompt; with several, it must be said on which."""
    prompts = list(c.names.prompts)
    if len(prompts) < 2:
        return
    for statement in c.spec.body:
        given = isinstance(statement, ast.Attribute) and statement.source is not None and len(prompts) == 2
        if isinstance(statement, OUTSIDE) and not given:
            c.statement = statement
            line = c.text(statement, VERBS[statement.verb].form).split("\n")[0]
            c.say("value", f"there are {len(prompts)} prompts: on which does {statement.verb} act?",
                  f"write run on {prompts[-1]}: {line}", statement)
            return


def _statement(c: Checker, statement: ast.Statement) -> None:
    c.statement = statement
    if not isinstance(statement, ast.Run):
        _one(c, statement)
        return
    c.run = statement
    if statement.on in c.names.prompts or statement.on in c.names.runs:
        c.source(statement.on, statement)
    else:
        known = [*c.names.prompts, *c.names.runs]
        if statement.on not in c.doubt.words:
            c.say("name", f'there is no prompt or run "{statement.on}"', c.meant(statement.on, known, ""), statement)
    for inner in statement.body:
        c.statement = inner
        if VERBS[inner.verb].kind in ("declare", "run"):
            c.say("syntax", f"a {inner.verb} line stands outside of runs", "write it above, not indented", inner)
        else:
            _one(c, inner)
    c.run = None


def _one(c: Checker, statement: Any) -> None:
    target = getattr(statement, "target", None)
    if isinstance(target, ast.Target):
        places.target(c, target, statement.verb)
    own: Callable[[Checker, Any], None] | None = statements.CHECKS.get(type(statement))
    if own is not None:
        own(c, statement)
    if getattr(statement, "opts", ()):
        options(c, statement)


__all__ = ["MOST", "Doubt", "check", "problems_of"]
