"""Text to `Spec`, with every mistake of the text reported at once.

    text ──scan──▶ filled text ──lark──▶ tree ──ToSpec──▶ statements ──check──▶ Spec

A text that lark refuses is taken apart by `recover`, which reads each of its lines alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Tree
from lark.exceptions import LarkError
from lark.indenter import Indenter

from ..problems import Problem, SpecError
from . import ast
from .check import Doubt, problems_of
from .scan import Scanned, scan
from .tree import ToSpec, TreeError

LONGEST = 2_000_000
LARGEST = 200_000  # characters outside of quotes, comments and braces, blanks apart
DEEPEST = 100
NO_DOUBT = Doubt()


class Blocks(Indenter):
    """Indentation as Python has it."""

    NL_type = "_NL"
    OPEN_PAREN_types = ["LSQB", "LPAR"]
    CLOSE_PAREN_types = ["RSQB", "RPAR"]
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8

    def process(self, stream: Any) -> Any:
        """A text's tokens with those of its indents; what it has open is its own, as several threads may read at once."""
        return super(Blocks, Blocks()).process(stream)


@dataclass(frozen=True)
class Reading:
    """What could be read of a text: statements, what is wrong with the rest, and what the rest may have said."""

    statements: tuple[ast.Statement, ...]
    problems: list[Problem]
    doubt: Doubt = NO_DOUBT


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
    reading = _read(text)
    spec = ast.Spec(reading.statements, text)
    problems = reading.problems + problems_of(spec, reading.doubt)
    if problems:
        newer = [problem for problem in problems if problem.kind == "version"]
        raise SpecError(newer or problems, text)
    return spec


def read(text: str) -> tuple[tuple[ast.Statement, ...], list[Problem]]:
    """The statements that can be read, and what is wrong with the others; nothing is checked."""
    reading = _read(text)
    return reading.statements, reading.problems


def reads(line: str) -> bool:
    """Whether a line can be read; no mistake in it is looked into, so whoever explains mistakes may ask."""
    scanned = scan(line)
    if scanned.problems or scanned.size > LARGEST:
        return False
    try:
        statements(scanned.text, scanned)
    except (LarkError, TreeError, RecursionError, AssertionError):
        return False
    return True


def _read(text: str) -> Reading:
    if len(text) > LONGEST:
        return _refused(f"this text has {len(text)} characters; the longest that is read has {LONGEST}")
    scanned = scan(text)
    if scanned.size > LARGEST:
        return _refused(f"this text has {scanned.size} characters apart from quoted text; the longest that is read has "
                        f"{LARGEST}")
    failed: Exception | None = None
    if not scanned.problems:
        try:
            return Reading(statements(scanned.text, scanned), [])
        except (LarkError, TreeError, RecursionError, AssertionError) as error:
            failed = error
    from .recover import recover

    reading = recover(text, scanned)
    if not reading.problems:  # its lines can be read one by one, and not together
        reading.problems.append(Problem("syntax", f"these lines cannot stand together: {failed}".split("\n")[0], 1, 1,
                                        hint="leave lines out to find the one at fault"))
    return reading


def _refused(message: str) -> Reading:
    problem = Problem("syntax", message, 1, 1, hint="compute long values in Python and name them between braces: {texts}")
    return Reading((), [problem], Doubt(everything=True))


def statements(text: str, scanned: Scanned, offset: int = 0) -> tuple[ast.Statement, ...]:
    """The statements of a filled text, or of the part of it that starts at `offset`.

    Raises:
        LarkError: the grammar does not allow it; a VisitError holds a TreeError.
        TreeError: it is nested too deeply.
    """
    tree = grammar().parse(text.rstrip() + "\n")
    _check_depth(tree)
    return ToSpec(scanned.holes, offset).transform(tree)


def _check_depth(tree: Any) -> None:
    """Refuse what is nested so deeply that walking it would exhaust Python's stack."""
    level, depth = [tree], 0
    while level:
        level = [child for parent in level for child in parent.children if isinstance(child, Tree)]
        depth += 1
        if depth > DEEPEST:
            raise TreeError(f"this is nested more than {DEEPEST} deep", "name its parts: let part = …", level[0].meta)


__all__ = ["Reading", "grammar", "parse", "read", "reads", "statements"]
