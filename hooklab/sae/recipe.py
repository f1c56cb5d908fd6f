"""How an autoencoder is trained: every setting, in one value that a checkpoint keeps and a resumed run must share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import ModelError, did_you_mean
from .norms import NORMS

PENALTIES = {"relu": "l1", "gated": "l1", "jumprelu": "l0", "topk": "k", "batchtopk": "k"}
"""Variant -> the setting that makes it sparse."""
STARTS = ("median", "mean", "zero")
DEAD = ("resample", "auxiliary", "none")
_REVIVED = {"topk": "auxiliary", "batchtopk": "auxiliary"}


@dataclass(frozen=True)
class Recipe:
    """What `train_sae` is told, besides the data.

    Attributes:
        n_features: How many features.
        steps: Batches to train on; each is one step of Adam.
        variant: `"relu"`, `"topk"`, `"batchtopk"`, `"jumprelu"` or `"gated"`.
        k: Features of an example, for the two TopK.
        l1: Weight of the sum of features, for relu and gated, against the squared error summed over d_out.
        l0: Weight of the number of features, for jumprelu.
        lr: Learning rate.
        seed: Of the starting weights and the resampling; nothing else is drawn, and no global generator is touched.
        tied: The decoder is the encoder's transpose.
        pre_bias: `b_dec` is taken from the input first.
        norm: How inputs are prepared: `"none"`, `"layer"`, `"length"`.
        scale: What inputs are multiplied by; None for √d_in over their mean length, with norm="none".
        unit_norm: Decoder rows keep the length 1.
        start: Where `b_dec` starts: the geometric `"median"` of the first examples, their `"mean"`, `"zero"`.
        warmup: Share of the steps in which the learning rate and the penalty rise from 0.
        decay: Share of the steps at the end in which the learning rate falls to 0.
        dead: What becomes of features that are never active: `"resample"` starts them anew at what is reconstructed
            worst, `"auxiliary"` has them reconstruct the error, `"none"`. By default auxiliary for the two TopK.
        dead_after: Examples without activity after which a feature counts as dead.
        resample_every: Steps between two resamplings; none take place in the last quarter.
        bandwidth: Of the kernel that gives jumprelu's thresholds a gradient.
        auxiliary: Weight of the auxiliary loss.
    """

    n_features: int
    steps: int
    variant: str = "relu"
    k: float | None = None
    l1: float | None = None
    l0: float | None = None
    lr: float = 1e-3
    seed: int = 0
    tied: bool = False
    pre_bias: bool = True
    norm: str = "none"
    scale: float | None = None
    unit_norm: bool = True
    start: str = "median"
    warmup: float = 0.05
    decay: float = 0.2
    dead: str = ""
    dead_after: int = 50_000
    resample_every: int = 500
    bandwidth: float = 0.05
    auxiliary: float = 1 / 32

    def __post_init__(self) -> None:
        """Check the settings, and choose what was left open. Raises ModelError where they do not fit."""
        self._one_of("variant", tuple(PENALTIES))
        self._one_of("norm", tuple(NORMS))
        self._one_of("start", STARTS)
        object.__setattr__(self, "dead", self.dead or _REVIVED.get(self.variant, "resample"))
        self._one_of("dead", DEAD)
        needed = PENALTIES[self.variant]
        for name in ("k", "l1", "l0"):
            if (getattr(self, name) is None) == (name == needed):
                raise ModelError(f"variant {self.variant!r} is made sparse by {needed}=…" + (
                    "" if name == needed else f", not by {name}={getattr(self, name)}"))
        for name in ("n_features", "steps", "dead_after", "resample_every"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"{name}={value!r} must be a whole number from 1")
        for name in (needed, "lr", "bandwidth", *(["scale"] if self.scale is not None else [])):
            if not 0 < getattr(self, name) < float("inf"):
                raise ModelError(f"{name}={getattr(self, name)!r} must be a positive number")
        if self.k is not None and (self.k > self.n_features or (self.variant == "topk" and self.k != int(self.k))):
            raise ModelError(f"k={self.k!r} of {self.n_features} features")
        if not (0 <= self.warmup and 0 <= self.decay and self.warmup + self.decay <= 1):
            raise ModelError(f"warmup={self.warmup} and decay={self.decay} are shares of the steps")

    def _one_of(self, name: str, words: tuple[str, ...]) -> None:
        if (given := getattr(self, name)) not in words:
            raise ModelError(f"{name}={given!r} is none of {', '.join(words)}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / (self.decay * self.steps) if self.decay else 1.0
        return self.lr * min(self.rise(step), left, 1.0)

    def rise(self, step: int) -> float:
        """The share of the penalty that a step gets."""
        return min((step + 1) / (self.warmup * self.steps), 1.0) if self.warmup else 1.0


def recipe(n_features: int, steps: int, options: dict[str, Any]) -> Recipe:
    """A recipe of keyword arguments. Raises ModelError for a name that is no setting."""
    known = [f.name for f in fields(Recipe)]
    if unknown := sorted(set(options) - set(known)):
        raise ModelError(f"{unknown[0]} is no setting of a training.{did_you_mean(unknown[0], known)}")
    return Recipe(n_features, steps, **options)
