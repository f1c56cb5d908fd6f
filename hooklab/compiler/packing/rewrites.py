"""Rewrites: runs as others that give the same and cost less."""

from __future__ import annotations

from dataclasses import replace

from ..plan.edits import Edit, sources
from ..plan.plan import Plan
from ..plan.runs import RunPlan
from ..plan.spots import Spot
from ..plan.values import Same, acts

LINEAR = ("patch", "zero", "mean", "resample")
"""Verbs that do to a head's write what they do to its weighted values, the write being linear in them."""


def by_values(plan: Plan, run: RunPlan) -> RunPlan:
    """The same run with edits of whole `result`s as edits of `z`: twelve times less to move in a model with twelve heads.

    Nobody sees the difference: nothing is read in the cells of a packed run but the logits. A run whose lines could tell
    the two apart stays as it is.
    """
    if not _turns(plan, run):
        return run
    made: dict[int, Edit] = {}

    def turned(edit: Edit) -> Edit:
        """One edit as it is at `z`; cells that share an edit still share it."""
        if id(edit) not in made:
            at_result = any(spot.site == "result" for spot in edit.spots)
            made[id(edit)] = replace(edit, spots=tuple(replace(s, site="z") for s in edit.spots)) if at_result else edit
        return made[id(edit)]

    return replace(run, cells=tuple(replace(cell, edits=tuple(turned(edit) for edit in cell.edits)) for cell in run.cells))


def _turns(plan: Plan, run: RunPlan) -> bool:
    """Whether edits of `result` do the same at `z`: all are linear, come after the lines on `z`, take from runs that leave
    `result` alone, and no later run takes `z`, which they would not have changed."""
    if any(spot.site == "z" for spot in run.captures):
        return False
    seen: set[int] = set()
    for cell in run.cells:
        done: set[int | None] = set()  # layers whose writes are edited by a line above
        for edit in cell.edits:
            if any(spot.site == "z" and spot.layer in done for spot in edit.spots):
                return False
            writes = {spot.layer for spot in edit.spots if spot.site == "result"}
            if writes and id(edit) not in seen and not _linear(plan, edit):
                return False
            seen.add(id(edit))
            done |= writes
    return True


def _linear(plan: Plan, edit: Edit) -> bool:
    """Whether an edit of `result` does the same at `z`."""
    if edit.verb not in LINEAR or not (edit.value is None or isinstance(edit.value, Same)):
        return False
    if any(spot.site != "result" or spot.units is not None or spot.sae is not None for spot in edit.spots):
        return False
    written = {id(e): e for name in sources(edit) for cell in plan.run(name).cells for e in cell.edits}
    return all(spot.site != "result" for e in written.values() for spot in e.spots)


def captured(runs: tuple[RunPlan, ...]) -> tuple[RunPlan, ...]:
    """The runs, each keeping of `z` and `result` what the edits and reads of all of them now ask for."""
    wanted: dict[str, set[Spot]] = {run.name: set() for run in runs}
    for run in runs:
        wanted[run.name] |= {Spot(s.site, s.layer) for keep in run.keeps for s in keep.spots}
        wanted[run.name] |= {Spot(s.site, s.layer) for reading in run.readings for s in reading.spots}
        for reading in run.readings:
            if reading.option("source"):
                wanted[str(reading.option("source"))] |= {Spot(s.site, s.layer) for s in reading.spots}
        seen: set[int] = set()
        for cell in run.cells:
            for edit in cell.edits:
                if id(edit) in seen:
                    continue
                seen.add(id(edit))
                if isinstance(edit.value, Same):
                    wanted[edit.value.run] |= {Spot(s.site, s.layer) for s in edit.spots}
                for act in acts(edit.value):
                    wanted[act.run].add(Spot(act.spot.site, act.spot.layer))
    return tuple(replace(run, captures=frozenset(
        {spot for spot in run.captures if spot.site != "result"} | {
            spot for spot in wanted[run.name] if spot.site in ("z", "result")})) if not run.writing else run for run in runs)


def straight(plan: Plan) -> Plan:
    """The plan with paths that end at the logits as what they are: their first pass, whose logits are the result."""
    runs = {run.name: run for run in plan.runs}
    for run in plan.runs:
        hidden = _path_to_logits(plan, run)
        if hidden is None or any(hidden in other.needs for other in plan.runs if other.name != run.name):
            continue
        first = runs.pop(hidden)
        cells = tuple(replace(cell, edits=first.cells[cell.edits[0].option("cell")].edits) for cell in run.cells)
        runs[run.name] = replace(run, cells=cells, needs=(run.needs - {hidden}) | first.needs)
    return replace(plan, runs=tuple(runs.values()))


def _path_to_logits(plan: Plan, run: RunPlan) -> str | None:
    """The hidden run that every cell takes all its logits from, and nothing else."""
    found: set[str] = set()
    for cell in run.cells:
        if len(cell.edits) != 1:
            return None
        edit = cell.edits[0]
        whole = [spot.site == "logits" and spot.units is None for spot in edit.spots]
        if edit.verb != "patch" or not isinstance(edit.value, Same) or edit.reach.at is not None or not all(whole):
            return None
        found.add(edit.value.run)
    if len(found) != 1 or run.writing or run.keeps or run.readings or run.captures or run.samples > 1:
        return None
    name = found.pop()
    return name if plan.run(name).hidden else None
