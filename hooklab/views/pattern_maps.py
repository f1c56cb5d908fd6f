"""Patterns as what travels: small pictures of all heads, codes of one head, exact rows of it.

In: `Patterns`. Out: codes (see `wire`), pooled to the largest of each block so that no spike is lost, and the scales that
they are on. A map is named by its prompt, its mode, and the prompt that it is compared with.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ViewError
from . import wire
from .pattern_data import Patterns

MODES = ("pattern", "value-weighted", "difference")
SIDE = 64
"""Cells across the small picture of a head, at most."""
ROOM = 2**20
"""Bytes of all small pictures together."""
MOST_WHOLE = 1024
"""Tokens up to which a head is sent cell by cell; of more, as blocks."""
ROWS = 2**14
"""Numbers in one answer of exact rows."""


@dataclass(frozen=True)
class Map:
    """Which map of each head: of a prompt, in a mode, and for a difference the prompt that is taken away."""

    prompt: int
    mode: str = "pattern"
    against: int = 0


@dataclass(frozen=True)
class Thumbs:
    """Small pictures of all heads.

    Attributes:
        codes: [head side side].
        first: [head side]: the leftmost column again, without the first token.
        peaks: [head 2]: the value furthest from zero, and the same without the first token.
        block: Tokens along one side of a cell.
        causal: Whether no token looks ahead.
        scale: What the codes mean.
    """

    codes: np.ndarray
    first: np.ndarray
    peaks: np.ndarray
    block: int
    causal: bool
    scale: wire.Scale


class Maps:
    """What a view of patterns can be asked for; what was asked for once is kept where it is small."""

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns
        self._known: dict[Map, Thumbs] = {}
        self._lock = threading.RLock()

    def modes(self) -> tuple[str, ...]:
        """The modes that there are data for."""
        prompts = self.patterns.prompts
        weighted = all(prompt.norms is not None for prompt in prompts)
        lengths = [len(prompt) for prompt in prompts]
        there = (True, weighted, len(set(lengths)) < len(lengths))
        return tuple(mode for mode, can in zip(MODES, there, strict=True) if can)

    def matrix(self, which: Map, head: int, rows: slice = slice(None)) -> np.ndarray:
        """The numbers of a head, [query_pos key_pos] float32. Raises ViewError."""
        prompt = self.patterns.prompts[which.prompt]
        weights = prompt.weights[head][rows].astype(np.float32)
        if which.mode == "value-weighted":
            if prompt.norms is None:
                raise ViewError(f"the sizes of the values are not known for {prompt.key}: pass values=, or a model")
            return weights * prompt.norms[head]
        if which.mode == "difference":
            other = self.patterns.prompts[which.against]
            if len(other) != len(prompt):
                raise ViewError(f"{prompt.key} has {len(prompt)} tokens and {other.key} has {len(other)}: they cannot be "
                                "compared position by position")
            with np.errstate(invalid="ignore"):
                return weights - other.weights[head][rows].astype(np.float32)
        return weights

    def thumbs(self, which: Map) -> Thumbs:
        """The small pictures. Raises ViewError."""
        with self._lock:
            if which not in self._known:
                self._known[which] = self._thumbs(which)
            return self._known[which]

    def codes(self, which: Map, head: int) -> tuple[np.ndarray, int, bool]:
        """A head as codes: [n n], or its lower triangle [n(n+1)/2]; tokens along a side of a cell; whether a triangle."""
        n = len(self.patterns.prompts[which.prompt])
        thumbs, block = self.thumbs(which), -(-n // MOST_WHOLE)
        values = strongest(self.matrix(which, head), block)
        coded = thumbs.scale.codes(values)
        return (wire.triangle(coded) if thumbs.causal else coded), block, thumbs.causal

    def rows(self, which: Map, head: int, part: int) -> np.ndarray:
        """Exact rows of a head: the part-th block of as many as fit an answer, [rows key_pos] float32."""
        n = len(self.patterns.prompts[which.prompt])
        size = rows_in(n)
        if not 0 <= part * size < n:
            raise ViewError(f"there is no part {part} of {n} rows")
        return self.matrix(which, head, slice(part * size, (part + 1) * size))

    def column(self, which: Map, head: int, key: int) -> np.ndarray:
        """How much every token looks at one, [query_pos] float32."""
        n = len(self.patterns.prompts[which.prompt])
        if not 0 <= key < n:
            raise ViewError(f"there is no key_pos {key} among {n}")
        return np.ascontiguousarray(self.matrix(which, head)[:, key])

    def _thumbs(self, which: Map) -> Thumbs:
        n, count = len(self.patterns.prompts[which.prompt]), len(self.patterns.heads)
        side = min(SIDE, max(8, int((ROOM / count) ** 0.5)))
        block = -(-n // side)
        side = -(-n // block)
        small = np.zeros((count, side, side), np.float32)
        first = np.zeros((count, side), np.float32)
        causal = True
        for head in range(count):
            values = self._whole(which, head)
            small[head] = strongest(values, block)
            first[head] = strongest(values[:, 1:block], block)[:, 0] if block > 1 and n > 1 else 0
            causal = causal and ahead_is_empty(values, small[head], block)
        rest = np.concatenate([first[:, :, None] * (block > 1), small[:, :, 1:]], axis=2)
        peaks = np.stack([_peak(small), _peak(rest)], axis=1)
        scale = _scale(which.mode, small)
        coded, edge = scale.codes(small), scale.codes(first)
        if block == 1:
            edge[:] = wire.MASKED
        if causal:
            coded[:, ~np.tri(side, dtype=bool)] = wire.MASKED
        return Thumbs(coded, edge, peaks, block, causal, scale)

    def _whole(self, which: Map, head: int) -> np.ndarray:
        """The numbers of a head; a plain pattern as it is kept, since half precision pools faster."""
        return self.patterns.prompts[which.prompt].weights[head] if which.mode == "pattern" else self.matrix(which, head)


def rows_in(n: int) -> int:
    """How many exact rows of n numbers travel together."""
    return max(1, min(n, ROWS // n))


def strongest(values: np.ndarray, block: int) -> np.ndarray:
    """[rows columns] pooled over blocks: of each the number furthest from zero, or one that is not finite; float32.

    >>> strongest(np.array([[0, 1, -3], [2, 0, 0], [0, 0, 1]], np.float32), 2).tolist()
    [[2.0, -3.0], [0.0, 1.0]]
    """
    if block == 1:
        return values.astype(np.float32)
    bits = values.view(np.uint16 if values.dtype == np.float16 else np.uint32)
    # Floats from zero up are in the order of their bits; infinities, nan and all below zero have larger ones.
    top = _most(bits, block)
    odd = np.array(np.inf, values.dtype).view(bits.dtype)
    if not (top >= odd).any():
        return top.view(values.dtype).astype(np.float32)
    wide = values.astype(np.float32)
    high, low = _most(wide, block), -_most(-wide, block)
    return np.where(np.isnan(high), high, np.where(-low > high, low, high))


def _most(values: np.ndarray, block: int) -> np.ndarray:
    """The largest of each block; rows first, which is the fast way through memory."""
    for axis in (0, 1):
        whole = values.shape[axis] // block
        main, rest = np.split(values, [whole * block], axis=axis)
        shape = (whole, block, values.shape[1]) if axis == 0 else (values.shape[0], whole, block)
        parts = [main.reshape(shape).max(axis=axis + 1)] if whole else []
        parts += [rest.max(axis=axis, keepdims=True)] if rest.shape[axis] else []
        values = np.concatenate(parts, axis=axis)
    return np.ascontiguousarray(values)


def ahead_is_empty(values: np.ndarray, small: np.ndarray, block: int) -> bool:
    """Whether everything above the diagonal is exactly zero, given the pooled numbers, which tell for whole blocks."""
    if small[~np.tri(len(small), dtype=bool)].any():
        return False
    corners = (values[at:at + block, at:at + block] for at in range(0, len(values), block)) if block > 1 else ()
    return not any(corner[~np.tri(len(corner), dtype=bool)].any() for corner in corners)


def _peak(values: np.ndarray) -> np.ndarray:
    """[head]: the largest finite distance from zero."""
    flat = np.abs(values.reshape(len(values), -1))
    return np.where(np.isfinite(flat), flat, 0).max(axis=1, initial=0).astype(np.float32)


def _scale(mode: str, values: np.ndarray) -> wire.Scale:
    """The scale of a mode; whatever is no probability, though given as a pattern, gets one that fits."""
    finite: Any = values[np.isfinite(values)]
    high = float(finite.max(initial=0.0))
    if mode == "difference":
        largest = float(np.abs(finite).max(initial=0.0)) or 1.0
        return wire.Scale("diverging", -largest, largest)
    if mode == "value-weighted":
        return wire.Scale("probability", 0.0, high or 1.0)
    below = bool((finite < 0).any())
    return wire.fitting(values) if below or high > 1.001 else wire.Scale("probability", 0.0, 1.0)
