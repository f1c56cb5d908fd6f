"""Reducers: what remains of activations when they are not stored, added up as they stream by.

    mean = Mean("L3.resid_post", at="last")
    for batch in batches(source, model):
        mean.update(model.capture(batch.prompt, "L3.resid_post")["L3.resid_post"], batch.tokens, batch.ids)
    mean.result()                                        # Scores [d_model]

Mean, variance and covariance of batches of any size are merged by Chan, Golub & LeVeque 1979 in float64; so are those of
several workers. Padding never enters. Further reducers: `Histogram` and `Extent` (counts), `MaxK` (peaks),
`MeanPattern` and `VariancePattern` (aligned).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...analysis.moments import Moments
from ...errors import RecordError
from ...records import Scores
from ...tokens import Tokens
from .reducing import Reducer, Rows, unpacked

__all__ = ["KINDS", "Covariance", "Mean", "Reducer", "Sums", "Variance", "from_state"]


@dataclass(frozen=True)
class Sums:
    """Weighted rows added up: enough to merge.

    Attributes:
        weight: Sum of the weights.
        squared: Sum of their squares.
        count: Rows.
        mean: [*rest]
        spread: Sum of weighted squares about the mean, [*rest], or of products, [rest rest]; None where only the mean is
            wanted.
    """

    weight: float
    squared: float
    count: int
    mean: Tensor
    spread: Tensor | None

    def merged(self, other: Sums) -> Sums:
        """Both together. Raises RecordError where their shapes differ."""
        if self.mean.shape != other.mean.shape:
            raise RecordError(f"these values have the shape {list(other.mean.shape)}, those before had "
                              f"{list(self.mean.shape)}")
        weight = self.weight + other.weight
        moved = other.mean - self.mean
        spread = None
        if self.spread is not None and other.spread is not None:
            products = moved * moved if self.spread.shape == moved.shape else torch.outer(moved, moved)
            spread = self.spread + other.spread + products * (self.weight * other.weight / weight)
        return Sums(weight, self.squared + other.squared, self.count + other.count,
                    self.mean + moved * (other.weight / weight), spread)

    def tensors(self) -> dict[str, Tensor]:
        """As plain tensors."""
        found = {"weight": torch.tensor(self.weight, dtype=torch.float64), "count": torch.tensor(self.count),
                 "squared": torch.tensor(self.squared, dtype=torch.float64), "mean": self.mean.clone()}
        return found if self.spread is None else {**found, "spread": self.spread.clone()}

    @classmethod
    def of_tensors(cls, state: Mapping[str, Tensor]) -> Sums:
        """Of what `tensors` gave."""
        spread = state.get("spread")
        return cls(float(state["weight"]), float(state["squared"]), int(state["count"]), state["mean"].clone(),
                   None if spread is None else spread.clone())


class Mean(Reducer):
    """The mean over tokens, or over examples, of each number of a site.

    `result` is Scores [*rest], the axes of the site without positions.

    >>> mean = Mean("scores", axes=("pos", "feature")).update([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])])
    >>> float(mean.result()), float(Mean("scores", axes=("pos", "feature"), per="example").update(
    ...     [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])]).result())
    (3.0, 3.5)
    """

    kind: ClassVar[str] = "mean"
    sums: Sums | None = None

    @property
    def count(self) -> int:
        """Rows that were counted: tokens, or examples."""
        return 0 if self.sums is None else self.sums.count

    def result(self) -> Scores:
        """The mean. Raises RecordError where nothing was added."""
        return self._scores(self._summed().mean, "mean")

    def _summed(self) -> Sums:
        if self.sums is None:
            raise RecordError(f"nothing of {self.site} was added yet")
        return self.sums

    def _scores(self, values: Tensor, what: str, axes: tuple[str, ...] | None = None,
                coords: dict[str, tuple[Any, ...]] | None = None) -> Scores:
        n, rows = self.count, "token" if self.per == "token" and self.pos is not None else "example"
        at = "" if self.at is None else f" at {self.at}"
        return Scores(values.numpy().copy(), self.rest if axes is None else axes, coords or {}, name=f"{what} {self.site}",
                      note=f"over {n} {rows}{'s' * (n != 1)}{at}")

    def _add(self, rows: Rows, tokens: Tokens | None) -> None:
        found = self._of_rows(rows)
        if found is not None:
            self.sums = found if self.sums is None else self.sums.merged(found)

    def _of_rows(self, rows: Rows) -> Sums | None:
        """The sums of one update; None where nothing in it counts."""
        each = [(value.mean(0, keepdim=True) if self.per == "example" else value, weight)
                for value, weight in zip(rows.values, rows.weights, strict=True) if len(value) and weight]
        if not each:
            return None
        if len({value.shape[1:] for value, _ in each}) > 1:
            raise RecordError(f"{self.site} comes in the shapes {sorted({tuple(value.shape[1:]) for value, _ in each})}")
        together = torch.cat([value for value, _ in each])
        weights = torch.tensor([weight for value, weight in each for _ in range(len(value))], dtype=torch.float64)
        return self._sums(together, weights)

    def _sums(self, rows: Tensor, weights: Tensor) -> Sums:
        total, squared = float(weights.sum()), float((weights * weights).sum())
        mean = _weighted(rows, weights) / total
        return Sums(total, squared, len(rows), mean, self._spread(rows - mean, weights))

    def _spread(self, apart: Tensor, weights: Tensor) -> Tensor | None:
        return None

    def _merge(self, other: Mean) -> None:
        if other.sums is not None:
            self.sums = other.sums if self.sums is None else self.sums.merged(other.sums)

    def _tensors(self) -> dict[str, Tensor]:
        return {} if self.sums is None else self.sums.tensors()

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.sums = Sums.of_tensors(state) if "mean" in state else None


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Σ weight · row, [*rest]."""
    return torch.tensordot(weights, rows, dims=1)


