"""Selectors: which positions are meant, before any prompt is known.

A selector is a frozen value. It composes (`|`, `&`, `-`, `.offset(1)`, `.next`), hashes, and prints as the
text that `positions` reads back; `resolve` turns it into numbers, per example, on the unpadded sequence.

>>> str(Ends("last") | Role("image"))
'last | image'
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, replace
from typing import Any

from ..errors import PositionError

ROLE_NAMES = ("text", "image", "special", "prompt", "new", "bos", "boi", "eoi")
OF_IMAGES = ("image", "boi", "eoi")
RESERVED = ("all", "first", "last", "each", *ROLE_NAMES)


class Selector:
    """Base of all selectors: the algebra. Operands may be anything that `positions` takes."""

    __iter__: None = None  # indexing picks an occurrence, so Python's fallback iteration would never end

    def __or__(self, other: Any) -> Selector:
        return SetOp("|", self, _coerce(other))

    def __ror__(self, other: Any) -> Selector:
        return SetOp("|", _coerce(other), self)

    def __and__(self, other: Any) -> Selector:
        return SetOp("&", self, _coerce(other))

    def __rand__(self, other: Any) -> Selector:
        return SetOp("&", _coerce(other), self)

    def __sub__(self, other: Any) -> Selector:
        return SetOp("-", self, _coerce(other))

    def __rsub__(self, other: Any) -> Selector:
        return SetOp("-", _coerce(other), self)

    def __getitem__(self, which: int | str) -> Selector:
        """The n-th occurrence or part, or all of them with `"*"`; for texts, spans, turns, images and splits."""
        if isinstance(self, Split):
            return Part(self, _int(which, "a part"))
        if not isinstance(self, (TokenText, Span, TurnOf, Role)):
            raise PositionError(f"{self}[{which}]: only texts, spans, turns, images and splits are numbered")
        return replace(self, which=which)

    def offset(self, k: int) -> Selector:
        """Every selected position, `k` further on (back if negative)."""
        return Shift(self, k)

    @property
    def first(self) -> Selector:
        """The first selected position."""
        return Edge(self, "first")

    @property
    def last(self) -> Selector:
        """The last selected position."""
        return Edge(self, "last")

    @property
    def next(self) -> Selector:
        """The position right after the last selected one."""
        return Edge(self, "next")

    @property
    def prev(self) -> Selector:
        """The position right before the first selected one."""
        return Edge(self, "prev")

    def __str__(self) -> str:
        from .text import to_text

        return to_text(self)

    def __repr__(self) -> str:
        return f"positions({str(self)!r})"


@dataclass(frozen=True, repr=False)
class All(Selector):
    """Every position."""


@dataclass(frozen=True, repr=False)
class Index(Selector):
    """One position; negative counts from the end."""

    n: int


@dataclass(frozen=True, repr=False)
class Slice(Selector):
    """Positions as in a Python slice: stop excluded, clipped to the sequence."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        for n in (self.start or 0, self.stop or 0, self.step or 0):
            _int(n, "a slice bound")
        if self.step == 0:
            raise PositionError("a slice cannot step by 0")


@dataclass(frozen=True, repr=False)
class Ends(Selector):
    """The first or last `k` positions of the sequence, in reading order."""

    side: str
    k: int = 1

    def __post_init__(self) -> None:
        if _int(self.k, f"k of {self.side}") < 1:
            raise PositionError(f"{self.side}({self.k}) selects nothing; k starts at 1")


