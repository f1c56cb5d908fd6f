"""What becomes of the values of an extraction: stored, added up, measured; committed together, a shard at a time.

In: the values of every example, in the order of the source. The state of the reducers is brought to the disk before the
shard that it belongs to, so that both are there or neither counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import RecordError
from ...model.inputs import merge
from ..reducers.reducing import Reducer
from ..store import sparse
from ..store.layout import DTYPES, Layout
from ..store.writer import Writer
from .reading import TOKEN, TOKENS, Item
from .state import States

GROUP = 32 << 20
"""Bytes of values that reducers are given at once, where there is no reason for less."""


@dataclass(frozen=True)
class Fate:
    """What is done with values.

    Attributes:
        stored: Address -> layout of what is stored.
        reducers: Name -> reducer, which takes in values here.
        entire: Names of reducers that are given all positions.
        whole: Addresses that come with all positions although some of them are kept.
        metrics: Names of what is measured.
        strongest: Address -> how many keys of each query are stored of it; two of the layouts stand for such a pattern.
        shard_bytes: A shard is committed as soon as its values are as large.
        group: Bytes of values that reducers are given at once.
    """

    stored: Mapping[str, Layout]
    reducers: Mapping[str, Reducer]
    entire: frozenset[str]
    whole: frozenset[str]
    metrics: tuple[str, ...]
    shard_bytes: int
    group: int = GROUP
    strongest: Mapping[str, int] = field(default_factory=dict)


class Taking:
    """Takes in examples, one by one.

    Args:
        fate: What is done with them.
        writer: The store that they go to; None where nothing is stored.
        states: Where the state of the reducers goes.
        done: Examples that are committed already.
    """

    def __init__(self, fate: Fate, writer: Writer | None, states: States | None, done: int = 0) -> None:
        self.fate, self.writer, self.states = fate, writer, states
        self.done = done
        self.metrics: dict[str, list[float]] = {name: [] for name in fate.metrics}
        self._digest = ""
        self._bytes = self._held = 0
        self._pending: list[tuple[Item, dict[str, Tensor]]] = []

    def take(self, item: Item, values: Mapping[str, Tensor], metrics: Mapping[str, float], digest: str) -> None:
        """Take in the next example.

        Raises:
            RecordError: a value cannot be stored or added up, or the disk is full.
        """
        self._digest = digest
        if self.fate.reducers:
            self._pending.append((item, dict(values)))
            self._held += sum(value.nbytes for value in values.values()) + TOKENS + TOKEN * item.length
            if self._held >= self.fate.group:
                self._add_up()
        if self.writer is None or self.states is None:
            for name in self.fate.metrics:
                self.metrics[name].append(metrics[name])
            self.done += 1
            return
        kept = self._patterns(item, values)
        kept |= {site: self._stored(site, layout, item, values, metrics) for site, layout in self.fate.stored.items()
                 if site not in kept}
        self._bytes += sum(value.numel() * _itemsize(self.fate.stored[site], value) for site, value in kept.items())
        full = self._bytes >= self.fate.shard_bytes
        if full:
            self._note(self.done + 1)
        assert item.prompt.tokens is not None
        self.writer.add(item.example.id, kept, item.prompt.tokens.ids[0], item.example.metadata, item.positions)
        self.done += 1
        if full:
            self._bytes = 0
            self.states.forget(len(self.writer))

    def finish(self) -> None:
        """Commit the rest. Raises RecordError as `take`."""
        self._add_up()
        if self.writer is None or self.states is None:
            return
        if self._bytes or not self.states.path(self.done).exists():
            self._note(self.done)
        self.writer.close()
        self.states.forget(self.done)

    def _note(self, examples: int) -> None:
        """Bring the state after so many examples to the disk."""
        self._add_up()
        assert self.states is not None
        try:
            self.states.write(examples, self._digest, self.fate.reducers)
        except OSError as error:
            raise RecordError(f"{self.states.folder} could not be written on: {os.strerror(error.errno or 0)}. What is "
                              "committed is intact; resume=True continues after it") from error

    def _add_up(self) -> None:
        if not self._pending:
            return
        items = [item for item, _ in self._pending]
        tokens, ids = merge([item.prompt for item in items]), [item.example.id for item in items]
        for name, reducer in self.fate.reducers.items():
            values = [own[reducer.site] if name in self.fate.entire else self._kept(reducer.site, item, own[reducer.site],
                                                                                 reducer.pos)
                      for item, own in self._pending]
            more: dict[str, Any] = {}
            if reducer.further:
                more["further"] = {site: [own[site] for _, own in self._pending] for site in reducer.further}
            reducer.update(values, tokens, ids, **more)
        self._pending, self._held = [], 0

    def _patterns(self, item: Item, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Patterns of which the strongest keys are stored: numbers and keys."""
        found: dict[str, Tensor] = {}
        for site, k in self.fate.strongest.items():
            both = sparse.strongest(self._kept(site, item, values[site], sparse.QUERIES), k)
            found |= zip(sparse.names(site), both, strict=True)
        return found

    def _stored(self, site: str, layout: Layout, item: Item, values: Mapping[str, Tensor],
                metrics: Mapping[str, float]) -> Tensor:
        if site in metrics:
            return torch.tensor(metrics[site], dtype=torch.float64)
        if site == LENGTH:
            return torch.tensor(item.length, dtype=torch.int32)
        return self._kept(site, item, values[site], layout.pos_axis)

    def _kept(self, site: str, item: Item, value: Tensor, axis: int | None) -> Tensor:
        """The positions that are kept of a value."""
        if site not in self.fate.whole or item.positions is None or axis is None:
            return value
        return value.index_select(axis, torch.tensor(item.positions, dtype=torch.long))


LENGTH = "length"
"""What a store has of each example where nothing else of it is kept: its number of tokens."""


def stored(sites: Sequence[tuple[str, tuple[str, ...]]], metrics: Sequence[str], keep: bool,
           dtype: str | None, strongest: Iterable[str] = ()) -> dict[str, Layout]:
    """The layouts of what is stored. Raises RecordError where a metric is called as a site is."""
    found = {site: Layout(axes, None, dtype) for site, axes in sites} if keep else {}
    for values, keys in map(sparse.names, strongest):
        found |= {values: Layout(sparse.AXES, None, dtype), keys: Layout(sparse.AXES, None, "int32")}
    if twice := [name for name in metrics if name in found]:
        raise RecordError(f"the metric {twice[0]!r} has the name of a site: call it otherwise")
    found |= {name: Layout((), (), "float64") for name in metrics}
    return found or {LENGTH: Layout((), (), "int32")}


def _itemsize(layout: Layout, value: Tensor) -> int:
    return value.element_size() if layout.dtype is None else DTYPES[layout.dtype].itemsize
