"""What is wrong with a spec, said where it stands: one line of what, the line with a caret, one line of what to do.

A `Problem` is one mistake; a `SpecError` carries all those found in one text and prints them in order. Line numbers
are those of the text as its reader sees it: in a notebook the `%%hook` line is line 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unicodedata import combining, east_asian_width

from .errors import HooklabError

SHOWN = 8
TITLES = {"syntax": "HookSyntaxError", "name": "HookNameError", "value": "HookValueError", "model": "HookModelError",
          "version": "HookVersionError", "run": "HookRunError", "expect": "HookExpectError"}


# What a terminal would obey or hide instead of showing it: control characters, halves of characters, line separators,
# marks that turn the direction of writing.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        kind: `syntax` (cannot be read), `name` (means nothing), `value` (cannot be what it is used as), `model` (this
            model lacks it), `version`, `run` (went wrong while running), `expect` (a claim that does not hold).
        message: What is wrong, in one line.
        line, column: Where, counted from 1; 0 where there is no text.
        width: Characters under the caret.
        hint: What to write instead.
    """

    kind: str
    message: str
    line: int = 0
    column: int = 0
    width: int = 1
    hint: str = ""


class SpecError(HooklabError, ValueError):
    """A spec that cannot be read, compiled or run; `problems` has every mistake that was found."""

    def __init__(self, problems: Iterable[Problem], text: str = "", offset: int = 0) -> None:
        self.problems = tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column)))
        self.text = text
        self.offset = offset  # lines that stand above the text, such as the line of the cell magic
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The whole report."""
        shown: list[str] = []
        text = self.text.split("\n")
        for problem in self.problems[:SHOWN]:
            shown += [*_rendered(problem, text, self.offset), ""]
        more = len(self.problems) - SHOWN
        return [*shown[:-1], *([f"… and {more} more problems"] if more > 0 else [])]

    def shifted(self, offset: int) -> SpecError:
        """The same with line numbers moved down: a cell counts its `%%hook` line."""
        return SpecError(self.problems, self.text, offset)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return self.lines()

    def __reduce__(self) -> Any:
        return SpecError, (self.problems, self.text, self.offset)


def render(problem: Problem, text: str, offset: int = 0) -> list[str]:
    """A problem as lines: title and place, the line before, the line, the caret, the hint.

    >>> print("\\n".join(render(Problem("name", "no verb 'ablat'", 1, 1, 5, "did you mean `ablate`?"), "ablat L9H6")))
    HookNameError: no verb 'ablat'  (line 1, column 1)
      1 | ablat L9H6
        | ^^^^^
    hint: did you mean `ablate`?
    """
    return _rendered(problem, text.split("\n"), offset)


def _rendered(problem: Problem, lines: list[str], offset: int) -> list[str]:
    return [_UNSEEN.sub("\ufffd", line) for line in _raw(problem, lines, offset)]


def _raw(problem: Problem, lines: list[str], offset: int) -> list[str]:
    title = TITLES.get(problem.kind, "HookError")
    if not 0 < problem.line <= len(lines):
        return [f"{title}: {problem.message}", *([f"hint: {problem.hint}"] if problem.hint else [])]
    out = [f"{title}: {problem.message}  (line {problem.line + offset}, column {problem.column})"]
    digits = len(str(problem.line + offset))
    if problem.line > 1 and lines[problem.line - 2].strip():
        out.append(f"  {problem.line - 1 + offset:>{digits}} | {_cut(lines[problem.line - 2], 1)[0]}")
    shown, column = _cut(lines[problem.line - 1], problem.column)
    width = max(1, min(problem.width, len(shown) - column + 1))
    lead = "".join(c if c == "\t" else " " * _columns(c) for c in shown[:column - 1].ljust(column - 1))
    carets = "^" * sum(map(_columns, shown[column - 1:column - 1 + width].ljust(width)))
    out += [f"  {problem.line + offset:>{digits}} | {shown}", f"  {' ' * digits} | {lead}{carets}"]
    return [*out, *([f"hint: {problem.hint}"] if problem.hint else [])]


def _columns(character: str) -> int:
    """How many columns a character takes in a font of fixed width."""
    return 2 if east_asian_width(character) in "WF" else 0 if combining(character) else 1


def _cut(line: str, column: int, limit: int = 160) -> tuple[str, int]:
    """A line that is short enough to show, and where its column is then."""
    line = line.rstrip("\r")
    if len(line) <= limit:
        return line, column
    start = max(0, column - 1 - limit // 2)
    head = "…" if start else ""
    tail = "…" if start + limit < len(line) else ""
    return head + line[start:start + limit] + tail, column - start + len(head)
