"""Checks of the tutorial on features: what a dictionary explains, which feature a name fits, what its error is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.lab.words import OBJECTS
from ..model.model import Model
from .answers import number_of
from .exercise import Wrong, exercise

CLOSE = 5e-3
DROPPED = """
prompt texts = {texts}
sae enc = {sae} at L1.resid_post error=drop
metric loss
run reconstructed on texts:
    scale enc.F0 by 1
run silent on texts:
    zero L1.resid_post
"""


@exercise("08.1", "How much is explained")
def explained_share(answer: Any, sae: Any, x: Tensor) -> str:
    """The share of the variance of activations that a dictionary reconstructs.

    Args:
        answer: A number.
        sae: The dictionary.
        x: The activations, [token d_model].

    Right is one minus the squared distance to the reconstruction over that to the mean, to half a hundredth.
    """
    value = number_of(answer)
    with torch.no_grad():
        missing = (x - sae.decode(sae.encode(x))).square().sum()
        spread, length = (x - x.mean(0)).square().sum(), x.square().sum()
        truth = float(1 - missing / spread)
        if abs(value - truth) < CLOSE:
            return (f"{truth:.0%} of the variance, with at most a few features at a token. What is missing may still matter "
                    "to the model.")
        if abs(value - float(missing / spread)) < CLOSE:
            raise Wrong("That is the share that is missing.")
        if abs(value - 100 * truth) < 100 * CLOSE:
            raise Wrong("That is in per cent; a share between 0 and 1 is asked for.")
        if abs(value - float(1 - missing / length)) < CLOSE:
            raise Wrong("That is measured from zero. The variance is about the mean: a dictionary that always said the "
                        "mean would explain nothing, and yet do well on your scale.")
        if abs(value - float(missing / x.numel())) < CLOSE or abs(value - float(missing / len(x))) < CLOSE:
            raise Wrong("That is the error itself, in squared units of the stream. What share of the variance is it?")
    if not 0 <= value <= 1:
        raise Wrong("A share of a variance that is explained lies between 0 and 1 here.")
    raise Wrong("It is another number. Sum the squares over all tokens and dimensions before dividing, and use the fresh "
                "texts for both sums.")


@exercise("08.2", "Another name")
def object_feature(answer: Any, sae: Any, x: Tensor, following: Sequence[str]) -> str:
    """The feature that stands best for "an object comes next".

    Args:
        answer: Its number.
        sae: The dictionary.
        x: Activations of texts that the choice was not made on, [token d_model].
        following: What follows each token in its text, [token].

    Right is a feature whose F1 on these texts comes within a tenth of the best.
    """
    value = number_of(answer)
    number = int(value)
    if number != value or not 0 <= number < sae.n_features:
        raise Wrong(f"A feature has a whole number from 0 to {sae.n_features - 1}.")
    active = (sae.encode(x) > 0).numpy().astype(float)
    label = np.isin(np.asarray(following), [f" {word}" for word in OBJECTS]).astype(float)
    hits = label @ active
    precision, recall = hits / np.maximum(active.sum(0), 1), hits / max(label.sum(), 1)
    f1 = 2 * hits / np.maximum(active.sum(0) + label.sum(), 1)
    if not f1.max() > 0:
        raise Wrong("No object follows anywhere in these texts, or no feature is active before one: they decide nothing.")
    p, r = precision[number], recall[number]
    if f1[number] > 0 and f1[number] >= 0.9 * f1.max():
        return (f"On fresh texts its precision is {p:.2f} and its recall {r:.2f}. Is it the one for places? If not, the "
                "layer knows which of the two is due before either is there.")
    if not active[:, number].any():
        raise Wrong("This feature is active nowhere in the fresh texts.")
    if r > 0.8:
        raise Wrong(f"It is active before nearly every object (recall {r:.2f}), and before much else as well (precision "
                    f"{p:.2f}).")
    if p > 0.8:
        raise Wrong(f"Where it is active an object mostly follows (precision {p:.2f}), but it misses most objects (recall "
                    f"{r:.2f}).")
    raise Wrong(f"On fresh texts its precision is {p:.2f} and its recall {r:.2f}: another feature does better. The score "
                "is about the token that follows, at the token before it.")


@exercise("08.3", "Loss recovered")
def loss_recovered(answer: Any, model: Model, sae: Any, texts: Sequence[str]) -> str:
    """How far the reconstruction brings the loss back, from a zeroed stream to the untouched one.

    Args:
        answer: A number.
        model: An opened model.
        sae: A dictionary of `L1.resid_post`.
        texts: The texts.

    Right is (zeroed - reconstructed) / (zeroed - untouched), to half a hundredth.
    """
    value = number_of(answer)
    losses = model.run(DROPPED, texts=list(texts), sae=sae).metrics
    plain, made, silent = (losses[name]["loss"] for name in ("texts", "reconstructed", "silent"))
    truth = (silent - made) / (silent - plain)
    if abs(value - 1) < 1e-6 and abs(truth - 1) > 1e-6:
        raise Wrong("That is the untouched model. With the error kept, a dictionary changes nothing: drop it.")
    if abs(value - truth) < CLOSE:
        return (f"{truth:.0%} recovered, and {made - plain:.2f} nats per token lost: two ways of saying the same, of which "
                "one sounds better. Measured from a model that gives every token the same chance, it would be less.")
    for wrong, words in ((1 - truth, "That is the part that was lost."),
                         ((made - plain), "That is a difference of losses, in nats. It has to be put on the scale."),
                         (made, "That is the loss of the reconstruction, in nats."),
                         (plain / made, "That is a ratio of two losses, which puts 0 at a loss that no model has. Use the "
                                        "zeroed model for that end."),
                         ((silent - plain) / (silent - made), "That is upside down.")):
        if abs(value - wrong) < CLOSE:
            raise Wrong(words)
    if abs(value - 100 * truth) < 100 * CLOSE:
        raise Wrong("That is in per cent; the untouched model should be at 1.")
    raise Wrong("It is another number. 0 is the loss with the site zeroed, 1 that of the untouched model, on these very "
                "texts: where between them does the reconstruction lie?")
