"""The identities that relate a model's sites to each other and to its weights, as a table of small functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import SiteError
from ...records import Activations
from .. import linear
from ..ports import centres, norm_gain
from .difference import difference

if TYPE_CHECKING:
    from ..model import Model

Sides = tuple[Tensor, Tensor]


class View:
    """Sites of one layer of one run, by name."""

    def __init__(self, model: Model, acts: Activations | Mapping[str, Tensor], layer: int) -> None:
        self.model, self.acts, self.layer = model, acts, layer
        self.family = model.layout.family

    def __getitem__(self, site: str) -> Tensor:
        return self.acts[f"L{self.layer}.{site}"]

    def __contains__(self, site: str) -> bool:
        return f"L{self.layer}.{site}" in self.acts

    def role(self, name: str) -> Any:
        return self.model.layout.role(self.layer, name)


def _middle(v: View) -> Sides:
    return v["resid_pre"] + v["attn_out"], v["resid_mid"]


def _end(v: View) -> Sides:
    return v["resid_pre"] + v["attn_out"] + v["mlp_out"], v["resid_post"]


def _chain(v: View) -> Sides:
    return v["resid_post"], v.acts[f"L{v.layer + 1}.resid_pre"]


def _heads(v: View) -> Sides:
    total = v["result"].sum(2)
    offset = linear.bias(v.role("o"))
    total = total if offset is None else total + offset * v.model.layout.factor("attn_out")
    norm = v.role("post_attn")
    return (total if norm is None else plain(norm, total)), v["attn_out"]


def _weighted(v: View) -> Sides:
    group = v["pattern"].shape[1] // v["v"].shape[2]
    values = v["v"].repeat_interleave(group, 2)
    return torch.einsum("bhqk,bkhd->bqhd", v["pattern"].to(values.dtype), values), v["z"]


def _rows(v: View) -> Sides:
    sums = v["pattern"].float().sum(-1)
    ones = torch.ones_like(sums)
    sink = getattr(v.role("attn"), "sinks", None)
    return sums, torch.minimum(sums, ones) if sink is not None else ones


def _past(v: View) -> Sides:
    future = torch.triu(v["pattern"].float(), diagonal=1)
    return future, torch.zeros_like(future)


def _softmax(v: View) -> Sides:
    return torch.softmax(v["scores"].float(), -1), v["pattern"]


def _turned(v: View) -> Sides:
    q, rotary = v["q"].float(), getattr(v.model.layout.base, "rotary_emb", None)
    scale = getattr(rotary, "attention_scaling", 1.0)  # YaRN, as GPT-OSS has it, lengthens what it turns
    if scale != 1.0 and rotary is not None:
        turned = 2 * rotary.inv_freq.shape[-1]
        q = torch.cat([q[..., :turned] * scale, q[..., turned:]], -1)
    return q.norm(dim=-1), v["rot_q"].float().norm(dim=-1)


def _unrotated(v: View) -> Sides:
    return v["q"], v["rot_q"]


def _neurons(v: View) -> Sides:
    out = plain(v.role("down"), v["mlp_post"]) * v.model.layout.factor("mlp_out")
    norm = v.role("post_mlp")
    return (out if norm is None else plain(norm, out)), v["mlp_out"]


def _active(v: View) -> Sides:
    return plain(activation(v.model, v.layer), v["mlp_pre"]), v["mlp_post"]


def _gated(v: View) -> Sides:
    return plain(activation(v.model, v.layer), v["mlp_pre"]) * v["mlp_pre_linear"], v["mlp_post"]


def activation(model: Model, layer: int) -> Any:
    """The MLP's activation function: the one module of a block that is named so; None where there is no such one."""
    found = [module for name, module in model.layout.blocks[layer].named_modules()
             if any(word in name.rpartition(".")[2].lower() for word in ("act", "gelu"))
             and not list(module.parameters()) and not list(module.children())]
    return found[0] if len(found) == 1 else None


def _norm1(v: View) -> Sides:
    return _normalised(v, v["resid_pre"], "ln1")


def _norm2(v: View) -> Sides:
    # The stream is summed up here rather than read at resid_mid, so that a wrong resid_mid cannot vouch for ln2.
    before = v["ln1"] if v.family.restarts else v["resid_pre"]
    return _normalised(v, before if v.family.residual == "parallel" else before + v["attn_out"], "ln2")


