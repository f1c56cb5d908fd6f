"""Gradient checkpointing is off while hooklab runs a model.

With it, blocks are computed once more on the way back, after the run is over: an edit would not be made again, so that
the gradients would be those of another pass than the values, and what a run hands out would have no gradient at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

FLAG = "gradient_checkpointing"


def recomputed(hf: nn.Module) -> list[nn.Module]:
    """The modules that transformers can checkpoint."""
    return [module for module in hf.modules() if isinstance(getattr(module, FLAG, None), bool)]


@contextmanager
def kept(modules: list[nn.Module]) -> Iterator[None]:
    """Compute everything once in the block; afterwards the modules are as they were."""
    switched = [module for module in modules if getattr(module, FLAG)]
    for module in switched:
        setattr(module, FLAG, False)
    try:
        yield
    finally:
        for module in switched:
            setattr(module, FLAG, True)
