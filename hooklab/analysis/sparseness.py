"""Sparsity: how many neurons speak at once, and which never do; polysemanticity: how many things one neuron speaks of.

Activations come as [… neuron] in batches and are only counted, so any number of tokens will do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import RecordError
from ..model.model import Model
from ..records import Scores
from ..records.drawn import Drawn, Part


@dataclass(frozen=True, repr=False)
class Sparsity(Drawn):
    """How sparse activations are.

    Attributes:
        silent: The share of tokens for which each neuron is silent [neuron].
        active: How many neurons speak for a token, L0: the mean, and the share of tokens for each count in `counts`.
        counts: [count], the share of tokens for which so many neurons speak.
        hoyer: The mean over tokens of (√n - L1/L2) / (√n - 1) (Hoyer 2004): 1 where one neuron alone speaks, 0 where all
            speak equally; tokens without any activation are left out.
        lifetime: The same of each neuron over the tokens [neuron]: 1 where it speaks for one token alone, 0 where for all
            alike; NaN where it is always 0.
        dead: The neurons that never spoke.
        tokens: How many tokens were counted.
    """

    silent: Scores
    active: float
    counts: Scores
    hoyer: float
    lifetime: Scores
    dead: tuple[int, ...]
    tokens: int

    def pictures(self) -> dict[str, Part]:
        """The numbers, with how many are dead, and the shares of silence, of every count, and over the tokens."""
        return {"active": self.active, "hoyer": self.hoyer, "dead": len(self.dead), "tokens": self.tokens,
                "silent": self.silent, "counts": self.counts, "lifetime": self.lifetime}


def sparsity(batches: Iterable[Any] | Any, *, threshold: float = 0.0) -> Sparsity:
    """Count who speaks: a neuron is silent for a token where its magnitude is at most the threshold.

    Args:
        batches: Activations [… neuron], or several of them one after the other.
        threshold: 0 for ReLU; a little more for GELU and the like, which are never exactly silent.

    Raises:
        RecordError: there are no tokens, batches that do not fit together, a negative threshold, or what is not a number.

    >>> found = sparsity(np.array([[0.0, 2.0, 0.0], [0.0, 1.0, 1.0]]))
    >>> found.silent.values.tolist(), found.active, found.dead
    ([1.0, 0.0, 0.5], 1.5, (0,))
    """
    if not threshold >= 0:
        raise RecordError(f"a magnitude is never below 0, so the threshold cannot be {threshold}")
    single = hasattr(batches, "shape")
    spoken, per_count, hoyer, seen, tokens = None, None, 0.0, 0, 0
    sizes: list[Any] = [0.0, 0.0]
    for batch in [batches] if single else batches:
        rows = _rows(batch)
        if spoken is None or per_count is None:
            spoken, per_count = np.zeros(rows.shape[1], np.int64), np.zeros(rows.shape[1] + 1, np.int64)
        if rows.shape[1] != len(spoken):
            raise RecordError(f"a batch has {rows.shape[1]} neurons, those before had {len(spoken)}")
        speaks = np.abs(rows) > threshold
        spoken += speaks.sum(0)
        per_count += np.bincount(speaks.sum(1), minlength=len(per_count))
        tokens += len(rows)
        sizes = [sizes[0] + np.abs(rows).sum(0), sizes[1] + np.square(rows).sum(0)]
        lengths = np.linalg.norm(rows, axis=1)
        loud = lengths > 0
        root = np.sqrt(rows.shape[1])
        if rows.shape[1] > 1:
            hoyer += float(((root - np.abs(rows[loud]).sum(1) / lengths[loud]) / (root - 1)).sum())
        seen += int(loud.sum())
    if spoken is None or per_count is None or not tokens:
        raise RecordError("there are no activations to count")
    counts = Scores(per_count / tokens, ("active",), unit="fraction", name="tokens")
    silent = Scores(1 - spoken / tokens, ("neuron",), unit="fraction", name="silent")
    lifetime = Scores(_lifetime(tokens, *sizes), ("neuron",), unit="fraction", name="lifetime sparseness")
    return Sparsity(silent, float(spoken.sum() / tokens), counts, hoyer / seen if seen else float("nan"), lifetime,
                    tuple(np.flatnonzero(spoken == 0).tolist()), tokens)


def _lifetime(tokens: int, ones: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Hoyer's measure along the tokens, from the sums of magnitudes and of squares."""
    if tokens == 1:
        return np.where(squares > 0, 0.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0, (np.sqrt(tokens) - ones / np.sqrt(squares)) / (np.sqrt(tokens) - 1), np.nan)


def weight_polysemanticity(model: Model, layer: int, *, neighbours: int = 5) -> Scores:
    """How much company each neuron of a layer has among those that read alike: the mean cosine of its input weights with
    those of its nearest neighbours [neuron]. 1 where others read the same; random directions give a low, even level. Of a
    gated MLP they are the weights of the gate, which decides when a neuron speaks.

    Raises:
        RecordError: more neighbours than there are other neurons.
        LayerError: there is no such layer.
    """
    weights = model.W
    name = "Gate" if weights.missing("Gate") is None else "In"
    read = torch.nn.functional.normalize(getattr(weights, name)[layer].float().mT, dim=-1)  # [neuron d_model]
    if not 1 <= neighbours < len(read):
        raise RecordError(f"neighbours={neighbours}: a layer of {len(read)} neurons has {len(read) - 1} others for each")
    found = []
    for rows in read.split(1024):  # [rows neuron] at a time
        near = torch.topk(rows @ read.mT, neighbours + 1, dim=-1).values[:, 1:]  # less itself
        found.append(near.mean(-1))
    return Scores(torch.cat(found).double().cpu().numpy(), ("neuron",), unit="cosine", name="weight polysemanticity",
                  note=f"mean cosine with the {neighbours} neurons that read most alike")


def polysemanticity(activations: Any, kinds: Any, *, threshold: float = 0.0) -> Scores:
    """Over how many kinds of token each neuron's activation is spread: entropy in bits [neuron], 0 for one kind.

    The mass of a neuron on a kind is the sum of its activations there above the threshold, over how many tokens of the
    kind there are, so that frequent kinds do not win by number.

    Args:
        activations: [token neuron].
        kinds: What each token is of: its id, its cluster, its part of speech …, [token].
        threshold: Below or at it, a neuron is silent.

    Returns:
        NaN where a neuron never speaks.

    Raises:
        RecordError: kinds that do not fit, or what is not a number.
    """
    if np.isnan(threshold):
        raise RecordError("the threshold is not a number")
    rows = _rows(activations)
    names, which = np.unique(np.asarray(kinds), return_inverse=True)
    if len(which) != len(rows):
        raise RecordError(f"{len(which)} kinds for {len(rows)} tokens")
    mass = np.zeros((len(names), rows.shape[1]))
    np.add.at(mass, which, np.where(rows > threshold, rows - threshold, 0.0))
    mass /= np.bincount(which)[:, None]
    total = mass.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = mass / total
        bits = -np.where(share > 0, share * np.log2(share), 0.0).sum(0)
    return Scores(np.where(total > 0, bits + 0.0, np.nan), ("neuron",), unit="bits", name="polysemanticity",
                  note=f"entropy over {len(names)} kinds of token")


def _rows(batch: Any) -> np.ndarray:
    array = batch.detach().to("cpu").double().numpy() if hasattr(batch, "detach") else np.asarray(batch, np.float64)
    if array.ndim < 2 or not array.shape[-1]:
        raise RecordError(f"activations are [… neuron] over tokens, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise RecordError("the activations hold what is not a finite number")
    return array.reshape(-1, array.shape[-1])
