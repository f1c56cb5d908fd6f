"""Reaches: which tokens of which examples a line means, in the prompt and in what is written on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Spread = tuple[tuple[int, ...], ...]
"""Per example, unpadded positions."""


@dataclass(frozen=True)
class Reach:
    """Which tokens: positions of each example, and whether the prompt and the tokens written on are meant.

    Attributes:
        at: Positions of each example of the prompt; None for all of them.
        prompt: Whether the pass over the prompt is meant.
        new: Whether every later step is meant.
        steps: A function of the step (0 is the prompt), or step numbers, that decides instead; None for neither.
    """

    at: Spread | None = None
    prompt: bool = True
    new: bool = False
    steps: Any = None

    def holds(self, step: int) -> bool:
        """Whether a step of a generation is meant."""
        if not (self.new if step else self.prompt):
            return False
        return self.steps is None or bool(self.steps(step) if callable(self.steps) else step in self.steps)
