"""Keeps of one run put side by side: what has no name of its own is found under its place, so it can be there once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .context import Context
from .plan import Keep, Spot


def kept_once(ctx: Context, keeps: Iterable[Keep]) -> tuple[Keep, ...]:
    """Keeps without repeats; one place kept at other positions under the same name is a problem."""
    seen: dict[str, Keep] = {}
    found = []
    for keep in keeps:
        if keep.name is not None:
            found.append(keep)
            continue
        left: list[Spot] = []
        for spot in dict.fromkeys(keep.spots):
            first = seen.setdefault(str(spot), keep)
            if first is keep:
                left.append(spot)
            elif first.reach != keep.reach:
                ctx.problem("value", f"{spot} is kept twice, at different positions", keep.span or first.span,
                            f"give one of them a name: save {spot} @last as end")
        if left:
            found.append(replace(keep, spots=tuple(left)))
    return tuple(found)
