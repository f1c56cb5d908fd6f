"""The best places of every feature over a stream of activations, with what stands around them: part of the dashboard."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Strongest:
    """The `most` places of each feature that score highest; of equal ones the earlier.

    Args:
        features: How many features.
        most: Places to keep of each.
        window: Activations kept on either side of a place.
    """

    def __init__(self, features: int, most: int, window: int) -> None:
        self.most, self.window = most, window
        self.score = torch.full((features, most), -torch.inf, dtype=torch.float64)
        self.text, self.pos = (torch.zeros(features, most, dtype=torch.int64) for _ in range(2))
        self.around = torch.full((features, most, 2 * window + 1), torch.nan)

    def offer(self, score: Tensor, values: Tensor, first: int) -> None:
        """Look at some more texts, that come after all that were looked at.

        Args:
            score: What is ranked, -inf for what does not count, [batch pos feature].
            values: The activations, [batch pos feature].
            first: The number of the first of the texts.
        """
        flat = score.flatten(0, 1).T.double()
        index = _best(flat, min(self.most, flat.shape[1]))  # [feature rank], in order
        row, pos = index // values.shape[1], index % values.shape[1]
        joined = torch.cat([self.score, flat.gather(1, index)], 1)
        order = joined.argsort(dim=1, descending=True, stable=True)[:, :self.most]
        self.score = joined.gather(1, order)
        self.text = torch.cat([self.text, row + first], 1).gather(1, order)
        self.pos = torch.cat([self.pos, pos], 1).gather(1, order)
        around = torch.cat([self.around, self._windows(values, row, pos)], 1)
        self.around = around.gather(1, order[..., None].expand(-1, -1, around.shape[2]))

    def _windows(self, values: Tensor, row: Tensor, pos: Tensor) -> Tensor:
        """Activations around places, nan outside of the text, [feature rank window]."""
        offsets = torch.arange(-self.window, self.window + 1)
        at = pos[..., None] + offsets
        feature = torch.arange(values.shape[2])[:, None, None].expand_as(at)
        found = values[row[..., None].expand_as(at), at.clamp(0, values.shape[1] - 1), feature]
        return found.masked_fill((at < 0) | (at >= values.shape[1]), torch.nan)

    def size(self, feature: int) -> int:
        """How many places a feature has."""
        return int(self.score[feature].isfinite().sum())

    def entry(self, feature: int, rank: int) -> tuple[int, int, float, np.ndarray]:
        """(text, pos, activation, activations around it [2 window + 1])."""
        around = self.around[feature, rank].numpy()
        return int(self.text[feature, rank]), int(self.pos[feature, rank]), float(around[self.window]), around


def _best(score: Tensor, most: int) -> Tensor:
    """Indices of the largest of each row [feature most], in order of place; of equal ones the first are taken."""
    last = score.topk(most).values[:, -1:]
    place = torch.arange(score.shape[1], dtype=torch.float64) / (score.shape[1] + 1)
    taken = torch.where(score > last, 2.0, torch.where(score == last, 1 - place, -1.0)).topk(most).indices
    return taken.sort(dim=1).values


def drawn(shape: torch.Size, first: int) -> Tensor:
    """A fixed number from 0 to 1 for every token, [batch pos], that looks random: the largest are drawn.

    It depends on the text's number and the position alone, not on how texts are batched.
    """
    rows = torch.arange(first, first + shape[0], dtype=torch.int64)[:, None]
    mixed = rows * 1_000_003 + torch.arange(shape[1], dtype=torch.int64)
    for factor, shift in ((0x9E3779B1, 16), (0x85EBCA77, 13)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & 0xFFFFFFFF
    mixed = mixed ^ (mixed >> 16)
    return mixed.double() / 2**32
