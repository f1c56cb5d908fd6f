"""The two passes of a feature dashboard over activations: ranges and strongest places, then histogram and examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..runtime.trace import capture
from ..tokens import Tokens
from .strongest import Strongest, drawn
from .units import Units

if TYPE_CHECKING:
    from ..model.model import Model

CHUNK = 32 * 2**20
"""Bytes of activations that are looked at together."""


@dataclass(frozen=True)
class Chunk:
    """Some texts: `values` [batch pos feature] with position 0 in column 0, which tokens are `counted` [batch pos], and the
    number of the `first` text."""

    values: Tensor
    counted: Tensor
    first: int


def chunked(model: Model, units: Units, tokens: Tokens, rows: int, special: bool,
            progress: Callable[[int, int, str], None] | None) -> Iterator[Chunk]:
    start = 0
    while start < len(tokens):
        if progress is not None:
            progress(start, len(tokens), units.name)
        stop = _stop(tokens, start, rows, len(units.keys))
        part = _slice(tokens, start, stop)
        address = units.place.key
        acts = capture(model, part, address)
        with torch.no_grad():
            found = units.read(acts[address]).float().cpu()
        yield unpadded(found, part, acts.tokens or part, special, start)
        start = stop
    if progress is not None:
        progress(len(tokens), len(tokens), "")


def unpadded(found: Tensor, part: Tokens, shown: Tokens, special: bool, first: int) -> Chunk:
    """Activations [batch pos feature] whose columns lie as `shown` says, with position 0 in column 0."""
    values = torch.zeros(len(part), part.width, found.shape[-1])
    counted = torch.zeros(len(part), part.width, dtype=torch.bool)
    for i, n in enumerate(part.lengths):
        column = shown.column(i, 0)
        values[i, :n] = found[i, column:column + n]
        counted[i, :n] = torch.tensor([special or role != "special" for role in part.roles[i]])
    return Chunk(values, counted, first)


def _stop(tokens: Tokens, start: int, rows: int, features: int) -> int:
    """Where the batch that begins at a text ends: few enough texts, and bytes."""
    stop = start + 1
    while (stop < len(tokens) and stop - start < rows
           and (stop + 1 - start) * max(tokens.lengths[start:stop + 1]) * features * 4 <= CHUNK):
        stop += 1
    return stop


def _slice(tokens: Tokens, start: int, stop: int) -> Tokens:
    return Tokens(**{one.name: _cut(getattr(tokens, one.name), start, stop) for one in fields(tokens)})


def _cut(value: Any, start: int, stop: int) -> Any:
    """The part of a field that has an entry for each example."""
    return value[start:stop] if isinstance(value, tuple) else value


class First:
    """Counts, ranges and the strongest places."""

    def __init__(self, size: int, top: int, window: int, per: str) -> None:
        self.count, self.per = 0, per
        self.zero, self.above, self.odd = (torch.zeros(size, dtype=torch.int64) for _ in range(3))
        self.low, self.high = torch.full((size,), torch.inf), torch.full((size,), -torch.inf)
        self.best = Strongest(size, top, window)

    def see(self, chunk: Chunk) -> None:
        values, counted = chunk.values, chunk.counted[..., None]
        there = counted & values.isfinite()
        self.count += int(chunk.counted.sum())
        self.zero += (counted & (values == 0)).sum((0, 1))
        self.above += (there & (values > 0)).sum((0, 1))
        self.odd += (counted & ~values.isfinite()).sum((0, 1))
        self.low = torch.minimum(self.low, values.masked_fill(~there, torch.inf).amin((0, 1)))
        self.high = torch.maximum(self.high, values.masked_fill(~there, -torch.inf).amax((0, 1)))
        score = values.masked_fill(~(there & (values != 0)), -torch.inf)
        if self.per == "text":  # of equal tokens the first
            best = score.amax(1, keepdim=True)
            pos = torch.arange(values.shape[1])[None, :, None]
            at = torch.where(score == best, pos, values.shape[1]).amin(1, keepdim=True)
            score = score.masked_fill(pos != at, -torch.inf)
        self.best.offer(score, values, chunk.first)


class Second:
    """The histogram, and places drawn from each part of the range."""

    def __init__(self, first: First, bins: int, ranges: int, examples: int, window: int) -> None:
        size = len(first.low)
        for side in (first.low, first.high):
            side[~side.isfinite()] = 0
        low, high = np.minimum(first.low.double().numpy(), 0), first.high.double().numpy()
        self.edges = np.linspace(low, np.where(high > low, high, low + 1), bins + 1, axis=-1)
        self.counts = torch.zeros(size, bins, dtype=torch.int64)
        self.ends = np.linspace(np.zeros(size), np.maximum(high, 0), ranges + 1, axis=-1)
        self.parts = tuple(Strongest(size, examples, window) for _ in range(ranges))

    def see(self, chunk: Chunk) -> None:
        there = (chunk.counted[..., None] & chunk.values.isfinite() & (chunk.values != 0)).flatten(0, 1).T.contiguous()
        values = chunk.values.flatten(0, 1).T.double().contiguous()  # [feature token]
        inner = torch.from_numpy(np.ascontiguousarray(self.edges[:, 1:-1]))
        self.counts.scatter_add_(1, torch.searchsorted(inner, values, right=True), there.long())
        part = torch.searchsorted(torch.from_numpy(np.ascontiguousarray(self.ends[:, 1:-1])), values)
        order = drawn(chunk.counted.shape, chunk.first)
        for number, best in enumerate(self.parts):
            inside = (there & (values > 0) & (part == number)).T.unflatten(0, chunk.counted.shape)
            best.offer(order[..., None].masked_fill(~inside, -torch.inf), chunk.values, chunk.first)
