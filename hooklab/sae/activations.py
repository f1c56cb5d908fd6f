"""What makes features of pre-activations: one small class for each kind of sparse autoencoder.

An activation is called with pre-activations [… feature] and returns features of that shape; numbers that are no number
stay what they are, so that they are seen. `batch` is the same while training: only BatchTopK differs there.
`part(index)` is the activation of some of the features, `tensors` and `numbers` are what a file keeps of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..errors import ModelError


@dataclass(frozen=True, eq=False)
class Activation(ABC):
    """What all of them share; use one of its kinds."""

    name: ClassVar[str] = ""
    whole: ClassVar[bool] = False
    """Whether a feature depends on the pre-activations of the others."""

    @abstractmethod
    def __call__(self, pre: Tensor) -> Tensor:
        """Features [… feature] of pre-activations [… feature]."""

    def batch(self, pre: Tensor) -> Tensor:
        """Features while training, where they may depend on the other examples."""
        return self(pre)

    def pre(self, linear: Tensor, bias: Tensor) -> Tensor:
        """Pre-activations of what the encoder's weights make, [… feature], and its bias [feature]."""
        return linear + bias

    def features(self, linear: Tensor, bias: Tensor) -> Tensor:
        """Features of what the encoder's weights make."""
        return self(self.pre(linear, bias))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its parameters, [feature] each."""
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    @property
    def numbers(self) -> dict[str, Any]:
        """Its settings."""
        return {f.name: value for f in fields(self) if not isinstance(value := getattr(self, f.name), Tensor)}

    def map(self, change: Any) -> Self:
        """The same with every parameter changed."""
        return replace(self, **{name: change(t) for name, t in self.tensors.items()})

    def part(self, index: Any, size: int) -> Self:
        """That of some features; `size` is how many they are."""
        return self.map(lambda t: t[index])

    def scaled(self, factor: Tensor) -> Activation:
        """The one that makes `factor` [feature] times the features of pre-activations `factor` times as large."""
        return self

    def check(self, n_features: int) -> None:
        """Raises ModelError where it does not fit an autoencoder of so many features."""
        for name, tensor in self.tensors.items():
            if tensor.shape != (n_features,):
                raise ModelError(f"{type(self).__name__}: {name} has the shape {tuple(tensor.shape)}, not ({n_features},): "
                                 "one number for each feature")


@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """The positive part.

    >>> ReLU()(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    name: ClassVar[str] = "relu"

    def __call__(self, pre: Tensor) -> Tensor:
        """Features [… feature] of pre-activations [… feature]."""
        return torch.relu(pre)


def strongest(pre: Tensor, k: int) -> Tensor:
    """Which k of the last axis are the largest, as a mask; among equal ones the first.

    >>> strongest(torch.tensor([1.0, 3.0, 3.0, 3.0]), 2).tolist()
    [False, True, True, False]
    """
    least = pre.detach().topk(k, dim=-1).values[..., -1:]
    above = ~(pre <= least)
    mask = ~(pre < least)
    if bool((mask.sum(-1) > k).any()):
        level = mask & ~above
        mask = above | (level & (level.cumsum(-1) <= k - above.sum(-1, keepdim=True)))
    return mask


_AFTER = {"relu": torch.relu, "identity": lambda x: x}


@dataclass(frozen=True, eq=False)
class TopK(Activation):
    """The k largest of each example; among equal ones the first. Negative ones count, and become 0.

    >>> TopK(2)(torch.tensor([[1.0, 4.0, 3.0], [-1.0, 5.0, -2.0]])).tolist()
    [[0.0, 4.0, 3.0], [0.0, 5.0, 0.0]]

    Attributes:
        k: How many.
        after: What those become: `"relu"` their positive part, `"identity"` they stay as they are.
    """

    k: int
    after: str = "relu"
    name: ClassVar[str] = "topk"
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raises ModelError for settings that mean nothing."""
        if self.after not in _AFTER:
            raise ModelError(f'TopK: after={self.after!r} is neither "relu" nor "identity"')

    def __call__(self, pre: Tensor) -> Tensor:
        """Features [… feature] of pre-activations [… feature]."""
        return torch.where(strongest(pre, self.k), _AFTER[self.after](pre), 0)

    def part(self, index: Any, size: int) -> TopK:
        """That of some features, of which there may be fewer than k."""
        return replace(self, k=min(self.k, size))

    def check(self, n_features: int) -> None:
        """Raises ModelError where there are fewer features than k."""
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= n_features:
            raise ModelError(f"TopK: k={self.k!r} of {n_features} features; k is a whole number from 1 to {n_features}")


@dataclass(frozen=True, eq=False)
class BatchTopK(Activation):
    """Trained with the k · batch largest of a batch; used with the threshold that this came to.

    So a feature of an example never depends on the other examples, except while training. (Bussmann et al. 2024)

    Attributes:
        k: How many features an example has on average.
        threshold: What a pre-activation must exceed; none before training.
    """

    k: float
    threshold: float | None = None
    name: ClassVar[str] = "batchtopk"

    def __call__(self, pre: Tensor) -> Tensor:
        """Features [… feature] of pre-activations [… feature]."""
        if self.threshold is None:
            raise ModelError("this BatchTopK has no threshold yet: training stores one, or give BatchTopK(k, threshold)")
        return torch.where(pre <= max(self.threshold, 0.0), 0, pre)

    def batch(self, pre: Tensor) -> Tensor:
        """The k · batch largest of [… feature], of all examples together."""
        flat = torch.relu(pre).reshape(-1)
        count = min(int(self.k * (flat.numel() // pre.shape[-1])), flat.numel())
        return torch.where(strongest(flat, max(count, 1)), flat, 0).reshape(pre.shape)

    def part(self, index: Any, size: int) -> BatchTopK:
        """That of some features, of which there may be fewer than k."""
        return replace(self, k=min(self.k, size))

    def scaled(self, factor: Tensor) -> Activation:
        """A threshold for each feature is a JumpReLU's."""
        if self.threshold is None:
            raise ModelError("a BatchTopK without a threshold cannot be scaled: train it first")
        return JumpReLU(max(self.threshold, 0.0) * factor)

    def check(self, n_features: int) -> None:
        """Raises ModelError where k does not fit."""
        if not 0 < self.k <= n_features:
            raise ModelError(f"BatchTopK: k={self.k!r} of {n_features} features; k lies between 0 and {n_features}")


@dataclass(frozen=True, eq=False)
class JumpReLU(Activation):
    """Pre-activations above a threshold of their own, as they are; 0 below and at it. (Rajamanoharan et al. 2024)

    >>> JumpReLU(torch.tensor([0.5, 0.5]))(torch.tensor([0.4, 0.6])).tolist()
    [0.0, 0.6000000238418579]

    Attributes:
        threshold: [feature]; below 0 it acts as 0.
    """

    threshold: Tensor
    name: ClassVar[str] = "jumprelu"

    def __call__(self, pre: Tensor) -> Tensor:
        """Features [… feature] of pre-activations [… feature]."""
        return torch.where(pre <= self.threshold.to(pre).clamp(min=0), 0, pre)

    def scaled(self, factor: Tensor) -> JumpReLU:
        """Thresholds go along."""
        return JumpReLU(self.threshold * factor)


@dataclass(frozen=True, eq=False)
class Gated(Activation):
    """One set of weights with two biases: whether a feature is active, and how much. (Rajamanoharan et al. 2024)

    With `l` the encoder's weights times the input, a feature is `relu(l · exp(r_mag) + b_mag)` where `l + b_gate > 0`,
    and 0 elsewhere; `b_gate` is the autoencoder's `b_enc`. Its pre-activation is the magnitude before the relu.

    Attributes:
        r_mag: [feature], logarithm of the magnitude's scale.
        b_mag: [feature].
    """

    r_mag: Tensor
    b_mag: Tensor
    name: ClassVar[str] = "gated"

    def __call__(self, pre: Tensor) -> Tensor:
        """Raises ModelError: a magnitude does not say whether the gate is open."""
        raise ModelError("the gate of a Gated autoencoder needs its input: use sae.encode(x)")

    def pre(self, linear: Tensor, bias: Tensor) -> Tensor:
        """Magnitudes before the relu, [… feature]."""
        return linear * self.r_mag.to(linear).exp() + self.b_mag.to(linear)

    def features(self, linear: Tensor, bias: Tensor) -> Tensor:
        """Magnitudes where the gate is open."""
        return torch.where(linear + bias <= 0, 0, torch.relu(self.pre(linear, bias)))

    def scaled(self, factor: Tensor) -> Gated:
        """The magnitude's bias goes along; its scale applies to weights that already did."""
        return Gated(self.r_mag, self.b_mag * factor)


ACTIVATIONS: Mapping[str, type[Activation]] = {kind.name: kind for kind in (ReLU, TopK, BatchTopK, JumpReLU, Gated)}
"""Name in files -> class."""
