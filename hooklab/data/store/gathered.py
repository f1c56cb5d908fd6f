"""The values of one site on their way into a shard: one example's behind the other's, as they will lie in the file.

The checksum is taken when they come in: by then they have just been copied and are still near the processor, and whoever
writes them later has nothing to do but that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checksum import crc32
from .layout import Piece


class Gathered:
    """Pieces of one site, in their order.

    Attributes:
        pieces: What came in.
        crc: CRC-32 of all their bytes.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.crc = 0
        self._runs: list[tuple[Tensor, int]] = []  # where each begins, and its bytes: pieces that touch in memory are one
        self._storage = self._end = 0

    def add(self, piece: Piece) -> None:
        """Put a piece behind the others; its values must stay as they are until they are written."""
        self.pieces.append(piece)
        if not (n := piece.values.nbytes):
            return
        raw = piece.values.view(torch.uint8)
        self.crc = crc32(raw.numpy(), self.crc)
        storage, at = raw.untyped_storage().data_ptr(), raw.data_ptr()
        if (storage, at) == (self._storage, self._end):
            first, before = self._runs[-1]
            self._runs[-1] = first, before + n
        else:
            self._runs.append((raw, n))
        self._storage, self._end = storage, at + n

    def views(self) -> list[memoryview]:
        """The bytes, in as few pieces as they lie in."""
        return [memoryview(raw.as_strided((n,), (1,)).numpy()) for raw, n in self._runs]  # type: ignore[arg-type]
