"""What editing verbs do to a tensor: pure functions of the selected values, and the selection itself.

A *selection* is a list of (row, column) pairs of a batch, perhaps narrowed to heads and to entries of the last axis.
`take` returns its values as [entry …], `put` writes them back; everything outside stays bit for bit what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import WriteError

ATTENTION = ("batch", "head", "query_pos", "key_pos")


@dataclass(frozen=True)
class Selection:
    """Which values of one site.

    Attributes:
        axes: Axis words of the site.
        rows, columns: Batch row and padded column of each entry, [entry].
        heads: Heads singled out, or None.
        units: Entries of the last axis singled out, or None.
    """

    axes: tuple[str, ...]
    rows: Tensor
    columns: Tensor
    heads: tuple[int, ...] | None = None
    units: tuple[int, ...] | None = None

    def index(self, device: Any = None) -> tuple[Any, ...]:
        """The index that picks the selection out of a tensor of the site."""
        extra = (self.heads is not None) + (self.units is not None)

        def lead(x: Tensor) -> Tensor:
            return x.to(device).reshape(-1, *[1] * extra)

        rows, columns = lead(self.rows), lead(self.columns)
        heads: Any = slice(None)
        if self.heads is not None:
            shape = (1, -1, *[1] * (extra - 1))
            heads = torch.tensor(self.heads, device=device).reshape(shape)
        if self.axes == ATTENTION:
            return rows, heads, columns
        index: list[Any] = [rows, columns]
        if "head" in self.axes or "kv_head" in self.axes:
            index.append(heads)
        if self.units is not None:
            index.append(torch.tensor(self.units, device=device).reshape((*[1] * extra, -1)))
        return tuple(index)

    def take(self, value: Tensor) -> Tensor:
        """The selected values, [entry (head) …]."""
        return value[self.index(value.device)]

    def put(self, value: Tensor, new: Tensor) -> None:
        """Write values back, in place."""
        value[self.index(value.device)] = new.to(value.dtype)


def zero(x: Tensor) -> Tensor:
    """Zeros in the place of `x`."""
    return torch.zeros_like(x)


def steer(x: Tensor, v: Tensor) -> Tensor:
    """`x + v`."""
    return x + v


def scale(x: Tensor, v: Tensor) -> Tensor:
    """`x v`."""
    return x * v


def put(x: Tensor, v: Tensor) -> Tensor:
    """`v`, spread over the shape of `x`."""
    return v.expand_as(x)


def clamp(x: Tensor, low: float | None, high: float | None) -> Tensor:
    """`x`, not below `low` nor above `high`."""
    return x.clamp(low, high)


def project_out(x: Tensor, v: Tensor) -> Tensor:
    """`x` without its component along `v`, over the last axis.

    Raises:
        WriteError: the direction is zero.

    >>> project_out(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])).tolist()
    [3.0, 0.0]
    """
    v = v.to(x.dtype)
    norm = v.norm(dim=-1, keepdim=True)
    if bool((norm == 0).any()):
        raise WriteError("the direction to project out is zero")
    unit = v / norm
    return x - (x * unit).sum(-1, keepdim=True) * unit


OPS: dict[str, Callable[..., Tensor]] = {"steer": steer, "scale": scale, "set": put, "project_out": project_out}


def lowest(value: Tensor) -> float:
    """What a score before the softmax is set to so that nothing is left of it."""
    return torch.finfo(value.dtype).min


def cut_scores(scores: Tensor, rows: Sequence[int], heads: Sequence[int] | None, queries: Sequence[Sequence[int]],
               keys: Sequence[Sequence[int]]) -> None:
    """Take edges out before the softmax, in place: what is left of each row then sums to 1.

    Args:
        scores: [batch head query_pos key_pos].
        rows: Batch rows.
        heads: Heads, or None for all.
        queries: Columns of the queries, for each row.
        keys: Columns of the keys, for each row.

    Raises:
        WriteError: a query would have nothing left to look at.
    """
    _cut(scores, rows, heads, queries, keys, lowest(scores))
    for row, wanted in zip(rows, queries, strict=True):
        if not wanted:
            continue
        left = scores[row][list(heads) if heads is not None else slice(None)][:, list(wanted)].amax(-1)
        if bool((left <= lowest(scores) / 2).any()):
            raise WriteError("a query would have nothing left to look at. Cut fewer keys, or cut after the softmax "
                             "with renorm=false")


def cut_pattern(pattern: Tensor, rows: Sequence[int], heads: Sequence[int] | None, queries: Sequence[Sequence[int]],
                keys: Sequence[Sequence[int]]) -> None:
    """Take edges out after the softmax, in place: the row loses what was cut."""
    _cut(pattern, rows, heads, queries, keys, 0.0)


def _cut(value: Tensor, rows: Sequence[int], heads: Sequence[int] | None, queries: Sequence[Sequence[int]],
         keys: Sequence[Sequence[int]], to: float) -> None:
    for row, wanted, looked in zip(rows, queries, keys, strict=True):
        if not wanted or not looked:
            continue
        q = torch.tensor(list(wanted), device=value.device)[:, None]
        k = torch.tensor(list(looked), device=value.device)[None, :]
        for head in heads if heads is not None else range(value.shape[1]):
            value[row, head][q, k] = to
