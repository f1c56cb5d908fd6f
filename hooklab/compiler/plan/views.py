"""Views: `show` lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class View:
    """A `show` line."""

    view: str
    count: int | None
    sites: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]
