"""Moments: mean and covariance of activations as they stream by, and the axes that come of them.

    moments = hl.analysis.Moments()
    for prompts in batches:
        moments.add(model.capture(prompts, "L3.resid_post", at="all")["L3.resid_post"])
    moments.covariance, hl.analysis.principal(moments, 10)

Batches of any size are merged by Chan, Golub & LeVeque 1979 in float64, so the result does not depend on how the examples
were cut into batches beyond rounding, and nothing but [d d] is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RecordError
from ..records import Scores
from ..records.drawn import Drawn, Part


class Moments:
    """Count, mean and covariance of vectors [… d], batch by batch.

    >>> moments = Moments().add([[1.0, 2.0], [3.0, 6.0]]).add([[5.0, 4.0]])
    >>> moments.count, moments.mean.tolist(), moments.covariance.tolist()
    (3, [3.0, 4.0], [[4.0, 2.0], [2.0, 4.0]])
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: np.ndarray | None = None
        self._squares: np.ndarray | None = None

    def add(self, batch: Any) -> Moments:
        """Take in more vectors, [… d]; an empty batch changes nothing. Returns itself.

        Raises:
            RecordError: vectors of another length, or values that are no finite numbers; nothing of the batch is counted.
        """
        array = doubles(batch)
        if array.ndim < 2:
            raise RecordError(f"moments are taken of vectors [… d], not of shape {array.shape}")
        rows = array.reshape(-1, array.shape[-1])
        if not len(rows):
            return self
        if self._mean is not None and rows.shape[1] != len(self._mean):
            raise RecordError(f"these vectors have {rows.shape[1]} entries, those before had {len(self._mean)}")
        if not np.isfinite(rows).all():
            raise RecordError("the batch holds what is not a finite number")
        mean = rows.mean(0)
        apart = rows - mean
        squares = apart.T @ apart
        if self._mean is None or self._squares is None:
            self.count, self._mean, self._squares = len(rows), mean, squares
            return self
        total, moved = self.count + len(rows), mean - self._mean
        self._squares = self._squares + squares + np.outer(moved, moved) * (self.count * len(rows) / total)
        self._mean = self._mean + moved * (len(rows) / total)
        self.count = total
        return self

    @property
    def mean(self) -> np.ndarray:
        """[d]. Raises RecordError where nothing was added."""
        if self._mean is None:
            raise RecordError("there are no moments of nothing: add vectors first")
        return self._mean.copy()

    @property
    def covariance(self) -> np.ndarray:
        """[d d], divided by count - 1. Raises RecordError with fewer than two vectors."""
        if self._squares is None or self.count < 2:
            raise RecordError(f"a covariance needs two vectors or more, and there are {self.count}")
        return self._squares / (self.count - 1)

    @property
    def variance(self) -> np.ndarray:
        """[d], the diagonal of the covariance."""
        return np.diag(self.covariance).copy()


@dataclass(frozen=True, repr=False)
class Basis(Drawn):
    """Axes through activations, and the way there and back.

    Attributes:
        mean: [d], where the axes cross.
        components: [component d]; orthonormal for `principal`.
        back: [component d], so that `coordinates @ back + mean` is the reconstruction.
        variance: [component], along each axis.
        total: The variance in all directions.
    """

    mean: np.ndarray
    components: np.ndarray
    back: np.ndarray
    variance: np.ndarray
    total: float

    def pictures(self) -> dict[str, Part]:
        """The variance along each axis, as a share of all, and the axes themselves."""
        shares = Scores(self.variance / (self.total or 1.0), ("component",), unit="fraction", name="share of the variance")
        return {"total variance": self.total, "variance": shares,
                "components": Scores(self.components, ("component", "dims"), name="components")}

    def project(self, x: Any) -> np.ndarray:
        """Coordinates [… component] of activations [… d]."""
        return (doubles(x) - self.mean) @ self.components.T

    def reconstruct(self, coordinates: Any) -> np.ndarray:
        """Activations [… d] of coordinates [… component]."""
        return doubles(coordinates) @ self.back + self.mean


