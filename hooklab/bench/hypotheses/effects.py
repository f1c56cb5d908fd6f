"""How large a difference is, and how small a one could have been seen."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .samples import HypothesisError


def library(name: str) -> Any:
    """A module of SciPy. Raises HypothesisError saying how to get it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise HypothesisError("tests of hypotheses need SciPy: pip install scipy") from error


def hedges(null: np.ndarray, alternative: np.ndarray) -> float | None:
    """Hedges' g: the difference of means in pooled standard deviations, without the bias of small samples.

    None where no sample varies (Hedges 1981, Journal of Educational Statistics 6, 107-128).
    """
    sizes = np.array([len(null), len(alternative)]) - 1
    pooled = float(np.sqrt((sizes * [null.var(ddof=1), alternative.var(ddof=1)]).sum() / sizes.sum()))
    return _corrected(float(alternative.mean() - null.mean()), pooled, int(sizes.sum()))


def hedges_paired(differences: np.ndarray) -> float | None:
    """The same of pairs: their mean difference in standard deviations of the differences."""
    return _corrected(float(differences.mean()), float(differences.std(ddof=1)), len(differences) - 1)


def _corrected(difference: float, deviation: float, freedom: int) -> float | None:
    if not deviation:
        return None if difference else 0.0
    log_gamma = library("scipy.special").gammaln
    factor = np.exp(log_gamma(freedom / 2) - log_gamma((freedom - 1) / 2)) / np.sqrt(freedom / 2) if freedom > 1 else 0.0
    return float(difference / deviation * factor) if freedom > 1 else difference / deviation


def superiority(null: np.ndarray, alternative: np.ndarray) -> float:
    """The rank-biserial correlation: of pairs of samples, the share in which the alternative is larger, less the others.

    >>> superiority(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.75
    """
    ordered = np.sort(null)
    below = np.searchsorted(ordered, alternative, "left").sum()
    above = (len(ordered) - np.searchsorted(ordered, alternative, "right")).sum()
    return float((below - above) / (len(null) * len(alternative)))


def superiority_paired(differences: np.ndarray) -> float:
    """The same of pairs, by signed ranks: of the sum of all ranks, the share of positive differences less the others."""
    left = differences[differences != 0]
    ranks = library("scipy.stats").rankdata(np.abs(left))
    return float((ranks * np.sign(left)).sum() / ranks.sum()) if len(left) else 0.0


@cache
def detectable(sizes: tuple[int, ...], alpha: float, side: str, power: float = 0.8) -> float:
    """The smallest true difference, in standard deviations, that a t test would find in 80 % of experiments as large.

    Args:
        sizes: Samples of both sides, or the number of pairs alone.
        alpha: The level of the test.
        side: `"both"`, or another word for one side.
        power: The share of experiments.
    """
    stats, solve = library("scipy.stats"), library("scipy.optimize").brentq
    freedom = sum(sizes) - len(sizes)
    root = float(np.sqrt(sizes[0] if len(sizes) == 1 else sizes[0] * sizes[1] / sum(sizes)))
    needed = stats.t.isf(alpha / (2 if side == "both" else 1), freedom)

    # A noncentral t by its definition, over deviations that are equally likely: SciPy's is nan with one or two degrees.
    deviations = np.sqrt(stats.chi2.ppf((np.arange(5000) + 0.5) / 5000, freedom) / freedom)

    def missing(size: float) -> float:
        found = stats.norm.cdf(size * root - needed * deviations)
        found = found + (stats.norm.cdf(-needed * deviations - size * root) if side == "both" else 0.0)
        return float(found.mean() - power)

    high = 1.0
    while missing(high) < 0 and high < 1e6:
        high *= 2
    return float(solve(missing, 1e-9, high))
