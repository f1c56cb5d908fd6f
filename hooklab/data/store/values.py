"""The values of one site of a store: by example, and by the positions of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from ...errors import PositionError, RecordError
from . import query
from .layout import DTYPES, Layout

if TYPE_CHECKING:
    from .store import Store


class Values:
    """One site of a store: `store["L3.resid_post"][17]` is the value of an example, with the axes of `layout`."""

    def __init__(self, store: Store, site: str) -> None:
        self.store, self.site, self.layout = store, site, store.layout(site)

    def __len__(self) -> int:
        return len(self.store)

    @overload
    def __getitem__(self, example: int | str) -> Tensor: ...
    @overload
    def __getitem__(self, example: slice | list[int] | list[str]) -> list[Tensor]: ...
    def __getitem__(self, example: Any) -> Any:
        """The value of one example by number or id, or a list of those of several; copies."""
        if not isinstance(example, slice | Iterable | None):
            example = query.number(self.store, example)  # which refuses what is none
        found = [self.mapped(i).clone() for i in query.numbers(self.store, example)]
        return found[0] if isinstance(example, str | int | np.integer) else found

    def __iter__(self) -> Iterator[Tensor]:
        return (self.mapped(i).clone() for i in range(len(self)))

    def mapped(self, i: int) -> Tensor:
        """The value of the i-th example as a window on the file: not to be written to."""
        shard, local = self.store.places[i]
        return self.store.shard(int(shard)).example(self.site, self.layout, int(local))

    def positions(self, example: int | str) -> list[int]:
        """The tokens, counted from 0, that an example's rows belong to. Raises RecordError for a site without positions."""
        i = query.number(self.store, example)
        if self.layout.pos_axis is None:
            raise RecordError(f"{self.site} has no positions: its axes are {' '.join(self.layout.axes) or 'none'}")
        shard, local = self.store.places[i]
        found = self.store.shard(int(shard)).positions(self.site, self.layout, int(local))
        return list(range(self.mapped(i).shape[self.layout.pos_axis])) if found is None else found.tolist()

    def __repr__(self) -> str:
        sizes = self.layout.sizes or (None,) * len(self.layout.axes)
        axes = " · ".join(axis if n is None else f"{axis} {n}" for axis, n in zip(self.layout.axes, sizes, strict=True))
        return f"Values: {self.site}  {len(self)} × ({axes or 'one number'})  {self.layout.dtype}"


def at(values: Values, examples: Sequence[int], positions: str | int | Sequence[int] | None) -> Any:
    """Copies of what some examples have at some positions: see `Store.site`."""
    if positions is None:
        return [values.mapped(i).clone() for i in examples]
    one = isinstance(positions, str) or not isinstance(positions, Iterable)
    asked = _numbers([positions] if one else positions)  # type: ignore[arg-type]
    axis = values.layout.pos_axis
    picked = []
    for i in examples:
        rows = _rows(values, i, asked)
        assert axis is not None
        found = values.mapped(i).index_select(axis, torch.tensor(rows, dtype=torch.long))
        picked.append(found.squeeze(axis) if one else found)
    if len({tuple(found.shape) for found in picked}) > 1:
        raise RecordError(f"{values.site} differs in {' and '.join(values.layout.axes)} between examples: read them one by "
                          "one")
    return torch.stack(picked) if picked else _none(values.layout, None if one else len(asked))


def _none(layout: Layout, positions: int | None) -> Tensor:
    """What no example has at some positions, None for one that is no axis; with the axes that some examples would have."""
    sizes = list(layout.sizes or (None,) * len(layout.axes))
    if layout.pos_axis is not None:
        sizes[layout.pos_axis : layout.pos_axis + 1] = [] if positions is None else [positions]
    return torch.empty((0, *(n or 0 for n in sizes)), dtype=DTYPES[layout.dtype or "float32"])


def _rows(values: Values, i: int, positions: Sequence[int]) -> list[int]:
    """The rows that hold some tokens of an example. Raises PositionError where it has them not."""
    stored, name = values.positions(i), values.store.ids[i]
    n = values.store.n_tokens[i]
    n = len(stored) if n is None else n
    rows = {position: row for row, position in enumerate(stored)}
    found = []
    for position in positions:
        wanted = position + n if position < 0 else position
        if not 0 <= wanted < n:
            raise PositionError(f"Example {name!r} has {n} tokens, no position {position}.")
        if wanted not in rows:
            raise PositionError(f"Example {name!r} was stored at positions {', '.join(map(str, stored))}, not {wanted}.")
        found.append(rows[wanted])
    return found


def _numbers(positions: Iterable[Any]) -> list[int]:
    """Raises PositionError for what is no position."""
    words: dict[Any, int] = {"first": 0, "last": -1}
    found = []
    for p in positions:
        whole = isinstance(p, Integral) and not isinstance(p, bool | np.bool_)
        if not whole and not (isinstance(p, str) and p in words):
            raise PositionError(f'{p!r} is no position: write "first", "last", a number, or a list of these.')
        found.append(words[p] if isinstance(p, str) else int(p))
    return found
