"""Reading on after a mistake: each logical line of a text that lark refuses is read alone.

    filled text ──layout──▶ lines ──lark, one at a time──▶ statements + problems (+ doubt: what the unread may have said)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from lark.exceptions import LarkError, VisitError

from ..problems import Problem
from . import ast
from .check import MOST, Doubt
from .layout import Line, lay_out
from .misread import explain
from .misreading import nearest_verb
from .parser import Reading, statements
from .scan import Scanned
from .tree import TreeError
from .verbs import VERBS

_BODY = "\n lens"  # stands for the lines of a block while its header is read


def recover(text: str, scanned: Scanned) -> Reading:
    """Read what can be read of a text."""
    reader = _Reader(text, scanned)
    reader.whole(list(lay_out(scanned.text)))
    unknown = len(reader.problems) >= MOST or len(scanned.broken) > MOST
    doubt = Doubt(frozenset(reader.words), frozenset(reader.verbs), everything=unknown)
    return Reading(tuple(reader.found), reader.problems[:MOST], doubt)


@dataclass
class _Reader:
    text: str
    scanned: Scanned
    found: list[ast.Statement] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    verbs: set[str] = field(default_factory=set)
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.problems += self.scanned.problems
        lines = self.text.split("\n")
        for number in sorted(self.scanned.broken)[:MOST]:
            self.doubt(Line(lines[number - 1], number, 0))

    def whole(self, lines: list[Line]) -> None:
        """Read all lines, block by block."""
        self.lines, i = lines, 0
        while i < len(lines) and len(self.problems) < MOST:
            head, i = lines[i], i + 1
            below = i
            while below < len(lines) and lines[below].indent > 0:
                below += 1
            body, i = lines[i:below], below
            if head.indent and head.number > 1:
                self.stray(head, body)
            elif body and _heads(head):
                self.block(head, body)
            else:
                self.add(self.line(head))
                if body:
                    self.stray(body[0], body[1:])

    def stray(self, first: Line, more: list[Line]) -> None:
        """Lines that are indented without a block above them; they are read, but not held to their meaning."""
        every = len(self.lines) > 2 and all(line.indent for line in self.lines[1:])
        self.report(first, "this line is indented, and no block is open",
                    "take the indent of every line away, as textwrap.dedent does" if every else
                    "take its indent away; only lines below `run … on PROMPT:` have one")
        self.orphans([first, *more])

    def orphans(self, lines: list[Line]) -> None:
        for line in lines:
            self.doubt(line)
            self.line(line)

    def block(self, head: Line, body: list[Line]) -> None:
        """A run's header and the lines indented below it."""
        run = self.line(replace(head, text=head.text + _BODY))
        self.check_indents(body)
        if not isinstance(run, ast.Run):
            self.orphans(body)
            return
        inner: list[ast.Statement] = []
        for line in body:
            if line.text.split(None, 1)[0] == "run":
                self.doubt(line)
                self.report(line, "a run cannot stand inside another: blocks do not nest",
                            _unnested(run, line is body[0]), len(line.text) - len(line.text.lstrip()) + 1, 3)
            elif (statement := self.line(line)) is not None:
                inner.append(statement)
        self.found.append(replace(run, body=tuple(inner)))

    def check_indents(self, body: list[Line]) -> None:
        """Lines of one block stand below each other."""
        seen = {body[0].indent}
        nested = False
        tabs = " (a tab counts 8)" if any("\t" in line.text for line in body) else ""
        for line in body:
            if line.indent in seen:
                nested = _heads(line)
            elif not nested:
                seen.add(line.indent)
                deeper = line.indent > min(seen)
                self.report(line, "this line is indented deeper than the one above" if deeper else
                            "the indent of this line matches no line above",
                            f"all lines of a block have the same indent{tabs}")

    def add(self, statement: ast.Statement | None) -> None:
        if statement is not None:
            self.found.append(statement)

    def doubt(self, line: Line) -> None:
        """Remember what an unread line may have declared."""
        self.words |= line.words
        first = re.match(r"\w*", line.text.lstrip())
        word = first[0] if first else ""
        self.verbs.add(word if word in VERBS else nearest_verb(word[:40]) or "?")

    def line(self, line: Line) -> ast.Statement | None:
        """The statement that a line says, or None once its problem is noted."""
        if len(self.problems) >= MOST:
            return None
        last = line.number + line.text.count("\n") - line.text.count(_BODY)
        if any(number in self.scanned.broken for number in range(line.number, last + 1)):
            return None
        try:
            return _moved(statements(line.text, self.scanned, line.offset)[0], line.number - 1)
        except (LarkError, TreeError, RecursionError, AssertionError) as error:
            self.doubt(line)
            self.failed(line, error)
            return None

    def failed(self, line: Line, error: Exception) -> None:
        if isinstance(error, VisitError):
            inner = error.orig_exc
            if not isinstance(inner, TreeError | RecursionError):
                raise inner
            error = inner
        if isinstance(error, TreeError):
            where = error.meta
            start, end = getattr(where, "column", 1), getattr(where, "end_column", None) or 0
            problem = Problem("syntax", error.message, getattr(where, "line", 1), start, max(1, end - start), error.hint)
        else:
            source = self.text[line.offset:line.offset + len(line.text)]
            problem = explain(error, source, line.text.removesuffix(_BODY), line.open)
        self.problems.append(replace(problem, line=problem.line + line.number - 1))

    def report(self, line: Line, message: str, hint: str, column: int = 1, width: int = 0) -> None:
        blank = len(line.text) - len(line.text.lstrip())
        self.problems.append(Problem("syntax", message, line.number, column, width or max(1, blank), hint))


def _heads(line: Line) -> bool:
    """Whether a line means to open a block."""
    first = re.match(r"\w*", line.text.lstrip())
    word = first[0] if first else ""
    return word == "run" or line.text.endswith(":") or (len(word) <= 5 and nearest_verb(word) == "run")


def _unnested(run: ast.Run, first: bool) -> str:
    """The remedy for a run inside another, whose first line it may be."""
    if first:
        return "leave one of the two run lines out"
    return f"take its indent away, and write it on {run.name} to build on that" if run.name else "take its indent away"


def _moved(node: Any, lines: int) -> Any:
    """A node as if it stood some lines further down."""
    if lines == 0:
        return node
    if isinstance(node, ast.Span):
        return replace(node, line=node.line + lines, end_line=node.end_line + lines)
    if isinstance(node, tuple):
        return tuple(_moved(item, lines) for item in node)
    if not (isinstance(node, ast.Node) and is_dataclass(node)):
        return node
    return replace(node, **{part.name: _moved(getattr(node, part.name), lines) for part in fields(node)})
