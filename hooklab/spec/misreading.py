"""An error of lark at a place of a line, with what the rules of `misread` and `slips` ask about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from lark.exceptions import UnexpectedInput, UnexpectedToken

from ..errors import nearest
from ..problems import Problem
from .scan import QUOTED, Lines
from .verbs import SYNONYMS, VERBS, Verb

NEAR = 400
ENDS = ("$END", "_NL", "_INDENT", "_DEDENT")
PREPOSITIONS = ("by", "to", "from", "with", "along", "over", "in", "vs", "as", "at", "on")
MARKS = {"COLON": ":", "EQUAL": "=", "COMMA": ",", "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "EACH": "each",
         "STRING": "text in quotes", "PY": "{python}", "INT": "a whole number", "NAME": "a name", "CMP": "<, > or =="}


@dataclass
class Misreading:
    """An error of lark at a place of a line.

    Attributes:
        source: The line as written.
        body: The same with comments blanked and holes filled.
        error: What lark raised.

    Of a long line only the verb and what stands around the error are looked at.
    """

    source: str
    body: str
    error: Exception
    accepts: frozenset[str] = field(init=False)
    at: int = field(init=False)

    def __post_init__(self) -> None:
        self.accepts, self.at = frozenset(), len(self.body.rstrip())
        if isinstance(self.error, UnexpectedInput):
            token = self.error.token if isinstance(self.error, UnexpectedToken) else None
            found = self.error.pos_in_stream
            if found is not None and found >= 0 and (token is None or token.type not in ENDS):
                self.at = min(self.at, found)
            # where a character is met that starts no word, lark lists the end of line whatever may come
            self.accepts = frozenset(self.error.accepts if isinstance(self.error, UnexpectedToken) else
                                     set(getattr(self.error, "allowed", None) or ()) - {"_NL"})
        self.lines, self.left_out, self.kept = Lines(self.source), 0, 0
        if len(self.body) > 2 * NEAR:
            self._shorten()

    def _shorten(self) -> None:
        """Leave out what stands between the first words and the error, and what stands far behind it."""
        head = min(NEAR // 4, self.at)
        start = max(head, self.at - NEAR)
        self.left_out, self.kept = start - head, head
        self.source, self.body = (text[:head] + text[start:self.at + NEAR] for text in (self.source, self.body))
        self.at -= self.left_out

    @cached_property
    def first(self) -> int:
        """Offset of the word that the statement starts with: after the colon of a run on one line."""
        one_line = re.match(r"\s*run\b[^:\"']*:(?=\s*\w)", self.body)
        start = one_line.end() if one_line and one_line.end() <= self.at else 0
        return start + len(self.body[start:]) - len(self.body[start:].lstrip())

    @cached_property
    def word(self) -> str:
        """The word that the statement starts with."""
        match = re.match(r"[^\W\d]\w*", self.body[self.first:])
        return match[0] if match else ""

    @property
    def verb(self) -> Verb | None:
        """The row of the table, where the line starts with a verb."""
        return VERBS.get(self.word)

    @property
    def rest(self) -> str:
        """The line as written, from the error on."""
        return self.source[self.at:]

    @property
    def before(self) -> str:
        """What the grammar has read."""
        return self.body[:self.at]

    @property
    def found(self) -> str:
        """The word or sign at the error; empty at the end of the line."""
        match = re.match(rf"{QUOTED}|[^\W\d]\w*|\d[\w.]*|\S", self.rest)
        return short(match[0]) if match and self.at < len(self.body.rstrip()) else ""

    @property
    def shown(self) -> str:
        """The same between quotes, for a message."""
        return self.found if self.found[:1] in ("'", '"') and len(self.found) > 1 else f'"{self.found}"'

    @property
    def prepositions(self) -> list[str]:
        """The small words that the verb has."""
        return [w for w in re.findall(r"\w+", self.verb.form) if w in PREPOSITIONS] if self.verb else []

    def form(self) -> str:
        """How the line is written, with an example."""
        return f"write {self.verb.form}, such as: {self.verb.example}" if self.verb else ""

    def problem(self, message: str, hint: str, at: int | None = None, width: int = 1, kind: str = "syntax") -> Problem:
        """A problem at an offset of the line; where the error is unless said."""
        at = self.at if at is None else at
        width = min(width, len(self.source[at:].split("\n")[0]))
        line, column = self.lines.at(at + self.left_out if at >= self.kept else at)
        return Problem(kind, message, line, column, max(1, width), hint)

    def unclosed(self, opening: int, body: str) -> Problem | None:
        """The problem that a bracket of the line is not closed, where that is why lark stopped."""
        found = self.at + self.left_out
        if found < opening or (found < len(body.rstrip()) and "\n" not in body[opening:found]):
            return None
        line, column = self.lines.at(opening)
        return Problem("syntax", f"the bracket {body[opening]} is not closed", line, column,
                       hint=f"it ends with {']' if body[opening] == '[' else ')'}")

    def replaced(self, start: int, end: int, text: str) -> str:
        """The line with a part of it written otherwise."""
        return short((self.source[:start] + text + self.source[end:]).strip().split("\n")[0], 90)

    def remedy(self, start: int, end: int, text: str) -> str:
        """To write the line with a part of it written otherwise, where that can be read; else empty."""
        from .parser import reads

        line = self.replaced(start, end, text)
        return f"write {line}" if "…" not in line and reads(line) else ""

    def word_at_fault(self) -> tuple[int, str]:
        """The word at the error; or that before it, where lark took it for the name of an option."""
        last = re.search(r"([^\W\d]\w*)\s*$", self.before)
        if self.accepts == {"EQUAL"} and last is not None:
            site = re.match(r"(?:[LHNF]\d+)+(?=[^\W\d])", last[1])  # `L5resid` is a site and a word
            return last.start() + (site.end() if site else 0), last[1][site.end() if site else 0:]
        match = re.match(r"[^\W\d]\w*", self.body[self.at:])
        return self.at, match[0] if match else ""


@lru_cache(1000)
def nearest_verb(word: str, synonyms: bool = False) -> str:
    """The verb that a word is closest to, or that stands for the synonym it is closest to; empty when none is close.

    >>> nearest_verb("ablat"), nearest_verb("knockot", synonyms=True)
    ('ablate', 'zero')
    """
    close = nearest(word[:40], [*VERBS, *(SYNONYMS if synonyms else ())]) or ""
    return SYNONYMS.get(close, close)


def short(text: str, limit: int = 40) -> str:
    """A text that fits into a sentence.

    >>> short("abcdef", 3)
    'abc…'
    """
    return text if len(text) <= limit else text[:limit] + "…"
