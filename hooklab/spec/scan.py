"""Before the grammar: comments and Python holes, which no regular expression can find.

A hole may hold strings with braces in them, dictionaries and comprehensions; the scanner walks over Python's own
quotes to find its end. What it finds is replaced by filler of the same length, so that columns stay true.
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from ..braces import closing
from ..problems import Problem
from .verbs import VERBS

FILL = "\x01"
MAX_HOLE = 20_000
MAX_LATER_HOLE = 1_000  # once a brace was left open, others are looked for close by only
MAX_OPEN = 8
MAX_STRANGE = 20
QUOTED = r'''"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*\''''
# A quote that does not close takes the rest of its line: nothing after it can be told from text.
_OUTSIDE = re.compile(rf"""[^"'#{{\n]+|\n|{QUOTED}|["'#][^\n]*|\{{""")
# What looks like a blank, or like nothing at all, and is neither to the grammar: no-break spaces, form feeds, marks of
# writing direction, a carriage return that ends no line.
_STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\xad\u1680\u180e\u2000-\u200f"
                      "\u2028-\u202f\u205f-\u206f\u3000\ufeff]|\r")
MARGIN = "\x02"  # stands for an indent that every line has; the grammar passes over it
BYTE_ORDER = "\ufeff"  # what some editors write at the start of a file
STARTS_LINE = re.compile(rf"[ \t]*(?:{'|'.join(VERBS)})(?![\w.(])(?![ \t]*[=,)\]+*/&|-])")


