"""Rows of a batch that several blocks share."""

from __future__ import annotations

from typing import Any

from nnsight.intervention.batching import Batcher


class SiteBatcher(Batcher):
    """Rows of a shared batch; remembers which blocks were given rows, so that gradients can reach what they hold."""

    pieces: dict[tuple[int, ...], Any] | None = None

    def narrow(self, value: Any, group: Any) -> Any:
        """Give a block its rows."""
        out = super().narrow(value, group)
        if self.pieces is not None and group is not None and out is not value:
            self.pieces[tuple(group)] = out
        return out

    def widen(self, full: Any, group: Any, edited: Any) -> Any:
        """Put a block's rows back; they replace what it was given."""
        if self.pieces is not None and group is not None:
            self.pieces.pop(tuple(group), None)
        return super().widen(full, group, edited)
