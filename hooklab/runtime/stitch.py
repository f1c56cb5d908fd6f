"""Activations of the steps of a generation, put together to one sequence axis.

Positions stay absolute: the columns of the prompt are those of its padded batch, and each new token has the next one. In
attention a later step has one query and all keys so far; earlier queries get zeros for the keys that they did not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.plan import Reach, Spot
from .evaluate import part
from .store import Store


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

    def columns(self, reach: Reach) -> list[int]:
        """Columns of the tokens that a reach means; the last new token was never read, so it has none."""
        start = self.width - len(self.prompt)
        given = [start + p for p in (range(len(self.prompt)) if reach.at is None else ())]
        new = list(range(self.width, self.width + len(self.new) - 1))
        return [*(given if reach.prompt else []), *(new if reach.new else [])]


def stitched(steps: list[Tensor], *, attention: bool, width: int) -> Tensor:
    """[row pos …] of all steps; for attention [row head query_pos key_pos]."""
    if not attention:
        return torch.cat(steps, 1)
    total = width + len(steps) - 1
    rows = []
    for step, value in enumerate(steps):
        n = width + step
        wide = value.new_zeros((*value.shape[:3], total))
        wide[..., n - value.shape[-1]:n] = value  # a sliding window's cache has dropped the first keys
        rows.append(wide)
    return torch.cat(rows, 2)


def select(store: Store, spot: Spot, whole: Tensor, reach: Reach, rows: list[Sequence]) -> Tensor:
    """The tokens that a reach means, rows of different lengths aligned at their ends with NaN before."""
    found = []
    for row, sequence in enumerate(rows):
        if reach.at is not None:
            at = reach.at[row % len(reach.at)]
            found.append([sequence.width - len(sequence.prompt) + p for p in at])
        else:
            found.append(sequence.columns(reach))
    attention = spot.site in ("scores", "pattern")
    turned = whole.transpose(1, 2) if attention else whole
    longest = max(len(cols) for cols in found)
    out = turned.new_full((len(rows), longest, *turned.shape[2:]), float("nan"))
    for row, cols in enumerate(found):
        out[row, longest - len(cols):] = turned[row, cols]
    out = part(spot, out, store)
    return out.transpose(1, 2) if attention else out
