"""Probing: can a label be read off activations, and is it the activations that know it?

A probe is fitted on some examples and judged on others (cross-validation), and beside it stands the same probe on shuffled
labels: what it reaches there, it reaches by itself (Hewitt & Liang 2019, "Designing and Interpreting Probes with Control
Tasks"). A probe shows that a label can be read, not that the model reads it; to test that, patch or ablate its direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..address import parse
from ..errors import RecordError, did_you_mean
from ..records import Scores
from ..records.drawn import Drawn, Part
from ..statistics import interval
from .ranking import area_interval, areas

METHODS = ("logistic", "means")
SHUFFLES = 5


@dataclass(frozen=True, repr=False)
class Probes(Drawn):
    """What probes reached.

    Attributes:
        accuracy: The share of held-out examples told right, [layer] or one number, with its interval over examples; its
            `.control` is the mean over shuffled labels.
        auroc: For two classes: how well the probe's score orders held-out examples, 0.5 being chance, with its interval
            and the same control; else None.
        directions: The probes fitted on all examples, in units of the activations: [… class d], or [… d] for two classes,
            pointing to the second of `classes`.
        classes: The labels, sorted.
    """

    accuracy: Scores
    auroc: Scores | None
    directions: np.ndarray
    classes: tuple[Any, ...]

    def pictures(self) -> dict[str, Part]:
        """What was told apart, and how well, in every layer."""
        return {"classes": ", ".join(map(str, self.classes)), "accuracy": self.accuracy, "auroc": self.auroc}


def probe(activations: Mapping[str, Any] | Any, labels: Sequence[Any], *, method: str = "logistic", folds: int = 5,
          groups: Sequence[Any] | None = None, strength: float = 1.0, seed: int = 0) -> Probes:
    """Fit and judge a linear probe for every layer.

    Args:
        activations: What `model.capture(prompts, "L*.resid_post", at="last")` gives, or address -> [example d], or one
            array [example d].
        labels: One for each example.
        method: `"logistic"`: logistic regression on standardised activations. `"means"`: the difference of class means
            (nearest mean), which cannot overfit directions that the classes share.
        folds: Parts of the cross-validation, with the classes in proportion.
        groups: What examples belong to (a template, a subject): those of one group are never split over folds.
        strength: Of the logistic regression's penalty; larger is smoother.
        seed: Of the folds and of the shuffles.

    Raises:
        RecordError: labels that do not fit, fewer examples of a class than folds, activations that are not numbers, or
            scikit-learn is not installed.

    >>> import hooklab as hl
    >>> model = hl.load("lab")
    >>> names = [(a, b) for a in ("Mary", "Alice", "Julia") for b in ("Peter", "Henry", "Robert")]
    >>> prompts = [f"When {a} and {b} went to the store" for a, b in names]
    >>> acts = model.capture(prompts, "L*.resid_post", at=2)
    >>> bool(probe(acts, [a for a, _ in names], folds=3, method="means").accuracy.values[0] > 0.9)
    True
    """
    if method not in METHODS:
        raise RecordError(f"a probe is one of {', '.join(METHODS)}, not {method!r}.{did_you_mean(method, METHODS)}")
    layers, stacked = stack(activations)
    classes, targets = _classes(labels, stacked.shape[1], folds)
    splits = _splits(targets, groups, folds, seed)
    control_splits = _splits(targets, groups, folds, seed + 1)
    right, scored, chance, directions = [], [], [], []
    for features in stacked:
        guessed, score = _held_out(features, targets, splits, method, strength)
        right.append((guessed == targets).astype(float))
        scored.append(score)
        chance.append(_shuffled(features, targets, control_splits, method, strength, seed))
        directions.append(_direction(features, targets, method, strength))
    found = np.stack(right, axis=1)  # [example layer]
    low, high = interval(found, seed=seed)
    axes, coords, at = (("layer",), {"layer": layers}, slice(None)) if layers is not None else ((), {}, 0)
    control = Scores(np.array(chance)[at, 0], axes, coords, "fraction", "accuracy on shuffled labels")
    accuracy = Scores(found.mean(0)[at], axes, coords, "fraction", "accuracy", low=low[at], high=high[at],
                      examples=found[:, at] if layers is not None else found[:, 0], control=control,
                      note=f"{method} probe, {folds} folds, {len(classes)} classes, {len(targets)} examples")
    auroc = None
    if len(classes) == 2:
        score, parts = np.stack(scored, axis=1), [rest for _, rest in splits]
        bounds = area_interval(score, targets, parts, seed=seed)
        control = Scores(np.array(chance)[at, 1], axes, coords, "fraction", "AUROC on shuffled labels")
        auroc = Scores(areas(score, targets, parts)[at], axes, coords, "fraction", "AUROC", low=bounds[0][at],
                       high=bounds[1][at], control=control, note="the mean over folds, each judged by its own probe")
    return Probes(accuracy, auroc, np.stack(directions)[at], classes)


def single_units(activations: Mapping[str, Any] | Any, labels: Sequence[Any]) -> Scores:
    """How well each unit alone tells two classes apart: the AUROC of every column of [example unit], 0.5 being chance.

    Nothing is fitted, so nothing is held out; with many units some stand out by chance: see `.p`, which is exact for
    orderings (Mann-Whitney) and not corrected for how many units there are.

    Args:
        activations: One array [example unit], or address -> [example unit] for the layers of a site.
        labels: One for each example.

    Returns:
        Scores [neuron], or [layer neuron]; above 0.5 where the unit is larger for the second class.

    Raises:
        RecordError: there are not two classes, labels do not fit, or scikit-learn is not installed.
    """
    layers, stacked = stack(activations)
    classes, targets = _classes(labels, stacked.shape[1], 1)
    if len(classes) != 2:
        raise RecordError(f"single units are judged on two classes, not {len(classes)}: {classes[:5]}")
    stats = library("scipy.stats")
    tested = stats.mannwhitneyu(stacked[:, targets == 1], stacked[:, targets == 0], axis=1, method="auto")
    found = tested.statistic / ((targets == 1).sum() * (targets == 0).sum())
    p = np.clip(np.nan_to_num(tested.pvalue, nan=1.0), 0, 1)
    if layers is None:
        return Scores(found[0], ("neuron",), unit="fraction", name="AUROC", p=p[0])
    return Scores(found, ("layer", "neuron"), {"layer": layers}, "fraction", "AUROC", p=p)


def area(scores: np.ndarray, targets: np.ndarray) -> float:
    """The area under the ROC curve: the share of pairs of classes that the scores put in order, ties half.

    >>> area(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    return float(areas(np.asarray(scores, np.float64)[:, None], np.asarray(targets))[0])


def stack(activations: Any) -> tuple[tuple[int, ...] | None, np.ndarray]:
    """Layers (None for one array) and activations [layer example d]."""
    if not isinstance(activations, Mapping):
        one = _array(activations, "the activations")
        return None, one[None]
    if not activations:
        raise RecordError("there are no activations to probe")
    places = {address: parse(address) for address in activations}
    sites = {place.site for place in places.values()}
    if len(sites) > 1 or any(place.layers is None for place in places.values()):
        raise RecordError(f"probes are compared over the layers of one site; these are {', '.join(activations)}")
    arrays = [_array(value, address) for address, value in activations.items()]
    if len({array.shape for array in arrays}) > 1:
        raise RecordError(f"the activations differ in shape: {sorted({array.shape for array in arrays})}")
    return tuple(int(str(place.layers)) for place in places.values()), np.stack(arrays)


def _array(value: Any, what: str) -> np.ndarray:
    array = value.detach().float().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    if array.ndim != 2:
        raise RecordError(f"{what} must be [example d], not of shape {array.shape}: choose one position with at=, and "
                          "flatten heads")
    if not np.isfinite(array).all():
        raise RecordError(f"{what} hold what is not a finite number")
    return array.astype(np.float64)


def _classes(labels: Sequence[Any], size: int, folds: int) -> tuple[tuple[Any, ...], np.ndarray]:
    if len(labels) != size:
        raise RecordError(f"{len(labels)} labels for {size} examples")
    given = np.asarray(labels)
    if given.dtype.kind in "fc" and not np.isfinite(given).all():
        raise RecordError("a label is not a finite number")
    classes, targets = np.unique(given, return_inverse=True)
    if len(classes) < 2:
        raise RecordError(f"a probe needs two classes or more; all labels are {classes.tolist()}")
    counts = np.bincount(targets)
    if folds > 1 and counts.min() < folds:
        raise RecordError(f"{folds} folds need {folds} examples of every class; {classes[counts.argmin()]!r} has "
                          f"{counts.min()}")
    return tuple(classes.tolist()), targets


def _splits(targets: np.ndarray, groups: Sequence[Any] | None, folds: int, seed: int) -> list[tuple[Any, Any]]:
    choose = library("sklearn.model_selection")
    if folds < 2:
        raise RecordError(f"cross-validation needs two folds or more, not {folds}")
    kind = choose.StratifiedKFold if groups is None else choose.StratifiedGroupKFold
    try:
        return list(kind(folds, shuffle=True, random_state=seed).split(np.zeros(len(targets)), targets, groups))
    except ValueError as error:
        raise RecordError(f"the examples cannot be split into {folds} folds: {error}") from error


class _Means:
    """Tells an example's class by the nearest class mean; scikit-learn's warns of every direction without spread."""

    def fit(self, features: np.ndarray, targets: np.ndarray) -> _Means:
        self.centroids_ = np.stack([features[targets == one].mean(0) for one in range(targets.max() + 1)])
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return ((features[:, None] - self.centroids_) ** 2).sum(-1).argmin(1)


def _model(method: str, strength: float) -> Any:
    if method == "means":
        return _Means()
    scale = library("sklearn.preprocessing").StandardScaler()
    regression = library("sklearn.linear_model").LogisticRegression(C=1 / strength, max_iter=2000)
    return library("sklearn.pipeline").make_pipeline(scale, regression)


def _held_out(features: np.ndarray, targets: np.ndarray, splits: list[tuple[Any, Any]], method: str,
              strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Guesses, and for two classes scores towards the second, each by a probe that did not see the example."""
    guessed, score = np.zeros_like(targets), np.zeros(len(targets))
    for fit, rest in splits:
        fitted = _model(method, strength).fit(features[fit], targets[fit])
        guessed[rest] = fitted.predict(features[rest])
        if method == "logistic" and targets.max() == 1:
            score[rest] = fitted.decision_function(features[rest])
        elif targets.max() == 1:
            first, second = fitted.centroids_
            score[rest] = (features[rest] - (first + second) / 2) @ (second - first)
    return guessed, score


def _shuffled(features: np.ndarray, targets: np.ndarray, splits: list[tuple[Any, Any]], method: str, strength: float,
              seed: int) -> tuple[float, float]:
    """Accuracy and AUROC of probes of labels dealt out anew, the mean over several deals; nan where none can be."""
    drawn = np.random.default_rng(seed)
    found, parts = [], [rest for _, rest in splits]
    for _ in range(SHUFFLES):
        mixed = drawn.permutation(targets)
        if any(len(np.unique(mixed[fit])) < targets.max() + 1 for fit, _ in splits):
            continue  # a class is missing from what this probe would see
        guessed, score = _held_out(features, mixed, splits, method, strength)
        both = targets.max() == 1 and any(len(np.unique(mixed[part])) == 2 for part in parts)
        found.append(((guessed == mixed).mean(), areas(score[:, None], mixed, parts)[0] if both else np.nan))
    accuracy, order = np.mean(found, axis=0) if found else (np.nan, np.nan)
    return float(accuracy), float(order)


def _direction(features: np.ndarray, targets: np.ndarray, method: str, strength: float) -> np.ndarray:
    fitted = _model(method, strength).fit(features, targets)
    if method == "means":
        return fitted.centroids_[1] - fitted.centroids_[0] if targets.max() == 1 else fitted.centroids_
    weights = fitted[-1].coef_ / fitted[0].scale_
    return weights[0] if targets.max() == 1 else weights


def library(name: str) -> Any:
    """A module of scikit-learn or of what comes with it. Raises RecordError saying how to get it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RecordError("this needs scikit-learn and scipy: pip install 'hooklab[analysis]'") from error
