"""Reducers that count: the extent of a site's numbers, and their histogram.

    extent = Extent("L2.mlp_post")                            # a first pass
    histogram = Histogram("L2.mlp_post", extent.edges(40))    # a second pass; or one, with edges of one's own
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...errors import RecordError
from ...records import Scores
from ...tokens import Tokens
from .reducers import KINDS
from .reducing import Reducer, Rows


class Extent(Reducer):
    """The smallest and the largest number of a site: what a histogram's edges are made of.

    `result` is (low, high).
    """

    kind: ClassVar[str] = "extent"
    low, high, count = float("inf"), float("-inf"), 0

    def result(self) -> tuple[float, float]:
        """Smallest and largest. Raises RecordError where nothing was added."""
        if not self.count:
            raise RecordError(f"nothing of {self.site} was added yet")
        return self.low, self.high

    def edges(self, bins: int) -> tuple[float, ...]:
        """Edges [bin + 1] of bins of equal width that hold all that was seen. Raises RecordError."""
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise RecordError(f"bins={bins!r}: it is a whole number from 1")
        low, high = self.result()
        return tuple(np.linspace(low, high if high > low else low + 1, bins + 1).tolist())

    def _add(self, rows: Rows, tokens: Tokens | None) -> None:
        for value, weight in zip(rows.values, rows.weights, strict=True):
            if value.numel() and weight:
                self.low, self.high = min(self.low, value.min().item()), max(self.high, value.max().item())
                self.count += value.numel()

    def _merge(self, other: Extent) -> None:
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.count += other.count

    def _tensors(self) -> dict[str, Tensor]:
        return {"extent": torch.tensor([self.low, self.high], dtype=torch.float64), "count": torch.tensor(self.count)}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        (self.low, self.high), self.count = state["extent"].tolist(), int(state["count"])


class Histogram(Reducer):
    """How often the numbers of a site fall between edges: all of them in one histogram, or one for each (`pooled=False`).

    A bin holds its lower edge; the last one holds both. `result` is Scores [bin] or [*rest bin], labelled with the lower
    edges; what fell outside is in `below` and `above`, and said in the note. Per example, the examples' means are counted.

    >>> found = Histogram("scores", (0, 1, 2), axes=("pos", "feature")).update([torch.tensor([[0.5], [2.0], [9.0]])])
    >>> found.result().values.tolist(), found.above
    ([1.0, 1.0], 1.0)
    """

    kind: ClassVar[str] = "histogram"
    counts: Tensor | None = None
    below, above = 0.0, 0.0

    def __init__(self, site: str, edges: Sequence[float], *, pooled: bool = True, axes: Sequence[str] | None = None,
                 at: Any = None, per: str = "token") -> None:
        super().__init__(site, axes=axes, at=at, per=per)
        self.edges, self.pooled = tuple(float(edge) for edge in edges), bool(pooled)
        if len(self.edges) < 2 or not np.isfinite(self.edges).all() or not (np.diff(self.edges) > 0).all():
            raise RecordError("edges are two or more finite numbers, each larger than the one before")

    def options(self) -> dict[str, Any]:
        return {**super().options(), "edges": list(self.edges), "pooled": self.pooled}

    def result(self) -> Scores:
        """The counts. Raises RecordError where nothing was added."""
        if self.counts is None:
            raise RecordError(f"nothing of {self.site} was added yet")
        outside = [f"{count:g} {word}" for word, count in (("below", self.below), ("above", self.above)) if count]
        return Scores(self.counts.numpy().copy(), ("bin",) if self.pooled else (*self.rest, "bin"),
                      {"bin": self.edges[:-1]}, unit="count", name=f"histogram of {self.site}",
                      note=f"outside of the edges: {', '.join(outside)}" if outside else "")

    def _add(self, rows: Rows, tokens: Tokens | None) -> None:
        found, below, above = self.counts, self.below, self.above
        for value, weight in zip(rows.values, rows.weights, strict=True):
            if not len(value) or not weight:
                continue
            value = value.mean(0, keepdim=True) if self.per == "example" else value
            some = weight * self._counted(value)
            if found is not None and found.shape != some.shape:
                raise RecordError(f"these values have the shape {list(some.shape[:-1])}, those before had "
                                  f"{list(found.shape[:-1])}")
            found = some if found is None else found + some
            below += weight * int((value < self.edges[0]).sum())
            above += weight * int((value > self.edges[-1]).sum())
        self.counts, self.below, self.above = found, below, above

    def _counted(self, value: Tensor) -> Tensor:
        """Counts of one example [row, *rest]: [bin] or [*rest bin]."""
        bins = len(self.edges) - 1
        edges = torch.tensor(self.edges, dtype=torch.float64)
        inside = (value >= edges[0]) & (value <= edges[-1])
        which = torch.searchsorted(edges, value.contiguous(), right=True).sub(1).clamp(0, bins - 1)
        if self.pooled:
            return torch.bincount(which[inside], minlength=bins).double()
        columns = torch.arange(value[0].numel()).reshape(value.shape[1:]).expand_as(value)
        flat = torch.bincount((columns * bins + which)[inside], minlength=bins * value[0].numel())
        return flat.double().reshape(*value.shape[1:], bins)

    def _merge(self, other: Histogram) -> None:
        if other.counts is not None:
            if self.counts is not None and self.counts.shape != other.counts.shape:
                raise RecordError(f"histograms of {list(self.counts.shape)} and {list(other.counts.shape)} cannot be merged")
            self.counts = other.counts.clone() if self.counts is None else self.counts + other.counts
        self.below, self.above = self.below + other.below, self.above + other.above

    def _tensors(self) -> dict[str, Tensor]:
        outside = {"outside": torch.tensor([self.below, self.above], dtype=torch.float64)}
        return outside if self.counts is None else {**outside, "counts": self.counts.clone()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.below, self.above = state["outside"].tolist()
        self.counts = state["counts"].clone() if "counts" in state else None


KINDS.update({one.kind: one for one in (Extent, Histogram)})
