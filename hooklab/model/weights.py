"""`model.W`: the weights of any architecture under the same names, in the same shapes, in the same orientation.

Every matrix is [in out], so `x @ W` is what the model computes; attention weights are split into heads whatever
fused or grouped form the module stores; embeddings are what really enters the stream. The module is only read.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from numbers import Integral
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..address import check_index
from ..errors import LayerError, SiteNameError, did_you_mean
from . import linear, ports
from .factored import Factored
from .layout import Layout


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
            return self._embed() if stem == "E" else self._positions()
        module, part = self._served(stem, layer)
        matrix, bias = linear.matrix(module).detach(), linear.bias(module)
        if name != stem:
            whole = matrix.new_zeros(matrix.shape[1]) if bias is None else bias.detach()
            return whole if part is None else part.take(whole[None, None])[0, 0]
        if part is None:
            return self._SHAPED[stem](self, matrix) if stem in self._SHAPED else matrix
        taken = part.take(matrix[None])[0]  # [d_model head d_head] or [d_model d_mlp]
        return rearrange(taken, "m h d -> h m d") if taken.ndim == 3 else taken

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
            start = 0 if stem == "Gate" else facts.d_mlp
            return role(layer, "gate_up"), ports.span(start, start + facts.d_mlp)
        names = {"O": "o", "Out": "down", "Gate": "gate", "In": "gate" if table.up is None else "up"}
        return role(layer, names[stem]), None

    def _norm(self, name: str, stem: str, layer: int) -> Tensor:
        """Gain or bias of a norm, [d_model], in float32 at least: norms compute in it."""
        layout, is_gain = self.layout, name == stem
        final = stem == "ln_final"
        module = layout.module(layout.base, layout.family.ln_final) if final else layout.role(layer, stem)
        kept = getattr(module, "weight" if is_gain else "bias", None)
        if kept is None:  # a norm without gain or bias
            block = next(layout.blocks[layer].parameters())
            return torch.full((layout.facts.d_model,), float(is_gain), device=block.device)
        kept = kept.detach().to(torch.promote_types(kept.dtype, torch.float32))
        return kept + 1 if is_gain and layout.family.norm == "rms1p" else kept

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
        module = self.layout.module(self.layout.base, self.layout.family.pos_embed)
        return module.weight.detach()[getattr(module, "offset", 0):]  # OPT keeps two rows in front of position 0

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
        self.centre = centre and layout.family.norm == "layer"

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
            shift = super().read(f"b_{norm}", layer)
            matrix = super().read(stem, layer).to(shift.dtype)
            return (plain + shift @ matrix).to(plain.dtype)
        folded = super().read(norm, layer)[:, None] * plain
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


class PerLayer:
    """One weight in all layers: index it by layer, then by head (or any further axis). Values are copies.

    `W.Q[3, 2]` is one head, `W.Q[3]` all heads of a layer, `W.Q[1:3]` and `W.Q[:]` stack layers.
    """

    def __init__(self, weights: Weights, name: str) -> None:
        self._weights = weights
        self._name = name
        self.axes = ROWS[name].axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self._weights.sizes(self._name)

    def __getitem__(self, index: Any) -> Tensor:
        """The weight of a layer or of several.

        Raises:
            LayerError: a layer or head out of range, or a range that names no layer.
        """
        layers, *rest = index if isinstance(index, tuple) else (index,)
        if rest and isinstance(rest[0], Integral) and "head" in self.axes[1]:
            rest[0] = check_index(rest[0], self.shape[1], self.axes[1])
        chosen = range(self.shape[0])[layers] if isinstance(layers, slice) else layers
        if hasattr(chosen, "__iter__"):
            made = [self._one(layer, rest) for layer in chosen]
            if not made:
                raise LayerError(f"W.{self._name}[{index}] names none of the {self.shape[0]} layers.")
            return torch.stack([value.to(made[0].device) for value in made])
        return self._one(chosen, rest).clone(memory_format=torch.contiguous_format)

    def _one(self, layer: int, rest: list[Any]) -> Tensor:
        return self._weights.source.read(self._name, check_index(layer, self.shape[0], "layer"))[tuple(rest)]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        sizes = " · ".join(f"{axis} {size}" for axis, size in zip(self.axes, self.shape, strict=True))
        return f"W.{self._name}: {sizes}  ({ROWS[self._name].meaning})"


class PerKVHead(PerLayer):
    """Keys or values: indexed by kv head, or by the query head that uses it through `for_head`."""

    def for_head(self, layer: int, head: int | None = None) -> Tensor:
        """What query head `head` reads (all query heads when None, [head …]).

        Raises:
            LayerError: a layer or head out of range.
        """
        facts = self._weights.layout.facts
        group = facts.n_heads // facts.n_kv_heads
        if head is None:
            return repeat(self[layer], "kv ... -> (kv g) ...", g=group)
        return self[layer, check_index(head, facts.n_heads, "head") // group]


class Weights:
    """The weights of a model; `print(model.W)` lists them with shapes. TransformerLens' `W_Q`, `W_in` … are accepted.

    Weights of a layer are copies. `E`, `pos`, `U` and the other weights of the whole model may share memory with
    the model: do not write to them. `U` is the head's matrix (OPT's `project_out` multiplied in); where a head has
    layers of its own before it, as BERT's has, `U` reads what they give. A weight that the architecture lacks, and a
    name that is none, raise SiteNameError, which says why; a layer or head out of range raises LayerError.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> tuple(model.W.Q[0, 1].shape) == (model.facts.d_model, model.facts.d_head)
        True
        >>> model.W.OV(0, 1).rank == model.facts.d_head
        True
    """

    Q: PerLayer
    K: PerKVHead
    V: PerKVHead
    O: PerLayer  # noqa: E741
    E: Tensor
    U: Tensor

    def __init__(self, layout: Layout, source: Plain | None = None) -> None:
        self.layout = layout
        self.source = source or Plain(layout)

    def OV(self, layer: int, head: int | None = None) -> Factored:
        """W_V W_O of a head, [d_model d_model] of rank d_head (all heads when None): what the head writes when it
        looks at a place, `x @ OV`.

        Raises:
            LayerError: the layer or head is out of range.
        """
        return Factored(self.V.for_head(layer, head), self._of_head("O", layer, head))

    def QK(self, layer: int, head: int | None = None) -> Factored:
        """W_Q W_Kᵀ of a head, [d_model d_model] of rank d_head (all heads when None): `QK.pair(x, y)` is how much a
        query from x matches a key from y, before biases and scaling.

        Under rotary positions this is the product before rotation: exact for a token that looks at its own
        position, not between positions. Norms of queries and keys (Qwen 3, Gemma 3, OLMo 2) are not part of it.

        Raises:
            LayerError: the layer or head is out of range.
        """
        return Factored(self._of_head("Q", layer, head), self.K.for_head(layer, head).mT)

    def folded(self, *, centre: bool = False) -> Weights:
        """The same weights with norm gains and biases moved into the matrices that read the stream (Q, K, V, Gate,
        In, U and their biases): they then act on the normalised stream without gain, (x - mean) / scale.

        The model is not changed. Norms that stand in the stream or after a component (BERT, OPT's post-norm form,
        OLMo 2, Gemma's second pair) stay as they are, and so does the norm before a mixture of experts.

        Args:
            centre: Also remove from each matrix what LayerNorm's subtraction of the mean makes invisible; it then
                acts on x / scale directly. No effect for RMS norms, which subtract nothing.

        Example:
            >>> import hooklab as hl
            >>> W = hl.load("lab").W.folded()
            >>> bool((W.ln_final == 1).all())
            True
        """
        return Weights(self.layout, Folded(self.layout, centre=centre))

    # Names ------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "layout" not in self.__dict__:
            raise AttributeError(name)
        name = ALIASES.get(name, name)
        if name not in ROWS:
            raise SiteNameError(f"There is no weight W.{name}." + did_you_mean(name, (*ROWS, *ALIASES)))
        reason = self.missing(name)
        if reason is not None:
            raise SiteNameError(f"{self.layout.family.name} has no W.{name}: {reason}.")
        axes = ROWS[name].axes
        if axes[0] != "layer":
            return self.source.read(name)
        return (PerKVHead if axes[1] == "kv_head" else PerLayer)(self, name)

    def missing(self, name: str) -> str | None:
        """Why the model has no such weight, or None when it has it."""
        site, table = ROWS[name].site, self.layout.family
        if site == "mlp_pre_linear" and table.gate is not None and table.up is None:
            return "its MLP has one branch only. Use W.In"
        return None if site is None else table.missing(site, head=self.layout.has_head)

    def sizes(self, name: str) -> tuple[int, ...]:
        """Sizes of a weight's axes, without reading it."""
        facts = self.layout.facts
        known = {"layer": facts.n_layers, "head": facts.n_heads, "kv_head": facts.n_kv_heads, "pos": facts.n_ctx}
        return tuple(known[axis] if axis in known else getattr(facts, axis) for axis in ROWS[name].axes)

    def _of_head(self, name: str, layer: int, head: int | None) -> Tensor:
        return getattr(self, name)[layer] if head is None else getattr(self, name)[layer, head]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in ROWS if self.missing(name) is None)]

    def _rows(self) -> list[tuple[str, str, str, bool]]:
        """(name, axes with sizes, meaning or reason, present) of every weight."""
        lines = []
        for name, row in ROWS.items():
            reason = self.missing(name)
            sizes = row.axes if reason else map("{} {}".format, row.axes, self.sizes(name))
            lines.append((name, " · ".join(sizes), reason or row.meaning, reason is None))
        return lines

    def __repr__(self) -> str:
        return "\n".join(f"{name:<10}  {axes:<44}  {meaning if there else '(none) ' + meaning}"
                         for name, axes, meaning, there in self._rows())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr{'' if there else ' style=opacity:.5'}><td><code>{escape(name)}</code></td>"
                       f"<td>{escape(axes)}</td><td>{escape(meaning)}</td></tr>"
                       for name, axes, meaning, there in self._rows())
        return f"<table><tr><th>weight</th><th>axes</th><th>meaning</th></tr>{rows}</table>"
