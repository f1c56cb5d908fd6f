"""What an extraction will take, without running it: the same batches, counted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch

from ...address import Place
from ...errors import PromptError
from ...progress import lasting
from ...sites import SITES
from ..inputs.dry_run import DryRun, _numbers, _Pass
from ..reducers.reducing import Reducer
from ..store.estimates import estimate
from ..store.layout import Layout
from .reading import Chunk, Skipped
from .state import dumped
from .touching import Touched, in_words, opened_in_words


class _Counted(NamedTuple):
    """What is remembered of an item."""

    number: int
    id: str
    length: int
    rows: int
    metadata: Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Forecast(DryRun):
    """What an extraction will take.

    Attributes:
        seconds: How long the passes will run, from one that was timed; None where none was.
        skipped: Examples that will be left out.
        stored: Whether anything goes to the disk; `bytes` is 0 otherwise.
        modules: Names of the modules that are looked at or changed, as `model.hf.get_submodule` takes them; "" is the model.
        opened: Layers whose attention is computed in the open, and not as the model has it.
    """

    seconds: float | None = None
    skipped: tuple[Skipped, ...] = ()
    stored: bool = True
    modules: tuple[str, ...] = ()
    opened: tuple[int, ...] = ()

    def __repr__(self) -> str:
        lines = super().__repr__().splitlines()
        lines[0] = lines[0].replace("DryRun", "Forecast")
        if not self.stored:
            lines = [f"Forecast: {self.passes} passes · {self.examples} examples · {self.tokens} tokens, {self.padded} "
                     "padded", "  nothing goes to the disk"]
        lines += [f"  modules: {in_words(self.modules)}", f"  attention: {opened_in_words(self.opened)}"]
        if self.seconds is not None:
            lines.append(f"  about {lasting(self.seconds)}, as one timed pass has it")
        if self.skipped:
            lines += [f"  {len(self.skipped)} examples are left out:", *(f"    {one}" for one in self.skipped[:5])]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**told, "skipped": [{"example": one.example, "why": one.why} for one in self.skipped],
                "modules": list(self.modules), "opened": list(self.opened)}


def forecast(chunks: Iterable[Chunk], skipped: Sequence[Skipped], *, wanted: Mapping[Place, Layout], whole: frozenset[Place],
             stored: Mapping[str, Layout], reducers: Mapping[str, Reducer], item: torch.dtype, dtype: Any, shard_bytes: int,
             about: Mapping[str, Any], on_disk: bool, timed: Callable[[Chunk], Any] | None,
             touched: Callable[[Chunk], Touched]) -> Forecast:
    """Count what the chunks of an extraction will take.

    Args:
        chunks: As they will be run.
        skipped: What is left out, filled while the chunks are made.
        wanted: Places with their layouts, sizes included.
        whole: Those of which all positions are held.
        stored: Layouts of what is stored; sizes of sites as in `wanted`.
        reducers: What is added up.
        item: The model's type.
        dtype: What sites are stored as; None for the model's type.
        shard_bytes: As for the writer.
        about: As for the writer.
        on_disk: Whether there is a store.
        timed: Runs a chunk, to see how long it takes.
        touched: Says of the first chunk what it touches of the model.

    Raises:
        PromptError: there are no examples.
    """
    seen: list[tuple[int, int]] = []
    items: list[_Counted] = []
    peaks: dict[str, int] = {}
    peak = 0
    middle: Chunk | None = None
    parts = Touched((), ())
    for chunk in chunks:
        parts = parts if seen else touched(chunk)
        items += [_Counted(i.number, i.example.id, i.length, i.rows, i.example.metadata) for i in chunk.items]
        seen.append((len(chunk.items), chunk.padded))
        one = _Pass(tuple(i.number for i in chunk.items), chunk.tokens.lengths, tuple(i.rows for i in chunk.items), None)
        held = {str(place): item.itemsize * _numbers(layout, one, place not in whole) for place, layout in wanted.items()}
        peaks = {site: max(size, peaks.get(site, 0)) for site, size in held.items()}
        peak = max(peak, sum(held.values()))
        if timed is not None and (middle is None or chunk.padded > middle.padded):
            middle = chunk
    if not items:
        raise PromptError("there are no examples" + (f": {skipped[0]}" if skipped else ""))
    items.sort(key=lambda one: one.number)
    lengths = [one.length for one in items]
    found = estimate(stored, lengths, {}, dtype=item if dtype is None else dtype, rows=[one.rows for one in items],
                     ids=[one.id for one in items], metadata=[one.metadata for one in items], shard_bytes=shard_bytes,
                     about=about)
    size = found.bytes + len(dumped("0" * 64, reducers)) + _held(reducers, wanted) if on_disk else 0
    padded = sum(tokens for _, tokens in seen)
    return Forecast(size, len(seen), peak, found.sites, peaks, found.examples, found.tokens, padded,
                    found.shards if on_disk else 0, found.memory if on_disk else 0, _seconds(timed, middle, padded),
                    tuple(skipped), on_disk, parts.modules, parts.opened)


def _held(reducers: Mapping[str, Reducer], wanted: Mapping[Place, Layout]) -> int:
    """Bytes that sums of a known size will take in a state."""
    sizes = {str(place): math.prod(size for size in layout.sizes or () if size is not None)
             for place, layout in wanted.items()}
    made = {"mean": lambda n: n, "variance": lambda n: 2 * n, "covariance": lambda n: n + n * n}
    return sum(8 * made[one.kind](sizes[one.site]) for one in reducers.values() if one.kind in made)


def _seconds(timed: Callable[[Chunk], Any] | None, chunk: Chunk | None, padded: int) -> float | None:
    if timed is None or chunk is None:
        return None
    timed(chunk)  # the first run of a shape is slower
    start = time.perf_counter()
    timed(chunk)
    return (time.perf_counter() - start) * padded / chunk.padded


def layout_of(place: Place, sizes: tuple[int | None, ...]) -> Layout:
    """The layout of a place, sizes known."""
    return Layout(SITES[place.site].axes[1:], sizes)