@dataclass(frozen=True, repr=False)
class Several(Selector):
    """A list of selectors: their positions in the order listed, each position once."""

    items: tuple[Selector, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise PositionError("an empty list selects no position")


@dataclass(frozen=True, repr=False)
class Role(Selector):
    """Positions by what they are; ROLE_NAMES lists them. Of images and their markers, `which` may choose one."""

    name: str
    which: int | str = "*"

    def __post_init__(self) -> None:
        _check_which(self.which)
        if self.which != "*" and self.name not in OF_IMAGES:
            raise PositionError(f"{self.name}[{self.which}]: of roles, only {', '.join(OF_IMAGES)} are numbered")
        if self.name not in ROLE_NAMES:
            raise PositionError(f'no role "{self.name}"; there are {", ".join(ROLE_NAMES)}')


@dataclass(frozen=True, repr=False)
class ImageLine(Selector):
    """One row or column of every image, or of one; negative numbers count from the last."""

    kind: str
    n: int
    of: Selector

    def __post_init__(self) -> None:
        _int(self.n, f"a {self.kind}")
        if not (isinstance(self.of, Role) and self.of.name == "image"):
            raise PositionError(f"a {self.kind} is one of an image: of=image or of=image[0], not {self.of}")


@dataclass(frozen=True, repr=False)
class Mark(Selector):
    """A named selection, looked up when resolved."""

    name: str

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in RESERVED:
            raise PositionError(
                f'"{self.name}" cannot name a mark; a mark is one word, and not a built-in position'
            )


@dataclass(frozen=True, repr=False)
class TokenText(Selector):
    """The tokens that spell a text: `which` occurrence, all with "*", the only one with None."""

    text: str
    which: int | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise PositionError(f"a token text is a non-empty string, not {self.text!r}")
        _check_which(self.which)


@dataclass(frozen=True, repr=False)
class Span(Selector):
    """The tokens that matches of a regular expression touch."""

    pattern: str
    which: int | str = "*"

    def __post_init__(self) -> None:
        _check_which(self.which)
        try:
            re.compile(self.pattern)
        except (re.error, TypeError, OverflowError) as e:
            raise PositionError(f"span: {self.pattern!r} is no regular expression: {e}") from None


@dataclass(frozen=True, repr=False)
class TurnOf(Selector):
    """The turns of one speaker in a chat."""

    role: str
    which: int | str = "*"

    def __post_init__(self) -> None:
        _check_which(self.which)


@dataclass(frozen=True, repr=False)
class Mask(Selector):
    """Positions where a mask over the unpadded sequence is true: one row for all examples, or one each."""

    rows: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True, repr=False)
class Sample(Selector):
    """`n` positions drawn without replacement, in reading order.

    The draw depends on the seed and on what there is to choose from, not on the place in the batch: prompts
    of one shape get the same draw, so a clean and a corrupted one line up.
    """

    n: int
    of: Selector
    seed: int = 0

    def __post_init__(self) -> None:
        _int(self.seed, "the seed")
        if _int(self.n, "n of random") < 1:
            raise PositionError(f"random({self.n}) selects nothing; n starts at 1")


@dataclass(frozen=True, repr=False)
class SetOp(Selector):
    """Union `|`, intersection `&` or difference `-`, in reading order."""

    op: str
    left: Selector
    right: Selector


@dataclass(frozen=True, repr=False)
class Shift(Selector):
    """Every position of a selection, moved by `k`."""

    of: Selector
    k: int

    def __post_init__(self) -> None:
        _int(self.k, "an offset")


@dataclass(frozen=True, repr=False)
class Edge(Selector):
    """The first or last position of a selection, or the one right after or before it."""

    of: Selector
    edge: str


@dataclass(frozen=True, repr=False)
class Each(Selector):
    """The positions of a selection, one at a time: a sweep axis. Of a list: item by item."""

    of: Selector = All()


@dataclass(frozen=True, repr=False)
class Hole(Selector):
    """Python between braces: positions that are given a value later, by `fill`."""

    source: str


@dataclass(frozen=True, repr=False)
class Split(Selector):
    """The sequence cut at pivots; the pivot stays with the part on its `keep` side, or drops out.

    Parts are numbered from 0 and never empty: a cut at either end of the sequence makes none.
    """

    at: Selector
    keep: str = "right"

    def __post_init__(self) -> None:
        if self.keep not in ("left", "right", "drop"):
            raise PositionError(f'split: keep is "left", "right" or "drop", not {self.keep!r}')


@dataclass(frozen=True, repr=False)
class Part(Selector):
    """One part of a split."""

    of: Split
    n: int


def _coerce(x: Any) -> Selector:
    from .build import positions

    return positions(x)


def _int(n: Any, what: str) -> int:
    try:
        if isinstance(n, bool):
            raise TypeError
        return operator.index(n)
    except TypeError:
        raise PositionError(f"{what} must be an integer, not {n!r}") from None


def _check_which(which: Any) -> None:
    if which is not None and which != "*":
        _int(which, 'an occurrence is chosen by number or "*"; it')
