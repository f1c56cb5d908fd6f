"""Why a text cannot be read, in words."""

from __future__ import annotations

from ..problems import Problem


def explain(error: Exception, text: str, body: str) -> Problem:
    """The problem behind an error of the parser."""
    line = getattr(error, "line", 1) or 1
    column = getattr(error, "column", 1) or 1
    return Problem("syntax", f"cannot be read: {type(error).__name__}", max(1, line), max(1, column))
