"""Which runs share a forward pass: those that need nothing of each other and are equally long."""

from __future__ import annotations

from .plan.plan import Plan
from .plan.runs import RunPlan


def schedule(plan: Plan) -> list[tuple[RunPlan, ...]]:
    """Groups of runs, in an order in which every group needs only earlier ones.

    Runs go into one pass when their prompts have the same numbers of tokens: nothing is padded that would not be padded
    alone. Runs over images go alone.
    """
    level: dict[str, int] = {}
    for run in plan.runs:
        level[run.name] = max((level[need] + 1 for need in run.needs if need in level), default=0)
    groups: dict[tuple[object, ...], list[RunPlan]] = {}
    for run in plan.runs:
        prompt = plan.prompts[run.prompt]
        shape: object = set(prompt.tokens.lengths) if prompt.tokens is not None else run.name
        key = (level[run.name], run.prompt if prompt.extras else str(sorted(shape) if isinstance(shape, set) else shape))
        groups.setdefault(key, []).append(run)
    return [tuple(group) for _, group in sorted(groups.items(), key=lambda item: item[0][0])]  # type: ignore[arg-type,return-value]
