"""Controls: the same analysis where there is nothing to find, to see what chance alone gives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ..errors import HooklabError

if TYPE_CHECKING:
    from ..model.model import Model

CONTROLS = ("weights", "labels")


class ControlError(HooklabError):
    """A control that cannot be done with what there is."""


@contextmanager
def controlled(model: Model, control: str, values: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """The values of a spec under a control; for `"weights"` the model itself is another for as long as the block runs.

    Raises:
        ControlError: answers that are all alike cannot be dealt out anew.
    """
    if control == "labels":
        yield dealt(values, seed)
        return
    with shuffled_weights(model, seed):
        yield values


def dealt(values: dict[str, Any], seed: int) -> dict[str, Any]:
    """Answers (and wrong answers with them) given to other pairs: no pair keeps its own where that can be."""
    named = [name for name in ("answer", "wrong") if isinstance(values.get(name), (list, tuple))]
    if not named or len({tuple(repr(values[name][i]) for name in named) for i in range(len(values[named[0]]))}) < 2:
        raise ControlError("control=\"labels\" deals the answers out to other pairs: give a list of answers that differ, "
                           "one for each pair, or take control=\"weights\"")
    size = len(values[named[0]])
    draw = random.Random(seed)
    best, order = -1, list(range(size))
    for _ in range(200):
        tried = list(range(size))
        draw.shuffle(tried)
        moved = sum(values[named[0]][i] != values[named[0]][j] for i, j in enumerate(tried))
        if moved > best:
            best, order = moved, tried
    return {**values, **{name: [values[name][i] for i in order] for name in named}}


@contextmanager
def shuffled_weights(model: Model, seed: int = 0) -> Iterator[None]:
    """The model with the entries of every weight matrix in another order; all of it comes back bit for bit.

    Sizes and spreads of weights stay, what was learnt goes; gains, biases and whatever has one axis stay as they are.
    """
    made = torch.Generator().manual_seed(seed)
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for parameter in model.hf.parameters():
                if parameter.ndim < 2:
                    continue
                kept.append((parameter, parameter.detach().clone()))
                order = torch.randperm(parameter.numel(), generator=made).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)