def _normalised(v: View, stream: Tensor, site: str) -> Sides:
    norm, kind = v.role(site), v.family.norm
    x = stream.float()
    centred = x - x.mean(-1, keepdim=True) if centres(kind) else x
    out = centred / v[site + "_scale"] * norm_gain(norm, kind)
    offset = getattr(norm, "bias", None)
    return (out if offset is None else out + offset.float()), v[site]


_TABLE: tuple[tuple[str, tuple[str, ...], Callable[[View], Sides], Callable[[Model], bool]], ...] = (
    ("resid_pre + attn_out = resid_mid", ("resid_pre", "attn_out", "resid_mid"), _middle, lambda m: True),
    ("the block's parts add up to resid_post", ("attn_out", "mlp_out", "resid_post"), _end,
     lambda m: m.layout.family.adds_up),
    ("norm of the stream = ln1", ("resid_pre", "ln1_scale", "ln1"), _norm1, lambda m: True),
    ("norm of the stream = ln2", ("attn_out", "ln2_scale", "ln2"), _norm2, lambda m: True),
    ("q = rot_q (no rotation)", ("q", "rot_q"), _unrotated, lambda m: not m.layout.family.rotary),
    ("rotation keeps the length of q", ("q", "rot_q"), _turned,
     lambda m: m.layout.family.rotary and not hasattr(m.layout.role(0, "attn"), "q_norm")
     and not hasattr(m.layout.role(0, "attn"), "q_layernorm") and not hasattr(m.layout.role(0, "attn"), "query_layernorm")),
    ("softmax of scores = pattern", ("scores", "pattern"), _softmax,
     lambda m: not hasattr(m.layout.role(0, "attn"), "sinks")),
    ("rows of pattern sum to one", ("pattern",), _rows, lambda m: True),
    ("no attention to the future", ("pattern",), _past, lambda m: m.facts.causal),
    ("pattern · v = z", ("pattern", "v", "z"), _weighted, lambda m: True),
    ("sum of result + b_O = attn_out", ("attn_out", "result"), _heads, lambda m: True),
    ("act(mlp_pre) = mlp_post", ("mlp_pre", "mlp_post"), _active,
     lambda m: m.layout.missing("mlp_pre_linear") is not None and activation(m, 0) is not None),
    ("act(mlp_pre) · mlp_pre_linear = mlp_post", ("mlp_pre", "mlp_pre_linear", "mlp_post"), _gated,
     lambda m: activation(m, 0) is not None),
    ("W_out mlp_post + b = mlp_out", ("mlp_out", "mlp_post"), _neurons, lambda m: True),
)


def identities(model: Model, acts: Activations) -> Iterator[tuple[str, tuple[str, ...], float | None, str]]:
    """(name, sites, largest error over layers, note) for every identity that applies to the model."""
    for name, sites, sides, applies in _TABLE:
        lacking = [site for site in sites if model.layout.missing(site)]
        unread = [site for site in sites if not lacking and f"L0.{site}" not in acts]  # which failed already
        if lacking or unread or not applies(model):
            continue
        try:
            errors = [difference(*sides(View(model, acts, layer))) for layer in range(model.facts.n_layers)]
        except (RuntimeError, TypeError, AttributeError, LookupError, SiteError) as error:
            yield name, sites, float("inf"), f"cannot be computed: {error}".split("\n")[0]
            continue
        yield name, sites, max(errors), ""
    if model.facts.n_layers > 1:
        errors = [difference(*_chain(View(model, acts, layer))) for layer in range(model.facts.n_layers - 1)]
        yield "resid_post = next resid_pre", ("resid_pre", "resid_post"), max(errors), ""
    if model.layout.family.summed and {"embed", "L0.resid_pre"} <= set(acts) and (
            model.layout.missing("pos_embed") or "pos_embed" in acts):  # which normalises the sum before the first block
        start = acts["embed"] + (0 if model.layout.missing("pos_embed") else acts["pos_embed"])
        yield "embeddings = first resid_pre", ("resid_pre", "embed"), difference(start, acts["L0.resid_pre"]), ""
    if {"ln_final", "logits"} <= set(acts):
        yield "unembed(ln_final) = logits", ("logits", "ln_final"), difference(
            model.layout.unembed(acts["ln_final"]), acts["logits"]), ""


def plain(module: Any, x: Tensor) -> Tensor:
    """What a module makes of a value."""
    with torch.no_grad():
        return module(x)
