"""Sizes of a model, read off its config and off the modules that its family's table names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import FamilyError
from . import linear

if TYPE_CHECKING:
    from .layout import Layout


@dataclass(frozen=True)
class Facts:
    """Sizes of a model, read from its config and its modules. None where the architecture has no such size."""

    family: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int | None
    d_vocab: int
    n_ctx: int | None
    causal: bool


def sizes(layout: Layout) -> Facts:
    """The sizes of a model whose blocks and modules are known."""
    config, table = layout.config, layout.family
    n_heads = config.num_attention_heads
    n_kv = getattr(config, "num_key_value_heads", None) or n_heads
    if table.packing == "multi_query":
        n_kv = 1
    elif table.packing == "grouped":
        n_kv = getattr(config, "num_kv_heads", n_kv)
    down = layout.role(0, "down") if table.down else None
    d_in = linear.matrix(layout.needed(0, "o", "z")).shape[0]
    n_ctx = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    padding = _padding(layout)
    if n_ctx and padding is not None:  # RoBERTa's first rows are for padding
        n_ctx -= padding + 1
    return Facts(
        family=table.name, n_layers=len(layout.blocks), n_heads=n_heads, n_kv_heads=n_kv,
        d_model=config.hidden_size, d_head=d_in // n_heads,
        d_mlp=None if down is None else linear.matrix(down).shape[0],
        d_vocab=config.vocab_size, n_ctx=n_ctx, causal=_is_causal(config, layout.role(0, "attn")))


def _padding(layout: Layout) -> int | None:
    """The row of the learned positions that is for padding, where there is one."""
    if layout.family.pos_embed is None:
        return None
    try:
        return getattr(layout.module(layout.base, layout.family.pos_embed, "pos_embed"), "padding_idx", None)
    except FamilyError:  # the site is refused then, and the rest of the model is not
        return None


def _is_causal(config: Any, attention: nn.Module | None) -> bool:
    if getattr(config, "is_decoder", None) and config.model_type == "bert":
        return True
    return bool(getattr(attention, "is_causal", config.model_type != "bert"))
