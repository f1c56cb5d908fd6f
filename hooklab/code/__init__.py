"""A spec as plain programs: one of nnsight blocks, one of PyTorch hooks. The bridge for learners, the proof for sceptics.

    spec ──compiler──▶ Plan ──┬─ blocks.Blocks ─▶ `with model.trace(…):` …
                              └─ hooks.Hooks ───▶ `register_forward_hook` …

Both can be run as they stand and leave their numbers in `results[run][metric]`, what `save` keeps in
`saved["run.name"]`, and continuations in `results[run]["ids"]`. They do one pass for each point of a sweep, where
hooklab runs points as rows of one batch; the numbers are the same.

Not written as code (a `CodeError` names the line): `attribute`, `score`, `lens`; features of a dictionary (`sae`);
prompts with images; `save` under `generate`, and `generate` with `stop=`; metrics in Python that look at more than
logits; tensors, noise and means laid over `scores` and `pattern`; and values whose positions differ in number from
example to example. Plain hooks do not reach inside attention where a family computes it inline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..compiler.plan.plan import Plan
from ..spec import ast
from .blocks import Blocks
from .hooks import Hooks
from .text import CodeError

if TYPE_CHECKING:
    from ..model.model import Model


def to_code(spec: ast.Spec | str | Plan, model: Model, values: Mapping[str, Any] | None = None) -> str:
    """Both programs as one text; where hooks cannot do it, the second is the reason why.

    Args:
        spec: A spec, its text, or a plan made for this model.
        model: The model that it is for.
        values: What Python between braces stands for, by its source.

    Raises:
        SpecError: with every problem of the spec.
        CodeError: for what is not written as code.

    Example:
        >>> import hooklab as hl
        >>> text = to_code('prompt "The Eiffel Tower is in the city of"' + chr(10) + 'metric top', hl.load("lab"))
        >>> 'with model.trace(prompt):' in text and 'hf(torch.tensor(rows, device=hf.device)).logits' in text
        True
    """
    plan = _plan(spec, model, values)
    first = to_nnsight(plan, model)
    try:
        second = Hooks(plan, model).text(spec=False)
    except CodeError as error:
        second = "\n".join(f"# {line}" for line in ("Plain PyTorch hooks cannot do this:", *str(error).splitlines())) + "\n"
    return f"{first}\n\n# {'=' * 98}\n\n{second}"


def to_nnsight(plan: Plan, model: Model) -> str:
    """A plan as nnsight blocks. Given `model`, it runs as it stands.

    Raises:
        CodeError: for what is not written as code.
    """
    return Blocks(plan, model).text()


def to_hooks(plan: Plan, model: Model) -> str:
    """A plan as plain PyTorch hooks. Given `hf`, the Hugging Face module, and `tokenizer`, it runs as it stands.

    Raises:
        CodeError: for what is not written as code, or not reached by hooks.
    """
    return Hooks(plan, model).text()


def _plan(spec: ast.Spec | str | Plan, model: Model, values: Mapping[str, Any] | None) -> Plan:
    """The plan; a spec without text is compiled from its canonical one, so that lines have numbers."""
    if isinstance(spec, Plan):
        return spec
    if isinstance(spec, ast.Spec):
        spec = spec.text or str(spec)
    return model.plan(spec, values=values)


__all__ = ["CodeError", "to_code", "to_hooks", "to_nnsight"]
