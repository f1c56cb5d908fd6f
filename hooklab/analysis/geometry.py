"""Geometry: how clouds of activations lie: alike or apart, mixed or in clusters, and in how many dimensions.

Distances, clusters and dimension estimates are scikit-learn's and scikit-dimension's; what is here asks them per layer and
says what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import RecordError, did_you_mean
from ..records import Scores
from .probing import library, stack

PAIRS = 1 << 22
"""Pairs whose cosines are kept and sorted; of more, only a histogram is."""
BINS = 1 << 20
BLOCK = 1024
MIDDLES = ("median", "mean")
MEASURES = ("homogeneity", "completeness", "v_measure")
DIMENSIONS = {"TwoNN": "TwoNN", "MLE": "MLE", "PCA": "lPCA"}


def similarity(groups: Mapping[str, Any], *, quantiles: tuple[float, float] = (0.25, 0.75),
               middle: str = "median") -> Scores:
    """Cosine similarity within and between groups of vectors: modalities, classes, languages …

    Args:
        groups: Name -> [example d].
        quantiles: Of the bounds that stand in `.low` and `.high`.
        middle: `"median"` or `"mean"` over pairs.

    Returns:
        Scores [group other], over all pairs of two different examples; NaN for a group of one with itself. Of more than four
        million pairs, quantiles are exact to 2e-6. `similarity_density` has the whole distribution.

    Raises:
        RecordError: no groups, vectors of different length, zero vectors, quantiles out of order, or another middle.

    >>> found = similarity({"a": np.eye(4)[:2], "b": np.eye(4)[2:]})
    >>> found.values.tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    if middle not in MIDDLES:
        raise RecordError(f"the middle is {' or '.join(MIDDLES)}, not {middle!r}.{did_you_mean(middle, MIDDLES)}")
    low, high = quantiles
    if not 0 <= low <= 0.5 <= high <= 1:
        raise RecordError(f"quantiles lie around the median, 0 ≤ low ≤ 0.5 ≤ high ≤ 1, not {quantiles}")
    units = _groups(groups)
    names = tuple(units)
    found = np.full((3, len(names), len(names)), np.nan)
    for i, one in enumerate(names):
        for j, other in enumerate(names[: i + 1]):
            found[:, i, j] = found[:, j, i] = _quantiles(units[one], units[other], i == j, (low, 0.5, high))
            if middle == "mean":
                found[1, i, j] = found[1, j, i] = _mean(units[one], units[other], i == j)
    return Scores(found[1], ("group", "other"), {"group": names, "other": names}, "cosine", "similarity", low=found[0],
                  high=found[2], level=max(min(high - low, 1 - 1e-9), 1e-9), note=f"{middle} over pairs; bounds are the "
                  f"{low:g} and {high:g} quantiles of pairs")


def similarity_density(groups: Mapping[str, Any], *, bins: int = 50) -> Scores:
    """How the cosines of all pairs within and between groups are spread.

    Args:
        groups: Name -> [example d].
        bins: Into how many parts the range from -1 to 1 is divided.

    Returns:
        Scores [group other cosine], a density: times the width of a bin, 2 / bins, it adds up to 1. The axis `cosine` has
        the middles of the bins. NaN for a group of one with itself.

    Raises:
        RecordError: no groups, vectors of different length, zero vectors, or no bins.

    >>> found = similarity_density({"a": np.eye(4)[:2], "b": np.eye(4)[2:]}, bins=5)
    >>> found.sel(group="a", other="b").values.tolist(), found.coords["cosine"][2]
    ([0.0, 0.0, 2.5, 0.0, 0.0], 0.0)
    """
    if bins < 1:
        raise RecordError(f"bins={bins}: a density needs one bin at least")
    units = _groups(groups)
    edges, names = np.linspace(-1, 1, bins + 1), tuple(units)
    found = np.full((len(names), len(names), bins), np.nan)
    for i, one in enumerate(names):
        for j, other in enumerate(names[: i + 1]):
            cosines = _cosines(units[one], units[other], i == j)
            counts = sum(np.histogram(part.clip(-1, 1), bins, (-1, 1))[0] for part in cosines)
            if np.sum(counts):
                found[i, j] = found[j, i] = counts / np.sum(counts) * bins / 2
    middles = tuple(float(round(x, 12)) + 0.0 for x in (edges[1:] + edges[:-1]) / 2)
    return Scores(found, ("group", "other", "cosine"), {"group": names, "other": names, "cosine": middles}, "density",
                  "similarity")


