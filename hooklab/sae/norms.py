"""How inputs are brought to a common scale before they are encoded, and back after they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Back(NamedTuple):
    """The way back: `out * factor + mean`."""

    factor: Tensor
    mean: Tensor

    def __call__(self, out: Tensor) -> Tensor:
        """Outputs [… d] on the scale of the input."""
        return out * self.factor.to(out) + self.mean.to(out)


class Prepared(NamedTuple):
    """An input [… d] on the common scale, and the way back."""

    x: Tensor
    back: Back


def _none(x: Tensor) -> Prepared:
    return Prepared(x, Back(x.new_ones(()), x.new_zeros(())))


def _layer(x: Tensor) -> Prepared:
    """Mean 0 and standard deviation 1 (that of a sample, n - 1), as autoencoders of layer-normed inputs were trained."""
    mean = x.mean(-1, keepdim=True)
    apart = x - mean
    deviation = apart.std(-1, keepdim=True)
    return Prepared(apart / (deviation + 1e-5), Back(deviation, mean))


def _length(x: Tensor) -> Prepared:
    """Length √d; a vector of zeros stays."""
    factor = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    factor = torch.where(factor == 0, 1, factor)
    return Prepared(x / factor, Back(factor, x.new_zeros(())))


NORMS: Mapping[str, Callable[[Tensor], Prepared]] = {"none": _none, "layer": _layer, "length": _length}
"""Word -> function from inputs [… d] to prepared ones."""
