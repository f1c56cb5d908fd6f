"""How selectors are made in Python: one function per kind, and `positions` for everything else.

>>> str(positions('@"Mary"[1]')), str(positions(slice(1, None))), str(positions([0, -1]))
('"Mary"[1]', '1:', '[0, -1]')
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import PositionError
from .select import (
    All,
    Each,
    Ends,
    Hole,
    ImageLine,
    Index,
    Mark,
    Mask,
    Role,
    Sample,
    Selector,
    Several,
    Slice,
    Span,
    Split,
    TokenText,
    TurnOf,
)

_BITS: dict[Any, bool] = {False: False, True: True, "0": False, "1": True}


def positions(x: Any) -> Selector:
    """The selector that `x` means.

    `x` is a selector, an integer, a slice, a list or array of positions, a boolean list or array (a mask over
    the unpadded tokens), or text of the hook language, with or without its `@`. Raises PositionError.
    """
    if isinstance(x, Selector):
        return x
    if isinstance(x, str):
        from .parse import parse

        return parse(x)
    if isinstance(x, slice):
        return Slice(x.start, x.stop, x.step)
    x = x.tolist() if hasattr(x, "tolist") else x
    if isinstance(x, (list, tuple, range)):
        flat = [row.tolist() if hasattr(row, "tolist") else row for row in x]
        if flat and all(isinstance(row, bool) or _is_mask_row(row) for row in flat):
            return mask(flat)
        if any(isinstance(row, (list, tuple, range)) for row in flat):
            raise PositionError("a list of lists is no selector: give one list of positions for all examples, or, to choose "
                                "others in each, one row of booleans per example (a mask over its tokens)")
        return Several(tuple(positions(item) for item in flat))
    try:
        if isinstance(x, bool):
            raise TypeError
        return Index(operator.index(x))
    except TypeError:
        raise PositionError(
            f'{x!r} is no position; give an integer, slice, list, mask, selector or text such as "last"'
        ) from None


def marks_in(selector: Any) -> frozenset[str]:
    """The names of the marks that a selector needs; `resolve` looks them up.

    >>> sorted(marks_in("[subject.last, tail] | all"))
    ['subject', 'tail']
    """
    x = positions(selector)
    if isinstance(x, Mark):
        return frozenset({x.name})
    return frozenset(name for v in _operands(x) for name in marks_in(v))


def holes_in(selector: Any) -> frozenset[str]:
    """The Python sources between braces that a selector waits for; `fill` gives them values."""
    x = positions(selector)
    if isinstance(x, Hole):
        return frozenset({x.source})
    return frozenset(source for v in _operands(x) for source in holes_in(v))


def fill(selector: Any, values: Mapping[str, Any]) -> Selector:
    """The selector with Python holes replaced by the positions that they stand for.

    >>> str(fill("[0, {i}]", {"i": 3}))
    '[0, 3]'
    """
    x = positions(selector)
    if isinstance(x, Hole):
        return positions(values[x.source]) if x.source in values else x
    changed: dict[str, Any] = {}
    for name, value in vars(x).items():
        if isinstance(value, Selector):
            changed[name] = fill(value, values)
        elif isinstance(value, tuple) and any(isinstance(v, Selector) for v in value):
            changed[name] = tuple(fill(v, values) for v in value)
    return replace(x, **changed) if changed else x  # type: ignore[type-var]


def _operands(x: Selector) -> list[Selector]:
    values = [v for value in vars(x).values() for v in (value if isinstance(value, tuple) else (value,))]
    return [v for v in values if isinstance(v, Selector)]


def _is_mask_row(row: Any) -> bool:
    return isinstance(row, (list, tuple)) and bool(row) and all(isinstance(bit, bool) for bit in row)


def first(k: int = 1) -> Selector:
    """The first `k` positions."""
    return Ends("first", k)


def last(k: int = 1) -> Selector:
    """The last `k` positions."""
    return Ends("last", k)


def role(name: str) -> Selector:
    """Positions of a role: text image special, prompt new, bos boi eoi; `role("image")[1]` is the second image."""
    return Role(name)


def row(n: int, of: Any = "image") -> Selector:
    """Row `n` of every image, or of one: `of="image[1]"`.

    Rows end where the model puts a token between them; without such tokens, an image is taken for a square.

    >>> str(row(0)), str(row(-1, of="image[1]"))
    ('row(0)', 'row(-1, of=image[1])')
    """
    return ImageLine("row", n, positions(of))


def column(n: int, of: Any = "image") -> Selector:
    """Column `n` of every image, or of one; `column(-1)` are the ends of the rows."""
    return ImageLine("column", n, positions(of))


def token(text: str, which: int | str | None = None) -> Selector:
    """The tokens that spell `text`; choose among several with `[n]` or `["*"]`."""
    return TokenText(text, which)


def span(pattern: str) -> Selector:
    """The tokens that matches of a regular expression touch; `[n]` for one match."""
    return Span(pattern)


def turn(speaker: str) -> Selector:
    """The turns of one speaker, such as "user"; `[n]` for one turn."""
    return TurnOf(speaker)


def mask(*values: Any) -> Selector:
    """Positions where a boolean array [pos] is true; several arrays, or [batch pos], give one per example.

    >>> str(mask([True, False, True]))
    'mask("101")'
    """
    rows: list[Any] = []
    for value in values:
        value = value.tolist() if hasattr(value, "tolist") else list(value)
        rows += value if value and all(isinstance(row, (list, tuple)) for row in value) else [value]
    try:
        bits = tuple(tuple(bool(_BITS[b]) for b in row) for row in rows)
    except (KeyError, TypeError):
        raise PositionError("a mask holds booleans (or 0 and 1), one per token") from None
    if not bits or not all(bits):
        raise PositionError("an empty mask selects no position")
    return Mask(bits)


def random(n: int, of: Any = None, seed: int = 0) -> Selector:
    """`n` positions out of a selection (default: all), reproducible and in reading order."""
    return Sample(n, All() if of is None else positions(of), seed)


def each(of: Any = None) -> Selector:
    """One position at a time; of a list, one item at a time."""
    return Each(All() if of is None else positions(of))


def split(at: Any, keep: str = "right") -> Split:
    """The sequence cut before each position of `at`; `split([3])[0]` is the part before 3."""
    return Split(positions(at), keep)


def split_on(text: str, keep: str = "right") -> Split:
    """The sequence cut at every occurrence of a token text."""
    return Split(TokenText(text, "*"), keep)
