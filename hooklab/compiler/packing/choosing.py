"""The choice of sweeps to pack: those that can be, and that it saves work for."""

from __future__ import annotations

from dataclasses import replace

from ..plan.cells import Cell
from ..plan.measures import looks_back
from ..plan.plan import Plan
from ..plan.runs import RunPlan
from .departures import departures
from .entries import STAGE, Packing
from .rewrites import by_values, captured, straight
from .shared import among, shared_edits

FEWEST = 3
"""Cells below which a sweep is not worth a recorded pass."""
OPEN = ("scores", "pattern", "result", "ln_final", "ln_final_scale", "logits")
"""Sites that are not kept of a packed cell."""


def packed(plan: Plan) -> tuple[Plan, dict[str, Packing], dict[str, str]]:
    """The plan with the passes that packed runs continue; how each is packed; and why other sweeps are not."""
    packings: dict[str, Packing] = {}
    reasons: dict[str, str] = {}
    runs: list[RunPlan] = []
    plan = straight(plan)
    for run in plan.runs:
        if len(run.cells) < FEWEST:
            runs.append(run)
            continue
        reason = unfit(plan, run)
        if reason is None:
            run = by_values(plan, run)
            found = departures(plan, run, packings)
            if found.work * 10 < found.plain * 9:
                if found.base != run.prompt:
                    runs.append(RunPlan(found.base, run.prompt, (), (Cell((), found.shared),), run.samples, run.needs,
                                        hidden=True))
                packings[run.name] = found
                runs.append(replace(run, needs=run.needs | {found.base}))
                continue
            reason = "its cells have little in common"
        reasons[run.name] = reason
        runs.append(run)
    return replace(plan, runs=captured(tuple(runs))), packings, reasons


def unfit(plan: Plan, run: RunPlan) -> str | None:
    """Why a sweep takes whole passes; None when it can be packed."""
    about = plan.about
    reason = getattr(about, "unpackable", lambda: None)()
    if reason is not None:
        return str(reason)
    if run.writing is not None:
        return "it writes on"
    if run.readings or run.keeps or (run.captures and not (run.hidden and _serves_paths(run))):
        return "activations are read in every cell"
    if any(spot.into for cell in run.cells for edit in cell.edits for spot in edit.spots):
        return "it holds the features of a dictionary from one site to another"
    if any(looks_back(metric.value, plan.values) for metric in run.metrics):
        return "a metric looks at more than the last position"
    shared = shared_edits(plan, run)
    for cell in run.cells:
        for edit in cell.edits:
            for spot in edit.spots:
                if spot.site in STAGE or (spot.site in ("embed", "pos_embed") and among(edit, shared)):
                    continue
                return f"{spot.site} is edited in some cells only"
    return None


def _serves_paths(run: RunPlan) -> bool:
    """Whether a hidden run only lends the values of a few sites, which a packed cell can keep."""
    return all(spot.layer is not None and spot.site not in OPEN for spot in run.captures)
