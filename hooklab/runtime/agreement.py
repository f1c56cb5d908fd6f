"""How far numbers agree with others that are exact: correlations and signs, on plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..records import Scores
from ..records.drawn import Drawn, Part


@dataclass(frozen=True)
class Agreement(Drawn):
    """How well approximate numbers go with exact ones.

    >>> print(agree(np.array([1.0, 2.0, -1.0]), np.array([1.5, 2.5, np.nan])))
    correlation 1.00, rank correlation 1.00, same sign 100 %, error 25 % (2 cells)

    Attributes:
        correlation: Pearson's; NaN where one side is constant or there are fewer than two cells.
        rank_correlation: Spearman's: that of the ranks, equal numbers sharing theirs.
        signs: The share of cells with the same sign, of those that are not zero on both sides. What is below a
            hundred-thousandth of its side's largest is zero: the sign of what rounding leaves means nothing.
        cells: How many cells were compared.
        error: The mean distance from the exact numbers, as a share of their mean size; correlations are blind to scale.
    """

    correlation: float
    rank_correlation: float
    signs: float
    cells: int
    error: float

    def pictures(self) -> dict[str, Part]:
        """How many cells, how far apart, and what lies between -1 and 1: [measure]."""
        values = np.array([self.correlation, self.rank_correlation, self.signs])
        names = ("correlation", "rank correlation", "same sign")
        return {"cells": self.cells, "error": self.error,
                "agreement": Scores(values, ("measure",), {"measure": names}, name="agreement")}

    def __str__(self) -> str:
        return (f"correlation {self.correlation:.2f}, rank correlation {self.rank_correlation:.2f}, "
                f"same sign {self.signs:.0%}, error {self.error:.0%} ({self.cells} cells)").replace("%", " %")


def agree(approx: np.ndarray, exact: np.ndarray) -> Agreement:
    """Compare cell by cell, where both are numbers."""
    x, y = (np.asarray(side, dtype=np.float64).reshape(-1) for side in (approx, exact))
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    sx, sy = _signs(x), _signs(y)
    some = (sx != 0) | (sy != 0)
    signs = float(np.mean(sx[some] == sy[some])) if some.any() else float("nan")
    size = float(np.abs(y).sum())
    error = float(np.abs(x - y).sum()) / size if size > 0 else float("nan")
    return Agreement(_pearson(x, y), _pearson(ranks(x), ranks(y)), signs, len(x), error)


def _signs(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(np.abs(x) <= 1e-5 * np.abs(x).max(initial=0.0), 0.0, np.sign(x)))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2:
        return float("nan")
    dx, dy = x - x.mean(), y - y.mean()
    size = float(np.linalg.norm(dx) * np.linalg.norm(dy))
    return float(dx @ dy) / size if size > 0 else float("nan")


def ranks(x: np.ndarray) -> np.ndarray:
    """The place of each number among all, from 1; equal numbers share the mean of theirs.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where.reshape(-1)], dtype=np.float64)