@dataclass
class Scanned:
    """A text ready for the grammar.

    Attributes:
        text: The text with comments blanked and the insides of holes filled.
        holes: Offset of an opening brace -> the Python between the braces.
        problems: Holes that do not end, or hold no Python.
        broken: Lines that a hole without an end has left unreadable.
        size: Characters apart from blanks and from those in quotes, comments and holes.
    """

    text: str
    holes: dict[int, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[int] = field(default_factory=set)
    size: int = 0


class Lines:
    """Where an offset of a text is, without counting from the start each time."""

    def __init__(self, text: str) -> None:
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> tuple[int, int]:
        """Line and column, counted from 1.

        >>> Lines("ab\\ncd").at(4)
        (2, 2)
        """
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1


def scan(text: str) -> Scanned:
    """Find comments and holes.

    >>> scanned = scan('steer L6.resid by {d["}"]}  # up')
    >>> scanned.holes, scanned.text.endswith("}      ")
    ({18: 'd["}"]'}, True)
    """
    return _Scanner(text).whole()


def _flush(text: str) -> str:
    """A scanned text whose lines all have an indent, with it filled; a block's own indent comes first then.

    Every character stays in its column but those of the indent itself. Blank lines, comments and what stands inside of
    holes count for nothing.

    >>> _flush("  run a on b:\\n    zero L1H0").replace(MARGIN, ".")
    '..run a on b:\\n  ..zero L1H0'
    """
    lines = text.split("\n")
    inside = [False, *(bool(depth) for depth in accumulate(_open(line) for line in lines[:-1]))]
    told = [line[:len(line) - len(line.lstrip(" \t"))] for line, within in zip(lines, inside, strict=True)
            if line.strip() and not within]
    least, most = (min(told), max(told)) if told else ("", "")  # what these two begin with, all others do
    margin = least[:next((i for i, pair in enumerate(zip(least, most, strict=False)) if pair[0] != pair[1]), len(least))]
    if not margin:
        return text
    return "\n".join(line if within or not line.startswith(margin) or not line.strip() else
                     _moved(line, len(margin)) for line, within in zip(lines, inside, strict=True))


def _open(line: str) -> int:
    """Holes that a line of scanned text opens, less those that it closes: their insides are filled."""
    bare = re.sub(QUOTED, "", line)
    return bare.count("{") - bare.count("}")


def _moved(line: str, margin: int) -> str:
    rest = line.lstrip(" \t")
    return line[margin:len(line) - len(rest)] + MARGIN * margin + rest


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.lines = text, Lines(text)
        self.found = Scanned(text)
        self.parts: list[str] = []
        self.opened = 0

    def whole(self) -> Scanned:
        at = 0
        while at < len(self.text):
            match = _OUTSIDE.match(self.text, at)
            piece = match[0] if match else self.text[at]
            if piece == "{":
                at = self.hole(at)
                continue
            if piece.startswith("#"):
                self.parts.append(" " * len(piece))
            else:
                self.parts.append(self.outside(piece, at))
            at += len(piece)
        self.found.text = _flush("".join(self.parts))
        return self.found

    def outside(self, piece: str, at: int) -> str:
        """What the grammar reads for text outside of comments and holes."""
        if len(piece) > 1 and piece[0] == piece[-1] and piece[0] in "\"'":
            self.found.size += 2
            return piece.replace(FILL, "\ufffd")
        self.found.size += len(piece) - piece.count(" ") - piece.count("\n")
        if piece[0] in "\"'":  # a quote that does not close
            return piece.replace(FILL, "\ufffd")
        for strange in _STRANGE.finditer(piece):
            self.strange(strange[0], at + strange.start())
        return _STRANGE.sub(" ", piece)

    def strange(self, character: str, at: int) -> None:
        """Note a character that cannot be seen, unless it is one that editors write at their own place."""
        if (at == 0 and character == BYTE_ORDER) or (character == "\r" and self.text[at + 1:at + 2] in ("", "\n")):
            return
        if len(self.found.problems) < MAX_STRANGE:
            blank = unicodedata.category(character) == "Zs"
            name = "a lone carriage return" if character == "\r" else unicodedata.name(character, "a control character")
            self.report(at, f"U+{ord(character):04X} stands here: {name.lower()}",
                        "put a plain space in its place" if blank else "delete it; it cannot be seen")

    def hole(self, at: int) -> int:
        """Take the hole that opens at an offset; the answer is where to go on."""
        limit = MAX_LATER_HOLE if self.opened else MAX_HOLE
        end = None if self.opened >= MAX_OPEN else closing(self.text[at:at + limit + 2], 0)
        if end is None:
            return self.open_hole(at, limit)
        inside = self.text[at + 1:at + end]
        self.found.holes[at] = inside
        self.found.size += 2
        problem = _python_problem(inside)
        if problem is not None:
            where, message, hint, width = problem
            self.report(at + where, message, hint, width)
        self.parts.append("{" + re.sub(r"[^\n]", FILL, inside) + "}")
        return at + end + 1

    def open_hole(self, at: int, limit: int) -> int:
        """A brace without an end takes its line, and those below it up to one that starts like a statement."""
        near = len(self.text) - at > limit
        self.report(at, f"no closing brace in the {limit} characters after this one" if near else
                    "this brace has no closing brace", "Python goes between braces: {vec}, closing with }")
        self.opened += 1
        end = self.text.find("\n", at)
        while end >= 0 and (self.opened > MAX_OPEN or not STARTS_LINE.match(self.text, end + 1)):
            end = self.text.find("\n", end + 1)
        end = len(self.text) if end < 0 else end
        self.found.broken.update(range(self.lines.at(at)[0], self.lines.at(end - 1)[0] + 1))
        self.parts.append(re.sub(r"[^\n]", " ", self.text[at:end]))
        return end

    def report(self, at: int, message: str, hint: str, width: int = 1) -> None:
        width = min(width, len(self.text[at:at + width].split("\n")[0]) or 1)
        self.found.problems.append(Problem("syntax", message, *self.lines.at(at), width, hint))


def _python_problem(source: str) -> tuple[int, str, str, int] | None:
    """Why the text between braces is no Python expression: where after the brace, message, hint, width; or None."""
    if not source.strip():
        return 0, "there is nothing between the braces", "write a Python expression: {vec}", len(source) + 2
    lead = len(source) - len(source.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse("(" + source.strip() + "\n)", mode="eval")
    except SyntaxError as error:
        where = 1
        if error.lineno == 1 and error.offset:
            where = 1 + lead + min(max(error.offset - 2, 0), len(source.strip()))
        elif error.lineno == 2 and "\n" not in source.strip():
            where = 1 + len(source)
        return (where, f"this is no Python expression: {error.msg}",
                "between braces goes one Python expression, as in {4 * vec}", 1)
    except (ValueError, RecursionError, MemoryError) as error:
        return (0, f"this is no Python expression: {error or type(error).__name__}",
                "compute it in a cell of its own and name it here: {vec}", 1)
    return None
