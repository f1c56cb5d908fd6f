"""A text as logical lines: what is one statement although it spans several lines, and what stands indented.

Only a text with mistakes is taken apart like this, so that each of its lines can be read alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .scan import QUOTED, STARTS_LINE, Lines

TAB = 8
_PIECE = re.compile(rf"[^\"'{{\[\]()\n]+|\n|{QUOTED}|\{{[\x01\n]*\}}|[\"'][^\n]*|.")


@dataclass(frozen=True)
class Line:
    """A logical line.

    Attributes:
        text: Its text, from the start of its first line, with holes filled and comments blank.
        number: The line of the text that it starts on.
        offset: Offset of its first character.
        open: Offset in `text` of a bracket that nothing closes, or None.
    """

    text: str
    number: int
    offset: int
    open: int | None = None

    @property
    def indent(self) -> int:
        """How far it stands to the right; a tab counts 8."""
        blank = self.text[:len(self.text) - len(self.text.lstrip(" \t"))]
        return blank.count(" ") + TAB * blank.count("\t")

    @property
    def words(self) -> frozenset[str]:
        """Every word in it."""
        return frozenset(re.findall(r"\w+", self.text))


def lay_out(text: str) -> Iterator[Line]:
    """The logical lines of a scanned text; blank ones are left out.

    >>> [line.number for line in lay_out('prompt "a"\\n\\nanswer [" b",\\n  " c"]\\nzero L0H0')]
    [1, 3, 5]
    """
    numbers = Lines(text)
    start, at, opened = 0, 0, []
    while at <= len(text):
        match = _PIECE.match(text, at) if at < len(text) else None
        piece = match[0] if match else "\n"
        at += len(piece)
        if piece in "[(":
            opened.append(at - 1)
        elif piece in "])" and opened:
            opened.pop()
        elif piece == "\n" and (not opened or at >= len(text) or STARTS_LINE.match(text, at)):
            whole = text[start:at - 1].rstrip()
            if whole:
                yield Line(whole, numbers.at(start)[0], start, opened[0] - start if opened else None)
            start, opened = at, []
