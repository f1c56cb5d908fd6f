"""A column of metadata for tools that want one type in it: which type that is, and JSON text where there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from .index import arrow


def column(values: Sequence[Any]) -> tuple[list[Any], bool]:
    """The values in one type, and whether there is one; each as JSON text where there is none.

    >>> column([1, 0.5, None]), column(["a", math.nan]), column(["a", 1])
    (([1.0, 0.5, None], True), (['a', None], True), (['"a"', '1'], False))
    """
    for made in (_numbers, _without_nan):
        found = made(values)
        if found is not None and _has_type(found):
            return found, True
    return [None if value is None else json.dumps(value) for value in values], False


def _numbers(values: Sequence[Any]) -> list[Any] | None:
    """Whole numbers beside floats as floats, where that loses nothing; None where there is something else."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return list(values)
    if not kinds or not kinds <= {int, float}:
        return None
    try:
        made = [None if value is None else float(value) for value in values]
    except OverflowError:
        return None
    return None if any(isinstance(value, int) and value != one for value, one in zip(values, made, strict=True)) else made


def _without_nan(values: Sequence[Any]) -> list[Any] | None:
    """The values with None for a nan, which is what tables write for a text that is missing; None where types differ."""
    made = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    kinds = {type(value) for value in made if value is not None}
    return made if len(kinds) < 2 and not kinds & {int, float} else None


def _has_type(values: list[Any]) -> bool:
    pa = arrow()
    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return False
    return True
