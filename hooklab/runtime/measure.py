"""Metrics of a plan on the logits of its runs, and the claims made about them."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import metrics
from ..compiler.plan.claims import Figure
from ..compiler.plan.measures import Measure, MetricPlan
from ..compiler.plan.reaches import Spread
from ..compiler.plan.values import Const, Fn, Given, Op
from ..errors import HooklabWarning
from .evaluate import columns
from .passes import at_columns
from .store import Block, SomeLogits, Store, standing_at, trouble


def measure(store: Store, block: Block, plan: MetricPlan, logits: Tensor | SomeLogits | None = None) -> Tensor:
    """A metric on the rows of a block, [row]."""
    held = store.logits[block.key] if logits is None else logits
    if isinstance(held, SomeLogits):
        plan, held = replace(plan, value=_renumbered(plan.value, held.ids.tolist())), held.values
    with standing_at(plan.span, store.plan.text):
        return _measured_rows(store, block, plan, held)


def references(value: Any) -> list[str]:
    """The runs that a metric compares with."""
    if isinstance(value, Measure):
        return [value.ref] if value.ref else []
    return [name for arg in getattr(value, "args", ()) for name in references(arg)]


def wanted_tokens(plans: Iterable[MetricPlan]) -> list[int] | None:
    """The tokens whose logits are all that metrics look at, ascending; None where they look at the whole vocabulary."""
    found: set[int] = set()
    stack = [plan.value for plan in plans]
    while stack:
        value = stack.pop()
        if isinstance(value, Measure):
            if value.fn not in ("logit", "logit_diff"):
                return None
            found.update(value.target or ())
            found.update(value.other or ())
        elif isinstance(value, Op):
            stack += value.args
        elif not isinstance(value, Const):
            return None
    return sorted(found)


def _renumbered(value: Any, ids: list[int]) -> Any:
    """A metric on the logits of some tokens only."""
    if isinstance(value, Op):
        return replace(value, args=tuple(_renumbered(arg, ids) for arg in value.args))
    if not isinstance(value, Measure):
        return value
    target, other = (None if tokens is None else tuple(ids.index(t) for t in tokens)
                     for tokens in (value.target, value.other))
    return replace(value, target=target, other=other)


def _measured_rows(store: Store, block: Block, plan: MetricPlan, logits: Tensor) -> Tensor:
    found = _value(store, block, plan.value, logits)
    if not isinstance(found, Tensor):
        try:
            found = torch.as_tensor(found, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise trouble(f"metric {plan.name} gave {reprlib.repr(found)}, which is no number",
                          hint="a metric gives one number, or one for each example") from None
    found = found.to(torch.promote_types(found.dtype, torch.float32)).reshape(-1)
    if len(found) not in (1, len(logits)):
        raise trouble(f"metric {plan.name} gave {len(found)} numbers for {len(logits)} examples",
                      hint="a metric gives one number, or one for each example")
    return found.expand(len(logits))


def _value(store: Store, block: Block, value: Any, logits: Tensor) -> Any:
    if isinstance(value, Const):
        return torch.tensor(float(value.value), device=logits.device)
    if isinstance(value, Op):
        args = [_value(store, block, arg, logits) for arg in value.args]
        return -args[0] if value.op == "neg" else _ARITHMETIC[value.op](*args)
    if isinstance(value, Given):
        return _called(store, block, value, logits)
    return _measured(store, block, value, logits)


_ARITHMETIC: dict[str, Any] = {"+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div}


def _called(store: Store, block: Block, value: Given, logits: Tensor) -> Any:
    tokens = store.plan.prompts[block.run.prompt].tokens
    function = store.plan.values[value.source]
    try:  # on a copy: a function may write into what it is given
        if isinstance(function, metrics.AtLast):
            found: Any = function.of(_selected(store, block, logits, None)[:, 0].clone())
        else:
            found = function(SimpleNamespace(logits=logits.clone(), tokens=tokens, run=block.run.name))
        return found if isinstance(found, Tensor) or not hasattr(found, "__array__") else torch.as_tensor(found)
    except Exception as error:
        raise trouble(f"the metric {{{value.source}}} failed: {type(error).__name__}: {error}",
                      ) from error


def _measured(store: Store, block: Block, value: Measure, logits: Tensor) -> Tensor:
    if value.fn == "loss":
        return _loss(store, block, logits)
    at = _selected(store, block, logits, value.at)
    if value.fn == "kl":
        return _kl(store, block, value, at)
    if value.target is None:
        return metrics.PLAIN[value.fn](at)
    target = token_ids(value.target, len(logits))
    if value.other is not None:
        return metrics.logit_diff(at, target, token_ids(value.other, len(logits)))
    return metrics.ANSWERED[value.fn](at, target)


def token_ids(ids: tuple[int, ...], rows: int) -> Tensor:
    """One id for each row: those of the examples, again for every sample."""
    return torch.tensor([ids[row % len(ids)] for row in range(rows)])


def _selected(store: Store, block: Block, logits: Tensor, at: Spread | None) -> Tensor:
    """Logits at a metric's positions, [row pos d_vocab]; the last position unless said otherwise."""
    tokens = store.plan.prompts[block.run.prompt].tokens
    found = [columns(tokens, at, e) if at is not None else columns(tokens, None, e)[-1:] for e in range(len(tokens))]
    if len({len(row) for row in found}) > 1:
        raise trouble("a metric is read at different numbers of positions in the examples", text=store.plan.text,
                      hint="name one position, such as @last")
    return at_columns(logits, [found[row % len(found)] for row in range(len(logits))], tokens.width)


