"""What `model.W` reads: the table of weights, how each is cut out of the module that stores it, and norm folding.

Every matrix is [in out]. `Plain` gives the stored weights, `Folded` the same with norm gains and biases moved into
the matrices that read the stream; `weights.py` gives them names, indices and products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from . import linear, ports
from .layout import Layout
from .ports import centres


@dataclass(frozen=True)
class Row:
    """One weight: its axes (`layer` first where every block has one), its meaning, and the site that goes with it."""

    axes: tuple[str, ...]
    meaning: str
    site: str | None = None


def _row(axes: str, meaning: str, site: str | None = None) -> Row:
    return Row(tuple(axes.split()), meaning, site)


ROWS: dict[str, Row] = {
    "E": _row("d_vocab d_model", "what each token puts into the stream (scale, projection and norm included)"),
    "pos": _row("pos d_model", "what each position puts into the stream", "pos_embed"),
    "ln1": _row("layer d_model", "gain of the norm before attention", "ln1"),
    "b_ln1": _row("layer d_model", "its bias", "ln1"),
    "Q": _row("layer head d_model d_head", "stream to queries"),
    "b_Q": _row("layer head d_head", "bias of the queries"),
    "K": _row("layer kv_head d_model d_head", "stream to keys"),
    "b_K": _row("layer kv_head d_head", "bias of the keys"),
    "V": _row("layer kv_head d_model d_head", "stream to values"),
    "b_V": _row("layer kv_head d_head", "bias of the values"),
    "O": _row("layer head d_head d_model", "what each head writes into the stream"),
    "b_O": _row("layer d_model", "bias of attention's write"),
    "ln2": _row("layer d_model", "gain of the norm before the MLP", "ln2"),
    "b_ln2": _row("layer d_model", "its bias", "ln2"),
    "Gate": _row("layer d_model d_mlp", "stream to gates, which pass through the nonlinearity", "mlp_pre_linear"),
    "b_Gate": _row("layer d_mlp", "bias of the gates", "mlp_pre_linear"),
    "In": _row("layer d_model d_mlp", "stream to neurons (of a gated MLP: its linear branch)", "mlp_pre"),
    "b_In": _row("layer d_mlp", "bias of the neurons", "mlp_pre"),
    "Out": _row("layer d_mlp d_model", "what each neuron writes into the stream", "mlp_post"),
    "b_Out": _row("layer d_model", "bias of the MLP's write", "mlp_post"),
    "ln_final": _row("d_model", "gain of the norm before the unembedding", "ln_final"),
    "b_ln_final": _row("d_model", "its bias", "ln_final"),
    "U": _row("d_model d_vocab", "what the head reads to logits, before any soft-cap", "logits"),
    "b_U": _row("d_vocab", "bias of the logits", "logits"),
}

ALIASES = {**{f"W_{name}": name for name in ("E", "pos", "Q", "K", "V", "O", "U", "In", "Gate", "Out")},
           "W_in": "In", "W_gate": "Gate", "W_out": "Out", "b_in": "b_In", "b_gate": "b_Gate", "b_out": "b_Out"}
"""TransformerLens' names."""

READS = {"Q": "ln1", "K": "ln1", "V": "ln1", "Gate": "ln2", "In": "ln2", "U": "ln_final"}
"""The matrices that read the stream, and the norm through which they read it."""

GIVES = {"E": "embed", "O": "attn_out", "Out": "mlp_out", "U": "logits"}
"""The matrices whose output the model may multiply by a number of its config: matrix -> site."""


