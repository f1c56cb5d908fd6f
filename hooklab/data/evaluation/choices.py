"""How likely a model finds the choices of a question: log-probabilities of their tokens, as metrics of a spec.

    Asked, Asked … ──▶ rows of tokens and functions of logits ──model.run──▶ a number per row ──▶ one per choice

Where every choice is one token, a question is one row, read at its last position. Otherwise a choice is a row, and the
log-probabilities of its tokens are added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import RecordError
from ...metrics import AtLast
from .prompts import Asked

NORMALISE = (None, "tokens", "characters")


@dataclass(frozen=True)
class Picked:
    """The log-probability of one token of each example, from logits [example d_vocab]."""

    ids: tuple[int, ...]

    def __call__(self, logits: Tensor) -> Tensor:
        """[example]; zeros for the prompt of another line, which has other examples."""
        if len(logits) != len(self.ids):
            return logits.new_zeros(len(logits))
        index = torch.tensor(self.ids, device=logits.device)[:, None]
        return logits.float().log_softmax(-1).gather(-1, index)[:, 0]


@dataclass(frozen=True)
class Summed:
    """The log-probability of the tokens `targets[row]`, the first of which follows on position `starts[row] - 1`."""

    starts: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]

    def __call__(self, out: Any) -> Tensor:
        """[example], from the whole logits [example pos d_vocab] of a batch padded on either side."""
        if len(out.logits) != len(self.starts):
            return torch.zeros(len(out.logits))
        found = []
        for row, (start, ids) in enumerate(zip(self.starts, self.targets, strict=True)):
            first = out.tokens.column(row, start - 1)
            logs = out.logits[row, first:first + len(ids)].float().log_softmax(-1)
            found.append(logs.gather(-1, torch.tensor(ids, device=logs.device)[:, None]).double().sum().cpu())
        return torch.stack(found)


@dataclass(frozen=True)
class Measured:
    """What a batch runs.

    Attributes:
        rows: Tokens of each row.
        given: How many of them are the prompt's.
        metrics: Name -> function.
        first: The row of each question's first choice.
        asked: The question of each row.
    """

    rows: tuple[tuple[int, ...], ...]
    given: tuple[int, ...]
    metrics: Mapping[str, Any]
    first: tuple[int, ...]
    asked: tuple[Asked, ...]


def measured(some: Sequence[Asked]) -> Measured:
    """Rows and metrics for questions whose choices are all single tokens, or none of which are."""
    if all(one.single for one in some):
        most = max(len(one.choices) for one in some)
        ids = [[choice[0] for choice in one.choices] + [0] * (most - len(one.choices)) for one in some]
        metrics: dict[str, Any] = {f"choice_{n}": AtLast(Picked(tuple(row[n] for row in ids))) for n in range(most)}
        rows = tuple(one.ids for one in some)
        return Measured(rows, tuple(map(len, rows)), metrics, tuple(range(len(some))), tuple(some))
    each = [(one, choice) for one in some for choice in one.choices]
    starts = tuple(len(one.ids) for one, _ in each)
    summed = Summed(starts, tuple(choice for _, choice in each))
    first = np.cumsum([0, *(len(one.choices) for one in some)])[:-1]
    return Measured(tuple((*one.ids, *choice[:-1]) for one, choice in each), starts, {"choice": summed},
                    tuple(first.tolist()), tuple(one for one, _ in each))


def log_probs(some: Sequence[Asked], numbers: Mapping[str, np.ndarray], normalise: str | None = None) -> list[np.ndarray]:
    """For each question the log-probability of each choice in nats, perhaps per token or per character.

    Args:
        some: What `measured` was given.
        numbers: Metric -> a number per row.
        normalise: `"tokens"`, `"characters"`, or None for the sum.
    """
    if "choice" in numbers:
        ends = np.cumsum([len(one.choices) for one in some])
        found = np.split(np.asarray(numbers["choice"], np.float64), ends[:-1])
    else:
        found = [np.array([numbers[f"choice_{n}"][i] for n in range(len(one.choices))], np.float64)
                 for i, one in enumerate(some)]
    for i, (one, logs) in enumerate(zip(some, found, strict=True)):
        if np.isnan(logs).any():
            raise RecordError(f"question {one.question.id!r}: the probability of a choice is not a number")
        if normalise is not None:
            sizes = [len(ids) if normalise == "tokens" else len(text)
                     for ids, text in zip(one.choices, one.written, strict=True)]
            found[i] = logs / np.array(sizes)
    return found


def chosen(logs: np.ndarray) -> int | None:
    """The likeliest choice; None where two are equally likely: the order of choices decides nothing."""
    best = np.flatnonzero(logs == logs.max())
    return int(best[0]) if len(best) == 1 else None
