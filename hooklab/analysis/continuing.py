"""What a generation chose among: at every step the likeliest tokens, and the rank of the one taken.

    plan ──prompt, then one token a step, under the edits──▶ logits of the step ──▶ Choice ──▶ whoever listens
    run with saved logits ──▶ the same, without a model

The logits are those of the generation itself. One pass over the finished text would give the same numbers only where
every edit does the same to a token whenever it is read: not for `steps=`, for noise (drawn anew at each step), for edits
of keys that a cache holds, or for a value that is taken from the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import RecordError
from ..records import Run
from ..runtime.execute import execute
from ..runtime.watching import Step

if TYPE_CHECKING:
    from ..compiler import Plan
    from ..model.model import Model

TOP = 10


@dataclass(frozen=True)
class Choice:
    """One step: what was taken, and what could have been. Probabilities are the model's own, before any temperature.

    Attributes:
        id: The token taken.
        chance: Its probability.
        rank: Its place in the order of logits; 0 is first.
        entropy: Of the distribution, in nats.
        likeliest: Ids and probabilities of the first tokens, the likeliest first.
    """

    id: int
    chance: float
    rank: int
    entropy: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass
class Continuation:
    """One row of a generation as it grows: `choices` has an entry per step.

    Attributes:
        run: The run that writes.
        cell: The values of its sweep axes.
        row: Which row: sample after sample, example after example.
        prompt: Ids given.
    """

    run: str
    cell: Mapping[str, Any]
    row: int
    prompt: tuple[int, ...]
    choices: list[Choice] = field(default_factory=list)


Heard = Callable[[list[Continuation]], bool | None]
"""Called after every step with the rows that are being written; True ends the generation."""


def choices(logits: Tensor, ids: Sequence[int], top: int = TOP) -> list[Choice]:
    """What was chosen among, for logits [step d_vocab] and the id taken at each step.

    >>> [one] = choices(torch.tensor([[0.0, 2.0, 1.0]]), [2])
    >>> one.rank, [i for i, _ in one.likeliest]
    (1, [1, 2, 0])
    """
    logits = logits.detach().double()
    taken = torch.tensor(list(ids), device=logits.device)[:, None]
    logs = logits.log_softmax(-1)
    chances = logs.exp()
    own = logits.gather(1, taken)
    ranks = (logits > own).sum(-1) + ((logits == own) & (torch.arange(logits.shape[1], device=own.device) < taken)).sum(-1)
    entropy = -torch.where(chances > 0, chances * logs, chances).sum(-1)
    values, places = chances.topk(min(top, chances.shape[-1]), dim=-1)
    return [Choice(int(i), chance, rank, bits, tuple(zip(at, most, strict=True))) for i, chance, rank, bits, at, most in
            zip(ids, chances.gather(1, taken)[:, 0].tolist(), ranks.tolist(), entropy.tolist(), places.tolist(),
                values.tolist(), strict=True)]


# From a model --------------------------------------------------------------------------------------------------------


def written(model: Model, plan: Plan, *, top: int = TOP, heard: Heard | None = None) -> tuple[Run, list[Continuation]]:
    """Run a plan, and listen to its generations step by step.

    Args:
        model: The model that it was compiled for.
        plan: What to do.
        top: How many of the likeliest tokens each step keeps.
        heard: Told after every step; may end the generation.

    Returns:
        The run, as `model.run` gives it, and the continuations in the order of `run.texts`.

    Raises:
        SpecError: for what only shows while running, and for claims that do not hold.
        Stopped: it was interrupted.
    """
    found: dict[tuple[str, int], list[Continuation]] = {}

    def stepped(step: Step) -> bool | None:
        rows = found.setdefault((step.run, step.number), [Continuation(step.run, step.cell, row, prompt)
                                                          for row, prompt in enumerate(step.prompts)])
        for row, choice in zip(step.rows, choices(step.logits, step.ids, top), strict=True):
            rows[row].choices.append(choice)
        return heard(rows) if heard is not None else None

    run = execute(model, plan, on_step=stepped)
    return run, [row for rows in found.values() for row in rows]


# From a run ----------------------------------------------------------------------------------------------------------


def saved(run: Run, name: str, top: int = TOP) -> list[list[Choice]] | None:
    """What the continuations of a run chose among, from the logits that a `save logits` line kept; None without them.

    Raises:
        RecordError: the run wrote nothing.
    """
    texts = run.texts.get(name)
    if not texts:
        raise RecordError(f"{name} wrote nothing: it has no `generate` line")
    logits, tokens = run.data.get(f"{name}.logits"), run.tokens_of.get(name)
    if logits is None or tokens is None:
        return None
    axes = run.axes[f"{name}.logits"]
    if axes[-3:] != ("batch", "pos", "d_vocab"):
        return None
    lengths = [tokens.n_prompt[row % len(tokens)] for row in range(len(texts))]  # one row per text, or per prompt
    flat = logits.reshape(-1, *logits.shape[-2:])
    longest = max(given + max(0, len(text.ids) - 1) for given, text in zip(lengths, texts, strict=True))
    if flat.shape[:2] != (len(texts), longest):
        return None  # only some of the positions were kept
    # Rows are aligned at their ends; the last new token was never read, and the last of the prompt chose the first one.
    return [choices(row[len(row) - len(text.ids):], text.ids, top) if text.ids else []
            for row, text in zip(flat, texts, strict=True)]
