"""Edits that every cell of a sweep has."""

from __future__ import annotations

from ..plan.edits import Edit, sources
from ..plan.plan import Plan
from ..plan.runs import RunPlan


def shared_edits(plan: Plan, run: RunPlan) -> tuple[Edit, ...]:
    """Edits that every cell has and that do the same in each, in the order of their lines."""
    found = tuple(edit for edit in run.cells[0].edits if all(len(plan.run(name).cells) == 1 for name in sources(edit)))
    for cell in run.cells[1:]:
        found = tuple(edit for edit in found if among(edit, cell.edits))
    return found


def among(edit: Edit, edits: tuple[Edit, ...]) -> bool:
    """Whether an edit is one of several; most are the very same object."""
    return any(edit is other for other in edits) or edit in edits
