"""Logits to numbers: every metric takes logits [example pos d_vocab] and gives one number for each example.

Several positions are averaged. Numbers are computed in float32 at least; gradients flow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class AtLast:
    """A function of the logits at the last position, [example d_vocab], as a metric of a spec: `metric m = {AtLast(f)}`.

    Any other function is given the whole output; saying that the last position is enough keeps sweeps packed.

    >>> AtLast(lambda logits: logits[:, 3] - logits[:, 4]).at_last
    True
    """

    of: Callable[[Tensor], Any]
    at_last = True

    def __call__(self, out: Any) -> Any:
        """The function of the last logits of a model's output."""
        return self.of(out.logits[:, -1])


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _picked(values: Tensor, ids: Tensor) -> Tensor:
    """values [example pos d_vocab] at one token of each example: [example pos]."""
    index = ids.to(values.device)[:, None, None].expand(-1, values.shape[1], 1)
    return values.gather(-1, index)[..., 0]


def logit(logits: Tensor, target: Tensor) -> Tensor:
    """The answer's logit, [example]."""
    return _picked(_wide(logits), target).mean(-1)


def logit_diff(logits: Tensor, target: Tensor, other: Tensor) -> Tensor:
    """The right answer's logit less the wrong one's, [example].

    >>> logit_diff(torch.tensor([[[1.0, 3.0]]]), torch.tensor([1]), torch.tensor([0])).tolist()
    [2.0]
    """
    wide = _wide(logits)
    return (_picked(wide, target) - _picked(wide, other)).mean(-1)


def logit_centred(logits: Tensor, target: Tensor) -> Tensor:
    """The answer's logit less the mean over the vocabulary, [example]: what a shift of all logits leaves as it is.

    >>> logit_centred(torch.tensor([[[1.0, 3.0]]]), torch.tensor([1])).tolist()
    [1.0]
    """
    wide = _wide(logits)
    return (_picked(wide, target) - wide.mean(-1)).mean(-1)


def prob(logits: Tensor, target: Tensor) -> Tensor:
    """The answer's probability, [example]."""
    return _picked(_wide(logits).softmax(-1), target).mean(-1)


def logprob(logits: Tensor, target: Tensor) -> Tensor:
    """The answer's log-probability in nats, [example]."""
    return _picked(_wide(logits).log_softmax(-1), target).mean(-1)


def kl(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference ‖ this) of the next-token distributions in nats, [example]."""
    log_p, log_q = _wide(reference).log_softmax(-1), _wide(logits).log_softmax(-1)
    # A token that the reference rules out altogether counts nothing, and would be 0 · ∞.
    terms = torch.where(log_p.isneginf(), torch.zeros_like(log_p), log_p.exp() * (log_p - log_q))
    return terms.sum(-1).mean(-1)


def rank(logits: Tensor, target: Tensor) -> Tensor:
    """How many tokens are likelier than the answer: 0 when it comes first, [example]."""
    wide = _wide(logits)
    return (wide > _picked(wide, target)[..., None]).sum(-1).to(wide.dtype).mean(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the next-token distribution in nats, [example]."""
    log_p = _wide(logits).log_softmax(-1)
    terms = torch.where(log_p.isneginf(), torch.zeros_like(log_p), log_p.exp() * log_p)
    return -terms.sum(-1).mean(-1)


def top(logits: Tensor) -> Tensor:
    """Probability of the likeliest token, [example]."""
    return _wide(logits).softmax(-1).amax(-1).mean(-1)


def loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy in nats of each token given those before it, averaged: logits and ids of all positions, [example]."""
    log_p = _wide(logits)[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, ids[:, 1:, None].to(log_p.device))[..., 0].mean(-1)


ANSWERED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"logit": logit, "logit_centred": logit_centred, "prob": prob,
                                                           "logprob": logprob, "rank": rank}
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {"entropy": entropy, "top": top}
