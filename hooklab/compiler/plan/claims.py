"""Claims: `expect` lines, and the metrics of runs that they compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spec.ast import Span


@dataclass(frozen=True)
class Claim:
    """An `expect` line."""

    text: str
    left: Any
    op: str
    right: Any
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Figure:
    """A metric of a run, in a claim."""

    run: str
    metric: str
