"""How large a store will be, before anything is run: the same arithmetic that the writer does, on lengths alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...errors import RecordError
from . import manifest as files
from . import shard as store_shard
from .index import row, to_bytes
from .layout import DTYPES, RAGGED, Layout, layouts
from .shard import Part
from .writer import SHARD_BYTES


@dataclass(frozen=True)
class Estimate:
    """What a store will take.

    Attributes:
        bytes: On the disk, everything.
        sites: Site -> bytes of its values.
        examples, tokens, shards: Counts.
        memory: The most that the writer holds at a time, but for one example.
    """

    bytes: int
    sites: dict[str, int]
    examples: int
    tokens: int
    shards: int
    memory: int

    def __repr__(self) -> str:
        return (f"Estimate: {self.bytes / 1e6:.1f} MB · {self.examples} examples · {self.tokens} tokens · {self.shards} "
                f"shards · {self.memory / 1e6:.1f} MB in memory")


def estimate(sites: Iterable[str] | Mapping[str, Any], lengths: Sequence[int], sizes: Mapping[str, int], *,
             dtype: str | torch.dtype, rows: int | Sequence[int] | None = None, ids: Sequence[str | int] | None = None,
             metadata: Sequence[Mapping[str, Any]] | None = None, shard_bytes: int = SHARD_BYTES,
             about: Mapping[str, Any] | None = None) -> Estimate:
    """The size of the store that a `Writer` with these settings would make.

    >>> estimate(["L0.resid_post", "L0.pattern"], [10, 20], {"d_model": 64, "head": 4}, dtype="float16").sites
    {'L0.resid_post': 3840, 'L0.pattern': 4000}

    Args:
        sites: As for the writer.
        lengths: Tokens of every example.
        sizes: Axis word -> size, for the axes in which examples do not differ.
        dtype: The type that is stored.
        rows: How many positions are stored of each example where they are not all: 1 for the last token alone.
        ids: Of the examples; their numbers where they are not given.
        metadata: Of the examples.
        shard_bytes: As for the writer.
        about: Model, tokenizer, spec and options, which stand in the manifest.

    Raises:
        RecordError: a size is missing, or there are not as many of one as of the other.
    """
    known = {site: _settled(site, layout, sizes) for site, layout in layouts(sites, dtype).items()}
    n = len(lengths)
    counts = [rows] * n if isinstance(rows, int) else list(lengths if rows is None else rows)
    if any(given is not None and len(given) != n for given in (counts, ids, metadata)):
        raise RecordError(f"rows, ids and metadata must be as many as there are lengths: {n}")
    shapes = {site: [tuple(_size(layout, axis, size, lengths[i], counts[i]) for axis, size in
                           zip(layout.axes, layout.sizes or (), strict=True)) for i in range(n)]
              for site, layout in known.items()}
    item = {site: DTYPES[layout.dtype or ""].itemsize for site, layout in known.items()}
    bytes_of = {site: [math.prod(shape) * item[site] for shape in some] for site, some in shapes.items()}
    entries: list[files.Entry] = []
    held, begin = 0, 0
    for i in range(n):
        held += sum(some[i] for some in bytes_of.values())
        if held >= shard_bytes or i == n - 1:
            made = range(begin, i + 1)
            tensors = {name: part for site, layout in known.items()
                       for name, part in _parts(site, layout, [shapes[site][k] for k in made],
                                                [counts[k] != lengths[k] for k in made]).items()}
            index = to_bytes([row(ids[k] if ids else k, np.zeros(lengths[k], np.int32), metadata[k] if metadata else None)
                              for k in made])
            sums = dict.fromkeys(["", *tensors], 1 << 31)
            entries.append(files.Entry(f"{len(entries):06d}", len(made), sum(lengths[k] for k in made),
                                       store_shard.size(tensors), len(index), sums, 1 << 31))
            held, begin = 0, i + 1
    told = files.told({"model": None, "tokenizer": None, "spec": "", "options": {}} | dict(about or {}))
    manifest = files.Manifest(known, told, shard_bytes, (), True, tuple(entries))
    total = sum(one.bytes + one.index_bytes for one in entries) + len(files.dumped(manifest))
    values = {site: sum(some) for site, some in bytes_of.items()}
    return Estimate(total, values, n, sum(lengths), len(entries), min(sum(values.values()), 2 * shard_bytes))


def _settled(site: str, layout: Layout, sizes: Mapping[str, int]) -> Layout:
    if layout.sizes is not None:
        return layout
    if missing := [axis for axis in layout.axes if axis not in RAGGED and axis not in sizes]:
        raise RecordError(f"the size of {site} depends on {missing[0]}: give sizes={{{missing[0]!r}: …}}")
    return replace(layout, sizes=tuple(None if axis in RAGGED else int(sizes[axis]) for axis in layout.axes))


def _size(layout: Layout, axis: str, size: int | None, length: int, rows: int) -> int:
    if size is not None:
        return size
    return rows if layout.pos_axis is not None and axis == layout.axes[layout.pos_axis] else length


def _parts(site: str, layout: Layout, shapes: Sequence[tuple[int, ...]], picked: Sequence[bool]) -> dict[str, Part]:
    """Names, types and shapes of the tensors that a shard has for a site, as in `shard.parts`."""
    dtype = layout.dtype or ""
    if layout.kind == "single":
        return {site: Part(dtype, (len(shapes), *layout.row))}
    rows = sum(math.prod(shape) if layout.kind == "flat" else shape[0] for shape in shapes)
    made = {site: Part(dtype, (rows, *layout.row)), f"{site}@offsets": Part("int64", (len(shapes) + 1,))}
    if layout.kind == "flat":
        made[f"{site}@shapes"] = Part("int64", (len(shapes), len(layout.axes)))
    if layout.pos_axis is not None and any(picked):
        made[f"{site}@positions"] = Part("int32", (sum(shape[layout.pos_axis] for shape in shapes),))
    return made


