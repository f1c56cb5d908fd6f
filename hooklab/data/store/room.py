"""Memory for values on their way to the disk, used again and again: fresh memory costs more than the copy into it.

A site's values lie one behind the other in blocks, so that what was put in piece by piece goes out in a few large writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 16 << 20


class Room:
    """Blocks of memory, some being filled, some free again.

    >>> room = Room()
    >>> room.take("a", (2, 3), torch.float16).shape, room.take("a", (1, 3), torch.float16).storage_offset()
    (torch.Size([2, 3]), 6)
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._used: list[Tensor] = []
        self._open: dict[str, tuple[Tensor, int]] = {}  # a block in the site's type, and how much of it is taken

    def take(self, site: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Room for a tensor, right behind what the site has before it where that block is large enough."""
        n = math.prod(shape)
        block, at = self._open.get(site, (None, 0))
        if block is None or block.dtype != dtype or at + n > block.numel():
            block, at = self._block(n * dtype.itemsize).view(dtype), 0
        self._open[site] = block, at + n
        return block.narrow(0, at, n).view(tuple(shape))

    def _block(self, n: int) -> Tensor:
        wanted = max(1, -(-n // BLOCK)) * BLOCK
        place = next((i for i, one in enumerate(self._free) if one.numel() == wanted), None)
        block = torch.empty(wanted, dtype=torch.uint8) if place is None else self._free.pop(place)
        self._used.append(block)
        return block

    def emptied(self) -> list[Tensor]:
        """Begin anew; the blocks that were filled, to be given back when nobody needs what they hold."""
        used, self._used, self._open = self._used, [], {}
        return used

    def again(self, blocks: list[Tensor]) -> None:
        """Blocks to fill anew. Those that were free until now are let go of, so that no more than one shard's are kept."""
        self._free = blocks
