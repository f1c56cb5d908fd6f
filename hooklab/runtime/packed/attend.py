"""Attention of a packed batch: every strand looks at the recorded keys before its first token and at its own after it.

Strands that begin near each other are laid side by side with the recorded keys and values under them, and go through one
fused kernel call together. Strands whose scores or pattern are edited, and models with soft-capped scores or sinks, are
computed in the open.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...model.attention import attend
from .base import Base
from .strands import Range, Square, Strands

BUCKETS = 6
"""Into how many groups of similar length strands are sorted: more groups pad less, and call the kernel more often."""


class Attention:
    """Attention of the strands of a range at one block.

    Args:
        base: The recorded pass.
        strands: The chunk.
        which: The strands that run.
        layer: The block.
        only_last: The queries are those of last tokens only.
        edited: Strands whose scores or pattern are edited here.
        serve: Where entries lie while attention is computed in the open, as a context.
    """

    def __init__(self, base: Base, strands: Strands, which: Range, layer: int, *, only_last: bool, edited: Tensor,
                 serve: Callable[[Any], AbstractContextManager[None]]) -> None:
        self.base, self.strands, self.which, self.layer = base, strands, which, layer
        self.only_last, self.serve = only_last, serve
        self.edited = edited[which.first:which.stop]
        self.mask = base.masks[layer]

    def __call__(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, run: Any, inner: Any,
                 **kwargs: Any) -> tuple[Tensor, None]:
        """z [1 token head d_head] from packed q [1 head token d_head], k and v."""
        base, s, which = self.base, self.strands, self.which
        n, h, d = which.stop - which.first, q.shape[1], q.shape[3]
        own = s.tokens(which)
        buckets = self._buckets()
        order = torch.cat([members for members, _ in buckets])
        place = torch.empty(n, dtype=torch.long)
        place[order] = torch.arange(n)
        rows = s.base_row[which.first:which.stop][order].to(q.device)
        strand = s.strand[own] - which.first
        into = (place[strand] * s.width + s.column[own]).to(q.device)
        keys, values = (self._under(of[self.layer], rows, into, new) for of, new in ((base.keys, k), (base.values, v)))
        lengths = torch.tensor([1 if self.only_last else s.width - first for _, first in buckets])
        sizes = torch.tensor([len(members) for members, _ in buckets])
        ends = (lengths * sizes).cumsum(0)
        queries, into_q = self._queries(q, buckets, place, lengths, ends)
        found = []
        at = 0
        for number, (members, _) in enumerate(buckets):
            m, wide = len(members), int(lengths[number])
            end = int(ends[number])
            q_ = queries[end - m * wide:end].view(m, wide, h, d).transpose(1, 2)
            k_, v_ = (rearrange(x[at:at + m], "s p h d -> s h p d") for x in (keys, values))
            mask = self._mask(rows[at:at + m], s.width - wide, q.device)
            open_ = bool(self.edited[members].any()) or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None
            if open_:
                where = Square(s, self._local(members), s.width - wide)
                with self.serve(where):
                    z = attend(module, q_, k_, v_, mask, run, inner, **kwargs)[0]
            else:
                z = _fused(q_, k_, v_, mask, kwargs.get("scaling"))
            found.append(z.reshape(m * wide, h, d))
            at += m
        return torch.cat(found).index_select(0, into_q)[None], None

    def _buckets(self) -> list[tuple[Tensor, int]]:
        """Strands sorted by where they begin: (members, first column) of each bucket; edited ones by themselves."""
        start = self.strands.start[self.which.first:self.which.stop]
        everyone = torch.arange(len(start))
        if self.only_last:
            groups = [everyone[~self.edited], everyone[self.edited]]
            return [(members, self.strands.width - 1) for members in groups if len(members)]
        first = int(start.min())
        step = max(4, -(-(self.strands.width - first) // BUCKETS))
        kind = (start - first) // step * 2 + self.edited.long()
        return [(members, int(start[members].min())) for members in
                (everyone[kind == k] for k in kind.unique().tolist())]

    def _under(self, recorded: Tensor, rows: Tensor, into: Tensor, new: Tensor) -> Tensor:
        """Recorded keys (or values) of every strand, with its own in their places: [strand pos kv_head d_head]."""
        found = recorded.index_select(0, rows)
        found.flatten(0, 1).index_copy_(0, into, rearrange(new[0], "h p d -> p h d").to(found.dtype))
        return found

    def _queries(self, q: Tensor, buckets: list[tuple[Tensor, int]], place: Tensor, lengths: Tensor,
                 ends: Tensor) -> tuple[Tensor, Tensor]:
        """Queries laid out bucket by bucket, [entry head d_head], and where each packed query went."""
        s, which = self.strands, self.which
        n = which.stop - which.first
        bucket_of, rank = torch.empty(n, dtype=torch.long), torch.empty(n, dtype=torch.long)
        for number, (members, _) in enumerate(buckets):
            bucket_of[members], rank[members] = number, torch.arange(len(members))
        begins = ends - lengths * torch.tensor([len(members) for members, _ in buckets])
        firsts = torch.tensor([first for _, first in buckets])
        if self.only_last:
            strand, column = torch.arange(n), torch.full((n,), s.width - 1)
        else:
            own = s.tokens(which)
            strand, column = s.strand[own] - which.first, s.column[own]
        bucket = bucket_of[strand]
        into = (begins[bucket] + rank[strand] * lengths[bucket] + column - firsts[bucket]).to(q.device)
        laid = q.new_zeros((int(ends[-1]), q.shape[1], q.shape[3]))
        laid.index_copy_(0, into, rearrange(q[0], "h p d -> p h d"))
        return laid, into

    def _local(self, members: Tensor) -> Tensor:
        """Strand of the chunk -> its place among the members, or -1."""
        local = torch.full((len(self.strands),), -1, dtype=torch.long)
        local[members + self.which.first] = torch.arange(len(members))
        return local

    def _mask(self, rows: Tensor, first_query: int, device: torch.device) -> Tensor:
        """Which keys each query sees: [strand or 1, 1, query_pos, key_pos]."""
        width = self.strands.width
        if self.mask is None:
            if self.base.causal is None:
                self.base.causal = torch.ones((width, width), dtype=torch.bool, device=device).tril()
            return self.base.causal[first_query:][None, None]
        mask = self.mask[..., first_query:width, :width]
        return mask if mask.shape[0] == 1 else mask.index_select(0, rows.to(mask.device))


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """z [strand query_pos head d_head]; queries of one group share their keys without copying them."""
    group = q.shape[1] // k.shape[1]
    if group == 1:
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return rearrange(z, "s h p d -> s p h d")
    wide = q.shape[2]
    q = rearrange(q, "s (h g) p d -> s h (g p) d", g=group)
    mask = mask.expand(mask.shape[0], 1, wide, mask.shape[-1]).repeat(1, 1, group, 1)
    z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return rearrange(z, "s h (g p) d -> s p (h g) d", g=group)
