"""`model.W`: the weights of any architecture under the same names, in the same shapes, in the same orientation.

Every matrix is [in out], so `x @ W` is what the model computes; attention weights are split into heads whatever
fused or grouped form the module stores; embeddings are what really enters the stream. The module is only read.
"""

from __future__ import annotations

from html import escape
from numbers import Integral
from typing import Any

import torch
from einops import repeat
from torch import Tensor

from ..address import check_index
from ..errors import LayerError, SiteNameError, did_you_mean
from .factored import Factored
from .layout import Layout
from .stored import ALIASES, ROWS, Folded, Plain


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
            rest[0] = check_index(int(rest[0]), self.shape[1], self.axes[1])
        chosen: Any = range(self.shape[0])[layers] if isinstance(layers, slice) else layers
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
        known: dict[str, Any] = {"layer": facts.n_layers, "head": facts.n_heads, "kv_head": facts.n_kv_heads,
                                 "pos": facts.n_ctx}
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
