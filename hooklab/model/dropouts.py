"""Where a model drops units at random, so that no two passes in training mode agree."""

from __future__ import annotations

import warnings

from torch import nn

from ..errors import HooklabWarning

NAMES = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "layerdrop")
"""Attributes under which modules of transformers keep how much they drop by a function of torch."""

Dropouts = list[tuple[nn.Module, str]]


def dropouts(hf: nn.Module) -> Dropouts:
    """Modules that drop units, each with the attribute that says how many."""
    return [(module, name) for module in hf.modules()
            for name in (("p",) if isinstance(module, nn.Dropout) else NAMES)
            if isinstance(getattr(module, name, None), float)]


def dropping(places: Dropouts) -> bool:
    """Whether a pass now would drop something."""
    return any(module.training and getattr(module, name) > 0 for module, name in places)


def warn_of_dropout(places: Dropouts, stacklevel: int) -> None:
    """Say that the numbers of the passes to come are those of one draw each, and no two agree."""
    if dropping(places):
        warnings.warn("This model is in training mode: dropout changes the numbers of every pass. Call model.hf.eval() "
                      "first.", HooklabWarning, stacklevel=stacklevel + 1)
