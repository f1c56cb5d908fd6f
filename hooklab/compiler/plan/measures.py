"""Measures: numbers read from logits, and the metrics that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spec.ast import Span
from .reaches import Spread
from .values import Given


@dataclass(frozen=True)
class Measure:
    """A number read from logits.

    Attributes:
        fn: logit, logit_diff, logit_centred, prob, logprob, kl, loss, rank, entropy, top.
        target, other: Token ids, one for each example.
        ref: The run to compare with (`kl`).
        at: Positions per example; None for the last.
        ref_at: The same positions in the prompt of `ref`.
    """

    fn: str
    target: tuple[int, ...] | None = None
    other: tuple[int, ...] | None = None
    ref: str | None = None
    at: Spread | None = None
    ref_at: Spread | None = None


@dataclass(frozen=True)
class MetricPlan:
    """A metric with its name; `value` is made of Measure, Const, Op and Given (a Python callable)."""

    name: str
    value: Any
    unit: str = ""
    span: Span | None = field(default=None, compare=False)


def looks_back(value: Any, values: dict[str, Any]) -> bool:
    """Whether a metric may look at logits before the last position."""
    if isinstance(value, Given):
        return not getattr(values[value.source], "at_last", False)
    if isinstance(value, Measure):
        return value.fn == "loss" or value.at is not None
    return any(looks_back(arg, values) for arg in getattr(value, "args", ()))