def label_overlap(activations: Any, labels: Sequence[Any], *, k: int = 30, corrected: bool = False) -> Scores:
    """The share of an example's k nearest neighbours that have its label, averaged over examples (Doimo et al. 2020,
    "Hierarchical nucleation in deep neural networks").

    Args:
        activations: Address -> [example d], or one array.
        labels: One for each example.
        k: How many neighbours, the example itself not among them.
        corrected: Put chance at 0: (share - chance) / (1 - chance), both averaged over examples first; chance is the share
            of an example's label among the others, so that large classes do not win by their size.

    Returns:
        Scores [layer], or one number.

    Raises:
        RecordError: labels that do not fit, or fewer examples than neighbours.
    """
    layers, stacked = stack(activations)
    _, which = np.unique(np.asarray(labels), return_inverse=True)
    if len(which) != stacked.shape[1]:
        raise RecordError(f"{len(which)} labels for {stacked.shape[1]} examples")
    chance = (np.bincount(which)[which] - 1) / (len(which) - 1)
    if corrected and (chance == 1).all():
        raise RecordError("all labels are the same, so nothing is left above chance")
    found = []
    for features in stacked:
        share = (which[neighbours(features, k)] == which[:, None]).mean(1)
        found.append(share.mean() if not corrected else (share.mean() - chance.mean()) / (1 - chance.mean()))
    return _per_layer(found, layers, "label overlap")


def neighbour_overlap(first: Any, second: Any, *, k: int = 30) -> Scores:
    """The share of an example's k nearest neighbours in one cloud that are so in the other too, averaged over examples.

    Args:
        first: Address -> [example d], or one array.
        second: The same. Layers of two mappings are compared one by one (two models, two wordings); an array, such as
            `acts["L5.resid_post"]`, with every layer of the other.
        k: How many neighbours, the example itself not among them.

    Returns:
        Scores [layer], or one number for two arrays.

    Raises:
        RecordError: clouds of different size, mappings of different layers, or fewer examples than neighbours.
    """
    (layers, a), (others, b) = stack(first), stack(second)
    if a.shape[1] != b.shape[1]:
        raise RecordError(f"both clouds need the same examples, and have {a.shape[1]} and {b.shape[1]}")
    if layers is not None and others is not None and layers != others:
        raise RecordError(f"layers are compared one by one, and these differ: {list(layers)} and {list(others)}")
    near, other = ([neighbours(features, k) for features in clouds] for clouds in (a, b))
    shared = [np.mean([len(np.intersect1d(x, y)) for x, y in zip(near[i % len(a)], other[i % len(b)], strict=True)]) / k
              for i in range(max(len(a), len(b)))]
    return _per_layer(shared, layers if layers is not None else others, "neighbour overlap")


def homogeneity(activations: Any, labels: Sequence[Any], *, clusters: Sequence[Any] | None = None,
                smallest: int = 10, measure: str = "homogeneity") -> Scores:
    """Whether clusters hold one label each: 1 when every cluster does, 0 when knowing the cluster tells nothing
    (Rosenberg & Hirschberg 2007).

    Args:
        measure: `"homogeneity"`; `"completeness"`, whether each label is in one cluster; `"v_measure"`, their harmonic mean.
        activations: Address -> [example d], or one array.
        labels: One for each example.
        clusters: Which cluster each example is in; found by density (HDBSCAN on vectors of length 1) when not given,
            where what belongs to none is a cluster of its own.
        smallest: The size of the smallest cluster that is one.

    Raises:
        RecordError: labels that do not fit, another measure, or scikit-learn is not installed.
    """
    if measure not in MEASURES:
        raise RecordError(f"clusters are measured by {', '.join(MEASURES)}, not {measure!r}."
                          f"{did_you_mean(measure, MEASURES)}")
    layers, stacked = stack(activations)
    for word, given in (("labels", labels), ("clusters", labels if clusters is None else clusters)):
        if len(given) != stacked.shape[1]:
            raise RecordError(f"{len(given)} {word} for {stacked.shape[1]} examples")
    judge, found = getattr(library("sklearn.metrics"), f"{measure}_score"), []
    for features in stacked:
        if clusters is None:
            found_clusters = library("sklearn.cluster").HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(
                _units(features, "the activations"))
        found.append(judge(labels, found_clusters if clusters is None else clusters))
    return _per_layer(found, layers, measure.replace("_", "-"))


def intrinsic_dimension(activations: Any, *, method: str = "TwoNN") -> Scores:
    """In how many dimensions a cloud lies, [layer] or one number.

    Args:
        activations: Address -> [example d], or one array; examples that are equal are counted once.
        method: `"TwoNN"` (Facco et al. 2017), `"MLE"` (Levina & Bickel 2004) or `"PCA"` (Fukunaga & Olsen 1971).

    Raises:
        RecordError: another method, too few different examples, or scikit-dimension is not installed.
    """
    if method not in DIMENSIONS:
        raise RecordError(f"a dimension is estimated by {', '.join(DIMENSIONS)}, not {method!r}."
                          f"{did_you_mean(method, DIMENSIONS)}")
    try:
        import skdim
    except ImportError as error:
        raise RecordError("dimensions need scikit-dimension: pip install 'hooklab[geometry]'") from error
    layers, stacked = stack(activations)
    found = []
    for features in stacked:
        different = np.unique(features, axis=0)
        if len(different) < 20:
            raise RecordError(f"{len(different)} different examples are too few to tell a dimension: give 20 or more")
        found.append(float(getattr(skdim.id, DIMENSIONS[method])().fit(different).dimension_))
    return _per_layer(found, layers, f"dimension ({method})", unit="dimensions")


