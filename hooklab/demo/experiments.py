"""What the demo does to a model: three small experiments, each a plain function of the public API.

Next tokens: what the model says. Patching: which place of the stream, restored from a clean run, brings the clean
answer back in a corrupted one. Induction: which heads look back to what followed the last time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import ModelError, PromptError
from ..tokens import Tokens

if TYPE_CHECKING:
    from ..model.model import Model

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
ANSWER, OTHER = " Mary", " John"


@dataclass(frozen=True)
class NextTokens:
    """The likeliest next tokens of a prompt."""

    prompt: str
    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]  # natural units, sum ≤ 1


@dataclass(frozen=True)
class Patching:
    """Denoising: effect of restoring resid_pre of one layer at one position, 0 = corrupted, 1 = clean."""

    clean: str
    corrupt: str
    answer: str
    other: str
    pieces: tuple[str, ...]
    clean_logit_diff: float
    corrupt_logit_diff: float
    effect: tuple[tuple[float, ...], ...]  # layer pos, fraction of the clean logit difference restored


@dataclass(frozen=True)
class Induction:
    """Scores of every head on a repeated random sequence, and the pattern of the strongest induction head."""

    induction: tuple[tuple[float, ...], ...]  # layer head, mean attention to the token after the last occurrence
    previous: tuple[tuple[float, ...], ...]  # layer head, mean attention to the token before
    best: tuple[int, int]
    pieces: tuple[str, ...]
    pattern: tuple[tuple[float, ...], ...]  # query_pos key_pos


def next_tokens(model: Model, prompt: str, k: int = 5) -> NextTokens:
    """The k likeliest next tokens.

    Raises:
        PromptError: the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise PromptError("The demo prints tokens, so it needs a model with a tokenizer.")
    best = model.capture(prompt, "logits", at="last")["logits"][0].float().softmax(-1).topk(k)
    pieces = tuple(Tokens.from_ids([[int(i)]], model.tokenizer).pieces[0][0] for i in best.indices)
    return NextTokens(prompt, pieces, tuple(best.values.tolist()))


def patching(model: Model, clean: str = CLEAN, corrupt: str = CORRUPT, answer: str = ANSWER,
             other: str = OTHER) -> Patching:
    """Restore the clean stream into the corrupted run, one layer and position at a time.

    All positions of a layer run as rows of one batch: row p restores position p.

    Raises:
        PromptError: the prompts differ in length.
        TokenError: an answer is not one token of the model.
        ModelError: the model says the same to both prompts.
    """
    tokens, corrupted = model.tokens(clean), model.tokens(corrupt)
    if tokens.lengths != corrupted.lengths:
        raise PromptError(f"Patching by position needs prompts of equal length, not {tokens.width} and "
                          f"{corrupted.width} tokens.")
    right, wrong = (model.single_token(text) for text in (answer, other))

    def logit_diff(logits: Tensor) -> Tensor:
        return logits[..., right] - logits[..., wrong]

    streams = model.capture(tokens, "L*.resid_pre", full=True)
    top = float(logit_diff(streams.output.logits[0, -1]))
    bottom = float(logit_diff(model.capture(corrupted, "logits", at="last")["logits"][0]))
    if abs(top - bottom) < 1e-6:
        raise ModelError("The model says the same to both prompts, so there is nothing to restore.")
    rows, n = [list(corrupted.ids[0])] * tokens.width, torch.arange(tokens.width)
    effect = []
    for layer in range(model.facts.n_layers):
        def restore(stream: Tensor, source: Tensor = streams[f"L{layer}.resid_pre"][0]) -> None:
            stream[n, n] = source

        logits = model.capture(rows, "logits", at="last", edits={f"L{layer}.resid_pre": restore})["logits"]
        effect.append(tuple(((logit_diff(logits) - bottom) / (top - bottom)).tolist()))
    return Patching(clean, corrupt, answer, other, tokens.pieces[0], top, bottom, tuple(effect))


def induction(model: Model, length: int = 12, seed: int = 0) -> Induction:
    """Score every head on a random sequence that is repeated once."""
    special = set(getattr(model.tokenizer, "all_special_ids", ()))
    usable = [i for i in range(model.facts.d_vocab) if i not in special]
    chosen = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed))[:length]
    bos = [i for i in [getattr(model.tokenizer, "bos_token_id", None)] if i is not None]
    ids = bos + [usable[i] for i in chosen.tolist()] * 2
    acts = model.capture([ids], "L*.pattern")
    queries = torch.arange(len(bos) + length, len(ids))
    again = [_mean_at(acts[f"L{i}.pattern"][0], queries, queries - length + 1) for i in range(model.facts.n_layers)]
    before = [_mean_at(acts[f"L{i}.pattern"][0], queries, queries - 1) for i in range(model.facts.n_layers)]
    scores = torch.tensor(again)
    best = divmod(int(scores.argmax()), model.facts.n_heads)
    pattern = acts[f"L{best[0]}.pattern"][0, best[1]]
    pieces = Tokens.from_ids([ids], model.tokenizer).pieces[0]
    return Induction(tuple(map(tuple, again)), tuple(map(tuple, before)), best, pieces,
                     tuple(map(tuple, pattern.tolist())))


def _mean_at(pattern: Tensor, queries: Tensor, keys: Tensor) -> list[float]:
    """Mean attention of each head [head query_pos key_pos] over pairs of positions."""
    return pattern[:, queries, keys].float().mean(-1).tolist()
