"""Text to `Spec`, with every mistake of the text reported at once.

    text ──scan──▶ filled text ──lark──▶ tree ──ToSpec──▶ statements ──check──▶ Spec
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedInput, VisitError
from lark.indenter import DedentError, Indenter

from ..problems import Problem, SpecError
from . import ast
from .check import check
from .misread import explain
from .scan import scan
from .tree import ToSpec, TreeError

LONGEST = 2_000_000
RETRIES = 12


class Blocks(Indenter):
    """Indentation as Python has it."""

    NL_type = "_NL"
    OPEN_PAREN_types = ["LSQB", "LPAR"]
    CLOSE_PAREN_types = ["RSQB", "RPAR"]
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8


@cache
def grammar() -> Lark:
    """The parser's tables, built once."""
    text = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", propagate_positions=True, maybe_placeholders=True, postlex=Blocks())


def parse(text: str) -> ast.Spec:
    """Read a spec.

    Raises:
        SpecError: with every problem of the text, each with its line, column and remedy.

    Example:
        >>> spec = parse('prompt "The capital of France is"\\nzero L1H[0,2] @last')
        >>> print(spec)
        prompt "The capital of France is"
        zero L1H[0,2] @last
    """
    if not isinstance(text, str):
        raise TypeError(f"a spec is text, not {type(text).__name__}")
    if len(text) > LONGEST:
        raise SpecError([Problem("syntax", f"this text has {len(text)} characters; the longest that is read has "
                                           f"{LONGEST}")])
    statements, problems = read(text)
    spec = ast.Spec(statements, text)
    if not problems:
        problems = check(spec)
    if problems:
        raise SpecError(problems, text)
    return spec


def read(text: str) -> tuple[tuple[ast.Statement, ...], list[Problem]]:
    """The statements that can be read, and what is wrong with the others."""
    scanned = scan(text)
    problems = list(scanned.problems)
    body = scanned.text
    if problems:
        body = _without(body, {p.line for p in problems})
    for _ in range(RETRIES):
        try:
            tree = grammar().parse(body.rstrip() + "\n")
            return ToSpec(scanned.holes).transform(tree), problems
        except (UnexpectedInput, DedentError, VisitError, RecursionError) as error:
            problem = _problem(error, text, body)
            problems.append(problem)
            shorter = _without(body, {problem.line})
            if shorter == body or len(body) > 100_000:
                break
            body = shorter
    return (), problems


def _problem(error: Exception, text: str, body: str) -> Problem:
    if isinstance(error, VisitError):
        inner = error.orig_exc
        if isinstance(inner, TreeError):
            return Problem("syntax", inner.message, inner.meta.line, inner.meta.column,
                           max(1, (inner.meta.end_column or 0) - inner.meta.column), inner.hint)
        if not isinstance(inner, RecursionError):
            raise inner
        error = inner
    return explain(error, text, body)


def _without(body: str, lines: set[int]) -> str:
    """The text with some lines blanked, so that the rest can still be read."""
    split = body.split("\n")
    for line in lines:
        if 0 < line <= len(split):
            split[line - 1] = ""
    return "\n".join(split)


__all__ = ["Any", "grammar", "parse", "read"]
