"""`predictions`: what a model expected at every position of a prompt, and how the token that came compares.

    prompt ──one pass, up to the final norm──▶ stream ──some rows at a time──▶ logits ──▶ `Readout`: top, entropy, rank

The logits of a whole prompt are never held at once: a long prompt times a large vocabulary is gigabytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HooklabError
from ..model.opened import needs_opened
from ..model.unembedding import check_head
from ..records import Scores
from ..spec.printer import quote
from ..tokens import Tokens

if TYPE_CHECKING:
    from ..model.model import Model

TOP = 10
ROOM = 1 << 22
"""Logits that are held at once on a CPU; four times as many on an accelerator."""


class PredictionError(HooklabError):
    """A model that predicts no next token, or a reading that takes too long."""


@dataclass(frozen=True)
class Readout:
    """What rows of the stream say about a next token.

    Attributes:
        ids: The likeliest tokens, [row rank]; of equal ones the lower id first.
        probs: Their probabilities, [row rank].
        entropy: Of each row's distribution, in nats, [row].
        log_prob: Of the token asked for, [row]; nan where none was.
        rank: How many tokens are likelier than it, [row]; -1 where none was asked for.
    """

    ids: np.ndarray
    probs: np.ndarray
    entropy: np.ndarray
    log_prob: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """What was expected at every position, one entry per example, without padding.

    Attributes:
        tokens: The prompts.
        log_prob: Log-probability of each token given those before it, [pos], in nats; nan for the first.
        rank: How many tokens were likelier than it, [pos]; -1 for the first.
        entropy: Of the prediction made at each position, about the next token, [pos], in nats.
        ids: The likeliest next tokens at each position, [pos rank].
        probs: Their probabilities, [pos rank].
        pieces: The text of each of them by id.
        spec: The prompts as spec text; empty where they cannot be written so.
    """

    tokens: Tokens
    log_prob: tuple[np.ndarray, ...]
    rank: tuple[np.ndarray, ...]
    entropy: tuple[np.ndarray, ...]
    ids: tuple[np.ndarray, ...]
    probs: tuple[np.ndarray, ...]
    pieces: Mapping[int, str]
    spec: str = ""

    def scores(self, example: int = 0) -> Scores:
        """Log-probabilities of one example as Scores [pos]."""
        labels = tuple(f"{i}: {piece}" for i, piece in enumerate(self.tokens.pieces[example]))
        return Scores(self.log_prob[example], ("pos",), {"pos": labels}, "nats", "log_prob", self.spec)


def predictions(model: Model, prompt: Any, k: int = TOP) -> Predictions:
    """Log-probability and rank of every token given those before it, and the likeliest next tokens at every position.

    Args:
        model: A model that predicts the next token.
        prompt: Anything that `model.trace` takes: a text, several, ids.
        k: How many of the likeliest to keep.

    Raises:
        PredictionError: the model looks both ways, or has no head.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> found = predictions(model, "When Mary and John went to the store", k=3)
        >>> found.ids[0].shape, bool(np.isnan(found.log_prob[0][0]))
        ((9, 3), True)
    """
    check(model, k)
    site = "ln_final" if model.sites.missing("ln_final") is None else f"L{model.facts.n_layers - 1}.resid_post"
    with model.interleaver.lock:
        acts = model.capture(prompt, site)
        tokens = acts.tokens
        if tokens is None:
            raise PredictionError("embeddings have no tokens to compare predictions with: give text or ids")
        found = []
        for i, ids in enumerate(tokens.ids):
            start = tokens.column(i, 0)
            rows = acts[site][i, start:start + len(ids)]
            found.append(readout(model, rows, [*ids[1:], -1], k, normed=site == "ln_final"))
    chosen = {int(one) for each in found for one in np.unique(each.ids)}
    shift = [np.concatenate([[np.nan], each.log_prob[:-1]]) for each in found]
    ranks = [np.concatenate([[-1], each.rank[:-1]]).astype(np.int32) for each in found]
    return Predictions(tokens, tuple(shift), tuple(ranks), tuple(one.entropy for one in found),
                       tuple(one.ids for one in found), tuple(one.probs for one in found), pieces(model, chosen),
                       _spec(prompt))


def check(model: Model, k: int) -> None:
    """Refuse models without next-token predictions. Raises PredictionError."""
    needs_opened(model)
    if (reason := model.sites.missing("logits")) is not None:
        raise PredictionError(f"predictions are read from logits: {reason}")
    if not model.facts.causal:
        raise PredictionError(f"{model.facts.family} looks both ways, so it predicts no next token")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise PredictionError(f"the number of likeliest tokens is 1 or more, not {k!r}")


def readout(model: Model, stream: Tensor, targets: Sequence[int] | Tensor, k: int, *, normed: bool = False,
            until: float | None = None) -> Readout:
    """Read rows of the stream [row d_model] as predictions, some rows at a time.

    Args:
        model: An opened model; its lock is taken.
        stream: Rows, before the final norm unless `normed`.
        targets: The token to compare each row with; -1 for none.
        k: How many of the likeliest to keep.
        normed: The rows have been through the final norm.
        until: A time of `time.monotonic`, after which it is given up.

    Raises:
        PredictionError: it took too long.
    """
    with model.interleaver.lock, torch.no_grad():
        asked = torch.as_tensor(targets, dtype=torch.int64)
        step = max(1, ROOM * (1 if model.device.type == "cpu" else 4) // model.facts.d_vocab)
        parts = []
        for at in range(0, len(stream), step):
            if until is not None and time.monotonic() > until:
                raise PredictionError(f"reading {len(stream):,} places takes too long: the time was up after {at:,}. "
                                      "Choose fewer layers or positions.")
            rows = stream[at:at + step].to(model.device)
            logits = model.layout.unembed(rows if normed else final_norm(model, rows)).float()
            parts.append(_measured(logits, asked[at:at + step].to(logits.device), k))
    if not parts:
        none = np.zeros(0, np.float32)
        return Readout(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32), none, none, none.astype(np.int32))
    return Readout(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def final_norm(model: Model, rows: Tensor) -> Tensor:
    """Rows of the stream as the unembedding reads them. Raises SiteError where it reads them otherwise."""
    check_head(model)
    path = model.layout.family.ln_final
    return rows if not path else model.layout.module(model.layout.base, path)(rows)


def pieces(model: Model, ids: Iterable[int]) -> dict[int, str]:
    """The text of each token by itself; half a character shows as its bytes."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    texts = Tokens.from_ids([[one] for one in wanted], model.tokenizer).pieces
    return {one: text[0] for one, text in zip(wanted, texts, strict=True)}


