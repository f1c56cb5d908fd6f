"""What reads the stream, and the gradient at what each of them reads: part of `hl.analysis.edges`.

One backward pass gives gradients at queries, keys, values and neurons. From there it is a product with the receiver's own
weights, and the derivative of the norm before it, so heads of one layer are told apart without a pass for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..compiler.plan.spots import Spot
from ..model import ports

if TYPE_CHECKING:
    from ..model.model import Model

Sites = dict[Spot, Tensor]


@dataclass(frozen=True)
class Inlet:
    """What reads the stream.

    Attributes:
        label: Its address, as an axis label.
        site: Where its gradient is taken: q, k, v, mlp or logits.
        layer: Its layer.
        head: Its head (of k and v: kv head); None for an MLP and the logits.
        before: Senders that stand before this reach it: (layer, 0) for attention, (layer, 1) for an MLP after it.
    """

    label: str
    site: str
    layer: int
    head: int | None
    before: tuple[int, int]


def inlets(model: Model) -> list[Inlet]:
    """Everything that reads the stream, in the order of the forward pass."""
    facts = model.facts
    parallel = model.layout.family.residual == "parallel"
    found = []
    for layer in range(facts.n_layers):
        for site, count in (("q", facts.n_heads), ("k", facts.n_kv_heads), ("v", facts.n_kv_heads)):
            found += [Inlet(f"L{layer}H{head}.{site}", site, layer, head, (layer, 0)) for head in range(count)]
        found.append(Inlet(f"L{layer}.mlp", "mlp", layer, None, (layer, 0) if parallel else (layer, 1)))
    return [*found, Inlet("logits", "logits", facts.n_layers - 1, None, (facts.n_layers, 0))]


def wanted(model: Model) -> list[Spot]:
    """The sites whose values and gradients are needed."""
    layers = range(model.facts.n_layers)
    names = ("resid_pre", "q", "k", "v", _mlp_stream(model), *_mlp_sites(model))
    spots = [Spot(name, layer) for layer in layers for name in dict.fromkeys(names)]
    return [*spots, Spot("resid_post", model.facts.n_layers - 1)]


def read_gradients(model: Model, values: Sites, grads: Sites, *, held: bool) -> dict[Inlet, Tensor]:
    """The gradient at the stream that each inlet's norm reads, [batch pos d_model], from those of `wanted`.

    Args:
        model: An opened model.
        values: Of the sites, in one pass.
        grads: The metric's gradients at them.
        held: Whether the norms' divisors are constants.
    """
    found: dict[Inlet, Tensor] = {}
    by_layer: dict[int, list[Inlet]] = {}
    for inlet in inlets(model):
        by_layer.setdefault(inlet.layer, []).append(inlet)
    for layer, ends in by_layer.items():
        for inlet, grad in zip(ends, _of_layer(model, layer, ends, values, grads, held=held), strict=True):
            found[inlet] = grad
    return found


def _of_layer(model: Model, layer: int, ends: list[Inlet], values: Sites, grads: Sites, *, held: bool) -> list[Tensor]:
    heads = [end for end in ends if end.head is not None]
    normed = torch.stack([_of_head(model, end, grads) for end in heads], 2)  # [batch pos inlet d_model]
    through = _through_norm(model, layer, "ln1", values[Spot("resid_pre", layer)], normed, held=held)
    made = dict(zip(heads, through.unbind(2), strict=True))
    for end in ends:
        if end.site == "mlp":
            made[end] = _of_mlp(model, layer, values, grads, held=held)
        elif end.site == "logits":
            made[end] = grads[Spot("resid_post", layer)]
    return [made[end] for end in ends]


def _of_head(model: Model, end: Inlet, grads: Sites) -> Tensor:
    """The gradient at what a head's projection reads."""
    weight = getattr(model.W, end.site.upper())[end.layer, end.head]
    grad = grads[Spot(end.site, end.layer)][:, :, end.head]
    return grad @ weight.to(grad).T


# The MLP -----------------------------------------------------------------------------------------------------------


def _dense(model: Model) -> bool:
    """Whether the MLP's own input projections are known; experts' are not, but their norm serves nobody else."""
    return model.sites.missing("mlp_pre") is None


def _mlp_sites(model: Model) -> tuple[str, ...]:
    if not _dense(model):
        return ("ln2",)
    return ("mlp_pre", "mlp_pre_linear") if model.sites.missing("mlp_pre_linear") is None else ("mlp_pre",)


def _mlp_stream(model: Model) -> str:
    """The stream that the MLP's norm reads."""
    return "resid_pre" if model.layout.family.residual == "parallel" else "resid_mid"


def _of_mlp(model: Model, layer: int, values: Sites, grads: Sites, *, held: bool) -> Tensor:
    sites = _mlp_sites(model)
    if _dense(model):
        gated = len(sites) == 2
        weights = {"mlp_pre": model.W.Gate if gated else model.W.In, "mlp_pre_linear": model.W.In}
        normed = sum((grads[Spot(site, layer)] @ weights[site][layer].to(grads[Spot(site, layer)]).T for site in sites),
                     torch.zeros(()).to(grads[Spot(sites[0], layer)]))
    else:
        normed = grads[Spot("ln2", layer)]
    norm = "ln2" if model.sites.missing("ln2") is None else "ln1"
    if model.layout.family.residual != "parallel" and norm == "ln1":
        return normed  # the MLP reads the stream as it is
    return _through_norm(model, layer, norm, values[Spot(_mlp_stream(model), layer)], normed[:, :, None], held=held)[:, :, 0]


def _through_norm(model: Model, layer: int, name: str, stream: Tensor, grad: Tensor, *, held: bool) -> Tensor:
    """Gradients [batch pos inlet d_model] after a norm, as gradients at the stream before it."""
    norm = None if model.layout.family.missing(name) else model.layout.role(layer, name)
    if norm is None:
        return grad
    kind = model.layout.family.norm
    with torch.inference_mode(False), torch.enable_grad():
        x = ports.wide(stream.detach().clone())[:, :, None].expand(*grad.shape).contiguous().requires_grad_()
        divisor = ports.norm_scale(norm, kind)(x)
        centred = x - x.mean(-1, keepdim=True) if ports.centres(kind) else x
        out = centred / (divisor.detach() if held else divisor) * ports.norm_gain(norm, kind)
        return torch.autograd.grad(out, x, grad.to(out))[0].to(grad.dtype)
