"""What can be known to be wrong without a model: names, options, words that mean nothing."""

from __future__ import annotations

from ..problems import Problem
from .ast import Spec


def check(spec: Spec) -> list[Problem]:
    """Every problem of a spec that needs no model to be seen."""
    return []