def _kl(store: Store, block: Block, value: Measure, at: Tensor) -> Tensor:
    run = store.plan.run(str(value.ref))
    number = store.cell(run.name, block.run, block.number)
    key = (run.name, number)
    if key not in store.logits:
        raise trouble(f"kl({run.name}) cannot be computed: {run.name} comes later")
    other = Block(run, number, 0, int(store.plan.prompts[run.prompt].size))
    held = store.logits[key]
    assert isinstance(held, Tensor)  # a run that is compared with keeps its whole vocabulary
    reference = _selected(store, other, held.to(at.device), value.ref_at)
    if reference.shape[1] != at.shape[1]:
        raise trouble(f"kl({run.name}): the position is {reference.shape[1]} tokens in {run.prompt} and {at.shape[1]} in "
                      f"{block.run.prompt}", hint="name positions of the same number, such as @last")
    rows = torch.tensor([row % len(reference) if len(reference) in (1, block.size) else row for row in range(len(at))])
    if len(reference) not in (1, block.size, len(at)):
        raise trouble(f"kl({run.name}): {run.name} has {len(reference)} examples and {block.run.name} {len(at)}")
    return metrics.kl(at, reference[rows])


def _loss(store: Store, block: Block, logits: Tensor) -> Tensor:
    tokens = store.plan.prompts[block.run.prompt].tokens
    found = []
    for row in range(len(logits)):
        example = row % len(tokens)
        cols = columns(tokens, None, example)
        ids = torch.tensor(tokens.ids[example])[None]
        found.append(metrics.loss(logits[row:row + 1, cols[0]:cols[-1] + 1], ids) if len(cols) > 1
                     else torch.full((1,), math.nan))
    return torch.cat(found)


def warn_of_nan(name: str, run: str, values: np.ndarray, axes: tuple[Any, ...]) -> None:
    """A number that is none is kept, and said aloud."""
    bad = np.isnan(values)
    if bad.any():
        where = "" if values.ndim <= 1 else f" at {int(bad.sum())} of {bad.size} points of the sweep"
        warnings.warn(f"metric {name} of run {run} is not a number (NaN){where}.", HooklabWarning, stacklevel=2)


# Claims ------------------------------------------------------------------------------------------------------------

CLOSE = 0.05
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
    "~=": lambda a, b: abs(a - b) <= CLOSE * max(abs(a), abs(b)) + 1e-6,
}


def claimed(value: Any, figures: dict[tuple[str, str], np.ndarray]) -> Any:
    """One side of a claim: a number, or the numbers of a sweep."""
    if isinstance(value, Const):
        return float(value.value)
    if isinstance(value, Figure):
        return figures[value.run, value.metric]
    args = [claimed(arg, figures) for arg in value.args]
    if isinstance(value, Fn):
        together = args[0] if len(args) == 1 else np.concatenate([np.ravel(arg) for arg in args])
        return _OVER[value.name](together)
    if value.op == "neg":
        return -args[0]
    return _OF_TWO[value.op](*args)


_OVER: dict[str, Any] = {"max": np.max, "min": np.min, "mean": np.mean, "sum": np.sum, "abs": np.abs, "std": np.std}
_OF_TWO: dict[str, Any] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