def _measured(logits: Tensor, targets: Tensor, k: int) -> tuple[np.ndarray, ...]:
    """(ids, probs, entropy, log_prob, rank) of logits [row d_vocab]."""
    logs = logits.log_softmax(-1)
    probs = logs.exp()
    entropy = -torch.where(probs > 0, probs * logs, probs).sum(-1)
    # Equal logits (a model at its start, low precision) come in the order of ids, whatever the device's sort does.
    most = min(k, logits.shape[-1])
    best = probs.topk(most, dim=-1)
    order = torch.argsort(best.indices, dim=-1)
    values, ids = best.values.gather(1, order), best.indices.gather(1, order)
    order = torch.argsort(values, dim=-1, descending=True, stable=True)
    values, ids = values.gather(1, order), ids.gather(1, order)
    known = targets >= 0
    at = targets.clamp(min=0)[:, None]
    own = logits.gather(1, at)
    places = torch.arange(logits.shape[1], device=logits.device)
    rank = (logits > own).sum(-1) + ((logits == own) & (places < at)).sum(-1)
    log_prob = logs.gather(1, at)[:, 0]
    return (ids.to(torch.int32).cpu().numpy(), values.cpu().numpy(), entropy.cpu().numpy(),
            torch.where(known, log_prob, torch.nan).cpu().numpy(),
            torch.where(known, rank, -1).to(torch.int32).cpu().numpy())


def _spec(prompt: Any) -> str:
    if isinstance(prompt, str):
        return f"prompt {quote(prompt)}"
    if isinstance(prompt, (list, tuple)) and prompt and all(isinstance(one, str) for one in prompt):
        return f"prompt [{', '.join(map(quote, prompt))}]"
    return ""
