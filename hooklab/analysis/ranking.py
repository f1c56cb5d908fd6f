"""How well numbers order two classes, and how sure that is: the area under the ROC curve with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 1000


def areas(scores: np.ndarray, targets: np.ndarray, parts: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """The share of pairs of one example of each class that the scores put in order, ties half: [unit] of [example unit].

    Args:
        scores: [example unit].
        targets: 0 or 1 for each example.
        parts: Examples that are compared with each other alone, such as the folds of a cross-validation; the mean over
            those that hold both classes is taken; nan where none does.

    >>> areas(np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([0, 0, 1, 1])).tolist()
    [0.75]
    """
    found = [_ordered(scores[part], targets[part], None) for part in _whole(targets, parts)]
    return np.mean(found, axis=0) if found else np.full(scores.shape[1], np.nan)


def area_interval(scores: np.ndarray, targets: np.ndarray, parts: Sequence[np.ndarray] | None = None, *,
                  level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The interval of `areas`, [unit] each: bounds between which it falls in `level` of all draws.

    A draw takes as many examples of each class (of each part) as there are, each possibly more than once. Where all pairs
    are in order they are so in every draw, and the interval is that one number.

    >>> area_interval(np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([0, 0, 1, 1]))
    (array([1.]), array([1.]))
    """
    drawn, whole = np.random.default_rng(seed), _whole(targets, parts)
    found = np.full((draws, scores.shape[1]), 0.0 if whole else np.nan)
    for part in whole:
        sizes = [int((targets[part] == one).sum()) for one in (0, 1)]
        times = [drawn.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64) for n in sizes]
        found += _ordered(scores[part], targets[part], (times[0], times[1])) / len(whole)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _whole(targets: np.ndarray, parts: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """The parts that hold both classes."""
    given = [np.arange(len(targets))] if parts is None else [np.asarray(part) for part in parts]
    return [part for part in given if len(np.unique(targets[part])) == 2]


def _ordered(scores: np.ndarray, targets: np.ndarray, times: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """The share of ordered pairs, [unit]; [draw unit] with how often examples of both classes are drawn [draw example]."""
    first, second = scores[targets == 0], scores[targets == 1]
    found = []
    for unit in range(scores.shape[1]):
        order = np.sign(second[:, unit] - first[:, unit, None]) / 2 + 0.5  # [first second]
        found.append(order.mean() if times is None else ((times[0] @ order) * times[1]).sum(-1) / order.size)
    return np.stack(found, -1)
