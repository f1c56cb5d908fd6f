"""Where a training starts: the scale of the inputs, the centre, random directions."""

from __future__ import annotations

import torch
from torch import Tensor

from .losses import Params
from .recipe import Recipe


def geometric_median(x: Tensor, steps: int = 100, close: float = 1e-9) -> Tensor:
    """The point [d] with the least sum of distances to points [example d] (Weiszfeld's iteration, in float64).

    >>> geometric_median(torch.tensor([[0.0], [1.0], [100.0]])).round().tolist()
    [1.0]
    """
    points = x.double()
    at = points.mean(0)
    for _ in range(steps):
        weight = 1 / (points - at).norm(dim=1, keepdim=True).clamp(min=1e-12)
        moved = (points * weight).sum(0) / weight.sum()
        done = bool((moved - at).norm() <= close * moved.norm())
        at = moved
        if done:
            break
    return at.to(x.dtype)


def common_scale(x: Tensor) -> float:
    """√d over the mean length of [example d]; 1 where all are 0."""
    length = float(x.double().norm(dim=1).mean())
    return float(x.shape[-1] ** 0.5 / length) if length else 1.0


def centre(recipe: Recipe, y: Tensor) -> Tensor:
    """Where the decoder's bias starts, [d_out], from examples [example d_out]."""
    if recipe.start == "zero":
        return torch.zeros_like(y[0])
    return geometric_median(y) if recipe.start == "median" else y.double().mean(0).to(y.dtype)


def parameters(recipe: Recipe, d_in: int, y: Tensor, draw: torch.Generator) -> Params:
    """Parameters to start with: random decoder rows of length 1, and their transpose as the encoder."""
    n, d_out = recipe.n_features, y.shape[-1]
    rows = torch.nn.functional.normalize(torch.randn(n, d_out, generator=draw), dim=1)
    into = rows if d_in == d_out else torch.nn.functional.normalize(torch.randn(n, d_in, generator=draw), dim=1)
    made = {"w_enc": into.T.contiguous(), "b_enc": torch.zeros(n), "b_dec": centre(recipe, y)}
    if not recipe.tied:
        made["w_dec"] = rows
    if recipe.variant == "jumprelu":
        made["log_threshold"] = torch.full((n,), recipe.bandwidth).log()
    if recipe.variant == "gated":
        made |= {"r_mag": torch.zeros(n), "b_mag": torch.zeros(n)}
    return {name: t.to(y.device).clone().requires_grad_() for name, t in made.items()}
