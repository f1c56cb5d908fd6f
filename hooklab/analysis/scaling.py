"""`hl.analysis.scale_neuron`: what a metric does when one neuron is turned down, off, or up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..address import parse
from ..records import Scores
from .asking import Asking, SweepError, places
from .effects import Scale, effects
from .sweep import Progress

if TYPE_CHECKING:
    from ..model.model import Model


def scale_neuron(model: Model, prompt: Any, neuron: str, by: float | Sequence[float] = 0.0, positions: Any = None,
                 metric: str | Callable[[Tensor], Any] = "logit_diff", *, answer: Any = None, wrong: Any = None,
                 seed: int = 0, rows: int | None = None, progress: Progress | None = None) -> Scores:
    """The change of a metric when a neuron's activation, after the non-linearity, is multiplied.

    Args:
        model: An opened model.
        prompt: Text, ids or a list of them.
        neuron: Such as `"L3N17"`; `"L3N[1,2]"` are scaled together.
        by: The factor, or several for an axis of them: 0 takes the neuron out, 1 leaves it.
        positions: Where, such as `"last"`; everywhere unless given.
        metric: A name, or a function of the last logits.
        answer: The right next token.
        wrong: The wrong one.
        seed: Of intervals.
        rows: Most whole rows of a pass.
        progress: Called with (done, total, what).

    Returns:
        Scores [factor], or one number for one factor: the metric less that of the untouched run; with several prompts their
        mean, each in `.examples`, with interval and p-values.

    Raises:
        SweepError: there is no factor, or one is no finite number.
        SpecError: a neuron, position or answer that does not exist.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> found = scale_neuron(model, "The capital of France is", "L2N5", [0, 1, 2], answer=" Paris", wrong=" Rome")
        >>> found.axes, abs(float(found.sel(factor=1.0))) < 1e-4
        (('factor',), True)
    """
    if parse(neuron).neurons is None:
        raise SweepError(f'{neuron!r} names no neuron: write "L3N17", or "L3N[1,2]" for two that are scaled together')
    factors = _factors(by)
    asking = Asking().prompt("clean", prompt)
    name = asking.line(*([f"seed {seed}"] if seed else [])).answer(answer, wrong).metric(metric)
    values = f"each [{', '.join(map(repr, factors))}]" if np.ndim(by) else repr(factors[0])
    asking.line("run scaled on clean:", f"    scale {places(neuron, positions)} by {values}")
    run = model.run(model.plan(asking.text, values=asking.values), rows=rows, progress=progress)
    found = effects(run, "scaled", name, Scale(None, "clean", "clean", f"{neuron} scaled"), seed=seed)
    if not np.ndim(by):
        return found
    return _named(found, factors)


def _factors(by: Any) -> list[float]:
    """The factors, or SweepError."""
    try:
        found = np.atleast_1d(np.asarray(by, dtype=np.float64))
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise SweepError(f"by={by!r}: a neuron is multiplied by finite numbers, at least one")
    return [float(one) for one in found]


def _named(found: Scores, factors: list[float]) -> Scores:
    """The axis of factors under its own name."""
    shape = (len(factors),)

    def shaped(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array.reshape(shape)

    examples = None if found.examples is None else found.examples.reshape(-1, *shape)
    return replace(found, values=found.values.reshape(shape), axes=("factor",), coords={"factor": tuple(factors)},
                   examples=examples, low=shaped(found.low), high=shaped(found.high), p=shaped(found.p), labels=None)
