"""Spots as sets: joined where they act together, split into single ones, taken from one another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..sites import SITES
from .plan.spots import Spot


def together(spots: tuple[Spot, ...]) -> tuple[Spot, ...]:
    """Spots that act together, each place once: heads, or units, of one site are joined.

    >>> [str(spot) for spot in together((Spot("z", 0, (1,)), Spot("z", 1), Spot("z", 0, (1, 2))))]
    ['L0H[1,2].z', 'L1.z']
    """
    found: dict[Any, Spot] = {}
    for spot in spots:
        # What is narrowed in two ways at once is joined with its like only.
        shape = (spot.units, spot.features) if spot.heads is not None else ((), ())
        key = (spot.site, spot.layer, spot.sae, shape if spot.units or spot.features else None)
        known = found.get(key)
        found[key] = spot if known is None else replace(
            known, heads=_joined(known.heads, spot.heads), units=_joined(known.units, spot.units),
            features=_joined(known.features, spot.features))
    made = list(found.values())
    return tuple(spot for spot in made if not any(other is not spot and _covers(other, spot) for other in made))


def _covers(a: Spot, b: Spot) -> bool:
    """Whether one spot holds all of another."""
    return (a.site, a.layer, a.sae) == (b.site, b.layer, b.sae) and all(
        whole is None or (part is not None and set(part) <= set(whole))
        for whole, part in ((a.heads, b.heads), (a.units, b.units), (a.features, b.features)))


def _joined(a: tuple[int, ...] | None, b: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Numbers of either; None, which is all of them, stays."""
    return None if a is None or b is None else tuple(dict.fromkeys((*a, *b)))


def single(spot: Spot) -> list[Spot]:
    """A spot as spots of one head, unit or feature each."""
    parts = [spot]
    if spot.heads is not None:
        parts = [replace(part, heads=(n,)) for part in parts for n in spot.heads]
    if spot.units is not None:
        parts = [replace(part, units=(n,)) for part in parts for n in spot.units]
    if spot.features is not None:
        parts = [replace(part, features=(n,)) for part in parts for n in spot.features]
    return parts


def subtract(spots: list[Spot], gone: list[Spot], facts: Any) -> list[Spot]:
    """Spots less others: whole ones, or some heads or units of them."""
    for out in gone:
        left = []
        for spot in spots:
            if (spot.site, spot.layer, spot.sae) != (out.site, out.layer, out.sae):
                left.append(spot)
                continue
            rest = _less(spot, out, facts)
            if rest is not None:
                left.append(rest)
        spots = left
    return spots


def _less(spot: Spot, out: Spot, facts: Any) -> Spot | None:
    """One spot without the heads, units or features of another; None when nothing is left."""
    axes = SITES[spot.site].axes
    sizes = {"heads": facts.n_kv_heads if "kv_head" in axes else facts.n_heads, "units": getattr(facts, axes[-1], 0),
             "features": 0}
    for name, size in sizes.items():
        mine, theirs = getattr(spot, name), getattr(out, name)
        if theirs is None:
            continue
        kept = tuple(n for n in (mine if mine is not None else range(size)) if n not in theirs)
        changed: dict[str, Any] = {name: kept}
        return replace(spot, **changed) if kept else None
    return None
