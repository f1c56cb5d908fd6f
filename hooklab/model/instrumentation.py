"""What nnsight leaves on the modules of a model while it is open, and who still needs it."""

from __future__ import annotations

import weakref
from typing import Any

_OPEN: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""Module -> how many models are open on it."""


def instrumented(hf: Any) -> None:
    """Note that one more model is open on a module."""
    _OPEN[hf] = _OPEN.get(hf, 0) + 1


def released(hf: Any) -> None:
    """Note that one model fewer is open on a module; the last takes the instrumentation out."""
    _OPEN[hf] -= 1
    if _OPEN[hf] > 0:
        return  # another model is open on the same module
    for module in hf.modules():
        if "__nnsight__" in module.__dict__:
            del module.__dict__["__nnsight__"]
            module.__dict__.pop("forward", None)
