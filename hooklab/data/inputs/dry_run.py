"""What an extraction will take, before it runs: bytes on the disk, forward passes, and the most that one of them holds.

In: a model, examples or their lengths alone, and sites. Out: `DryRun`. The store's part is `store.estimates`; batches are
those that `batching` will make; nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch

from ...address import Place
from ...errors import HooklabError, PositionError, PromptError
from ...positions import resolve
from ...runtime.trace import places
from ...sites import SITES
from ...tokens import Tokens
from ..store.estimates import estimate
from ..store.layout import RAGGED, Layout
from ..store.writer import SHARD_BYTES
from .batching import MAX_TOKENS, WINDOW, batches, plan
from .sources import Example

if TYPE_CHECKING:
    from ...model.model import Model


@dataclass(frozen=True)
class DryRun:
    """What an extraction will take.

    Attributes:
        bytes: On the disk, everything.
        passes: Forward passes.
        peak: Bytes of the captured values in the largest batch, in the model's type.
        sites: Site -> bytes of its values on the disk.
        peaks: Site -> bytes of its values in the batch that holds most of it.
        examples, tokens: Counts.
        padded: Tokens that are run, padding included.
        shards: Files of values.
        memory: The most that is held for the disk at a time, but for one example.
    """

    bytes: int
    passes: int
    peak: int
    sites: dict[str, int]
    peaks: dict[str, int]
    examples: int
    tokens: int
    padded: int
    shards: int
    memory: int

    def __repr__(self) -> str:
        lines = [f"DryRun: {_size(self.bytes)} on the disk in {self.shards} shards · {self.passes} passes · "
                 f"{self.examples} examples · {self.tokens} tokens, {self.padded} padded",
                 f"  captured at a time: {_size(self.peak)} · held for the disk: {_size(self.memory)}"]
        width = max(map(len, self.sites))
        return "\n".join(lines + [f"  {site:<{width}}  {_size(n)}" for site, n in self.sites.items()])


@dataclass(frozen=True)
class _Pass:
    """One batch: how long its examples are, how many positions of each are kept, and what else the index has."""

    index: tuple[int, ...]
    lengths: tuple[int, ...]
    kept: tuple[int, ...]
    examples: tuple[Example, ...] | None


def dry_run(model: Model, source: Any, sites: str | Iterable[str], *, at: Any = None, dtype: str | torch.dtype | None = None,
            max_tokens: int = MAX_TOKENS, size: int | None = None, window: int = WINDOW, truncate: str | None = None,
            shard_bytes: int = SHARD_BYTES, about: Mapping[str, Any] | None = None) -> DryRun:
    """What it will take to store sites of a model over examples.

    >>> import hooklab as hl
    >>> found = dry_run(hl.load("lab"), [5, 3], "L0.resid_post", at="last", dtype="float16")
    >>> found.passes, found.sites == {"L0.resid_post": 2 * 2 * hl.load("lab").facts.d_model}
    (1, True)

    Args:
        model: An opened model.
        source: What `batches` takes, tokenized here; or the examples' lengths, as whole numbers in a list.
        sites: Addresses.
        at: Positions that are kept; all where it is None. With lengths alone, only what needs no text: "last", 0, "-3:".
        dtype: What is stored; the model's type where it is None.
        max_tokens: The most tokens of a padded batch.
        size: The most examples of a batch.
        window: How many examples are looked at together.
        truncate: The side on which what is too long is cut.
        shard_bytes: Values of a shard.
        about: What the store's manifest will say of the model and the rest.

    Raises:
        SiteError, LayerError: the model lacks a site.
        PromptError, PositionError: an example is too long, or lacks a position.
    """
    wanted = places(model, [sites] if isinstance(sites, str) else list(sites))
    passes = list(_of_lengths(source, at, max_tokens, size, window) if _are_lengths(source) else
                  _of_examples(source, model, at, max_tokens, size, window, truncate))
    if not passes:
        raise PromptError("there are no examples")
    layouts = {str(place): Layout(SITES[place.site].axes[1:], _sizes(model, place)) for place in wanted}
    item = next(model.hf.parameters()).dtype
    by_number = sorted((number, one, k) for one in passes for k, number in enumerate(one.index))
    examples = [one.examples[k] for _, one, k in by_number if one.examples is not None]
    kept = None if at is None else [one.kept[k] for _, one, k in by_number]
    stored = estimate(layouts, [one.lengths[k] for _, one, k in by_number], {}, dtype=item if dtype is None else dtype,
                      rows=kept, ids=[one.id for one in examples] or None,
                      metadata=[one.metadata for one in examples] or None, shard_bytes=shard_bytes, about=about)
    held = [{site: item.itemsize * _numbers(layout, one, at is not None) for site, layout in layouts.items()}
            for one in passes]
    return DryRun(stored.bytes, len(passes), max(sum(some.values()) for some in held), stored.sites,
                  {site: max(some[site] for some in held) for site in layouts}, stored.examples, stored.tokens,
                  sum(len(one.lengths) * max(one.lengths) for one in passes), stored.shards, stored.memory)


def _sizes(model: Model, place: Place) -> tuple[int | None, ...]:
    """Size of each axis of one example's value; None where examples differ."""
    facts = model.facts
    known = {"d_model": facts.d_model, "d_head": facts.d_head, "d_mlp": facts.d_mlp, "d_vocab": facts.d_vocab,
             "head": facts.n_heads, "kv_head": facts.n_kv_heads, "one": 1}
    if place.heads is not None:
        known |= {"head": len(place.heads), "kv_head": len(place.heads)}
    if place.neurons is not None:
        known["d_mlp"] = len(place.neurons)
    return tuple(None if axis in RAGGED else known[axis] for axis in SITES[place.site].axes[1:])


