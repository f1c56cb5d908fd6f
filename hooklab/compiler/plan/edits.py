"""Edits: one change of some spots, and the runs that it takes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spec.ast import Span
from .reaches import Reach, Spread
from .spots import Spot
from .values import Same, Value, acts


@dataclass(frozen=True)
class Edit:
    """One change, in one cell.

    Attributes:
        verb: What is done.
        spots: To which places.
        reach: At which tokens.
        value: With what; None where the verb needs nothing.
        options: Further settings (`min`, `renorm`, `method`, …).
        keys: For attention edges: the key positions.
        draw: Identifies its random numbers: (seed, line).
        span: Where it was written.
    """

    verb: str
    spots: tuple[Spot, ...]
    reach: Reach
    value: Value | None = None
    options: tuple[tuple[str, Any], ...] = ()
    keys: Spread | None = None
    draw: tuple[int, int] = (0, 0)
    span: Span | None = field(default=None, compare=False)

    def option(self, name: str, default: Any = None) -> Any:
        """A setting."""
        return dict(self.options).get(name, default)


def sources(edit: Edit) -> tuple[str, ...]:
    """The runs that an edit takes from."""
    same = (edit.value.run,) if isinstance(edit.value, Same) else ()
    return (*same, *(act.run for act in acts(edit.value)))
