"""Choosing heads of attention patterns by the names that people give them: `"L2H1"`, `"L5"`, `(4, 0)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..address import indices, parse
from ..errors import HooklabError, ViewError
from .pattern_data import Head, Patterns, Prompt


def wanted(heads: Any, every: Sequence[Head]) -> list[Head]:
    """The heads that somebody names, in that order; all of them for None. Raises ViewError."""
    if heads is None:
        return list(every)
    several = [heads] if isinstance(heads, (str, int)) or _pair(heads) else list(heads)
    found = [head for one in several for head in _called(one, every)]
    if not found:
        raise ViewError('heads= is empty: name some, as in heads=["L2H1", (4, 0)], or leave it out for all')
    return list(dict.fromkeys(found))


def by_layer(head: Head) -> tuple[int, int]:
    """What heads are sorted by: the layer, then the head."""
    return (-1 if head.layer is None else head.layer), (-1 if head.head is None else head.head)


def _pair(one: Any) -> bool:
    return isinstance(one, tuple) and len(one) == 2 and all(isinstance(i, (int, np.integer)) for i in one)


def _called(one: Any, every: Sequence[Head]) -> list[Head]:
    """The heads that one name stands for."""
    layers = [head.layer for head in every if head.layer is not None]
    heads = [head.head for head in every if head.head is not None]
    try:
        if isinstance(one, str) and layers:
            address = parse(one if "." in one else f"{one}.pattern")
            chosen = set(indices(address.layers or "*", max(layers) + 1, "layer"))
            among = set(indices(address.heads or "*", max(heads, default=0) + 1, "head"))
            found = [head for head in every if head.layer in chosen and (head.head in among or head.head is None)]
        elif _pair(one):
            found = [head for head in every if (head.layer, head.head) == (int(one[0]), int(one[1]))]
        else:
            number = int(str(one).removeprefix("H"))
            found = [head for head in every if not layers and head.head == number]
    except (HooklabError, ValueError) as error:
        raise ViewError(f"heads={one!r}: {error}") from None
    if not found:
        some = ", ".join(map(str, every[:6])) + (f" … {every[-1]}" if len(every) > 6 else "")
        raise ViewError(f"there is no head {one!r} here; there are {some}. Name heads as \"L2H1\" or (2, 1).")
    return found


def only(patterns: Patterns, heads: Any) -> Patterns:
    """The patterns of the heads that somebody names. Raises ViewError."""
    chosen = tuple(wanted(heads, patterns.heads))
    at = [patterns.heads.index(head) for head in chosen]

    def cut(one: Prompt) -> Prompt:
        norms = None if one.norms is None else tuple(one.norms[i] for i in at)
        return replace(one, weights=tuple(one.weights[i] for i in at), norms=norms)

    return Patterns(chosen, tuple(map(cut, patterns.prompts)))
