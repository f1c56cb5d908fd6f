"""The losses that the kinds of autoencoder are trained with: from parameters and a batch to numbers with gradients.

Everything here is on the common scale: `x` are prepared inputs [batch d_in], `y` what is to be reconstructed [batch d_out].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .activations import BatchTopK, TopK
from .recipe import Recipe

Params = dict[str, Tensor]


class Encoded(NamedTuple):
    """A batch, encoded: pre-activations and features [batch feature], and the penalty, a number."""

    pre: Tensor
    features: Tensor
    penalty: Tensor


class Loss(NamedTuple):
    """What a step comes to: the whole loss and its parts; features [batch feature], the residual [batch d_out]."""

    whole: Tensor
    error: Tensor
    penalty: Tensor
    auxiliary: Tensor
    features: Tensor
    residual: Tensor


def decoder(params: Params) -> Tensor:
    """[feature d_out]."""
    return params["w_dec"] if "w_dec" in params else params["w_enc"].T


def squared(apart: Tensor) -> Tensor:
    """Squared error, summed over the last axis, of the mean example."""
    return apart.square().sum(-1).mean()


def loss(params: Params, recipe: Recipe, x: Tensor, y: Tensor, dead: Tensor, share: float) -> Loss:
    """The loss of a batch.

    Args:
        params: Name -> tensor.
        recipe: Settings.
        x: [batch d_in].
        y: [batch d_out].
        dead: [feature], which features count as dead.
        share: How much of the penalty applies.
    """
    linear = (x - params["b_dec"] if recipe.pre_bias else x) @ params["w_enc"]
    found = VARIANTS[recipe.variant](params, recipe, linear, y)
    residual = y - found.features @ decoder(params) - params["b_dec"]
    error, auxiliary = squared(residual), x.new_zeros(())
    if recipe.dead == "auxiliary" and bool(dead.any()):
        auxiliary = recipe.auxiliary * _auxiliary(params, found.pre, residual.detach(), dead)
    penalty = share * found.penalty
    return Loss(error + penalty + auxiliary, error, penalty, auxiliary, found.features, residual)


def _auxiliary(params: Params, pre: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
    """What the strongest dead features leave of the error, half as many as there are dimensions. (Gao et al. 2024)"""
    index = dead.nonzero()[:, 0]
    k = min(max(residual.shape[-1] // 2, 1), len(index))
    features = TopK(k)(pre[:, index])
    return squared(residual - features @ decoder(params)[index])


def _relu(params: Params, recipe: Recipe, linear: Tensor, y: Tensor) -> Encoded:
    pre = linear + params["b_enc"]
    features = torch.relu(pre)
    assert recipe.l1 is not None
    return Encoded(pre, features, recipe.l1 * (features * decoder(params).norm(dim=-1)).sum(-1).mean())


def _topk(params: Params, recipe: Recipe, linear: Tensor, y: Tensor) -> Encoded:
    pre = linear + params["b_enc"]
    assert recipe.k is not None
    return Encoded(pre, TopK(int(recipe.k))(pre), pre.new_zeros(()))


def _batchtopk(params: Params, recipe: Recipe, linear: Tensor, y: Tensor) -> Encoded:
    pre = linear + params["b_enc"]
    assert recipe.k is not None
    return Encoded(pre, BatchTopK(recipe.k).batch(pre), pre.new_zeros(()))


class _Jump(torch.autograd.Function):
    """`value` where it exceeds a threshold, else 0, and 1 where it does; thresholds get the gradient of a box kernel."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        on = pre > threshold
        return torch.where(on, pre, 0), on.to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2).to(pre.dtype) / ctx.bandwidth
        to_threshold = -(near * (grads[0] * threshold + grads[1])).sum(0)
        return grads[0] * (pre > threshold), to_threshold, None


def _jumprelu(params: Params, recipe: Recipe, linear: Tensor, y: Tensor) -> Encoded:
    pre = linear + params["b_enc"]
    features, on = _Jump.apply(pre, params["log_threshold"].exp(), recipe.bandwidth)
    assert recipe.l0 is not None
    return Encoded(pre, features, recipe.l0 * on.sum(-1).mean())


def _gated(params: Params, recipe: Recipe, linear: Tensor, y: Tensor) -> Encoded:
    """The gate learns from a reconstruction of its own, with the decoder held."""
    gate = linear + params["b_enc"]
    size = linear * params["r_mag"].exp() + params["b_mag"]
    opened = torch.relu(gate)
    own = y - opened @ decoder(params).detach() - params["b_dec"].detach()
    assert recipe.l1 is not None
    penalty = recipe.l1 * (opened * decoder(params).norm(dim=-1)).sum(-1).mean() + squared(own)
    return Encoded(gate, torch.where(gate > 0, torch.relu(size), 0), penalty)


VARIANTS: Mapping[str, Callable[[Params, Recipe, Tensor, Tensor], Encoded]] = {
    "relu": _relu, "topk": _topk, "batchtopk": _batchtopk, "jumprelu": _jumprelu, "gated": _gated}
"""Variant -> how a batch is encoded while training, and what is paid for its features."""
