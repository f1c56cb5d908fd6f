"""A store as text, as a table in a notebook, and in numbers: what its values are like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ... import html
from ...errors import HooklabError

if TYPE_CHECKING:
    from .store import Store


SHOWN, COLUMNS = 5, 6
"""Examples, and columns of their metadata, that a notebook shows."""


@dataclass(frozen=True)
class Numbers:
    """What the values of a site are like, over all examples of a store or selection.

    Attributes:
        count: Numbers.
        mean, std, min, max: Of the finite ones; std of the population. nan where there are none.
        norm: Mean length of what lies at one position, over the last axis.
        odd: Numbers that are not finite.
    """

    count: int
    mean: float
    std: float
    min: float
    max: float
    norm: float
    odd: int


def summary(store: Store) -> dict[str, Numbers]:
    """The values of every site in numbers; every value is read once."""
    return {site: _numbers(store, site) for site in store.sites}


def _numbers(store: Store, site: str) -> Numbers:
    count = odd = rows = 0
    mean = squares = norms = 0.0
    low, high = float("inf"), float("-inf")
    for i in range(len(store)):
        every = store[site].mapped(i).double()
        vectors = every.reshape(-1, every.shape[-1]) if every.ndim and every.numel() else every.reshape(-1, 1)
        norms += float(vectors.norm(dim=1).sum())
        rows += len(vectors)
        finite = every[every.isfinite()]
        odd += every.numel() - finite.numel()
        if finite.numel():
            n, own = finite.numel(), float(finite.mean())
            squares += float((finite - own).square().sum()) + (own - mean) ** 2 * count * n / (count + n)
            mean += (own - mean) * n / (count + n)
            count += n
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    nan = float("nan")
    return Numbers(count + odd, mean if count else nan, (squares / count) ** 0.5 if count else nan, low if count else nan,
                   high if count else nan, norms / rows if rows else nan, odd)


def title(store: Store) -> str:
    """One line: what it is called and how much it holds."""
    shards = store.manifest.shards
    part = "" if store.whole else f"{len(store)} of "
    state = "" if store.complete else " · still open"
    tags = "".join(f" #{tag}" for tag in store.manifest.tags)
    return html.printable(f"{store.path.name} · {part}{sum(one.examples for one in shards)} examples · "
                          f"{sum(one.tokens for one in shards)} tokens · {len(shards)} shards · "
                          f"{sum(one.bytes + one.index_bytes for one in shards) / 1e6:.1f} MB{state}{tags}")


def text(store: Store) -> str:
    """For a terminal."""
    sites = (html.printable(repr(store[site]).removeprefix("Values: ")) for site in store.manifest.sites)
    return "\n  ".join([f"Store: {title(store)}", *sites])


def page(store: Store) -> str:
    """For a notebook; what the store says of itself is text there, whatever it is."""
    rows = [[site, " · ".join(axis if n is None else f"{axis} {n}" for axis, n in zip(
                layout.axes, layout.sizes or (None,) * len(layout.axes), strict=True)) or "one number", layout.dtype or ""]
            for site, layout in store.sites.items()]
    about = [f"{key}: {_short(value)}" for key, value in store.manifest.about.items() if value and key != "options"]
    options = store.manifest.about.get("options")
    return html.block(html.heading(f"Store {title(store)}"), html.table(["site", "axes", "type"], rows), _first(store),
                      *(html.note(line) for line in about),
                      html.folded("options", "\n".join(f"{key}: {_short(value)}" for key, value in options.items()))
                      if isinstance(options, dict) and options else "")


def _first(store: Store) -> str:
    """The first few examples, of the index of the shards that hold them, and no other."""
    try:
        few = [(int(shard), int(local)) for shard, local in store.places[:SHOWN]]
        found = [(store.index(shard), local) for shard, local in few]
        keys = list(dict.fromkeys(key for index, local in found for key, some in index.metadata.items()
                                  if some[local] is not None))
        rows = [[index.ids[local], "" if index.n_tokens[local] is None else str(index.n_tokens[local]),
                 *(_cell(index.metadata[key][local]) if key in index.metadata else "" for key in keys[:COLUMNS])]
                for index, local in found]
    except (HooklabError, OSError) as error:  # a picture never fails: `verify` says all that is wrong
        return html.note(f"The examples cannot be listed: {error}")
    left = [f"{len(store) - len(rows)} more examples"] * (len(store) > len(rows)) + \
        [f"{len(keys) - COLUMNS} more columns"] * (len(keys) > COLUMNS)
    return (html.table(["example", "tokens", *keys[:COLUMNS]], rows) if rows else "") + \
        (html.note(f"… and {', '.join(left)}") if left else "")


def _cell(value: object) -> str:
    said = "" if value is None else str(value)
    return said if len(said) <= 60 else f"{said[:59]}…"


def _short(value: object) -> str:
    said = str(value)
    return said if len(said) <= 200 else f"{said[:200]} … ({len(said)} characters)"
