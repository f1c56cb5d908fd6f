"""Two stores, or two examples, side by side: how alike their values are, at positions that are declared to belong together.

In: two stores and how their positions are paired. Out: `Scores` over sites and examples, which draw themselves. Nothing is
ever cut to the shorter of two lengths: tokens are paired by their number where they are the same tokens, or each example is
represented by its last token, or by the mean of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import RecordError, did_you_mean
from ...records import Scores
from .query import number
from .values import at
from .words import ALIGNMENTS, METRICS

if TYPE_CHECKING:
    from .store import Store

MOST_ROWS = 5000
"""Rows whose distances from each other are held at once."""
Pair = tuple[str, int, int]
"""Id, and the numbers of the example in the first and in the second store."""


def compare_stores(a: Store | str | Path, b: Store | str | Path, align: str = "last", metric: str = "cosine",
                   sites: str | Sequence[str] | None = None,
                   examples: str | int | tuple[str | int, str | int] | None = None) -> Scores:
    """How alike the values of two stores are.

    Args:
        a: One, or its folder; a selection of a store as well.
        b: The other; the same one where two of its examples are compared.
        align: "token": position by position, for examples with the same tokens. "last": the last token of each.
            "mean": the mean over the positions of each.
        metric: "cosine" and "l2" (the length of the difference), the mean over the positions. Or one number for all rows of
            a site, also for rows of different sizes: "cka" (linear, centred kernel alignment; Kornblith et al. 2019), or
            "rsa" (whether the same rows are far from each other: the rank correlation of their distances, 1 - Pearson's r;
            Kriegeskorte et al. 2008).
        sites: One, or several; all that both have where none are given.
        examples: One of `a` and one of `b`, to be compared although their ids differ; one alone stands for both. Otherwise
            those whose id both have.

    Returns:
        Values [site, example], or [site] for "cka" and "rsa"; nan where a vector has no direction. The note says what has no
        partner.

    Raises:
        RecordError: a word is none of these, nothing is in both, tokens or sizes differ where they must not, or there are
            fewer than two rows for "cka", or than three for "rsa", which needs scipy.
        PositionError: a last token was not stored.
    """
    if align not in ALIGNMENTS or metric not in METRICS:
        word, known = (align, ALIGNMENTS) if align not in ALIGNMENTS else (metric, METRICS)
        raise RecordError(f"{word!r} is not known here.{did_you_mean(word, known)} Choose {', '.join(known)}")
    a, b = _opened(a), _opened(b)
    names = _sites(a, b, [sites] if isinstance(sites, str) else sites)
    pairs, alone = _pairs(a, b, None if examples is None else _two(examples))
    found = [_MEASURES[metric](_aligned(a, b, site, pairs, align), site) for site in names]
    how = {"token": "token by token", "last": "last tokens", "mean": "means over positions"}[align]
    coords = {"site": tuple(names)} | ({} if isinstance(found[0], float) else {"example": tuple(name for name, *_ in pairs)})
    return Scores(np.array(found), tuple(coords), coords, name=metric, note="; ".join([how, *alone]))


def _opened(one: Store | str | Path) -> Store:
    from .store import Store

    return Store(one) if isinstance(one, str | Path) else one


def _two(examples: Any) -> tuple[str | int, str | int]:
    if isinstance(examples, str | int | np.integer):
        return examples, examples  # type: ignore[return-value]
    found = tuple(examples)
    if len(found) != 2:
        raise RecordError(f"examples={examples!r}: it is one of the first store and one of the second")
    return found


def _sites(a: Store, b: Store, sites: Sequence[str] | None) -> list[str]:
    names = [site for site in a.sites if site in b.sites] if sites is None else list(sites)
    if not names:
        raise RecordError(f"no site is in both {a.path} ({', '.join(a.sites)}) and {b.path} ({', '.join(b.sites)})")
    for site in names:
        one, other = a.layout(site), b.layout(site)
        if one.axes != other.axes:
            raise RecordError(f"{site} has the axes {' '.join(one.axes)} in {a.path} and {' '.join(other.axes)} in {b.path}")
    return names


def _pairs(a: Store, b: Store, examples: tuple[str | int, str | int] | None) -> tuple[list[Pair], list[str]]:
    if examples is not None:
        one, other = number(a, examples[0]), number(b, examples[1])
        return [(f"{a.ids[one]} | {b.ids[other]}", one, other)], []
    pairs = [(name, i, b.number_of[name]) for i, name in enumerate(a.ids) if name in b.number_of]
    if not pairs:
        raise RecordError(f"no example is in both {a.path} and {b.path}: their ids differ. Name two with examples=(…, …)")
    lacking = ((len(a) - len(pairs), a, "first"), (len(b) - len(pairs), b, "second"))
    return pairs, [f"{n} only in the {which}" for n, _, which in lacking if n]


def _aligned(a: Store, b: Store, site: str, pairs: Iterable[Pair], align: str) -> Iterator[tuple[Tensor, Tensor]]:
    """float64 [row, number] of both, row by row what belongs together."""
    for name, i, j in pairs:
        if align == "token":
            _same_tokens(a, b, site, name, i, j)
        yield _rows(a, site, i, align), _rows(b, site, j, align)


def _rows(store: Store, site: str, i: int, align: str) -> Tensor:
    values = store[site]
    axis = values.layout.pos_axis
    if axis is None:
        return values.mapped(i).double().reshape(1, -1)
    if align == "last":
        return at(values, [i], "last").double().reshape(1, -1)
    rows = values.mapped(i).double().movedim(axis, 0).flatten(1) if len(values.layout.axes) > 1 else \
        values.mapped(i).double()[:, None]
    if not len(rows):
        raise RecordError(f"example {store.ids[i]!r} of {store.path} has no positions of {site}: there is no mean of none")
    return rows.mean(0, keepdim=True) if align == "mean" else rows


def _same_tokens(a: Store, b: Store, site: str, name: str, i: int, j: int) -> None:
    one, other = a.tokens(i), b.tokens(j)
    if one != other:
        first = next((p for p, (x, y) in enumerate(zip(one or [], other or [], strict=False)) if x != y),
                     min(len(one or []), len(other or [])))
        raise RecordError(f"example {name!r} has {len(one or [])} tokens in the first and {len(other or [])} in the second, "
                          f"and they differ from position {first} on: token by token would compare different tokens. Align "
                          '"last" or "mean"')
    if a.layout(site).pos_axis is not None and a[site].positions(i) != b[site].positions(j):
        raise RecordError(f"example {name!r} was stored at other positions of {site} in the first than in the second")


def _each(measure: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Iterator[tuple[Tensor, Tensor]], str], list[float]]:
    def measured(pairs: Iterator[tuple[Tensor, Tensor]], site: str) -> list[float]:
        found = []
        for x, y in pairs:
            if x.shape != y.shape:
                raise RecordError(f"{site} has {x.shape[1]} numbers a position in one example and {y.shape[1]} in the "
                                  "other: only rows of one size have a cosine or a distance; cka compares any")
            found.append(float(measure(x, y).mean()))
        return found

    return measured


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))


def _cka(pairs: Iterator[tuple[Tensor, Tensor]], site: str) -> float:
    """From sums of products, so that no more than one example is in memory at a time."""
    n, sums = 0, None
    for x, y in pairs:
        both = torch.cat([x, y], 1)
        if sums is not None and both.shape[1] != sums[0].numel():
            raise RecordError(f"{site} differs in size from example to example: its rows have no common axes for cka")
        new = both.sum(0), both.T @ both
        sums = new if sums is None else (sums[0] + new[0], sums[1] + new[1])
        n, d = n + len(x), x.shape[1]
    if n < 2 or sums is None:
        raise RecordError(f"cka compares how rows lie to each other, and {site} has {n}: align by token, or take more "
                          "examples")
    centred = sums[1] - torch.outer(sums[0], sums[0]) / n
    across, one, other = centred[:d, d:], centred[:d, :d], centred[d:, d:]
    return float(across.square().sum() / (one.norm() * other.norm()))


def _rsa(pairs: Iterator[tuple[Tensor, Tensor]], site: str) -> float:
    """From the distances of all pairs of rows, so that no more than `MOST_ROWS` fit."""
    from ...analysis.probing import library

    rows = list(pairs)
    if any(len({one[k].shape[1] for one in rows}) > 1 for k in (0, 1)):
        raise RecordError(f"{site} differs in size from example to example: its rows have no common axes for rsa")
    n = sum(len(x) for x, _ in rows)
    if not 3 <= n <= MOST_ROWS:
        raise RecordError(f"rsa compares the distances of 3 to {MOST_ROWS} rows, and {site} has {n}: "
                          + ("align by token, or take more examples" if n < 3 else "align by last or mean, or take fewer"))
    distances = library("scipy.spatial.distance").pdist
    apart = [distances(torch.cat(side).numpy(), "correlation") for side in zip(*rows, strict=True)]
    return float(library("scipy.stats").spearmanr(*apart).statistic)


_MEASURES: dict[str, Callable[[Iterator[tuple[Tensor, Tensor]], str], list[float] | float]] = {
    "cosine": _each(_cosine), "l2": _each(lambda x, y: (x - y).norm(dim=1)), "cka": _cka, "rsa": _rsa}
