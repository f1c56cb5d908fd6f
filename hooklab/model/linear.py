"""Linear maps as plain matrices, whatever class holds them: Linear, Conv1D, quantized."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FamilyError


def matrix(module: nn.Module) -> Tensor:
    """The module's weight as [d_in, d_out], so that `x @ matrix(module)` is what it computes, bias apart."""
    weight: Any = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D":
        return weight  # already [d_in, d_out]
    if isinstance(weight, Tensor) and weight.is_floating_point() and weight.ndim == 2:
        return weight.T
    return _probe(module)


def bias(module: nn.Module) -> Tensor | None:
    """The module's bias [d_out], or None."""
    return getattr(module, "bias", None)


def _probe(module: nn.Module) -> Tensor:
    """Read a matrix off by running the identity through: the way that works for every quantization."""
    d_in = getattr(module, "in_features", None)
    if d_in is None:
        raise FamilyError(f"{type(module).__name__} is no linear map whose weight can be read; the table of this "
                          f"architecture names the wrong module.")
    device = next(iter(module.buffers()), next(iter(module.parameters()))).device
    forward = type(module).forward  # past any instrumentation: this is no part of a forward pass
    with torch.no_grad():
        eye = torch.eye(d_in, device=device)
        out = forward(module, eye)
        offset = forward(module, torch.zeros(1, d_in, device=device))
    return out - offset
