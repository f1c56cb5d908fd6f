"""From the numbers of a sweep to effects: on a scale from one run to another, with what several examples say about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..records import Run, Scores
from ..statistics import interval, p_value, ratio_interval
from .asking import SweepError


@dataclass(frozen=True)
class Scale:
    """What effects are measured against.

    Attributes:
        zero: The run whose metric is 0; None to leave numbers on the metric's own scale.
        one: The run whose metric is 1.
        start: The run that was changed: an effect is nothing where the metric stays what it is there.
        words: What was done, for the note.
    """

    zero: str | None
    one: str
    start: str
    words: str = ""


def effects(run: Run, swept: str, metric: str, scale: Scale, *, seed: int = 0, whole: float | None = None) -> Scores:
    """The effects of a swept run; with several examples their mean, interval and p-values.

    Args:
        run: What was run.
        swept: The name of the swept run.
        metric: The name of the metric.
        scale: What effects are measured against.
        seed: Of intervals and p-values.
        whole: What 1 is, where it is not the difference of this run's ends: that of the run which this one controls.

    Raises:
        SweepError: the metric is the same on both ends of the scale.
    """
    raw = run.scores.get(f"{swept}.{metric}") or _single(run, swept, metric)
    each = np.asarray(raw.values[None] if raw.examples is None else raw.examples, dtype=np.float64)
    start = each - _beside(_untouched(run, scale.start, metric, len(each)), each)
    several = len(each) > 1
    p = p_value(start, seed=seed) if several else None
    if scale.zero is None:
        low, high = interval(start, seed=seed) if several else (None, None)
        return replace(raw, values=start.mean(0), examples=start if several else None, low=low, high=high, p=p,
                       note=f"{scale.words}: {metric} less that of the untouched run")
    zero, one = (_untouched(run, name, metric, len(each)) for name in (scale.zero, scale.one))
    span = np.full(len(each), whole) if whole is not None else one - zero
    whole = float(span.mean())
    if not abs(whole) > 1e-6 * max(1.0, float(np.abs(one).mean())):
        raise SweepError(f"{metric} is {one.mean():.6g} on {scale.one} and {zero.mean():.6g} on {scale.zero}, so there is "
                         "no effect to normalise by: take normalise=False, or other prompts")
    part = each - _beside(zero, each)
    low, high = ratio_interval(part, span, seed=seed) if several else (None, None)
    return replace(raw, values=part.mean(0) / whole, examples=part / whole if several else None, unit="fraction",
                   low=low, high=high, p=p, ends=(float(zero.mean()), float(zero.mean()) + whole), raw_unit=raw.unit,
                   note=f"{scale.words}: 0 is {metric} of {scale.zero}, 1 that of {scale.one}"
                        + (f"; p-values are of a change from {scale.start}" if several else ""))


def _single(run: Run, name: str, metric: str) -> Scores:
    """A sweep of one cell, which the language takes for none."""
    each = np.asarray(run.examples[name][metric], dtype=np.float64).reshape(-1)
    return Scores(np.asarray(each.mean()), (), name=metric, spec=run.spec, examples=each if len(each) > 1 else None)


def _untouched(run: Run, name: str, metric: str, size: int) -> np.ndarray:
    """The metric of a run that is not swept, [batch]."""
    found = np.asarray(run.examples[name][metric], dtype=np.float64).reshape(-1)
    return np.repeat(found, size // len(found)) if len(found) < size else found


def _beside(ends: np.ndarray, each: np.ndarray) -> np.ndarray:
    return ends.reshape(-1, *[1] * (each.ndim - 1))
