"""A plan in words, before anything runs: passes, sites, bytes, and what it changes about how the model computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .kept import kept_bytes
from .packing.choosing import packed
from .packing.entries import Packing, in_words
from .plan.plan import Plan
from .plan.runs import RunPlan
from .plan.spots import Spot
from .schedule import schedule


def describe(plan: Plan) -> str:
    """What `--plan` shows."""
    lines = ["Plan"]
    written = {run.name: run for run in plan.runs}
    plan, packings, reasons = packed(plan)
    number = 0
    for group in schedule(plan):
        whole = tuple(run for run in group if run.name not in packings)
        for part in (whole, *((run,) for run in group if run.name in packings)):
            if not part:
                continue
            number += 1
            rows = sum(_rows(plan, run) for run in part)
            names = ", ".join(_swept(run) for run in part)
            lines.append(f"  pass {number}: {names}  ({rows} row{'s' * (rows != 1)} of {_width(plan, part)} tokens)")
            for run in part:
                lines += [f"    {line}" for line in (*_packing(run, packings, reasons), *_edits(written.get(run.name, run)))]
    for run in plan.runs:
        if run.writing is not None:
            count = len(run.cells)
            lines.append(f"  generate: {run.name}, {run.writing.count} tokens" + (f" × {count} cells" if count > 1 else ""))
        for found in run.readings:
            extra = " (with gradients)" if found.verb == "attribute" and found.option("method") != "dla" else ""
            lines.append(f"  {found.verb}: {run.name}, {len(found.spots)} places{extra}")
    seen = {(spot.order, spot.key) for run in plan.runs for spot in run.captures}
    if seen:
        lines.append(f"  captures: {_short([key for _, key in sorted(seen)])}")
    if any(run.keeps for run in plan.runs):
        kept = {(spot.order, spot.key) for run in plan.runs for keep in run.keeps for spot in keep.spots}
        most = "at most " if any(run.writing for run in plan.runs) else ""
        lines.append(f"  keeps: {_short([key for _, key in sorted(kept)])}  ({most}{_size(kept_bytes(plan))})")
    opened = sorted({spot.layer for run in plan.runs for spot in _touched(run) if spot.site in ("scores", "pattern")
                     and spot.layer is not None})
    shown = f"computed in the open in layers {_short([str(n) for n in opened])}" if opened else "as the model has it"
    lines.append(f"  attention: {shown}")
    return "\n".join(lines)


def _packing(run: RunPlan, packings: dict[str, Packing], reasons: dict[str, str]) -> Iterator[str]:
    """How a sweep is run."""
    if run.name in packings:
        yield from in_words(packings[run.name])
    elif run.name in reasons:
        yield f"whole passes: {reasons[run.name]}"


def _rows(plan: Plan, run: RunPlan) -> int:
    return len(run.cells) * run.samples * int(plan.prompts[run.prompt].size)


def _width(plan: Plan, group: tuple[RunPlan, ...]) -> int:
    return max(int(plan.prompts[run.prompt].tokens.width) for run in group)


def _swept(run: RunPlan) -> str:
    axes = " × ".join(f"{len(axis.labels)} {axis.name}" for axis in run.axes)
    name = run.name.replace("~", ", what all its cells share")
    return name + (f" [{axes}]" if axes else "") + (f" × {run.samples} samples" if run.samples > 1 else "")


def _edits(run: RunPlan) -> list[str]:
    """The edits of the first cell, in the order in which the pass comes by."""
    edits = sorted(run.cells[0].edits, key=lambda edit: min(spot.order for spot in edit.spots))
    more = " (first of the sweep)" if run.axes else ""
    return [f"{edit.verb} {_short([str(spot) for spot in edit.spots])}{_where(edit)}{more}" for edit in edits[:8]] + (
        [f"… and {len(edits) - 8} more"] if len(edits) > 8 else [])


def _where(edit: Any) -> str:
    if edit.reach.at is None:
        return ""
    return " @" + (str(list(edit.reach.at[0])) if len(edit.reach.at) == 1 else "per example")


def _touched(run: RunPlan) -> set[Spot]:
    edited = {spot for cell in run.cells for edit in cell.edits for spot in edit.spots}
    return edited | set(run.captures) | {spot for found in run.readings for spot in found.spots}


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return ""


def _short(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" … {len(names) - 6} more" if len(names) > 6 else "")