def _numbers(layout: Layout, one: _Pass, some: bool) -> int:
    """How many numbers of a site a padded pass holds, or of the positions that are kept."""
    rest = math.prod(layout.row or [size for size in layout.sizes or () if size is not None])
    width = max(one.lengths)
    rows = sum(one.kept) if some else len(one.lengths) * width
    return rows * rest * (width if "key_pos" in layout.axes else 1)


def _are_lengths(source: Any) -> bool:
    if hasattr(source, "tolist"):
        source = source.tolist()
    return isinstance(source, Sequence) and bool(source) and all(isinstance(n, Integral) for n in source)


def _of_lengths(source: Any, at: Any, max_tokens: int, size: int | None, window: int) -> Iterator[_Pass]:
    lengths = [int(n) for n in (source.tolist() if hasattr(source, "tolist") else source)]
    if worst := [n for n in lengths if not 1 <= n <= max_tokens]:
        raise PromptError(f"an example of {worst[0]} tokens cannot be in a batch of at most {max_tokens}")
    for start in range(0, len(lengths), window):
        for chosen in plan(lengths[start:start + window], max_tokens=max_tokens, size=size):
            some = tuple(lengths[start + i] for i in chosen)
            yield _Pass(tuple(start + i for i in chosen), some, tuple(_count(at, n) for n in some), None)


def _count(at: Any, length: int) -> int:
    """How many positions of an example are kept, known by its length alone."""
    if at is None:
        return length
    try:
        return len(resolve(at, Tokens.from_ids([[0] * length]))[0])
    except HooklabError as error:
        raise PositionError(f"at={str(at)!r} cannot be told from lengths: {error} Give the examples themselves.") from None


def _of_examples(source: Any, model: Model, at: Any, max_tokens: int, size: int | None, window: int,
                 truncate: str | None) -> Iterator[_Pass]:
    for batch in batches(source, model, max_tokens=max_tokens, size=size, window=window, truncate=truncate):
        lengths = batch.tokens.lengths
        kept = lengths if at is None else tuple(len(some) for some in resolve(at, batch.tokens))
        yield _Pass(batch.index, lengths, kept, batch.examples)


def _size(n: int) -> str:
    """Bytes as people say them.

    >>> _size(512), _size(1_500_000)
    ('512 B', '1.5 MB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"