def _per_layer(found: list[Any], layers: tuple[int, ...] | None, name: str, unit: str = "fraction") -> Scores:
    values = np.array([float(one) for one in found])
    return Scores(values[0], (), unit=unit, name=name) if layers is None else Scores(
        values, ("layer",), {"layer": layers}, unit, name)


def neighbours(features: np.ndarray, k: int, targets: np.ndarray | None = None) -> np.ndarray:
    """The k nearest examples of each target [target d], as numbers in rising order [target k]; without targets, the k
    nearest others of each example. Of examples at the same distance those that come first are taken.

    Raises:
        RecordError: there are not so many.
    """
    spare = 1 if targets is None else 0
    if not 1 <= k <= len(features) - spare:
        raise RecordError(f"k={k}: an example among {len(features)} has {len(features) - spare} neighbours")
    centre = features.mean(0)  # far from the origin, squares of lengths would drown distances
    around, asked = features - centre, (features if targets is None else targets) - centre
    first: dict[bytes, int] = {}  # equal examples share one distance to the last bit, so that order alone decides
    same = np.array([first.setdefault((row + 0.0).tobytes(), len(first)) for row in around])
    places = np.unique(same, return_index=True)[1]
    lengths = (around[places] ** 2).sum(1)
    found = [np.zeros((0, k), np.int64)]
    for start in range(0, len(asked), BLOCK // 4):
        rows = asked[start:start + BLOCK // 4]
        apart = ((rows**2).sum(1)[:, None] + lengths - 2 * rows @ around[places].T)[:, same]
        if targets is None:
            apart[np.arange(len(rows)), np.arange(start, start + len(rows))] = np.inf
        edge = np.partition(apart, k - 1, axis=1)[:, k - 1:k]
        nearer, equal = apart < edge, apart == edge
        chosen = nearer | (equal & (equal.cumsum(1) <= k - nearer.sum(1, keepdims=True)))
        found.append(np.nonzero(chosen)[1].reshape(-1, k))
    return np.concatenate(found)


def _groups(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Vectors of length 1 by group. Raises RecordError."""
    if not given:
        raise RecordError("there are no groups to compare")
    units = {str(name): _units(value, str(name)) for name, value in given.items()}
    if len({unit.shape[1] for unit in units.values()}) > 1:
        raise RecordError(f"the groups have vectors of different length: {[unit.shape[1] for unit in units.values()]}")
    return units


def _mean(one: np.ndarray, other: np.ndarray, same: bool) -> float:
    """The mean cosine of all pairs, from sums of vectors alone."""
    if not same:
        return float(one.mean(0) @ other.mean(0))
    pairs = len(one) * (len(one) - 1)
    return float(((one.sum(0) ** 2).sum() - len(one)) / pairs) if pairs else float("nan")


def _units(value: Any, name: str) -> np.ndarray:
    array = value.detach().double().cpu().numpy() if hasattr(value, "detach") else np.asarray(value, np.float64)
    if array.ndim != 2 or not len(array):
        raise RecordError(f"{name} must be [example d], not of shape {array.shape}")
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise RecordError(f"{name} hold vectors without a direction: zero, or not finite")
    return array / lengths


def _quantiles(one: np.ndarray, other: np.ndarray, same: bool, at: tuple[float, ...]) -> np.ndarray:
    """Quantiles of the cosines of all pairs; of a group with itself, every pair once and none of an example with itself."""
    pairs = len(one) * (len(one) - 1) // 2 if same else len(one) * len(other)
    if not pairs:
        return np.full(len(at), np.nan)
    if pairs <= PAIRS:
        return np.quantile(np.concatenate(list(_cosines(one, other, same))), at)
    counts = np.zeros(BINS, np.int64)
    for cosines in _cosines(one, other, same):
        counts += np.bincount(((cosines + 1) / 2 * (BINS - 1)).round().astype(np.int64).clip(0, BINS - 1), minlength=BINS)
    # Between the two pairs that a quantile falls between, as numpy does: the bins then are the only error.
    places = np.asarray(at) * (pairs - 1)
    below, above = (np.searchsorted(np.cumsum(counts), edge(places) + 1) for edge in (np.floor, np.ceil))
    return (below + (above - below) * (places % 1)) / (BINS - 1) * 2 - 1


def _cosines(one: np.ndarray, other: np.ndarray, same: bool) -> Iterator[np.ndarray]:
    for start in range(0, len(one), BLOCK):
        rows = one[start:start + BLOCK] @ (other[:start + BLOCK] if same else other).T
        yield rows[np.tri(rows.shape[0], rows.shape[1], start - 1, dtype=bool)] if same else rows.reshape(-1)
