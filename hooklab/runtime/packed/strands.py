"""Strands: one row of one cell, from its first changed token to the last, and where it lies in a packed batch.

All strands of a chunk have one order: by the block and stage at which they join, so that what runs at a block is always a
run of neighbours, and joining is appending. Tokens lie strand after strand on one axis of a batch of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.packing.entries import Entry
from ..store import Block
from .base import Base


@dataclass(frozen=True)
class Range:
    """Neighbouring strands `first` to `stop` - 1 of a chunk."""

    first: int
    stop: int

    def __bool__(self) -> bool:
        return self.stop > self.first


class Strands:
    """The strands of a chunk.

    Attributes:
        rows: Row of the chunk's blocks that each belongs to, [strand].
        base_row: Row of the recorded pass that each continues, [strand].
        start: First column of each, [strand].
        offset: First token of each on the packed axis, [strand + 1].
        column, flat, position: For every token: its column; its place in a [row × pos] tensor of the base; its unpadded
            position.
        width: Columns of the recorded pass.
    """

    def __init__(self, base: Base, blocks: Sequence[tuple[Block, Entry]], n_layers: int) -> None:
        tokens = base.tokens
        self.width = int(tokens.width)
        size = len(tokens)
        found = []
        for block, entry in blocks:
            depth = entry.layer * 3 + entry.stage
            cols = [None if p is None else tokens.column(e, p) for e, p in enumerate(entry.starts)]
            for row in block.rows:
                inside = row - block.start
                column = cols[inside % size]
                if column is not None:
                    found.append((depth, row, inside, column))
        found.sort(key=lambda strand: strand[0])
        table = torch.tensor(found, dtype=torch.long).reshape(-1, 4)
        self.rows, self.base_row, self.start = table[:, 1], table[:, 2], table[:, 3]
        self.depths = table[:, 0].tolist()
        length = self.width - self.start
        self.offset = torch.cat([torch.zeros(1, dtype=torch.long), length.cumsum(0)])
        self.strand = torch.repeat_interleave(torch.arange(len(found)), length)
        self.column = torch.arange(int(self.offset[-1])) - self.offset[self.strand] + self.start[self.strand]
        self.flat = self.base_row[self.strand] * self.width + self.column
        pad = torch.tensor([tokens.column(e, 0) for e in range(size)])
        self.position = self.column - pad[self.base_row[self.strand] % size]
        n_rows = max((block.rows.stop for block, _ in blocks), default=0)
        self.of_row = torch.full((n_rows + 1,), -1, dtype=torch.long)
        self.of_row[self.rows] = torch.arange(len(found))
        self.ends = torch.tensor([sum(d < bound for d in self.depths) for bound in range(3 * n_layers + 1)])

    def __len__(self) -> int:
        return len(self.depths)

    def joining(self, layer: int, stage: int) -> Range:
        """The strands that join at a stage of a block."""
        at = 3 * layer + stage
        return Range(int(self.ends[at]), int(self.ends[at + 1]))

    def tokens(self, which: Range) -> slice:
        """The tokens of neighbouring strands."""
        return slice(int(self.offset[which.first]), int(self.offset[which.stop]))

    def lasts(self, which: Range) -> Tensor:
        """The last token of each, counted from the first token of the range."""
        return self.offset[which.first + 1:which.stop + 1] - 1 - self.offset[which.first]


@dataclass(frozen=True)
class Whole:
    """Where (row, column) of the blocks lies when all tokens of a range are in the batch."""

    strands: Strands
    range: Range

    def __call__(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row and column in the packed batch, and whether the entry is there at all."""
        s = self.strands
        strand = s.of_row[rows]
        there = (strand >= self.range.first) & (strand < self.range.stop)
        strand = strand.clamp(min=0)
        there &= columns >= s.start[strand]
        place = s.offset[strand] - s.offset[self.range.first] + columns - s.start[strand]
        return torch.zeros_like(rows), torch.where(there, place, 0), there


@dataclass(frozen=True)
class Last:
    """The same when only the last token of each strand is in the batch."""

    strands: Strands
    range: Range

    def __call__(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row and column in the packed batch, and whether the entry is there at all."""
        strand = self.strands.of_row[rows]
        there = (strand >= self.range.first) & (strand < self.range.stop) & (columns == self.strands.width - 1)
        return torch.zeros_like(rows), torch.where(there, strand - self.range.first, 0), there


@dataclass(frozen=True)
class Square:
    """The same for scores and patterns [strand head query_pos key_pos], whose queries begin at column `first_query`."""

    strands: Strands
    local: Tensor
    first_query: int

    def __call__(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row and query in the tensor, and whether the entry is there at all."""
        strand = self.strands.of_row[rows]
        local = torch.where(strand < 0, -1, self.local[strand.clamp(min=0)])
        there = (local >= 0) & (columns >= self.strands.start[strand.clamp(min=0)]) & (columns >= self.first_query)
        return torch.where(there, local, 0), torch.where(there, columns - self.first_query, 0), there
