"""What every check of a spec shares: the names, the statement at hand, and where in the text a problem stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import nearest
from ..problems import Problem
from . import ast
from .names import BASELINE, IMPLICIT, MAIN, Names

MOST = 200
_LONG_WORD = re.compile(r"(\w{50})\w+")
CANDIDATES = 200  # names among which the nearest is looked for


class Enough(Exception):
    """So many problems that no one will read more."""


@dataclass(frozen=True)
class Doubt:
    """What lines that cannot be read may have said: names in them are not held unknown elsewhere.

    Attributes:
        words: Every word of those lines.
        verbs: What they seem to start with; "?" for a line that may be anything.
        everything: Whether nothing is known about the rest of the text.
    """

    words: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    everything: bool = False

    def about(self, verb: str) -> bool:
        """Whether such a line may be among those that cannot be read."""
        return self.everything or verb in self.verbs or "?" in self.verbs


class Checker:
    """The state of one check.

    Attributes:
        index: Index of the statement of the spec that is being checked.
        run: The run that it is in, or None.
        let_runs: Value -> the runs that it is taken from.
    """

    def __init__(self, spec: ast.Spec, names: Names, doubt: Doubt) -> None:
        self.spec, self.names, self.doubt = spec, names, doubt
        self.lines = (spec.text or "").split("\n")
        self.problems: list[Problem] = []
        self.index = 0
        self.run: ast.Run | None = None
        self.statement: ast.Statement | None = None
        self.let_runs: dict[str, set[str]] = {}

    def say(self, kind: str, message: str, hint: str, node: Any, word: str = "", after: str = "") -> None:
        """Note a problem at a node, or at a word in it (the first after a pattern)."""
        if self.doubt.everything or (kind == "name" and word in self.doubt.words):
            return
        self.problems.append(Problem(kind, _clipped(message), *self.place(node, word, after), _clipped(hint)))
        if len(self.problems) >= MOST:
            raise Enough

    def place(self, node: Any, word: str = "", after: str = "") -> tuple[int, int, int]:
        """Line, column and width of a node, or of a word in it."""
        span = node.span if isinstance(node, ast.Node) and node.span is not None else getattr(self.statement, "span", None)
        if span is None:
            return 0, 0, 1
        if word:
            start = r"(?<![\w$])" if word[0].isalpha() else ""  # an index stands right after its letter: L6:2
            found = self._find(span, rf"{start}{re.escape(word)}(?!\w)", after)
            if found is not None:
                return *found, len(word)
        line = self.lines[span.line - 1] if span.line <= len(self.lines) else ""
        if isinstance(node, ast.Statement):
            return span.line, span.column, len(node.verb)
        end = span.end_column if span.end_line == span.line else len(line) + 1
        return span.line, span.column, max(1, end - span.column)

    def _find(self, span: ast.Span, pattern: str, after: str) -> tuple[int, int] | None:
        for number in range(span.line, min(span.end_line, len(self.lines)) + 1):
            line = self.lines[number - 1]
            if number == span.end_line:
                line = line[:span.end_column - 1]
            start = span.column - 1 if number == span.line else 0
            if after and (anchor := re.compile(after).search(line, start)):
                start, after = anchor.end(), ""
            elif after:
                continue
            if found := re.compile(pattern).search(line, start):
                return number, found.start() + 1
        return None

    def text(self, node: ast.Node, otherwise: str) -> str:
        """A node as written, where it stands on one line."""
        span = node.span
        if span is None or span.line != span.end_line or span.line > len(self.lines):
            return otherwise
        return self.lines[span.line - 1][span.column - 1:span.end_column - 1][:60]

    # Names of runs

    def source(self, name: str, node: Any, *, after: str = "", earlier: bool = True) -> None:
        """A name that must be a prompt, the baseline, or a run above."""
        names = self.names
        if name == BASELINE or name in names.prompts:
            return
        if name not in names.runs:
            self.unknown_run(name, node, after)
        elif earlier and self.run is not None and name == self.run.name and names.runs[name] == self.index:
            self.say("name", f'the run "{name}" cannot take from itself', f"take from {BASELINE}, or from a run above", node,
                     name, after)
        elif earlier and names.runs[name] > self.index:
            line = self._line_of(names.runs[name])
            self.say("name", f'the run "{name}" comes later{line}', "a run takes from prompts and from runs above it: move "
                     f"{name} up", node, name, after)

    def _line_of(self, index: int) -> str:
        span = self.spec.body[index].span if index < len(self.spec.body) else None
        return f", on line {span.line}" if span else ""

    def unknown_run(self, name: str, node: Any, after: str = "") -> None:
        """Say that there is no such prompt or run."""
        known = [*self.names.prompts, *(run for run in self.names.runs if run != IMPLICIT), BASELINE]
        what = self.names.what(name)
        if name == MAIN and self.names.prompts:
            message, hint = "every prompt has a name here, so there is no main", f"there are {listed(known)}"
        elif name == IMPLICIT:
            message, hint = f'there is no run "{name}"', "it is made of the lines outside of runs, and there are none"
        elif what:
            message, hint = f'"{name}" is {what}, not a prompt or run', f"there are {listed(known)}"
        else:
            message, hint = f'there is no prompt or run "{name}"', self.meant(name, known)
        self.say("name", message, hint, node, name, after)

    def meant(self, word: str, known: Any, otherwise: str = "") -> str:
        """The nearest name, or what there is."""
        known = list(dict.fromkeys(known))
        close = nearest(word[:40], known[:CANDIDATES]) if len(self.problems) < CANDIDATES else None
        if close and (len(word) > 2 or len(close) <= len(word) + 1):
            return f"did you mean {close}?"
        return otherwise or (f"there are {listed(known)}" if known else "")


def _clipped(text: str) -> str:
    """A sentence without the rest of words that no one will read to the end."""
    return _LONG_WORD.sub(r"\1…", text)


def listed(words: Any, most: int = 12) -> str:
    """Names as they are listed in a hint.

    >>> listed(["a", "b"])
    'a, b'
    """
    words = list(words)
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")
