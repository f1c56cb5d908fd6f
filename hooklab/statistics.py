"""How sure a mean over examples is: intervals and p-values, for every cell of a sweep at once. Plain arrays in and out.

Examples come as [batch, …]: one number for each example (a prompt, or a pair of prompts) and cell. Nothing is assumed
about how the numbers are distributed; intervals come from drawing the examples again, p-values from flipping their signs.
All cells share the same draws, so a cell's result does not depend on its neighbours, and the same seed gives the same
numbers.

What no draw can mend: the examples stand for the prompts that one could have written only as far as they were chosen
independently of each other. Ten wordings of one sentence are not ten examples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

ROOM = 2**22
"""Most numbers in memory for one step: 32 MiB."""
Bounds = tuple[np.ndarray, np.ndarray]
SIDES = ("both", "greater", "less")


def interval(examples: np.ndarray, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Bounds:
    """The interval of the mean over examples, for every cell: bounds between which it falls in `level` of all draws.

    A draw takes as many examples as there are, each possibly more than once (percentile bootstrap: Efron & Tibshirani,
    An Introduction to the Bootstrap, 1993, chapter 13). With few examples the interval is too narrow. Of intervals at 95 %
    over normally distributed examples, so many hold the true mean: 94 % with 32 examples, 90 % with 10, 84 % with 5, and
    50 % with 2. One example tells nothing about others: its bounds are nan, and so are those of a cell with an example
    that is no finite number.

    Args:
        examples: One number for each example and cell [batch, …].
        level: The share of draws that fall between the bounds.
        draws: How often the examples are drawn.
        seed: Where the draws start.

    Returns:
        The lower and the upper bound, each [cells …].

    Raises:
        ValueError: the examples have no batch axis, or level or draws are out of range.

    >>> low, high = interval(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [2.0, 5.0]]))
    >>> low.tolist(), high.tolist()
    ([1.25, 5.0], [2.75, 5.0])
    """
    flat, shape = _table(examples, draws, level)
    bounds = np.full((2, flat.shape[1]), np.nan)
    if len(flat) > 1:
        for cells in _blocks(flat.shape[1], draws):
            origin = flat[0, cells]  # a cell whose examples are all the same keeps exactly that value
            bounds[:, cells] = _cut(_means(flat[:, cells] - origin, draws, seed), level) + origin
    bounds[:, ~np.isfinite(flat).all(0)] = np.nan
    return bounds[0].reshape(shape), bounds[1].reshape(shape)


def ratio_interval(top: np.ndarray, bottom: np.ndarray, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Bounds:
    """The interval of mean(top) / mean(bottom), for every cell: a normalised effect, say, and the span it is a share of.

    Each draw takes the same examples above and below, so what they have in common cancels. Where the interval of the
    bottom reaches zero, the ratio could be anything: the bounds are then -inf and inf (Fieller 1954 derives the same for
    normal distributions). What `interval` says about few examples holds here as well.

    Args:
        top: One number for each example and cell [batch, …].
        bottom: One number for each example [batch].
        level: The share of draws that fall between the bounds.
        draws: How often the examples are drawn.
        seed: Where the draws start.

    Returns:
        The lower and the upper bound, each [cells …].

    Raises:
        ValueError: top and bottom have not the same examples, or level or draws are out of range.

    >>> low, high = ratio_interval(np.array([[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]]), np.array([2.0, 4.0, 8.0]))
    >>> low.tolist(), high.tolist()
    ([0.5, 1.0], [0.5, 1.0])
    >>> ratio_interval(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 1.0]))
    (array(-inf), array(inf))
    """
    flat, shape = _table(top, draws, level)
    below = np.asarray(bottom, dtype=np.float64)
    if below.shape != flat.shape[:1]:
        raise ValueError(f"the bottom has shape {below.shape}; it takes one number for each of {len(flat)} examples")
    bounds = np.full((2, flat.shape[1]), np.nan)
    if len(flat) > 1 and np.isfinite(below).all():
        spans = _means(below[:, None], draws, seed)[0]
        lowest, highest = _cut(spans[None], level)[:, 0]
        for cells in _blocks(flat.shape[1], draws):
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = _means(flat[:, cells], draws, seed) / spans
            bounds[:, cells] = _cut(np.nan_to_num(ratios, nan=0.0, posinf=np.inf, neginf=-np.inf), level)
        if lowest <= 0 <= highest:
            bounds[:] = [[-np.inf], [np.inf]]
    bounds[:, ~np.isfinite(flat).all(0)] = np.nan
    return bounds[0].reshape(shape), bounds[1].reshape(shape)


def p_value(examples: np.ndarray, draws: int = 10_000, seed: int = 0, side: str = "both") -> np.ndarray:
    """How often chance alone takes the mean over examples as far from zero as it is, for every cell: a two-sided p-value.

    If there were no effect, an example would be as likely to come out with the other sign. So the signs are flipped, and
    the means that are at least as large are counted (Fisher, The Design of Experiments, 1935, section 21; Good,
    Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005). All 2^batch ways are counted where `draws` allows,
    and the value is exact. Otherwise the signs are drawn, and the examples as they are count as one more draw, so that
    the value is never zero (Phipson & Smyth 2010). With n examples it is at least 2 / 2^n: six are needed to get below
    0.05. With one example no test is possible, and the value is nan.

    Args:
        examples: One number for each example and cell [batch, …].
        draws: The most sign flips to count.
        seed: Where the draws start.
        side: `"both"`; or `"greater"` or `"less"`, to count only the means as far above, or below: then it is at least
            1 / 2^n.

    Returns:
        The p-values [cells …], each for its own cell alone; see `max_p_value` when many cells are looked at.

    Raises:
        ValueError: the examples have no batch axis, draws is less than 1, or there is no such side.

    >>> p_value(np.array([[1.0, 1.0], [2.0, -2.0], [3.0, 3.0], [4.0, -1.0]])).tolist()
    [0.125, 1.0]
    """
    flat, shape = _table(examples, draws)
    flat, odd = _finite(_towards(side, flat))
    if len(flat) < 2:
        return np.full(shape, np.nan)
    far = np.abs if side == "both" else np.positive
    needed = far(flat.sum(0)) - _rounding(flat)
    halves = side != "both" and _exact(len(flat), draws)  # of a flip and its opposite, one may be far and the other not
    hits = np.zeros(flat.shape[1])
    for cells in _blocks(flat.shape[1], 64):
        for signs in _signs(len(flat), len(needed[cells]), draws, seed):
            sums = signs @ flat[:, cells]
            hits[cells] += (far(sums) >= needed[cells]).sum(0)
            hits[cells] += (-sums >= needed[cells]).sum(0) if halves else 0
    return np.where(odd, np.nan, _share(hits / (2 if halves else 1), len(flat), draws)).reshape(shape)


def group_p_value(first: np.ndarray, second: np.ndarray, draws: int = 10_000, seed: int = 0,
                  side: str = "both") -> tuple[float, bool]:
    """How often chance alone takes the mean of a second group as far from that of the first as it is.

    If the groups did not differ, any of the numbers could be in either. So they are dealt again into groups of the same
    sizes, and the differences of means that are at least as large are counted (Fisher 1935; Good 2005, as above). All ways
    to deal are counted where `draws` allows; otherwise they are drawn, and the groups as they are count as one more.

    Args:
        first: One number for each example [batch].
        second: The same of the other group [batch].
        draws: The most deals to count.
        seed: Where the draws start.
        side: `"both"`; or `"greater"` or `"less"`: only deals whose second mean is as far above, or below, the first.

    Returns:
        The p-value, and whether all ways were counted.

    Raises:
        ValueError: a group is empty or has what is no finite number, draws is less than 1, or there is no such side.

    >>> group_p_value(np.array([1.0, 2.0]), np.array([3.0, 4.0]), side="greater")
    (0.16666666666666666, True)
    """
    groups = [_table(group, draws)[0][:, 0] for group in (first, second)]
    pooled = _towards(side, np.concatenate(groups))
    if not all(map(len, groups)) or not np.isfinite(pooled).all():
        raise ValueError("each group needs a number or more, all of them finite")
    pooled = pooled - pooled.mean()  # so that the sum of the second group tells the difference of means
    size, far = len(groups[1]), np.abs if side == "both" else np.positive
    needed = far(pooled[len(groups[0]):].sum()) - _rounding(pooled[:, None])[0]
    total, hits, exact = math.comb(len(pooled), size), 0, math.comb(len(pooled), size) <= draws
    for chosen in _deals(len(pooled), size, total if exact else draws, exact, seed):
        hits += int((far(pooled[chosen].sum(1)) >= needed).sum())
    return (hits / total if exact else (hits + 1) / (draws + 1)), exact


def max_p_value(examples: np.ndarray, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """The same for someone who looks at all cells and points at the strongest: how often chance makes any cell so strong.

    Each flip of signs counts its strongest cell of all (the single-step maximum of Westfall & Young, Resampling-Based
    Multiple Testing, 1993). Cells are compared by their t statistic, so that noisy cells do not drown the quiet ones. If
    no cell has an effect, the smallest of these p-values is at most 0.05 in 5 % of cases, however the cells hang together.

    Args:
        examples: One number for each example and cell [batch, …].
        draws: The most sign flips to count.
        seed: Where the draws start.

    Returns:
        The p-values [cells …], with the same seed none smaller than that of `p_value`; nan where there is no test, and
        such a cell is no rival to the others.

    Raises:
        ValueError: the examples have no batch axis, or draws is less than 1.

    >>> max_p_value(np.array([[1.0, 1.0], [2.0, -2.0], [3.0, 3.0], [4.0, -1.0]])).tolist()
    [0.125, 1.0]
    """
    flat, shape = _table(examples, draws)
    flat, odd = _finite(flat)
    if len(flat) < 2:
        return np.full(shape, np.nan)
    norms = np.sqrt((flat**2).sum(0))
    flat = np.divide(flat, norms, out=np.zeros_like(flat), where=norms > 0)  # t grows with this alone: flips keep norms
    needed = np.abs(flat.sum(0)) - _rounding(flat)
    hits = np.zeros(flat.shape[1])
    for signs in _signs(len(flat), min(flat.shape[1], ROOM // 64), draws, seed):
        strongest = np.zeros(len(signs))
        for cells in _blocks(flat.shape[1], len(signs)):
            np.maximum(strongest, np.abs(signs @ flat[:, cells]).max(1, initial=0.0), out=strongest)
        strongest.sort()
        hits += len(signs) - np.searchsorted(strongest, needed)
    return np.where(odd, np.nan, _share(hits, len(flat), draws)).reshape(shape)


def _table(examples: np.ndarray, draws: int, level: float = 0.5) -> tuple[np.ndarray, tuple[int, ...]]:
    """Examples as [batch, cell], and the shape of the cells. Raises ValueError."""
    array = np.asarray(examples, dtype=np.float64)
    if not array.ndim:
        raise ValueError("examples need a batch axis: one number for each example")
    if draws < 1:
        raise ValueError(f"{draws} draws are too few: at least one is needed")
    if not 0 < level < 1:
        raise ValueError(f"the level must lie between 0 and 1, such as 0.95, and is {level}")
    return array.reshape(len(array), int(np.prod(array.shape[1:]))), array.shape[1:]


def _finite(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Examples with cells of zeros where an example is no finite number, and which cells those are."""
    odd = ~np.isfinite(flat).all(0)
    return np.where(odd, 0.0, flat), odd


