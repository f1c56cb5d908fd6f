"""What a function says that was handed a name, a folder or a transformers module where an opened model is needed."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError


def needs_opened(model: Any) -> None:
    """Refuse what is no opened model.

    >>> needs_opened("lab")
    Traceback (most recent call last):
    hooklab.errors.ModelError: an opened model is needed here, and this is 'lab': give hl.load('lab')

    Raises:
        ModelError: it is something else; the message says how it is opened.
    """
    if hasattr(type(model), "facts"):
        return
    said = repr(model) if isinstance(model, str) else type(model).__name__
    how = said if isinstance(model, str) else "…"
    raise ModelError(f"an opened model is needed here, and this is {said}: give hl.load({how})")


def unopened(source: Any) -> None:
    """Refuse a name or a transformers module where an opened model, or something else, may be given. Raises ModelError."""
    if isinstance(source, str) or hasattr(source, "named_modules"):
        needs_opened(source)
