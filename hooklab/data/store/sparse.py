"""Patterns by their strongest keys: of each query the k largest numbers and where they are; and the pattern of them again.

    S.strongest   query_pos head rank    the numbers, the largest first
    S.keys        query_pos head rank    the key of each, int32; -1 where there is none

A number that is 0 has no key: what a causal mask hides, and what lies beyond the keys that an example has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import RecordError
from . import query

if TYPE_CHECKING:
    from .store import Store

AXES = ("query_pos", "head", "rank")
QUERIES = 1
"""The axis of queries in a pattern [head query_pos key_pos]."""
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def names(site: str) -> tuple[str, str]:
    """Under which the numbers and the keys of a site are stored."""
    return f"{site}.strongest", f"{site}.keys"


def strongest(pattern: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest numbers of each query and their keys, of equal ones the earlier key first.

    >>> values, keys = strongest(torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.5, 0.25]]]), 2)
    >>> values.tolist(), keys.tolist()
    ([[[1.0, 0.0]], [[0.5, 0.25]]], [[[0, -1]], [[1, 0]]])

    Args:
        pattern: [head query_pos key_pos]
        k: How many of each query.

    Returns:
        Numbers [query_pos head rank], and keys, int32 of the same shape.
    """
    values, keys = (found[..., :k] for found in pattern.sort(dim=-1, descending=True, stable=True))
    keys = keys.to(torch.int32).masked_fill(values == 0, -1)
    lacking = k - values.shape[-1]
    if lacking > 0:
        values = torch.nn.functional.pad(values, (0, lacking))
        keys = torch.nn.functional.pad(keys, (0, lacking), value=-1)
    return values.transpose(0, 1).contiguous(), keys.transpose(0, 1).contiguous()


def rebuilt(values: Tensor, keys: Tensor, n: int) -> Tensor:
    """The pattern [head query_pos key_pos] over n keys, zero where nothing was stored.

    Args:
        values: [query_pos head rank]
        keys: Of the same shape; -1 for none.
        n: How many keys there are.
    """
    plain = values.view(_WHOLE[values.dtype.itemsize])  # not every type can be scattered, and every width can
    found = torch.zeros((*values.shape[:2], n + 1), dtype=plain.dtype)  # with a column for what has no key
    found.scatter_(-1, keys.long().masked_fill(keys < 0, n), plain)
    return found[..., :n].contiguous().view(values.dtype).transpose(0, 1).contiguous()


def dense(store: Store, site: str, example: int | str) -> Tensor:
    """The pattern of one example; see `Store.dense`."""
    values, keys = names(site)
    if values not in store.sites or keys not in store.sites:
        if site in store.sites:
            return store[site][example]
        known = [name.removesuffix(".keys") for name in store.sites if name.endswith(".keys")]
        raise RecordError(f"{store.path} has neither {site} nor its strongest keys; it has those of "
                          f"{', '.join(known) or 'no pattern'}")
    n = store.n_tokens[query.number(store, example)]
    if n is None:
        raise RecordError(f"example {example!r} has no tokens, so that nobody knows how many keys it has")
    return rebuilt(store[values][example], store[keys][example], n)
