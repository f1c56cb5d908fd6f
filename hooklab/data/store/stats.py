"""How much a store holds, counted from its manifest, its indexes and the heads of its shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .store import Store


@dataclass(frozen=True)
class Stats:
    """How much a store, or a selection of it, holds.

    Attributes:
        examples, tokens, shards: Counts.
        bytes: On the disk, of the whole store.
        sites: Site -> bytes of its values, of the examples meant.
    """

    examples: int
    tokens: int
    shards: int
    bytes: int
    sites: dict[str, int]


def stats(store: Store) -> Stats:
    """How much a store, or a selection, holds."""
    shards = store.manifest.shards
    return Stats(len(store), sum(n or 0 for n in store.n_tokens), len(shards),
                 sum(one.bytes + one.index_bytes for one in shards), {site: bytes_of(store, site) for site in store.sites})


def bytes_of(store: Store, site: str) -> int:
    """Bytes of a site's values, of the examples meant; counted from where they begin and end, so that none is read."""
    layout, total = store.layout(site), 0
    for number in np.unique(store.places[:, 0]):
        shard = store.shard(int(number))
        values, rows = shard.tensor(site), np.diff(shard.bounds(site, layout))
        each = math.prod(values.shape[1:]) * values.element_size()
        total += each * int(rows[store.places[store.places[:, 0] == number, 1]].sum())
    return total
