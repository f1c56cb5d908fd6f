"""How far attribution scores agree with exact ones."""

from __future__ import annotations

import numpy as np

from ..errors import HooklabError
from ..records import Scores
from ..runtime.agreement import Agreement, agree

__all__ = ["Agreement", "agreement"]


def agreement(approx: Scores, exact: Scores) -> Agreement:
    """Correlation, rank correlation and equality of signs of two Scores, over the cells that both have.

    Args:
        approx: Scores that estimate.
        exact: Scores of the same cells, axis for axis, label for label; a cell that is NaN is left out.

    Raises:
        HooklabError: the two are not over the same cells.

    Example:
        >>> approx = Scores(np.array([[0.1, -2.0], [0.5, 1.0]]), ("layer", "head"))
        >>> exact = Scores(np.array([[0.2, -1.0], [0.4, np.nan]]), ("layer", "head"))
        >>> agreement(approx, exact).cells
        3
    """
    if approx.axes != exact.axes or approx.coords != exact.coords:
        raise HooklabError(f"These scores are not over the same cells: {_shape(approx)} and {_shape(exact)}. Take the part "
                           "that both have with sel().")
    return agree(np.asarray(approx.values), np.asarray(exact.values))


def _shape(scores: Scores) -> str:
    return " × ".join(f"{axis} {size}" for axis, size in zip(scores.axes, scores.shape, strict=True)) or "a single number"