def _blocks(size: int, each: int) -> Iterator[slice]:
    """Cells in turn, as many as fit when each needs room for `each` numbers."""
    step = max(1, ROOM // max(each, 1))
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _means(flat: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The mean of every draw of examples [cell, draw]: how often each example is in a draw, times the examples."""
    n = len(flat)
    rng = np.random.default_rng(seed)
    means = np.empty((flat.shape[1], draws))
    for block in _blocks(draws, n):
        times = rng.multinomial(n, np.full(n, 1 / n), size=block.stop - block.start).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means[:, block] = (times @ flat).T / n
    return means


def _cut(means: np.ndarray, level: float) -> np.ndarray:
    """The bounds [2, cell] that leave (1 - level) / 2 of the draws on either side; always draws, never between two."""
    last = means.shape[1] - 1
    low = int((1 - level) / 2 * last + 1e-9)
    ordered = np.partition(means, sorted({low, last - low}), axis=1)
    return np.stack([ordered[:, low], ordered[:, last - low]])


def _signs(n: int, cells: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of n signs [flip, n], some at a time: each possible one, or `draws` at random.

    A flip and its opposite are equally far from zero. Where all are counted, only those that keep the first sign are.
    """
    rng = np.random.default_rng(seed)
    total = 2 ** (n - 1) if _exact(n, draws) else draws
    for block in _blocks(total, max(n, cells)):
        minus: np.ndarray
        if _exact(n, draws):
            minus = np.arange(block.start, block.stop)[:, None] >> np.arange(n) & 1
        else:
            minus = rng.random((block.stop - block.start, n)) < 0.5
        yield 1.0 - 2.0 * minus


def _deals(n: int, size: int, count: int, exact: bool, seed: int) -> Iterator[np.ndarray]:
    """Rows of `size` different indices below n [deal size], some at a time: every set of them, or `count` at random."""
    rng = np.random.default_rng(seed)
    ways = itertools.combinations(range(n), size)
    for block in _blocks(count, n):
        many = block.stop - block.start
        if exact:
            yield np.array(list(itertools.islice(ways, many)), dtype=np.int64).reshape(many, size)
        else:
            yield rng.random((many, n)).argpartition(size - 1, axis=1)[:, :size]


def _towards(side: str, numbers: np.ndarray) -> np.ndarray:
    """Numbers turned round where small ones are looked for. Raises ValueError where there is no such side."""
    if side not in SIDES:
        raise ValueError(f"side is one of {', '.join(SIDES)}, not {side!r}")
    return -numbers if side == "less" else numbers


def _exact(n: int, draws: int) -> bool:
    return n <= draws.bit_length() and 2**n <= draws


def _share(hits: np.ndarray, n: int, draws: int) -> np.ndarray:
    return hits / 2 ** (n - 1) if _exact(n, draws) else (hits + 1) / (draws + 1)


def _rounding(flat: np.ndarray) -> np.ndarray:
    """By how much two orders of adding the examples may differ: sums that are equal on paper must count as equal."""
    return 8 * len(flat) * np.finfo(np.float64).eps * np.abs(flat).sum(0)
