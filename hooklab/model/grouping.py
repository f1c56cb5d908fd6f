"""Keys and values under grouped-query attention, one for each query head that reads them."""

from __future__ import annotations

from einops import repeat
from torch import Tensor

from ..errors import RecordError
from .facts import Facts


def per_head(value: Tensor, facts: Facts) -> Tensor:
    """[… kv_head d_head] -> [… head d_head]: see `Model.per_head`. Raises RecordError for another shape.

    >>> import torch
    >>> facts = Facts("", 1, 4, 2, 8, 1, None, 9, None, True)
    >>> per_head(torch.tensor([[[1.0], [2.0]]]), facts).squeeze().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    shape = tuple(value.shape)
    if len(shape) < 3 or shape[-2:] != (facts.n_kv_heads, facts.d_head):
        raise RecordError(f"keys and values of this model are [… kv_head {facts.n_kv_heads} · d_head {facts.d_head}], and "
                          f"this has the shape {shape}")
    return repeat(value, "... kv d -> ... (kv group) d", group=facts.n_heads // facts.n_kv_heads)
