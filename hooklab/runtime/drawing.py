"""Tokens drawn row by row, each row from random numbers of its own: what one draws does not depend on those beside it.

In: the scores of a step [row d_vocab]. Out: scores in which the drawn token of each row is the only one left, so that the
likeliest token is the drawn one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import PromptError


class Draws:
    """What transformers asks at every step for the scores to choose from.

    A row draws what `torch.multinomial` draws for it alone after `torch.manual_seed(seed)`. Where its scores are no numbers
    there is nothing to draw from, and any token will do: whoever is told of the steps sees the logits.

    Args:
        seeds: One for each row.
        drawn: `temperature`, `top_k` and `top_p`, as transformers' `generate` takes them.
    """

    def __init__(self, seeds: Sequence[int], drawn: Mapping[str, Any]) -> None:
        self.seeds = tuple(seeds)
        self.changes = _changes(**drawn)
        self.made: list[torch.Generator] = []

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [row d_vocab] of the tokens that were drawn: 0, and minus infinity for all others."""
        if len(scores) != len(self.seeds):
            raise PromptError(f"there are {len(self.seeds)} seeds for {len(scores)} rows: give one for each")
        self.made = self.made or [torch.Generator(scores.device).manual_seed(seed) for seed in self.seeds]
        for change in self.changes:
            scores = change(ids, scores)
        chances = scores.softmax(-1)
        chances = chances.where(chances.isfinite().all(-1, keepdim=True), 1.0)
        taken = torch.cat([torch.multinomial(row[None], 1, generator=made)
                           for row, made in zip(chances, self.made, strict=True)])
        return torch.full_like(scores, -torch.inf).scatter(1, taken, 0.0)


class Sound:
    """Scores that can be chosen from: where those of a row are no numbers, every token becomes as likely as any other.

    Attributes:
        wrong: The first step at which that happened, counted from 0; None where it did not.
    """

    def __init__(self) -> None:
        self.wrong: int | None = None
        self._step = 0

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [row d_vocab]."""
        sound = scores.logsumexp(-1, keepdim=True).isfinite()
        if self.wrong is None and not bool(sound.all()):
            self.wrong = self._step
        self._step += 1
        return scores if self.wrong is None else scores.where(sound, 0.0)


def _changes(temperature: float, top_k: int, top_p: float) -> list[Any]:
    """What transformers does to the scores before it draws, in its order."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    found: list[Any] = [TemperatureLogitsWarper(temperature)] if temperature != 1.0 else []
    found += [TopKLogitsWarper(top_k)] if top_k else []
    return [*found, TopPLogitsWarper(top_p)] if top_p < 1.0 else found
