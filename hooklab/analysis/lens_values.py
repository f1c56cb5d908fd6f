"""What is read off logits at one place: the answer's number, or how the whole prediction compares with the model's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import metrics
from ..errors import HooklabError, did_you_mean
from .lens_table import token_id

if TYPE_CHECKING:
    from ..model.model import Model


class LensError(HooklabError):
    """A lens that cannot be read as asked."""


@dataclass(frozen=True)
class Value:
    """One number of a row of logits.

    Attributes:
        unit: What it is in.
        answers: How many tokens it needs: the right one, and the wrong one.
        whole: Whether it takes all logits, not those of its tokens alone.
        of: (logits [row 1 token], right [row], wrong [row], the model's own last logits [row 1 token]) -> [row].
    """

    unit: str
    answers: int
    whole: bool
    of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _agreement(logits: Tensor, last: Tensor) -> Tensor:
    """1 where both have the same likeliest token."""
    return (logits.argmax(-1) == last.argmax(-1)).double()[:, 0]


VALUES: dict[str, Value] = {
    "logit": Value("logits", 1, False, lambda x, right, wrong, last: metrics.logit(x, right)),
    "logit_diff": Value("logits", 2, False, lambda x, right, wrong, last: metrics.logit_diff(x, right, wrong)),
    "prob": Value("probability", 1, True, lambda x, right, wrong, last: metrics.prob(x, right)),
    "logprob": Value("nats", 1, True, lambda x, right, wrong, last: metrics.logprob(x, right)),
    "accuracy": Value("fraction", 1, True, lambda x, right, wrong, last: (metrics.rank(x, right) == 0).double()),
    "rank": Value("rank", 1, True, lambda x, right, wrong, last: metrics.rank(x, right)),
    "entropy": Value("nats", 0, True, lambda x, right, wrong, last: metrics.entropy(x)),
    "kl": Value("nats", 0, True, lambda x, right, wrong, last: metrics.kl(x, last)),
    "agreement": Value("fraction", 0, True, lambda x, right, wrong, last: _agreement(x, last)),
}
COMPARE = ("kl", "agreement")
"""Values that need the model's own last prediction."""


def chosen(value: str | None, answer: Any, wrong: Any, otherwise: str | None = None) -> str:
    """The value that is meant: by default what the answers suggest.

    Raises:
        LensError: there is no such value, or it lacks an answer.
    """
    if wrong is not None and answer is None:
        raise LensError("wrong= goes with answer=, the right next token.")
    if value is None:
        value = otherwise if answer is None else "logit" if wrong is None else "logit_diff"
    if value is None:
        raise LensError('say what to read: answer=" Mary", direction=, or a value that needs no answer, such as "kl".')
    if value not in VALUES:
        raise LensError(f"there is no value {value!r}.{did_you_mean(value, VALUES)} There are {', '.join(VALUES)}.")
    needs = VALUES[value].answers
    if needs > 0 and answer is None:
        raise LensError(f'{value} is of one token: give answer=" Mary", or an id.')
    if needs > 1 and wrong is None:
        raise LensError(f'{value} compares two tokens: give wrong=" John" too.')
    return value


def ids_of(model: Model, token: Any, examples: int) -> Tensor:
    """The id of a token for each example [example], from one for all or a list with one for each; 0 where none is given.

    Raises:
        PredictionError: a text that is not one token, or no such id.
        LensError: not one for each example.
    """
    token = token.tolist() if isinstance(token, (Tensor, np.ndarray)) else token
    if isinstance(token, str) or not isinstance(token, Sequence):
        return torch.full((examples,), token_id(model, token) or 0)
    each = [token_id(model, one) or 0 for one in token]
    if len(each) != examples:
        raise LensError(f"{len(each)} answers do not go with {examples} prompts: give one, or one for each.")
    return torch.tensor(each)


def measured(value: str, logits: Tensor, right: Tensor, wrong: Tensor, last: Tensor | None = None) -> Tensor:
    """A value of each row of logits [row d_vocab], [row] in double precision; `last` are the model's own."""
    own = logits if last is None else last
    ids = (right.to(logits.device), wrong.to(logits.device))
    return VALUES[value].of(logits[:, None], *ids, own[:, None].to(logits.device)).double()
