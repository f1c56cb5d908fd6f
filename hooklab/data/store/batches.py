"""Batches of token activations for a training, drawn from all examples of a store in an order that the seed decides.

The order is a keyed permutation that is computed, not kept: batch one million is as near as batch zero, and a store of any
size takes no memory for it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ...errors import RecordError

if TYPE_CHECKING:
    from .store import Store

_ROUNDS = 6
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Batches(IterableDataset[Tensor | tuple[Tensor, ...]]):
    """Batches [row, …] of one site, or pairs of two; a source for `hl.sae.train_sae`, or for a `DataLoader`.

    Gone through, it gives every row once, the last batch being smaller. Called with the number of a batch, it gives that one
    and all after it without end, each of full size: one pass over the store follows another, each in an order of its own.

    `DataLoader(batches, batch_size=None, num_workers=2)` reads in other processes. Worker w of n gives batches w, w + n,
    w + 2n …; the loader takes them in turn, so that all together come in the order in which one process gives them.

    Attributes:
        rows: Rows of one pass.
        size: Rows of a batch.
    """

    def __init__(self, store: Store, site: str | tuple[str, str], size: int, seed: int = 0, shuffle: bool = True,
                 skip: int = 0) -> None:
        if size < 1 or skip < 0:
            raise RecordError(f"size={size} is a whole number from 1 and skip={skip} one from 0")
        self.sites = (site,) if isinstance(site, str) else tuple(site)
        self._store, self.size, self._seed, self._shuffle, self._skip = store, size, seed, shuffle, skip
        spans = [_spans(store, one, skip) for one in self.sites]
        if any(not np.array_equal(spans[0][:, 2], other[:, 2]) for other in spans[1:]):
            raise RecordError(f"{' and '.join(self.sites)} have not the same rows: no pairs can be made of them")
        self._spans = spans
        self._ends = np.cumsum(spans[0][:, 2])
        self.rows = int(self._ends[-1]) if len(self._ends) else 0
        if not self.rows:
            raise RecordError(f"there are no rows of {' and '.join(self.sites)} to draw from")

    def __len__(self) -> int:
        """Batches of one pass."""
        return math.ceil(self.rows / self.size)

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, ...]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for start in range(first * self.size, self.rows, step * self.size):
            yield self._batch(np.arange(start, min(start + self.size, self.rows)))

    def __reduce__(self) -> tuple[Callable[..., Batches], tuple[Any, ...]]:
        """What another process gets: the store, opened anew there, and how to draw from it."""
        return _again, (self._store, self.sites, self.size, self._seed, self._shuffle, self._skip, self.rows)

    def __call__(self, start: int) -> Iterator[Tensor | tuple[Tensor, ...]]:
        """Batch number `start` and those after it, without end."""
        while True:
            yield self._batch(np.arange(start * self.size, (start + 1) * self.size))
            start += 1

    def _batch(self, places: np.ndarray) -> Tensor | tuple[Tensor, ...]:
        rows = places % self.rows
        if self._shuffle:
            passes = places // self.rows
            for one in np.unique(passes):
                rows[passes == one] = permuted(rows[passes == one], self.rows, f"{self._seed}/{one}")
        example = np.searchsorted(self._ends, rows, "right")
        made = tuple(self._gathered(site, spans, example, rows) for site, spans in zip(self.sites, self._spans, strict=True))
        return made[0] if len(made) == 1 else made

    def _gathered(self, site: str, spans: np.ndarray, example: np.ndarray, rows: np.ndarray) -> Tensor:
        shards, starts, counts = spans[example].T
        local = starts + rows - (self._ends[example] - counts)
        order = np.argsort(shards, kind="stable")
        cuts = [0, *(np.flatnonzero(np.diff(shards[order])) + 1).tolist(), len(order)]
        dtype, found = torch.float32, []
        for start, stop in pairwise(cuts):
            mapped = self._store.shard(int(shards[order[start]])).tensor(site)
            dtype = mapped.dtype
            plain = mapped.view(_WHOLE[dtype.itemsize])  # not every type can be gathered, and every width can
            found.append(plain.index_select(0, torch.from_numpy(local[order[start:stop]])))
        if len(found) > 1:
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            found = [torch.cat(found).index_select(0, torch.from_numpy(back))]
        return found[0].view(dtype)


def _again(store: Store, sites: tuple[str, ...], size: int, seed: int, shuffle: bool, skip: int, rows: int) -> Batches:
    """The same batches of a store that was opened anew. Raises RecordError where it has other rows now."""
    made = Batches(store, sites, size, seed, shuffle, skip)  # type: ignore[arg-type]
    if made.rows != rows:
        raise RecordError(f"{store.path} was changed: it has {made.rows} rows of {' and '.join(sites)} now, and had {rows} "
                          "when these batches were made. Make them anew")
    return made


def permuted(places: np.ndarray, n: int, key: str) -> np.ndarray:
    """Where each of `places`, counted from 0, comes in a permutation of `n` that the key decides.

    >>> sorted(permuted(np.arange(10), 10, "a").tolist()) == list(range(10))
    True
    """
    half = max(1, math.ceil(math.log2(max(n, 2)) / 2))
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    words = hashlib.shake_256(key.encode()).digest(8 * _ROUNDS)
    keys = np.frombuffer(words, "<u8")
    out = places.astype(np.uint64)
    todo = np.arange(len(out))
    while len(todo):  # a permutation of the next power of four, walked on until it falls below n
        left, right = out[todo] >> shift, out[todo] & mask
        for one in keys:
            left, right = right, left ^ (_mixed(right, one) & mask)
        out[todo] = left << shift | right
        todo = todo[out[todo] >= n]
    return out.astype(np.int64)


def _mixed(x: np.ndarray, key: np.uint64) -> np.ndarray:
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _spans(store: Store, site: str, skip: int) -> np.ndarray:
    """int64 [example, (shard, first row, rows)]: the rows that are drawn from."""
    layout = store.layout(site)
    if layout.kind == "flat":
        raise RecordError(f"{site} has the axes {' '.join(layout.axes)}: batches need a site with a row per position")
    places = store.places
    made = np.empty((len(places), 3), np.int64)
    made[:, 0] = places[:, 0]
    for number in np.unique(places[:, 0]):
        shard, mine = store.shard(int(number)), places[:, 0] == number
        bounds, local = shard.bounds(site, layout), places[mine, 1]
        if skip and shard.has_positions(site):
            raise RecordError(f"skip={skip} counts from the first token, and {site} was stored at selected positions")
        made[mine, 1], made[mine, 2] = bounds[local], bounds[local + 1] - bounds[local]
    if skip and layout.kind == "rows":
        left_out = np.minimum(made[:, 2], skip)
        made[:, 1] += left_out
        made[:, 2] -= left_out
    return made
