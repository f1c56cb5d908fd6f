"""The statement that is being written: what stands between its beginning and the cursor, in a text that need not be right.

Unlike `scan`, which finds what is wrong, this reads on past quotes and braces that do not end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..braces import closing
from .scan import FILL
from .verbs import VERBS

_PIECE = re.compile(r"""[^"'#{\n]+|\n|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*|["'{]""")
_FIRST_WORD = re.compile(r"[ \t]*([a-z_]+)[ \t]")

@dataclass(frozen=True)
class Line:
    """The statement up to the cursor, comments blanked and holes filled.

    Attributes:
        text: The statement; without what stands in an open quote or brace.
        open: `"`, `'` or `{` when the cursor is inside one, `#` in a comment, else empty.
        inside: The text after an open quote or brace.
        indented: Whether the statement belongs to a run.
    """

    text: str
    open: str = ""
    inside: str = ""
    indented: bool = False


def statement(before: str) -> Line:
    """The statement at the end of a text; it begins at a line that starts with a verb, and may span lines in brackets.

    >>> statement('prompt p = [\\n  "a",\\n').text
    'prompt p = [   "a", '
    """
    lines = before.split("\n")
    first = len(lines) - 1
    while first > 0 and not _is_verb(lines[first]):
        first -= 1
    return _scan("\n".join(lines[first:]))


def _is_verb(line: str) -> bool:
    found = _FIRST_WORD.match(line)
    return found is not None and found[1] in VERBS


def _scan(text: str) -> Line:
    """Walk over quotes, comments and holes to the end; a line end outside brackets begins a new statement."""
    at, depth = 0, 0
    kept: list[str] = []
    while at < len(text):
        match = _PIECE.match(text, at)
        piece = match[0] if match else text[at]
        if piece == "\n":
            if depth > 0:
                kept.append(" ")
            else:
                kept = []
        elif piece.startswith("#"):
            if at + len(piece) == len(text):
                return _line(kept, "#")
            kept.append(" " * len(piece))
        elif piece == "{":
            end = closing(text, at)
            if end is None:
                return _line(kept, "{", text[at + 1:])
            piece = text[at:end + 1]
            kept.append("{" + FILL * (len(piece) - 2) + "}")
        elif piece in "\"'":
            rest = text[at + 1:].partition("\n")
            if not rest[1]:
                return _line(kept, piece, rest[0])
            piece += rest[0]
        else:
            quoted = piece[0] in "\"'"
            depth = depth if quoted else max(0, depth + _opened(piece))
            kept.append(piece if quoted else piece.replace(FILL, " "))
        at += len(piece)
    return _line(kept)


def _opened(piece: str) -> int:
    """How many more brackets open than close."""
    return sum(piece.count(bracket) for bracket in "([") - sum(piece.count(bracket) for bracket in ")]")


def _line(kept: list[str], opened: str = "", inside: str = "") -> Line:
    whole = "".join(kept)
    text = whole.lstrip()
    return Line(text, opened, inside, indented=len(text) < len(whole))
