"""The tests: a table of names, and a function for each from samples to a p-value and an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, inf, sqrt
from typing import Any

import numpy as np

from ...statistics import ROOM, group_p_value, p_value
from . import effects
from .effects import library

MIRROR = {"both": "both", "greater": "less", "less": "greater"}
SCIPY = {"both": "two-sided", "greater": "greater", "less": "less"}
MOST_PAIRS = 2**22


@dataclass(frozen=True)
class Asked:
    """How a test is to be done: side, level of significance, draws and their seed."""

    side: str
    alpha: float
    draws: int
    seed: int


@dataclass(frozen=True)
class Found:
    """What a test found; an interval is None where there is none."""

    p: float
    statistic: float
    low: float | None = None
    high: float | None = None
    df: float | None = None
    exact: bool = False


def permutation(null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    """Samples are dealt again into two groups; the interval is Welch's."""
    if _backward(null, alternative):
        return _mirrored(permutation, alternative, null, asked)
    p, exact = group_p_value(null, alternative, asked.draws, asked.seed, asked.side)
    rest = {} if _still(null, alternative) else _bounds(welch(null, alternative, asked))
    return Found(p, float(alternative.mean() - null.mean()), exact=exact, **rest)


def welch(null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    """Welch's t test: variances may differ (Welch 1947, Biometrika 34, 28-35)."""
    stats = library("scipy.stats")
    shares = [x.var(ddof=1) / len(x) for x in (null, alternative)]
    error = sqrt(sum(shares))
    df = sum(shares) ** 2 / sum(share**2 / (len(x) - 1) for share, x in zip(shares, (null, alternative), strict=True))
    return _by_t(float(alternative.mean() - null.mean()), error, float(df), asked, stats)


def paired(null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    """Student's t test of the differences of pairs."""
    differences = alternative - null
    error = float(differences.std(ddof=1)) / sqrt(len(differences))
    return _by_t(float(differences.mean()), error, len(differences) - 1.0, asked, library("scipy.stats"))


def sign_flip(null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    """The signs of the differences of pairs are flipped; the interval is that of the t test."""
    if _backward(null, alternative):
        return _mirrored(sign_flip, alternative, null, asked)
    differences = alternative - null
    p = float(p_value(differences, asked.draws, asked.seed, asked.side))
    rest = {} if _still_pairs(null, alternative) else _bounds(paired(null, alternative, asked))
    return Found(p, float(differences.mean()), exact=2 ** len(differences) <= asked.draws, **rest)


def bootstrap(null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    """Bootstrap of Welch's t (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, sections 12.5 and 16.2).

    Each sample is drawn again with its mean taken away, so that the draws are those of equal means.
    """
    if _backward(null, alternative):
        return _mirrored(bootstrap, alternative, null, asked)
    rng = np.random.default_rng(asked.seed)
    difference = float(alternative.mean() - null.mean())
    error = sqrt(sum(x.var(ddof=1) / len(x) for x in (null, alternative)))
    drawn = np.sort(_drawn_t(null - null.mean(), alternative - alternative.mean(), asked.draws, rng))
    far = {"both": np.abs, "greater": np.positive, "less": np.negative}[asked.side]
    hits = int((far(drawn) >= far(difference / error) * (1 - 1e-12)).sum())
    place = int(np.ceil((asked.draws + 1) * (1 - asked.alpha) - 1e-9)) - 1
    ordered = np.sort(far(drawn))
    reach = float(ordered[place]) * error if place < asked.draws else inf
    low, high = _sided(asked.side, difference - reach, difference + reach)
    return Found((hits + 1) / (asked.draws + 1), difference / error, low, high)


def mann_whitney(null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    """The rank test of Mann & Whitney; the interval is that of a shift (Hodges & Lehmann 1963)."""
    stats = library("scipy.stats")
    n, m = len(null), len(alternative)
    tested = stats.mannwhitneyu(alternative, null, alternative=SCIPY[asked.side], method="asymptotic")
    p, exact = float(tested.pvalue), comb(n + m, n) <= asked.draws
    if exact:  # ties and all
        ranks = stats.rankdata(np.concatenate([null, alternative]))
        p, _ = group_p_value(ranks[:n], ranks[n:], asked.draws, asked.seed, asked.side)
    low = high = None
    if n * m <= MOST_PAIRS:
        low, high = _ordered((alternative[:, None] - null).reshape(-1), n * m / 2, sqrt(n * m * (n + m + 1) / 12), asked)
    return Found(min(1.0, p), float(tested.statistic), low, high, exact=exact)


def wilcoxon(null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    """Wilcoxon's test of signed ranks of pairs; pairs without a difference are left out."""
    stats = library("scipy.stats")
    differences = _differences(null, alternative)
    left = differences[differences != 0]
    ranks, n, exact = stats.rankdata(np.abs(left)), len(differences), 2 ** len(left) <= asked.draws
    if exact and len(left) > 1:  # ties and all
        p = float(p_value(ranks * np.sign(left), asked.draws, asked.seed, asked.side))
    else:
        p = float(stats.wilcoxon(left, alternative=SCIPY[asked.side]).pvalue)
    low = high = None
    if n * n <= MOST_PAIRS:
        row, column = np.triu_indices(n)
        walsh = (differences[row] + differences[column]) / 2
        low, high = _ordered(walsh, n * (n + 1) / 4, sqrt(n * (n + 1) * (2 * n + 1) / 24), asked)
    return Found(min(1.0, p), float(ranks[left > 0].sum()), low, high, exact=exact)


@dataclass(frozen=True)
class Way:
    """A row of the table.

    Attributes:
        run: The test.
        title: What it is called.
        statistic: What its statistic is called.
        pairs: Whether samples belong together, the first with the first.
        ranks: Whether it looks at ranks alone.
        spread: Whether it divides by a standard error, and so needs one.
        least: The sizes of both sides -> the smallest p-value on one side that is possible; None where any is.
    """

    run: Callable[[np.ndarray, np.ndarray, Asked], Found]
    title: str
    statistic: str
    pairs: bool = False
    ranks: bool = False
    spread: bool = False
    least: Callable[[int, int], float] | None = None


def _deals(n: int, m: int) -> float:
    return 1 / comb(n + m, n)


def _flips(n: int, m: int) -> float:
    return 0.5**n


WAYS = {
    "permutation": Way(permutation, "permutation test of the difference of means", "difference", least=_deals),
    "welch": Way(welch, "Welch's t test", "t", spread=True),
    "bootstrap": Way(bootstrap, "bootstrap of Welch's t", "t", spread=True),
    "mann_whitney": Way(mann_whitney, "Mann-Whitney test of ranks", "U", ranks=True, least=_deals),
    "paired": Way(paired, "paired t test", "t", pairs=True, spread=True),
    "sign_flip": Way(sign_flip, "sign-flip test of pairs", "difference", pairs=True, least=_flips),
    "wilcoxon": Way(wilcoxon, "Wilcoxon's test of signed ranks", "V", pairs=True, ranks=True, least=_flips),
}


def effect(way: Way, null: np.ndarray, alternative: np.ndarray) -> float | None:
    """How large the difference is, without a unit: rank-biserial correlation of tests of ranks, else Hedges' g."""
    if way.pairs:
        flat = _still_pairs(null, alternative)
        differences = np.full(len(null), alternative.mean() - null.mean()) if flat else alternative - null
        if flat and not way.ranks:
            return None if abs(differences[0]) > 0 else 0.0
        if way.ranks:
            return effects.superiority_paired(_differences(null, alternative))
        return effects.hedges_paired(differences)
    if way.ranks:
        return effects.superiority(null, alternative)
    if _still(null, alternative):
        return None if null[0] != alternative[0] else 0.0
    return effects.hedges(null, alternative)


def shift(way: Way, null: np.ndarray, alternative: np.ndarray) -> float:
    """The difference that the interval is of: of means, or for tests of ranks the median of all differences."""
    if way.ranks and way.pairs and len(null) ** 2 <= MOST_PAIRS:
        row, column = np.triu_indices(len(null))
        differences = alternative - null
        return float(np.median((differences[row] + differences[column]) / 2))
    if way.ranks and not way.pairs and len(null) * len(alternative) <= MOST_PAIRS:
        return float(np.median(alternative[:, None] - null))
    return float(alternative.mean() - null.mean())


def _by_t(difference: float, error: float, df: float, asked: Asked, stats: Any) -> Found:
    t = difference / error
    p = {"both": 2 * stats.t.sf(abs(t), df), "greater": stats.t.sf(t, df), "less": stats.t.cdf(t, df)}[asked.side]
    reach = error * float(stats.t.isf(asked.alpha / (2 if asked.side == "both" else 1), df))
    low, high = _sided(asked.side, difference - reach, difference + reach)
    return Found(float(p), t, low, high, df)


def _sided(side: str, low: float, high: float) -> tuple[float, float]:
    """An interval that is open on the side that a one-sided test does not look at."""
    return (-inf if side == "less" else low), (inf if side == "greater" else high)


def _ordered(values: np.ndarray, middle: float, deviation: float, asked: Asked) -> tuple[float, float]:
    """The interval of a shift: so far into the ordered differences as the normal approximation says."""
    z = float(library("scipy.stats").norm.isf(asked.alpha / (2 if asked.side == "both" else 1)))
    skipped = int(np.floor(middle - z * deviation))
    if skipped < 1:
        return -inf, inf
    ordered = np.partition(values, (skipped - 1, len(values) - skipped))
    return _sided(asked.side, float(ordered[skipped - 1]), float(ordered[-skipped]))


def _drawn_t(null: np.ndarray, alternative: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Welch's t of samples that are drawn again [draw]; infinite where a draw has no variance."""
    tiny = (8 * np.finfo(np.float64).eps * max(np.abs(null).max(), np.abs(alternative).max())) ** 2
    found = []
    for start in range(0, draws, step := max(1, ROOM // (len(null) + len(alternative)))):
        count = min(step, draws - start)
        parts = [x[rng.integers(0, len(x), (count, len(x)))] for x in (null, alternative)]
        difference = parts[1].mean(1) - parts[0].mean(1)
        squares = [part.var(1, ddof=1) / part.shape[1] for part in parts]
        error = np.sqrt(squares[0] + squares[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.where(error**2 > tiny, difference / error,
                                  np.where(difference**2 > tiny, np.sign(difference) * inf, 0.0)))
    return np.concatenate(found)


def _still(null: np.ndarray, alternative: np.ndarray) -> bool:
    from .samples import constant

    return constant(null) and constant(alternative)


def _still_pairs(null: np.ndarray, alternative: np.ndarray) -> bool:
    from .samples import constant

    return constant(alternative - null, float(max(np.abs(null).max(), np.abs(alternative).max())))


def still(way: Way, null: np.ndarray, alternative: np.ndarray) -> bool:
    """Whether what a test looks at does not vary: the differences of pairs, or both samples."""
    return (_still_pairs if way.pairs else _still)(null, alternative)


def _differences(null: np.ndarray, alternative: np.ndarray) -> np.ndarray:
    """Of pairs, rounded so that 0.3 - 0.1 and 0.2 have the same rank."""
    size = float(max(np.abs(null).max(), np.abs(alternative).max()))
    return np.round(alternative - null, 13 - int(np.floor(np.log10(size)))) if size else alternative - null


def _backward(null: np.ndarray, alternative: np.ndarray) -> bool:
    """Whether the two are to change places, so that the same draws are made whichever is called the null."""
    return (alternative.mean(), len(alternative), *alternative) < (null.mean(), len(null), *null)


def _mirrored(run: Callable[..., Found], null: np.ndarray, alternative: np.ndarray, asked: Asked) -> Found:
    found = run(null, alternative, Asked(MIRROR[asked.side], asked.alpha, asked.draws, asked.seed))
    low, high = (None if bound is None else -bound for bound in (found.high, found.low))
    return Found(found.p, -found.statistic + 0.0, low, high, found.df, found.exact)


def _bounds(found: Found) -> dict[str, Any]:
    return {"low": found.low, "high": found.high}
