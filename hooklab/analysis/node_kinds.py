"""The kinds of node: which sites they need, and their numbers from values and gradients. Part of `hl.analysis.nodes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..compiler.plan.spots import Spot
from ..model import ports
from ..model.writes import norm_behind
from . import node_latents
from .node_parts import Columns, Family, Part, Pass, grid
from .node_table import Kind

STREAM = ("resid_pre", "resid_mid", "resid_post")
Layers = Callable[[Pass], range]
ATTENTION: Layers = Pass.attention_layers
MLPS: Layers = Pass.mlp_layers


def _each(layers: Layers, sites: tuple[str, ...], part: Callable[[Pass, int], Part]) -> Family:
    """A kind with one part in each layer."""
    def spots(seen: Pass) -> list[Spot]:
        return [Spot(site, layer) for layer in layers(seen) for site in sites]

    def parts(seen: Pass) -> Iterator[Part]:
        return (part(seen, layer) for layer in layers(seen))

    return Family(spots, parts)


# Vectors in the stream ------------------------------------------------------------------------------------------------


def _vectors(form: str, name: str, spot: Spot, seen: Pass, write: Tensor | None = None) -> Part:
    """One node per position, which writes a vector [pos d_model]: the site's own value, or another."""
    value, grad = seen.values[spot] if write is None else write, seen.grads[spot]
    layer = -1 if spot.layer is None else spot.layer
    return Part(Kind(name, form), grid(layer, [-1], range(len(value))), {
        "write_norm": lambda: value.norm(dim=-1), "act_grad": lambda: (value * grad).sum(-1),
        "direct_effect": lambda: (value * seen.goal).sum(-1)})


def _token_spots(seen: Pass) -> list[Spot]:
    return [Spot(site) for site in ("embed", "pos_embed") if seen.model.sites.missing(site) is None]


def _tokens(seen: Pass) -> Iterator[Part]:
    return (_vectors(spot.site, "tokens", spot, seen) for spot in _token_spots(seen))


def _layer_write(site: str, name: str) -> Callable[[Pass, int], Part]:
    return lambda seen, layer: _vectors("L{layer}." + site, name, Spot(site, layer), seen)


def _stream_spots(seen: Pass) -> list[Spot]:
    sites = [site for site in STREAM if seen.model.sites.missing(site) is None]
    spots = [Spot(site, layer) for layer in range(seen.model.facts.n_layers) for site in sites]
    return [spot for spot in spots if spot.order <= seen.end.order]


def _stream(seen: Pass) -> Iterator[Part]:
    return (_vectors(f"L{{layer}}.{spot.site}", "stream", spot, seen) for spot in _stream_spots(seen))


# Heads ----------------------------------------------------------------------------------------------------------------


