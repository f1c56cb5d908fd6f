"""What was written to the stream, block by block, as finely as asked: the parts of `decompose`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from ..address import Place
from ..model import linear
from ..model.writes import entering, norm_behind
from .single import Single
from .stream import EMBEDDINGS

if TYPE_CHECKING:
    from ..model.model import Model

BY = ("layers", "components", "heads", "neurons")
"""How finely; each takes apart further what the one before names. `heads` leaves MLPs whole."""

BIASES = {"attn_out": ("o", "b_O"), "mlp_out": ("down", "b_Out")}
"""What writes -> the matrix whose bias is added, and the bias."""
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
    return _with_bias(model, labels, vectors, layer, "attn_out")


def _neurons(model: Model, seen: Single, layer: int) -> Iterator[Part]:
    out = model.W.Out[layer].double().cpu()  # [neuron d_model]
    vectors = torch.einsum("pn,nm->npm", seen[f"L{layer}.mlp_post"], out)
    labels = [f"L{layer}N{neuron}" for neuron in range(len(vectors))]
    return _with_bias(model, labels, vectors, layer, "mlp_out")


def _with_bias(model: Model, labels: list[str], vectors: Tensor, layer: int, site: str) -> Iterator[Part]:
    """Parts [part pos d_model] and the bias that is added to them, as they come into the stream."""
    role, name = BIASES[site]
    shift = getattr(model.W, name)[layer].double().cpu() if linear.bias(model.layout.role(layer, role)) is not None else None
    parts = vectors if shift is None else torch.cat([vectors, shift.expand_as(vectors[:1])])
    through = rearrange(parts, "part pos m -> pos part m")
    through = entering(model, layer, site, through, lambda: parts.sum(0)).detach()
    entered = list(rearrange(through, "pos part m -> part pos m"))
    yield from zip(labels, entered, strict=False)
    fixed = None if shift is None else entered[-1]
    own = getattr(norm_behind(model, layer, site), "bias", None)
    if own is not None:  # the norm's own
        fixed = (own.detach().double().cpu() + (0.0 if fixed is None else fixed)).expand(vectors.shape[1:])
    if fixed is not None:
        yield f"L{layer}.{name}", fixed
