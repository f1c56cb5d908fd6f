"""What heads, neurons and biases add to the stream: as they are, or through the norm that some models have behind them.

Gemma 2 and OLMo 2 put what attention, or the MLP, gives through a norm before it is added. Its divisor is one number for
the whole of it; with that number held the norm is linear, so that parts add up to the whole. The norm's own bias is no
part's. A number that a model multiplies it by (Granite) is in `model.W.O` and `model.W.Out` already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import ports

if TYPE_CHECKING:
    from .model import Model

BEHIND = {"attn_out": "post_attn", "mlp_out": "post_mlp"}
"""What writes to the stream -> the norm that it goes through on its way, where a model has one."""


def norm_behind(model: Model, layer: int, site: str) -> nn.Module | None:
    """The norm that `attn_out` or `mlp_out` has come through when it is added; None in most models."""
    return model.layout.role(layer, BEHIND[site])


def entering(model: Model, layer: int, site: str, parts: Tensor, whole: Callable[[], Tensor]) -> Tensor:
    """Parts [… part d_model] of what attention or the MLP gives, as they come into the stream; `whole` gives [… d_model]."""
    norm, kind = norm_behind(model, layer, site), model.layout.family.norm
    if norm is None:
        return parts
    return ports.norm_held(norm, kind, parts, ports.norm_scale(norm, kind)(whole())[..., None, :]).to(parts.dtype)


def gained(model: Model, layer: int, site: str, directions: Tensor) -> Tensor:
    """Directions [… d_model] that attention or the MLP writes, as they come into the stream but for the norm's division.

    What it divides by is known in a pass only, and one number for all of them.
    """
    norm, kind = norm_behind(model, layer, site), model.layout.family.norm
    if norm is None:
        return directions
    return ports.norm_held(norm, kind, directions, torch.ones(()))


def heads_written(model: Model, layer: int, result: Tensor, heads: Sequence[int] | None = None) -> Tensor:
    """What heads add to the stream, [… head d_model], of the site `result`; all of them, or those named.

    These of all heads, `attention_bias` and the bias of a norm behind attention add up to `attn_out`.
    """
    parts = result if heads is None else result[..., list(heads), :]
    return entering(model, layer, "attn_out", parts, lambda: _attention(model, layer, result))


def attention_bias(model: Model, layer: int, result: Tensor) -> Tensor:
    """What attention's output bias adds to the stream, [… d_model], beside heads of `result` [… head d_model]."""
    bias = model.W.b_O[layer].to(result).expand_as(result[..., :1, :])
    return entering(model, layer, "attn_out", bias, lambda: _attention(model, layer, result))[..., 0, :]


def neurons_written(model: Model, layer: int, mlp_post: Tensor, neurons: Sequence[int]) -> Tensor:
    """What neurons add to the stream, [… neuron d_model], of the site `mlp_post` [… d_mlp]."""
    def whole() -> Tensor:
        return mlp_post @ model.W.Out[layer].to(mlp_post) + model.W.b_Out[layer].to(mlp_post)

    parts = mlp_post[..., list(neurons), None] * model.W.Out[layer, list(neurons)].to(mlp_post)
    return entering(model, layer, "mlp_out", parts, whole)


def _attention(model: Model, layer: int, result: Tensor) -> Tensor:
    return result.sum(-2) + model.W.b_O[layer].to(result)
