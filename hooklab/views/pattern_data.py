"""Attention patterns, as a view holds them: the heads, the prompts, and the sizes of what the heads write.

    source ──pattern_sources──▶ Patterns ──pattern_heads──▶ those that are asked for ──pattern_maps──▶ maps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import ViewError
from ..tokens import Tokens
from . import wire

MOST_TOKENS = 4096


class Head(NamedTuple):
    """A head, or a lone pattern that belongs to none; `str` is what a spec calls it."""

    layer: int | None
    head: int | None

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"L{self.layer}"
        return layer + ("" if self.head is None else f"H{self.head}") or "pattern"


@dataclass(frozen=True)
class Prompt:
    """The patterns of one prompt.

    Attributes:
        key: What a selection calls the prompt.
        pieces: Its tokens, as shown.
        weights: For each head [query_pos key_pos], float16 or float32.
        norms: For each head [key_pos]: the size of what it writes when it looks there; None where that is not known.
        text: What the tokenizer was given; empty where that is not known.
        run: The run that it was made by, where there are runs.
    """

    key: int | str
    pieces: tuple[str, ...]
    weights: tuple[np.ndarray, ...]
    norms: tuple[np.ndarray, ...] | None = None
    text: str = ""
    run: str = ""

    def __len__(self) -> int:
        return len(self.pieces)


@dataclass(frozen=True)
class Patterns:
    """The same heads on one prompt or several."""

    heads: tuple[Head, ...]
    prompts: tuple[Prompt, ...]

    def place(self, key: Any) -> int:
        """Which prompt a key names. Raises ViewError."""
        keys = [prompt.key for prompt in self.prompts]
        if key in keys:
            return keys.index(key)
        raise ViewError(f"there is no prompt {key!r}; there are {', '.join(map(str, keys))}")


def normed(patterns: Patterns, norms: Mapping[int, Any], tokens: Tokens) -> Patterns:
    """Sizes per layer [batch head key_pos], padded, joined to the prompts they belong to."""
    if not norms:
        return patterns
    prompts = []
    for i, prompt in enumerate(patterns.prompts):
        start = tokens.column(i, 0)
        span = slice(start, start + len(prompt))
        sizes = tuple(wire.held(norms[head.layer][i, head.head, span], "values") for head in patterns.heads)  # type: ignore[index]
        prompts.append(replace(prompt, norms=sizes))
    return Patterns(patterns.heads, tuple(prompts))


def with_norms(patterns: Patterns, values: Any) -> Patterns:
    """Sizes that the caller gives: as the patterns without query_pos, for one prompt, or with a batch axis for several."""
    if values is None or isinstance(values, bool):
        return patterns
    given = wire.held(values, "values")
    count, width = len(patterns.heads), len(patterns.prompts[0])
    expected = f"[layer head key_pos] or [head key_pos] of the {count} heads shown, {width} tokens each"
    several = len(patterns.prompts)
    same = all(len(one) == width for one in patterns.prompts)
    if given.size != several * count * width or given.shape[-1] != width or not same:
        raise ViewError(f"values are {tuple(given.shape)}; they should be {expected}"
                        + (f", for each of {several} prompts" if several > 1 else ""))
    if (given < 0).any():
        raise ViewError("values are sizes, and none of them can be below zero")
    rows = given.reshape(several, count, width)
    return Patterns(patterns.heads, tuple(replace(one, norms=tuple(rows[i])) for i, one in enumerate(patterns.prompts)))


def limited(patterns: Patterns) -> Patterns:
    for prompt in patterns.prompts:
        if len(prompt) > MOST_TOKENS:
            raise ViewError(f"prompt {prompt.key} has {len(prompt):,} tokens; {MOST_TOKENS:,} are the most that are drawn: "
                            "pass a part of the pattern, as in pattern[..., -1000:, -1000:]")
    return patterns


def joined(one: Patterns, other: Patterns) -> tuple[Patterns, Any]:
    """Two sources in one, and the key of the first prompt of the second. Raises ViewError."""
    if one.heads != other.heads:
        raise ViewError(f"the source has the heads {', '.join(map(str, one.heads[:6]))} …, compare= has "
                        f"{', '.join(map(str, other.heads[:6]))} …: name those of both with heads=")
    taken = {prompt.key for prompt in one.prompts}
    added = []
    for prompt in other.prompts:
        key: Any = f"compared {prompt.key}" if len(other.prompts) > 1 else "compared"
        added.append(replace(prompt, key=key if prompt.key in taken or isinstance(prompt.key, int) else prompt.key))
    if any(prompt.norms is None for prompt in added):
        one = Patterns(one.heads, tuple(replace(prompt, norms=None) for prompt in one.prompts))
    return Patterns(one.heads, one.prompts + tuple(added)), added[0].key
