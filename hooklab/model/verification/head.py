"""What stands on the body of a model without a language-model head: classes of a prompt or its tokens, spans, scores.

The laws are checked on the body. That the head is fed by it, and by nothing that the sites do not show, is checked on
what the whole model gives, one prompt at a time: some of these heads take no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...records import Activations
from ...runtime.trace import capture
from .difference import difference
from .fitting import UNFIT, first_line, no_accident
from .names import HEAD
from .passes import Ids, bare, body
from .report import Check

if TYPE_CHECKING:
    from ..model import Model


def head_checks(model: Model, ids: Ids, other: Ids, acts: Activations, limit: float) -> list[Check]:
    """Checks of a head that is not a language model's; none where there is no head, or a language model's.

    Args:
        model: An open model.
        ids: Tokens of the clean run.
        other: Tokens of another run, as many.
        acts: What the clean run of the body gave at every site.
        limit: The largest error of values that are computed again in another order.
    """
    if body(model) is model.hf:
        return []
    name = type(model.hf).__name__
    try:
        given = _tensors(bare(model, model.hf, ids))
    except UNFIT as error:
        note = f"{name} does not run on tokens alone, so only its body was checked: {first_line(error)}"
        return [Check(HEAD, (), no_accident(error, None), limit, note)]
    checks = [Check(f"traced output of {name} = bare output", (), _apart(_run(model, ids), given), 1e-6)]
    last = "ln_final" if "ln_final" in acts else f"L{model.facts.n_layers - 1}.resid_post"
    if last in acts:
        written = _run(model, other, {last: lambda value: acts[last]})
        checks.append(Check(HEAD, (), _apart(written, given), limit, f"clean values of {last}, output of {name}"))
    return checks


def _run(model: Model, ids: Ids, edits: Any = None) -> list[Tensor]:
    return _tensors(capture(model, [list(ids)], "L0.resid_pre", full=True, edits=edits).output)


def _tensors(output: Any) -> list[Tensor]:
    """The numbers of an output, whatever they are called; a cache is none."""
    values = output.values() if hasattr(output, "values") else output if isinstance(output, (tuple, list)) else [output]
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def _apart(values: list[Tensor], expected: list[Tensor]) -> float:
    if len(values) != len(expected):
        return float("inf")
    return max((difference(a, b) for a, b in zip(values, expected, strict=True)), default=float("nan"))
