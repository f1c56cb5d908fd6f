"""What heads write to the stream and read from it, and which of them do the same: `write_heads`, `read_heads`,
`head_redundancy` and `merged_heads`.

In: a model, and prompts where data is needed. Out: Scores [layer head] of true lengths, not of weights that stand in them;
merging is a temporary edit that leaves the weights alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..address import check_index
from ..model.opened import needs_opened
from ..model.writes import heads_written
from ..positions import resolve
from ..records import Scores
from .asking import whole
from .stream import vector_of
from .watching import AttentionError, Seen, averaged, check, read, tokens_of, watch

if TYPE_CHECKING:
    from ..model.model import Model

READS = ("q", "k", "v")


# What heads write -------------------------------------------------------------------------------------------------------


def write_heads(model: Model, prompts: Any = None, positions: Any = "all", *, seed: int = 0, **inputs: Any) -> Scores:
    """How much each head writes: the mean length, over tokens, of what z W_O adds to the stream.

    A norm behind attention (Gemma 2, OLMo 2) is passed, its divisor as all heads together make it; the bias of W_O is no
    head's. Without prompts it is the norm of the weights, ‖W_V W_O‖, which no norm has changed.

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them; None for the weights alone.
        positions: Those whose mean is taken.
        seed: Of intervals.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [layer head]; `top` ranks them, `heads_for_share` takes those that make up most of the total.

    Raises:
        SiteError: the model has no W_O that heads could be told apart in.
        PositionError, TokenError: an example has no such position.

    Example:
        >>> import hooklab as hl
        >>> scores = write_heads(hl.load("lab"), "When Mary and John went to the store")
        >>> len(heads_for_share(scores, 0.5)) < scores.values.size / 2
        True
    """
    needs_opened(model)
    facts = model.facts
    if prompts is None:
        norms = [model.W.OV(layer).norm().double().cpu().numpy() for layer in range(facts.n_layers)]
        return Scores(np.stack(norms), ("layer", "head"), {}, "Frobenius norm", "write strength", note="of W_V W_O")
    prompt = read(model, prompts, **inputs)
    rows = resolve(positions, tokens_of(prompt))
    found = np.full((prompt.size, facts.n_layers, facts.n_heads), np.nan)

    def visit(seen: Seen) -> None:
        out = model.W.O[seen.layer].double()
        for example in seen.examples:
            z = seen.of("z", example)[rows[example]]
            found[example, seen.layer] = _length(heads_written(model, seen.layer, head_writes(z, out)))

    watch(model, prompt, ("z",), visit)
    return averaged(found, ("layer", "head"), {}, seed, unit="length", name="write strength", note="mean length of z W_O")


def heads_for_share(scores: Scores, share: float = 0.8) -> list[tuple[int, int]]:
    """The fewest heads that together make up a share of the scores' total, strongest first; none where all are 0.

    >>> scores = Scores(np.array([[6.0, 1.0], [2.5, 0.5]]), ("layer", "head"))
    >>> heads_for_share(scores, 0.8), heads_for_share(scores, 0.0)
    ([(0, 0), (1, 0)], [])

    Raises:
        AttentionError: these are no scores [layer head], one is negative or not a number, or the share is not from 0 to 1.
    """
    if not isinstance(scores, Scores) or scores.axes != ("layer", "head") or not bool((scores.values >= 0).all()):
        raise AttentionError(f"a share is one of scores [layer head] that are numbers from 0 on, not of {scores!r}")
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise AttentionError(f"share={share!r}: it is a number from 0 to 1")
    order = np.argsort(-scores.values, axis=None, kind="stable")
    summed = np.cumsum(scores.values.flat[order])
    enough = int(np.searchsorted(summed, share * summed[-1] * (1 - 1e-12)) + 1) if share * summed[-1] else 0
    places = [np.unravel_index(cell, scores.shape) for cell in order[:enough]]
    return [(scores.coords["layer"][i], scores.coords["head"][j]) for i, j in places]


# What heads read --------------------------------------------------------------------------------------------------------


def read_heads(model: Model, direction: Any, by: str = "q", *, draws: int = 200, seed: int = 0) -> Scores:
    """How strongly each head reads a direction of the stream, as a multiple of how it reads a random one.

    It is ‖W_Qᵀ v‖ (or W_K, W_V), with the gain of the norm before attention in the weights and, under LayerNorm, without
    the mean, which no head sees. Random directions are normally distributed and go the same way.

    Args:
        model: An opened model.
        direction: A vector [d_model], or the number of one dimension.
        by: `"q"`, `"k"` or `"v"`.
        draws: How many random directions.
        seed: Of these.

    Returns:
        Scores [layer head]: 1 is the mean of random directions. The interval is the same multiple against those of them that
        are read most and least (2.5 % on either side), so where it is above 1, few are read as well. `.p` is the share of
        directions, the given one among them, that are read at least as strongly.

    Raises:
        AttentionError: the direction has another shape or is zero, or there are no draws.
        LayerError: there is no such dimension.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> scores = read_heads(model, model.W.U[:, 17] - model.W.U[:, 18], "q")
        >>> scores.shape == (model.facts.n_layers, model.facts.n_heads)
        True
    """
    check("way to read", by, READS)
    whole("draws", draws, 20, error=AttentionError)
    wanted = _direction(model, direction)
    others = torch.randn((draws, model.facts.d_model), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors = torch.cat([wanted[None], others])
    vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    found = []
    folded = model.W.folded(centre=True)
    for layer in range(model.facts.n_layers):
        weight = folded.Q[layer] if by == "q" else getattr(folded, by.upper()).for_head(layer)
        found.append(torch.einsum("nm,hmd->nhd", vectors.to(weight.device), weight.double()).norm(dim=-1).cpu())
    lengths = torch.stack(found, 1).numpy()  # [draw layer head]
    one, random = lengths[0], lengths[1:]
    weak, strong = np.quantile(random, [0.025, 0.975], axis=0)
    values, low, high = (_multiple(one, of) for of in (random.mean(0), strong, weak))
    p = (1 + (random >= one).sum(0)) / (draws + 1)
    return Scores(values, ("layer", "head"), {}, "× random", f"reading by {by}", low=low, high=high, p=p,
                  note=f"against {draws} random directions, seed {seed}; p-values are of being read as strongly as these")


def head_writes(z: Tensor, out: Tensor) -> Tensor:
    """What each head gives [pos head d_model], from z [pos head d_head] and W_O [head d_head d_model]."""
    return torch.einsum("phd,hdm->phm", z, out.to(z.device))


def _length(writes: Tensor) -> np.ndarray:
    """The mean over tokens of the lengths of writes [pos head d_model], [head]."""
    return writes.detach().norm(dim=-1).mean(0).cpu().numpy()


def _direction(model: Model, given: Any) -> Tensor:
    """A vector [d_model] that is not zero, or LayerError, AttentionError."""
    width = model.facts.d_model
    if isinstance(given, int) and not isinstance(given, bool):
        return torch.eye(width, dtype=torch.float64)[check_index(given, width, "dimension")]
    return torch.from_numpy(vector_of(given, width, error=AttentionError))


def _multiple(one: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.divide(one, of, out=np.full(one.shape, np.nan), where=of > 0)
