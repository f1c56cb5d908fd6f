"""A family's table as one model asks for it: its variants applied, and refused where no model could be read by it."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch

from ..errors import FamilyError
from ..families import Family

WORDS = {"packing": ("concat", "per_head", "grouped", "multi_query"), "residual": ("sequential", "parallel", "post"),
         "norm": ("layer", "layer1p", "rms", "rms1p"), "attention": ("registry", "inline")}
"""Rows of a table that hold one of a few words."""


def table_for(config: Any, base: Any, table: Family) -> Family:
    """The table with the variants for a config applied.

    Args:
        config: Of the model that holds the blocks.
        base: That model.
        table: Of its family.

    Raises:
        FamilyError: a row holds what no model can be read by; the message says which.
    """
    try:
        made = table.for_config(config)
    except (AttributeError, TypeError) as error:
        raise FamilyError(f'A variant of the table of "{table.name}" cannot be applied to this config: {error}.') from error
    for row, words in WORDS.items():
        if getattr(made, row) not in words:
            raise FamilyError(f'The table of "{table.name}" says {row} = {getattr(made, row)!r}; it is one of '
                              f"{', '.join(words)}.")
    if made.never is not None:
        _check_ids(made, base)
    return made


def _check_ids(table: Family, base: Any) -> None:
    """Refuse a path to tokens that leads to none."""
    try:
        ids = torch.as_tensor(attrgetter(str(table.never))(base))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        ids = torch.tensor(0.5)
    if ids.is_floating_point():
        raise FamilyError(f'The table of "{table.name}" says never = {table.never!r}, but {type(base).__name__} has no '
                          f"ids of tokens there.")
