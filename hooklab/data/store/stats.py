"""How much a store holds, counted from its manifest, its indexes and the heads of its shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    bytes_of = {site: sum(store[site].mapped(i).nbytes for i in range(len(store))) for site in store.sites}
    return Stats(len(store), sum(n or 0 for n in store.n_tokens), len(shards),
                 sum(one.bytes + one.index_bytes for one in shards), bytes_of)
