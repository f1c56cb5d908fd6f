"""Non-negative parts: activations that are never below zero as sums of a few parts that are not either (NMF).

Neurons behind a ReLU, or features of a sparse dictionary, can only be added up; so can the parts that they come in (Lee &
Seung 1999, "Learning the parts of objects by non-negative matrix factorization"; the fit is scikit-learn's). Where
activations have both signs, `principal` and `independent` fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RecordError
from ..records import Scores
from ..records.drawn import Drawn, Part
from .asking import whole
from .moments import doubles
from .probing import library


@dataclass(frozen=True, repr=False)
class Parts(Drawn):
    """Parts that activations are sums of.

    Attributes:
        components: [component d], none below zero, each of length 1, the heaviest first.
        amounts: [example component], how much of each part is in each example that they were found in.
        explained: The share of the squared length of these examples that the parts give back.
    """

    components: np.ndarray
    amounts: np.ndarray
    explained: float

    def pictures(self) -> dict[str, Part]:
        """How much is explained, how much of each part is in every example, and the parts themselves."""
        return {"explained": self.explained, "amounts": Scores(self.amounts, ("example", "component"), name="amounts"),
                "components": Scores(self.components, ("component", "dims"), name="components")}

    def project(self, x: Any) -> np.ndarray:
        """Amounts [… component], none below zero, whose sum comes nearest to activations [… d] (Lawson & Hanson 1974).

        Raises:
            RecordError: another width, or what is no finite number.
        """
        solve, array = library("scipy.optimize").nnls, _numbers(x)
        if array.shape[-1:] != self.components.shape[1:] or not np.isfinite(array).all():
            raise RecordError(f"amounts are those of finite activations [… {self.components.shape[1]}], not of shape "
                              f"{array.shape}")
        rows = array.reshape(-1, array.shape[-1])
        found = np.array([solve(self.components.T, row)[0] for row in rows]).reshape(len(rows), len(self.components))
        return found.reshape(*array.shape[:-1], len(self.components))

    def reconstruct(self, amounts: Any) -> np.ndarray:
        """Activations [… d] of amounts [… component]. Raises RecordError where there are not as many."""
        array = _numbers(amounts)
        if array.shape[-1:] != self.components.shape[:1]:
            raise RecordError(f"there are {len(self.components)} parts, and these amounts are of shape {array.shape}")
        return np.asarray(array @ self.components)


def _numbers(given: Any) -> np.ndarray:
    try:
        return doubles(given)
    except (TypeError, ValueError):
        raise RecordError(f"activations are numbers [… d], not {type(given).__name__}") from None


def nonnegative(activations: Any, k: int, *, seed: int = 0) -> Parts:
    """The k non-negative parts whose sums come nearest to activations.

    Args:
        activations: [example d], none below zero.
        k: How many.
        seed: Where the search starts; it ends in a nearest place, not surely in the nearest of all.

    Raises:
        RecordError: an activation is below zero or no finite number, k does not fit, or scikit-learn is not installed.

    >>> spoken = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
    >>> found = nonnegative(spoken, 2)
    >>> found.components.round(2).tolist(), round(found.explained, 4)
    ([[0.71, 0.71, 0.0], [0.0, 0.0, 1.0]], 1.0)
    """
    k, seed = whole("k", k, error=RecordError), whole("seed", seed, 0, 2**32 - 1, error=RecordError)
    array = _numbers(activations)
    if array.ndim != 2 or not 1 <= k <= min(array.shape):
        raise RecordError(f"k={k} parts cannot be told apart in activations of shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise RecordError("parts are found in activations that are finite and never below zero, such as those behind a "
                          "ReLU; for others take principal or independent")
    fitted = library("sklearn.decomposition").NMF(k, init="nndsvda", random_state=seed, max_iter=2000, tol=1e-7)
    amounts = fitted.fit_transform(array)
    lengths = np.linalg.norm(fitted.components_, axis=1)
    components = np.divide(fitted.components_, lengths[:, None], out=np.zeros_like(fitted.components_),
                           where=lengths[:, None] > 0)
    amounts = amounts * lengths
    order = np.argsort(-(amounts**2).sum(0), kind="stable")
    components, amounts = components[order], amounts[:, order]
    left, total = ((array - amounts @ components) ** 2).sum(), (array**2).sum()
    return Parts(components, amounts, float(1 - left / total) if total > 0 else 1.0)