def principal(moments: Moments, k: int) -> Basis:
    """Principal components: the k orthogonal directions of largest variance, largest first, signed so that the largest
    entry of each is positive.

    Raises:
        RecordError: more components than dimensions, or too few vectors.
    """
    covariance = moments.covariance
    if not 1 <= k <= len(covariance):
        raise RecordError(f"k={k}: these vectors have {len(covariance)} dimensions")
    variance, vectors = np.linalg.eigh(covariance)
    components = vectors[:, ::-1].T[:k]
    components = components * np.sign(components[np.arange(k), np.abs(components).argmax(1)])[:, None]
    return Basis(moments.mean, components, components, variance[::-1][:k].clip(0), float(variance.sum()))


def independent(activations: Any, k: int, *, seed: int = 0) -> Basis:
    """Independent components (FastICA, Hyvärinen 1999, by scikit-learn): directions whose coordinates are as far from
    normally distributed as can be.

    Args:
        activations: [example d].
        k: How many.
        seed: Where the search starts.

    Raises:
        RecordError: more components than dimensions or examples, values that are no finite numbers, or scikit-learn is
            not installed.
    """
    array = doubles(activations)
    if not np.isfinite(array).all():
        raise RecordError("the activations hold what is not a finite number")
    if array.ndim != 2 or not 1 <= k <= min(array.shape):
        raise RecordError(f"k={k} components cannot be told apart in activations of shape {array.shape}")
    try:
        from sklearn.decomposition import FastICA
    except ImportError as error:
        raise RecordError("independent components need scikit-learn: pip install 'hooklab[analysis]'") from error
    fitted = FastICA(k, whiten="unit-variance", random_state=seed, max_iter=1000).fit(array)
    variance = ((array - fitted.mean_) @ fitted.components_.T).var(0, ddof=1)
    return Basis(fitted.mean_, fitted.components_, fitted.mixing_.T, variance, float(array.var(0, ddof=1).sum()))


def interpolate(a: Any, b: Any, share: float, *, along: str = "line") -> np.ndarray:
    """Between two concepts: `share` of the way from vector a to vector b [… d].

    `"line"` is straight; `"arc"` turns from one direction to the other at an even angle, its length going evenly from one
    to the other (spherical interpolation, Shoemake 1985). Shares outside 0…1 go on beyond the ends.

    >>> interpolate([1.0, 0.0], [0.0, 1.0], 0.5, along="arc").round(4).tolist()
    [0.7071, 0.7071]

    Raises:
        RecordError: another way, vectors that differ in shape, or opposite or zero vectors, between which there is no arc.
    """
    first, second = doubles(a), doubles(b)
    if first.shape != second.shape:
        raise RecordError(f"vectors of one shape are interpolated, not {first.shape} and {second.shape}")
    if along == "line":
        return (1 - share) * first + share * second
    if along != "arc":
        raise RecordError(f'interpolation goes along "line" or "arc", not {along!r}')
    lengths = np.linalg.norm(first, axis=-1, keepdims=True), np.linalg.norm(second, axis=-1, keepdims=True)
    if (lengths[0] == 0).any() or (lengths[1] == 0).any():
        raise RecordError("a zero vector has no direction to turn from: interpolate along the line")
    one, two = first / lengths[0], second / lengths[1]
    angle = np.arccos(np.clip((one * two).sum(-1, keepdims=True), -1, 1))
    if (np.pi - angle < 1e-6).any():
        raise RecordError("there is no one arc between opposite directions: interpolate along the line")
    with np.errstate(invalid="ignore", divide="ignore"):
        turned = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * two) / np.sin(angle)
    turned = np.where(angle < 1e-6, one, turned)
    return turned * ((1 - share) * lengths[0] + share * lengths[1])


def doubles(given: Any) -> np.ndarray:
    """Numbers of an array, or of a tensor of any type and device, in float64."""
    if hasattr(given, "detach"):
        return np.asarray(given.detach().cpu().double().numpy())
    return np.asarray(given, np.float64)