def _out(seen: Pass, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """z [pos head d_head], W_O [head d_head d_model], and what carries writes into the stream, [pos d_model]."""
    z = seen.values[Spot("z", layer)]
    out = ports.wide(seen.model.W.O[layer]).to(z)
    if norm_behind(seen.model, layer, "attn_out") is None:
        return z, out, torch.ones_like(z[:, 0, :1])
    whole = torch.einsum("phd,hdm->pm", z, out) + ports.wide(seen.model.W.b_O[layer]).to(z)
    return z, out, seen.carried(layer, "attn_out", whole)


def _heads(seen: Pass, layer: int) -> Part:
    z, out, carried = _out(seen, layer)
    grad = seen.grads[Spot("z", layer)]
    return Part(Kind("heads", "L{layer}H{unit}"), grid(layer, range(z.shape[1]), range(len(z))), {
        "write_norm": lambda: (torch.einsum("phd,hdm->hpm", z, out) * carried).norm(dim=-1),
        "act_grad": lambda: (z * grad).sum(-1).T,
        "direct_effect": lambda: torch.einsum("phd,hdm,pm->hp", z, out, carried * seen.goal)})


def _pairs(seen: Pass, layer: int) -> Part:
    """Attention from each token to each: a head writes A[q,k] v_k W_O at q."""
    _, out, carried = _out(seen, layer)
    pattern, grad = seen.values[Spot("pattern", layer)], seen.grads[Spot("pattern", layer)]  # [head query key]
    v = seen.values[Spot("v", layer)]
    v = v.repeat_interleave(len(pattern) // v.shape[1], 1)  # [key head d_head]
    cells = grid(layer, range(len(pattern)), range(pattern.shape[1]), range(pattern.shape[2]))
    there = cells[:, 3] <= cells[:, 2] if seen.model.facts.causal else np.ones(len(cells), dtype=bool)
    keep = torch.from_numpy(there).to(pattern.device)

    def sizes() -> Tensor:
        writes = torch.einsum("khd,hdm->hkm", v, out)
        if carried.shape[-1] == 1:
            return writes.norm(dim=-1)[:, None]
        return torch.einsum("hkm,qm->hqk", writes.square(), carried.square()).sqrt()

    def direct() -> Tensor:
        goals = torch.einsum("hdm,qm->hqd", out, carried * seen.goal)
        return pattern * torch.einsum("khd,hqd->hqk", v, goals)

    return Part(Kind("pairs", "L{layer}H{unit}"), cells[there], {
        "activation": lambda: pattern.flatten()[keep], "act_grad": lambda: (pattern * grad).flatten()[keep],
        "write_norm": lambda: (pattern.abs() * sizes()).flatten()[keep], "direct_effect": lambda: direct().flatten()[keep]})


# Neurons --------------------------------------------------------------------------------------------------------------


def _neuron_out(seen: Pass, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Activations [pos neuron], W_out [neuron d_model], and what carries writes into the stream, [pos d_model]."""
    a = seen.values[Spot("mlp_post", layer)]
    out = ports.wide(seen.model.W.Out[layer]).to(a)
    if norm_behind(seen.model, layer, "mlp_out") is None:
        return a, out, torch.ones_like(a[:, :1])
    return a, out, seen.carried(layer, "mlp_out", a @ out + ports.wide(seen.model.W.b_Out[layer]).to(a))


def _neurons(seen: Pass, layer: int) -> Part:
    a, out, carried = _neuron_out(seen, layer)
    grad = seen.grads[Spot("mlp_post", layer)]

    def sizes() -> Tensor:
        return out.norm(dim=-1) if carried.shape[-1] == 1 else (carried.square() @ out.square().T).sqrt()

    return Part(Kind("neurons", "L{layer}N{unit}"), grid(layer, range(a.shape[1]), range(len(a))), {
        "activation": lambda: a.T, "act_grad": lambda: (a * grad).T, "write_norm": lambda: (a.abs() * sizes()).T,
        "direct_effect": lambda: (a * ((carried * seen.goal) @ out.T)).T})


# Biases ---------------------------------------------------------------------------------------------------------------


def _biased(seen: Pass) -> tuple[range, range]:
    """Layers of attention and of MLPs whose bias no other kind of node has; that of experts is not known."""
    known = "mlps" not in seen.names and seen.model.W.missing("b_Out") is None
    return (range(0) if "attention" in seen.names else seen.attention_layers(), seen.mlp_layers() if known else range(0))


def _bias_spots(seen: Pass) -> list[Spot]:
    attention, mlps = _biased(seen)
    return [*(Spot(site, n) for n in attention for site in ("attn_out", "z")),
            *(Spot(site, n) for n in mlps for site in ("mlp_out", "mlp_post"))]


def _biases(seen: Pass) -> Iterator[Part]:
    weights = seen.model.W
    attention, mlps = _biased(seen)
    for layer in attention:
        z, _, carried = _out(seen, layer)
        write = ports.wide(weights.b_O[layer]).to(z) * carried
        if bool(write.any()):
            yield _vectors("L{layer}.b_O", "biases", Spot("attn_out", layer), seen, write)
    for layer in mlps:
        a, _, carried = _neuron_out(seen, layer)
        write = ports.wide(weights.b_Out[layer]).to(a) * carried
        if bool(write.any()):
            yield _vectors("L{layer}.b_Out", "biases", Spot("mlp_out", layer), seen, write)


def rest(seen: Pass, names: tuple[str, ...]) -> tuple[Kind, np.ndarray, Columns]:
    """What the stream at the end has no part in: for a logit the biases of the final norm and of the unembedding."""
    columns = {name: np.full(1, np.nan) for name in names}
    if "direct_effect" in columns:
        columns["direct_effect"][:] = seen.total - float((seen.values[seen.end].double() * seen.goal.double()).sum())
    return Kind("biases", "rest"), np.full((1, 4), -1), columns


KINDS: dict[str, Family] = {
    "tokens": Family(_token_spots, _tokens),
    "heads": _each(ATTENTION, ("z",), _heads),
    "neurons": _each(MLPS, ("mlp_post",), _neurons),
    "attention": _each(ATTENTION, ("attn_out",), _layer_write("attn_out", "attention")),
    "mlps": _each(MLPS, ("mlp_out",), _layer_write("mlp_out", "mlps")),
    "pairs": _each(ATTENTION, ("pattern", "v", "z"), _pairs),
    "stream": Family(_stream_spots, _stream),
    "latents": Family(node_latents.spots, node_latents.parts),
    "biases": Family(_bias_spots, _biases),
}
