"""Needs: what earlier runs have to capture for later ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .context import Context
from .plan.edits import Edit
from .plan.readings import Reading
from .plan.spots import Spot
from .plan.values import Same, acts, at_spot


def note_needs(ctx: Context, name: str, edits: Iterable[Edit]) -> set[str]:
    """Ask earlier runs to keep what edits take from them; returns the names of those runs."""
    wanted: dict[str, set[Spot]] = {}
    seen: set[int] = set()
    for edit in edits:
        if id(edit) in seen:
            continue
        seen.add(id(edit))
        if isinstance(edit.value, Same):
            wanted.setdefault(edit.value.run, set()).update(Spot(s.site, s.layer) for s in edit.spots)
        for act in (act for spot in edit.spots for act in acts(at_spot(edit.value, spot))):
            wanted.setdefault(act.run, set()).add(Spot(act.spot.site, act.spot.layer))
    for run, spots in wanted.items():
        ctx.runs[run] = replace(ctx.runs[run], captures=ctx.runs[run].captures | spots)
    return set(wanted)


def note_reading(ctx: Context, found: Reading) -> None:
    """Ask the run that a reading compares with to keep what it compares."""
    source = found.option("source")
    if source:
        spots = frozenset(Spot(s.site, s.layer) for s in found.spots)
        ctx.runs[source] = replace(ctx.runs[source], captures=ctx.runs[source].captures | spots)