def _divisor(sums: Sums) -> float:
    """What a spread is divided by to be a variance. Raises RecordError with fewer than two rows."""
    if sums.count < 2:
        raise RecordError(f"a variance needs two rows or more, and there are {sums.count}")
    return sums.weight - sums.squared / sums.weight


class Variance(Mean):
    """The variance over tokens, or over the means of examples, of each number of a site.

    `result` is Scores [*rest], divided by Σw - Σw²/Σw: the count less one where all weigh the same. `mean` is the mean.
    """

    kind: ClassVar[str] = "variance"

    def result(self) -> Scores:
        """The variance. Raises RecordError with fewer than two rows."""
        sums = self._summed()
        assert sums.spread is not None
        return self._scores(sums.spread / _divisor(sums), "variance of")

    def mean(self) -> Scores:
        """The mean."""
        return self._scores(self._summed().mean, "mean")

    def _spread(self, apart: Tensor, weights: Tensor) -> Tensor | None:
        return _weighted(apart * apart, weights)


class Covariance(Variance):
    """The covariance of the numbers of a site with each other, all of them where it has several axes.

    `result` is Scores [row column], divided as the variance is; `moments` hands it to `hl.analysis.principal`.
    """

    kind: ClassVar[str] = "covariance"

    def result(self) -> Scores:
        """The covariance. Raises RecordError with fewer than two rows."""
        sums = self._summed()
        assert sums.spread is not None
        return self._scores(sums.spread / _divisor(sums), "covariance of", ("row", "column"))

    def moments(self) -> Moments:
        """The same as `Moments`.

        Raises:
            RecordError: nothing was added, or rows have different weights, which `Moments` has not.
        """
        sums = self._summed()
        if not math.isclose(sums.weight * sums.weight, sums.squared * sums.count, rel_tol=1e-9):
            raise RecordError("rows of different weights are no Moments: take result()")
        found = Moments()
        found.count, found._mean = sums.count, sums.mean.reshape(-1).numpy().copy()
        assert sums.spread is not None
        found._squares = sums.spread.numpy() * (sums.count / sums.weight)
        return found

    def _sums(self, rows: Tensor, weights: Tensor) -> Sums:
        """Moments of the rows of each weight, merged."""
        found: Sums | None = None
        for weight in weights.unique().tolist():
            some = Moments().add(rows[weights == weight].flatten(1))
            assert some._mean is not None and some._squares is not None
            one = Sums(weight * some.count, weight * weight * some.count, some.count, torch.from_numpy(some._mean),
                       weight * torch.from_numpy(some._squares))
            found = one if found is None else found.merged(one)
        assert found is not None
        return found

    def mean(self) -> Scores:
        """The mean, [dimension]."""
        return self._scores(self._summed().mean, "mean", ("dimension",))


KINDS: dict[str, type[Reducer]] = {one.kind: one for one in (Mean, Variance, Covariance)}
"""Reducers by the word that their states carry; the other modules put in their own."""


def from_state(state: Mapping[str, Tensor]) -> Any:
    """A reducer of its `state`, whatever its kind.

    >>> from_state(Mean("L0.resid_post", at="last").state()).at
    'last'

    Raises:
        RecordError: it is no such state.
    """
    from . import aligned, counts, peaks  # noqa: F401  # they put in their kinds

    if "about" not in state:
        raise RecordError("this is no state of a reducer: it has no 'about'")
    about = unpacked(state["about"])
    if not isinstance(about, dict) or about.get("kind") not in KINDS:
        raise RecordError(f"this is no state of a reducer: {about!r}"[:200])
    options = {name: value for name, value in about["options"].items() if value is not None}
    made = KINDS[about["kind"]](about["site"], **options)
    made._restore(state)
    return made


def merged(reducers: Sequence[Reducer]) -> Any:
    """All reducers in one; the first is changed. Raises RecordError where there is none, or they were not made alike."""
    if not reducers:
        raise RecordError("there is no reducer to merge")
    first = reducers[0]
    for other in reducers[1:]:
        first.merge(other)
    return first
