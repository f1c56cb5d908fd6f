"""Activations of the steps of a generation, put together to one sequence axis.

While steps are stitched, positions are columns: those of the padded prompt, then one for each new token. What is handed
out is aligned at the end of each row, like the padded tokens of the finished sequences; NaN stands where a row has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.plan.reaches import Reach
from ..compiler.plan.spots import Spot
from .evaluate import part
from .store import Store

ATTENTION = ("scores", "pattern")


@dataclass(frozen=True)
class Sequence:
    """One row of a generation.

    Attributes:
        prompt, new: Ids given, and written on.
        width: Columns of the padded prompt.
        stopped: Why it ended: length, eos or stop.
    """

    prompt: tuple[int, ...]
    new: tuple[int, ...]
    width: int
    stopped: str

    @property
    def start(self) -> int:
        """Column of the first token."""
        return self.width - len(self.prompt)

    @property
    def stop(self) -> int:
        """Column after the last token that was read: the last new token was not."""
        return self.width + max(0, len(self.new) - 1)

    def columns(self, reach: Reach) -> list[int]:
        """Columns of the tokens that a reach over whole prompts means."""
        return [column for column in range(self.start, self.stop) if reach.holds(max(0, column - self.width + 1))]


def stitched(steps: list[Tensor], site: str, width: int) -> Tensor:
    """[row pos …] of all steps; for attention [row head query_pos key_pos], where later keys have no weight."""
    if site not in ATTENTION:
        return torch.cat(steps, 1)
    total = width + len(steps) - 1
    unseen = 0.0 if site == "pattern" else torch.finfo(steps[0].dtype).min
    rows = []
    for step, value in enumerate(steps):
        n = width + step
        wide = value.new_full((*value.shape[:3], total), unseen)
        wide[..., n - value.shape[-1]:n] = value  # a sliding window's cache has dropped the first keys
        rows.append(wide)
    return torch.cat(rows, 2)


def select(store: Store, spot: Spot, whole: Tensor, reach: Reach, rows: list[Sequence]) -> Tensor:
    """The tokens that a reach means, rows of different lengths aligned at their ends with NaN before."""
    if reach.at is not None:
        found = [[s.start + p for p in reach.at[row % len(reach.at)]] for row, s in enumerate(rows)]
    else:
        found = [s.columns(reach) for s in rows]
    attention = spot.site in ATTENTION
    turned = _aligned_keys(whole, rows).transpose(1, 2) if attention else whole
    longest = max(len(cols) for cols in found)
    out = turned.new_full((len(rows), longest, *turned.shape[2:]), float("nan"))
    for row, cols in enumerate(found):
        out[row, longest - len(cols):] = turned[row, cols]
    out = part(spot, out, store)
    return out.transpose(1, 2) if attention else out


def _aligned_keys(whole: Tensor, rows: list[Sequence]) -> Tensor:
    """Attention with the keys of each row aligned at its end, as its queries will be."""
    longest = max(s.stop - s.start for s in rows)
    out = whole.new_full((*whole.shape[:-1], longest), float("nan"))
    for row, s in enumerate(rows):
        out[row, ..., longest - (s.stop - s.start):] = whole[row, ..., s.start:s.stop]
    return out


def level(values: list[Tensor]) -> list[Tensor]:
    """Cells of different lengths brought to one, with NaN before the shorter ones."""
    if len({value.shape for value in values}) <= 1:
        return values
    sizes = [max(value.shape[axis] for value in values) for axis in range(values[0].ndim)]
    out = []
    for value in values:
        wide = value.new_full(sizes, float("nan"))
        wide[tuple(slice(size - n, size) for size, n in zip(sizes, value.shape, strict=True))] = value
        out.append(wide)
    return out
