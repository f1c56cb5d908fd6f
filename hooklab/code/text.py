"""Pieces of a program: text with leaves that may change from one point of a sweep to the next.

The same edit is written out once for every point of a sweep; what differs is found by laying the texts over each
other, and becomes the loop's variable, or a table that the variable looks up. Nothing here knows about models.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import HooklabError

X, I = "\ue000", "\ue001"  # noqa: E741
"""Stand for the site's tensor and the layer's number; each program puts its own words there."""


class CodeError(HooklabError):
    """A spec that cannot be written as short plain code; the message names the line."""


@dataclass(frozen=True)
class Leaf:
    """A piece of text that may differ from point to point of a sweep.

    Attributes:
        kind: What a table of it is called.
        text: How it is written when it is the same everywhere.
        core: An expression that a loop variable, or an entry of a table, may stand for.
        wrap: What goes around that expression.
    """

    kind: str
    text: str
    core: str
    wrap: str = "{0}"


Text = tuple[str | Leaf, ...]


def cat(*parts: Any) -> Text:
    """Pieces put together.

    >>> cat("x[", ("1", "]"), " = 0")
    ('x[1] = 0',)
    """
    out: list[str | Leaf] = []
    for part in parts:
        for piece in part if isinstance(part, tuple) else (part,):
            if isinstance(piece, str) and out and isinstance(out[-1], str):
                out[-1] += piece
            elif piece != "":
                out.append(piece)
    return tuple(out)


def joined(parts: Sequence[Any], between: str) -> Text:
    """Pieces with a text between them."""
    return cat(*(piece for n, part in enumerate(parts) for piece in ((between, part) if n else (part,))))


def plain(text: Text) -> str:
    """The text of one point alone."""
    return "".join(piece if isinstance(piece, str) else piece.text for piece in text)


def skeleton(text: Text) -> tuple[tuple[bool, str], ...]:
    """What two texts must share to be one line of a loop."""
    return tuple((isinstance(piece, str), piece if isinstance(piece, str) else piece.kind) for piece in text)


def number(value: float) -> Leaf:
    """A number of the spec."""
    return Leaf("value", repr(value), repr(value))


def listed(numbers: Iterable[int], nested: int = 0) -> str:
    """Numbers as a list; with `nested`, each in that many brackets of its own.

    >>> listed([1, 5], nested=1)
    '[[1], [5]]'
    """
    return "[" + ", ".join("[" * nested + str(n) + "]" * nested for n in numbers) + "]"


def ranged(numbers: Sequence[int]) -> str:
    """Numbers to go over: a range where they are one.

    >>> ranged([0, 1, 2]), ranged([3, 4]), ranged([0, 2])
    ('range(3)', 'range(3, 5)', '(0, 2)')
    """
    first, last = numbers[0], numbers[-1]
    if list(numbers) == list(range(first, last + 1)):
        return f"range({last + 1})" if first == 0 else f"range({first}, {last + 1})"
    return "(" + ", ".join(map(str, numbers)) + ("," if len(numbers) == 1 else "") + ")"


class Names:
    """Names of a program, each given once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.given: dict[tuple[str, int], str] = {}

    def shared(self, wanted: str, count: int = 0) -> str:
        """The same name each time; `count` tells apart what goes by one name in one place."""
        if (wanted, count) not in self.given:
            self.given[wanted, count] = self.pick(wanted)
        return self.given[wanted, count]

    def pick(self, wanted: str) -> str:
        """A free name like the one that is wanted.

        >>> names = Names(["clean"])
        >>> names.pick("clean"), names.pick("run on b"), names.pick("3rd")
        ('clean_2', 'run_on_b', '_3rd')
        """
        base = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_") or "value"
        base = f"_{base}" if base[0].isdigit() or keyword.iskeyword(base) else base
        name, count = base, 2
        while name in self.taken:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name


def comment(text: str, width: int = 70) -> str:
    """A text that stays within one comment: no character in it ends the line.

    >>> comment("zero L0.z" + chr(13) + "import os")
    'zero L0.z import os'
    """
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= width else flat[:width - 1] + "…"


def noted(lines: list[str], note: str) -> list[str]:
    """Lines with a comment: beside the first where there is room, above them otherwise."""
    if not note:
        return lines
    if len(lines) == 1 and len(lines[0]) <= 50:
        return [f"{lines[0]:<50}  # {note}"]
    return [f"# {note}", *lines]


def quoted(text: str) -> str:
    """A text as a Python literal in double quotes.

    >>> print(quoted('say "hi"' + chr(10)))
    "say \\"hi\\"\\n"
    """
    return json.dumps(text, ensure_ascii=not text.isprintable())


def indented(lines: Iterable[str], by: int = 1) -> list[str]:
    """Lines moved to the right."""
    return [" " * 4 * by + line if line else line for line in lines]


def literal(value: Any) -> str:
    """A label of a sweep as a Python literal."""
    return quoted(value) if isinstance(value, str) else repr(value)


def assigned(name: str, value: str | list[str], before: str = "", after: str = "") -> list[str]:
    """An assignment; a list of several items has a line for each.

    >>> assigned("p", ["1", "2"])
    ['p = [', '    1,', '    2,', ']']
    """
    if isinstance(value, str) or len(value) == 1:
        return [f"{name} = {before}{value if isinstance(value, str) else f'[{value[0]}]'}{after}"]
    return [f"{name} = {before}[", *indented(f"{item}," for item in value), f"]{after}"]
