"""What was written to the stream, block by block, as finely as asked: the parts of `decompose`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..address import Place
from ..model import linear, ports
from .single import Single
from .stream import EMBEDDINGS

if TYPE_CHECKING:
    from ..model.model import Model

BY = ("layers", "components", "heads", "neurons")
"""How finely; each takes apart further what the one before names. `heads` leaves MLPs whole."""

Part = tuple[str, Tensor]
"""A label and a vector at every position, [pos d_model]."""


def sites(model: Model, end: Place, by: str) -> list[str]:
    """Addresses whose values the parts of a place are made of."""
    assert end.layer is not None
    found = [name for name in EMBEDDINGS if model.sites.missing(name) is None] + ["L0.resid_pre", end.key]
    attn = ("z", "attn_out") if BY.index(by) >= 2 else ("attn_out",)
    mlp = ("mlp_post", "mlp_out") if by == "neurons" else ("mlp_out",)
    for layer in range(end.layer + (end.site != "resid_pre")):
        whole = (layer, end.site) != (end.layer, "resid_mid")
        found += [f"L{layer}.{site}" for site in ("resid_pre", *attn, *(mlp if whole else ()))]
    return list(dict.fromkeys(found))


# The parts of each block ------------------------------------------------------------------------------------------------


def stretches(model: Model, seen: Single, end: Place, by: str) -> Iterator[tuple[str, Tensor, Tensor, Iterator[Part]]]:
    """Every stretch of the stream in order: its name, the stream before and after, and what was written in between."""
    assert end.layer is not None
    first = seen["L0.resid_pre"]
    embedded = ((name, seen[name]) for name in EMBEDDINGS if name in seen.values)
    yield "", torch.zeros_like(first), first, embedded
    last = end.layer + (end.site != "resid_pre")
    for layer in range(last):
        after = end.key if layer == last - 1 else f"L{layer + 1}.resid_pre"
        yield f"L{layer}", seen[f"L{layer}.resid_pre"], seen[after], _of_layer(model, seen, layer, by)


def _of_layer(model: Model, seen: Single, layer: int, by: str) -> Iterator[Part]:
    writes = [f"L{layer}.{site}" for site in ("attn_out", "mlp_out") if f"L{layer}.{site}" in seen.values]
    if by == "layers":
        yield f"L{layer}", torch.stack([seen[write] for write in writes]).sum(0)
        return
    yield from _heads(model, seen, layer) if f"L{layer}.z" in seen.values else [(writes[0], seen[writes[0]])]
    if len(writes) == 2:
        yield from _neurons(model, seen, layer) if f"L{layer}.mlp_post" in seen.values else [(writes[1], seen[writes[1]])]


def _heads(model: Model, seen: Single, layer: int) -> Iterator[Part]:
    out = model.W.O[layer].double().cpu()  # [head d_head d_model]
    vectors = torch.einsum("phd,hdm->hpm", seen[f"L{layer}.z"], out)
    labels = [f"L{layer}H{head}" for head in range(len(vectors))]
    return _with_bias(model, labels, vectors, layer, "o", model.layout.role(layer, "post_attn"))


def _neurons(model: Model, seen: Single, layer: int) -> Iterator[Part]:
    out = model.W.Out[layer].double().cpu()  # [neuron d_model]
    vectors = torch.einsum("pn,nm->npm", seen[f"L{layer}.mlp_post"], out)
    labels = [f"L{layer}N{neuron}" for neuron in range(len(vectors))]
    return _with_bias(model, labels, vectors, layer, "down", model.layout.role(layer, "post_mlp"))


def _with_bias(model: Model, labels: list[str], vectors: Tensor, layer: int, role: str,
               norm: nn.Module | None) -> Iterator[Part]:
    """Parts [part pos d_model] and the bias that is added to them, through the norm that comes next."""
    bias, name = linear.bias(model.layout.role(layer, role)), {"o": "b_O", "down": "b_Out"}[role]
    shift = torch.zeros(()) if bias is None else getattr(model.W, name)[layer].double().cpu()
    fixed: Tensor | None = None if bias is None else shift.expand(vectors.shape[1:])
    if norm is not None:
        kind = model.layout.family.norm
        divisor = ports.norm_scale(norm, kind)(vectors.sum(0) + shift)

        def through(x: Tensor) -> Tensor:
            return ports.norm_held(norm, kind, x, divisor).detach()

        own: Tensor | None = getattr(norm, "bias", None)
        vectors, fixed = through(vectors), None if fixed is None else through(fixed)
        if own is not None:
            fixed = (own.detach().double().cpu() + (0.0 if fixed is None else fixed)).expand(vectors.shape[1:])
    yield from zip(labels, vectors, strict=True)
    if fixed is not None:
        yield f"L{layer}.{name}", fixed
