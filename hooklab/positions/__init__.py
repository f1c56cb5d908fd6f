"""Positions: which tokens are meant, as frozen selectors that resolve per example on unpadded sequences.

`select` holds the kinds and their algebra, `build` makes them from Python, `parse` and `text` read and write
them, `match` finds texts in tokens, `resolve` gives numbers; `pieces` is the tokenizer's side of `Tokens`.

>>> from hooklab.tokens import Tokens
>>> tokens = Tokens.from_ids([[5, 6, 7, 8], [9, 10]])
>>> resolve([0, last()], tokens), columns("last", tokens)
([[0, 3], [0, 1]], [[3], [3]])
"""

from .build import (
    column,
    each,
    fill,
    first,
    holes_in,
    last,
    marks_in,
    mask,
    positions,
    random,
    role,
    row,
    span,
    split,
    split_on,
    token,
    turn,
)
from .resolve import columns, explain, groups, resolve
from .select import Selector

__all__ = [
    "Selector",
    "column",
    "columns",
    "each",
    "explain",
    "fill",
    "first",
    "groups",
    "holes_in",
    "last",
    "marks_in",
    "mask",
    "positions",
    "random",
    "resolve",
    "role",
    "row",
    "span",
    "split",
    "split_on",
    "token",
    "turn",
]
