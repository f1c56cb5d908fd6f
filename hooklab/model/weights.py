"""`model.W`: the weights of any architecture under the same names, in the same shapes, in the same orientation.

Every matrix is [in out], so `x @ W` is what the model computes; attention weights are split into heads whatever
fused or grouped form the module stores, embeddings are what really enters the stream. The module is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..address import check_index
from ..errors import LayerError, SiteNameError, did_you_mean
from . import linear, ports
from .factored import Factored
from .layout import Layout
from .ports import Part


@dataclass(frozen=True)
class Row:
    """One weight: its name, axes (`layer` first where every block has one), meaning, and the site it needs."""

    name: str
    axes: tuple[str, ...]
    meaning: str
    site: str | None = None


def _row(name: str, axes: str, meaning: str, site: str | None = None) -> Row:
    return Row(name, tuple(axes.split()), meaning, site)


ROWS: dict[str, Row] = {row.name: row for row in (
    _row("E", "d_vocab d_model", "what each token puts into the stream (scale, projection and norm included)"),
    _row("pos", "pos d_model", "what each position puts into the stream", "pos_embed"),
    _row("ln1", "layer d_model", "gain of the norm before attention", "ln1"),
    _row("b_ln1", "layer d_model", "its bias", "ln1"),
    _row("Q", "layer head d_model d_head", "stream to queries"),
    _row("K", "layer kv_head d_model d_head", "stream to keys"),
    _row("V", "layer kv_head d_model d_head", "stream to values"),
    _row("O", "layer head d_head d_model", "each head's write into the stream"),
    _row("b_Q", "layer head d_head", "bias of the queries"),
    _row("b_K", "layer kv_head d_head", "bias of the keys"),
    _row("b_V", "layer kv_head d_head", "bias of the values"),
    _row("b_O", "layer d_model", "bias of attention's write"),
    _row("ln2", "layer d_model", "gain of the norm before the MLP", "ln2"),
    _row("b_ln2", "layer d_model", "its bias", "ln2"),
    _row("Gate", "layer d_model d_mlp", "stream to gates, which pass the nonlinearity", "mlp_pre_linear"),
    _row("b_Gate", "layer d_mlp", "bias of the gates", "mlp_pre_linear"),
    _row("In", "layer d_model d_mlp", "stream to neurons (the linear branch of gated MLPs)", "mlp_pre"),
    _row("b_In", "layer d_mlp", "bias of the neurons", "mlp_pre"),
    _row("Out", "layer d_mlp d_model", "each neuron's write into the stream", "mlp_post"),
    _row("b_Out", "layer d_model", "bias of the MLP's write", "mlp_post"),
    _row("ln_final", "d_model", "gain of the norm before the unembedding", "ln_final"),
    _row("b_ln_final", "d_model", "its bias", "ln_final"),
    _row("U", "d_model d_vocab", "normalised stream to logits (before any soft-cap)", "logits"),
    _row("b_U", "d_vocab", "bias of the logits", "logits"),
)}

ALIASES = {**{f"W_{name}": name for name in ("Q", "K", "V", "O", "E", "U", "pos")},
           **{prefix + name.lower(): stem + name for prefix, stem in (("W_", ""), ("b_", "b_"))
              for name in ("In", "Gate", "Out")}}
"""TransformerLens' names."""

READS = {"Q": "ln1", "K": "ln1", "V": "ln1", "Gate": "ln2", "In": "ln2", "U": "ln_final"}
"""Matrices that read the stream, and the norm that they read it through."""


class Plain:
    """The weights as the module stores them: `read(name, layer)` gives a detached tensor, a view where possible."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def read(self, name: str, layer: int = 0) -> Tensor:
        """A weight of one layer (or of the whole model), axes as in `ROWS` without `layer`."""
        stem = name.removeprefix("b_")
        if stem in ("ln1", "ln2", "ln_final"):
            return self._norm(stem, layer, bias=stem != name)
        if name in ("E", "pos", "U"):
            return {"E": self._embed, "pos": self._positions, "U": self._unembed}[name]().detach()
        module, part = self._served(stem, layer)
        if stem == name:
            whole = linear.matrix(module).detach()
            return whole if part is None else rearrange(part(whole[None]), "1 m ... -> ... m" if part is _columns
                                                        else "1 m h d -> h m d")
        whole = linear.bias(module)
        whole = linear.matrix(module).new_zeros(linear.matrix(module).shape[1]) if whole is None else whole
        return whole.detach()
