"""The hook language: text to `Spec` and back, with no model and no torch in sight.

`ast` is what a spec is made of (its nodes are in `parts`, `declarations` and `actions`), `verbs` the table of verbs and
options, `parser` reads text, `printer` writes it, `jsonform` is the spec as data, `freeze` the spec with the values of
its Python, `builder` the fluent way to make one, `completer` what may come next.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builder import Builder


class _Callable(ModuleType):
    """This package, which answers to `hl.spec()` too: it shares its name with the function that begins a builder."""

    def __call__(self) -> Builder:
        """A builder with no line yet."""
        from .builder import spec

        return spec()


sys.modules[__name__].__class__ = _Callable