class Plain:
    """Weights as the module stores them, cut into the shapes of `ROWS`; views of the parameters where possible."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def read(self, name: str, layer: int = 0) -> Tensor:
        """A weight of one layer, or of the whole model: axes as in `ROWS`, less `layer`."""
        stem = name.removeprefix("b_")
        if stem.startswith("ln"):
            return self._norm(name, stem, layer)
        if stem in ("E", "pos"):
            return self._given("E", self._embed()) if stem == "E" else self._positions()
        module, part = self._served(stem, layer)
        matrix, bias = self._given(stem, linear.matrix(module).detach()), linear.bias(module)
        if name != stem:
            whole = matrix.new_zeros(matrix.shape[1]) if bias is None else self._given(stem, bias.detach())
            return whole if part is None else part.take(whole[None, None])[0, 0]
        if part is None:
            return self._SHAPED[stem](self, matrix) if stem in self._SHAPED else matrix
        taken = part.take(matrix[None])[0]  # [d_model head d_head] or [d_model d_mlp]
        return rearrange(taken, "m h d -> h m d") if taken.ndim == 3 else taken

    def _given(self, stem: str, values: Tensor) -> Tensor:
        """What a matrix or bias gives, times the number that the model multiplies it by, if any."""
        site = GIVES.get(stem)
        return values * self.layout.factor(site) if site in self.layout.family.factors else values

    def _served(self, stem: str, layer: int) -> tuple[nn.Module, ports.Part | None]:
        """The module that holds a matrix, and which part of its output the matrix makes."""
        table, facts, role = self.layout.family, self.layout.facts, self.layout.role
        if stem == "U":
            return self.layout.hf.get_output_embeddings(), None
        if stem in ("Q", "K", "V"):
            which = stem.lower()
            if table.qkv is None:
                return role(layer, which), ports.heads(facts.d_head)
            return role(layer, "qkv"), ports.fused_part(which, table.packing, facts.n_heads, facts.n_kv_heads,
                                                        facts.d_head)
        if table.gate_up is not None and stem in ("Gate", "In"):
            width = facts.d_mlp or 0
            start = 0 if stem == "Gate" else width
            return role(layer, "gate_up"), ports.span(start, start + width)
        names = {"O": "o", "Out": "down", "Gate": "gate", "In": "gate" if table.up is None else "up"}
        return role(layer, names[stem]), None

    def _norm(self, name: str, stem: str, layer: int) -> Tensor:
        """Gain or bias of a norm, [d_model], in float32 at least: norms compute in it."""
        layout, is_gain = self.layout, name == stem
        final = stem == "ln_final"
        module = layout.module(layout.base, layout.family.ln_final or "") if final else layout.role(layer, stem)
        kept = getattr(module, "weight" if is_gain else "bias", None)
        if kept is None:  # a norm without gain or bias
            block = next(layout.blocks[layer].parameters())
            return torch.full((layout.facts.d_model,), float(is_gain), device=block.device)
        kept = kept.detach().to(torch.promote_types(kept.dtype, torch.float32))
        return kept + 1 if is_gain and layout.family.norm.endswith("1p") else kept

    def _embed(self) -> Tensor:
        """[d_vocab d_model], by running every token through where the embedding is more than a look-up."""
        table = self.layout.base.get_input_embeddings()
        last = self.layout.module(self.layout.base, self.layout.family.embed)
        if last is table and type(table) is nn.Embedding:
            return table.weight.detach()
        with torch.no_grad():
            ids = torch.arange(table.weight.shape[0], device=table.weight.device)
            rows = type(table).forward(table, ids)  # past any instrumentation: this is no part of a forward pass
            return rows if last is table else type(last).forward(last, rows)

    def _positions(self) -> Tensor:
        module = self.layout.module(self.layout.base, self.layout.family.pos_embed or "")
        # OPT keeps two rows in front of position 0; RoBERTa keeps those up to the one for padding.
        padding = getattr(module, "padding_idx", None)
        start = getattr(module, "offset", 0 if padding is None else padding + 1)
        return module.weight.detach()[start:]

    def _split_heads(self, matrix: Tensor) -> Tensor:
        return rearrange(matrix, "(h d) m -> h d m", h=self.layout.facts.n_heads)

    def _projected(self, matrix: Tensor) -> Tensor:
        """The head's matrix behind the projection that OPT may have before it."""
        project = getattr(getattr(self.layout.base, "decoder", None), "project_out", None)
        return matrix if project is None else linear.matrix(project).detach() @ matrix

    _SHAPED = {"O": _split_heads, "U": _projected}


class Folded(Plain):
    """Weights with the gain and bias of each norm moved into the matrices that read it."""

    def __init__(self, layout: Layout, *, centre: bool) -> None:
        super().__init__(layout)
        self.centre = centre and centres(layout.family.norm)

    def read(self, name: str, layer: int = 0) -> Tensor:
        """As `Plain.read`, folded; norms that were folded away have gain one and bias zero."""
        plain, stem = super().read(name, layer), name.removeprefix("b_")
        if stem.startswith("ln"):
            if stem not in {self._before(reader) for reader in READS}:
                return plain
            return torch.ones_like(plain) if name == stem else torch.zeros_like(plain)
        norm = self._before(stem)
        if norm is None:
            return plain
        if name != stem:
            shift = super().read(f"b_{norm}", layer).to(plain.device)
            matrix = super().read(stem, layer).to(shift.dtype)
            return (plain + shift @ matrix).to(plain.dtype)
        folded = super().read(norm, layer).to(plain.device)[:, None] * plain
        if self.centre:
            folded = folded - folded.mean(-2, keepdim=True)
        return folded.to(plain.dtype)

    def _before(self, stem: str) -> str | None:
        """The norm to fold into a matrix: none where it stands in the stream itself or the matrix does not exist."""
        table, norm = self.layout.family, READS.get(stem)
        if norm == "ln_final":
            return norm if table.ln_final and self.layout.has_head else None
        if norm is None or table.residual == "post" or (norm == "ln2" and table.down is None):
            return None
        if norm == "ln2" and table.ln2 is None and table.residual == "parallel":
            norm = "ln1"  # one norm serves attention and MLP
        return norm if getattr(table, norm) else None
