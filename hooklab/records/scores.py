"""Scores: numbers with named axes and labels; what every analysis, sweep and metric over cells hands back.

In: an array and the words for its axes. Out: the same, to be looked up by label, drawn, or handed on to pandas or xarray.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError
from . import select, tables
from .exact import same

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from xarray import DataArray

    from ..views.base import View
    from ..views.boards import Board


@dataclass(frozen=True, repr=False, eq=False)
class Scores:
    """Numbers, one per cell of named axes, and how sure they are. Two Scores are equal when every part is, bit for bit.

    >>> scores = Scores(np.array([[0.1, -2.0], [0.5, 1.0]]), ("layer", "head"), name="logit_diff", unit="logits")
    >>> scores.top(1)
    [({'layer': 0, 'head': 1}, -2.0)]
    >>> scores.sel(layer=1).values.tolist()
    [0.5, 1.0]

    Attributes:
        values: The numbers in full precision, axes in the order of `axes`; not to be written to.
        axes: Axis words: those of `hooklab.sites`, or `value`, `site`, `rank`, `sample`, or a sweep variable's name.
        coords: Labels per axis, as many as the axis is long; counted from 0 where none were given.
        unit: What the numbers are in: "logits", "nats", "fraction" …
        name: What they are called, such as the metric's name.
        spec: The text that made them.
        labels: Text per cell, of the same shape: the token that a lens reads, say.
        examples: The same numbers for every example: [batch, *axes].
        note: What a reader should know about them.
        low: The lower bound of each value's interval over the examples, of the same shape; nan where there is none.
        high: The upper bound.
        level: How much of the draws the interval holds: 0.95 for a 95 % interval.
        p: The p-value of each cell, of the same shape: against a mean of 0 unless the note says otherwise.
        ends: The metric at 0 and at 1 of a normalised scale: of the corrupted and of the clean run.
        raw_unit: What the metric itself is in, where `ends` put it on a scale.
        control: The same cells measured where no effect should be: with random weights, with shuffled labels.
    """

    values: np.ndarray
    axes: tuple[str, ...]
    coords: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    unit: str = ""
    name: str = ""
    spec: str = ""
    labels: np.ndarray | None = None
    examples: np.ndarray | None = None
    note: str = ""
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    level: float = 0.95
    p: np.ndarray | None = None
    ends: tuple[float, float] | None = None
    raw_unit: str = ""
    control: Scores | None = None

    def __post_init__(self) -> None:
        """Bring the parts into one form and check that they fit. Raises RecordError when they do not."""
        values, axes = _numbers(self.values, "values"), tuple(self.axes)
        if values.ndim != len(axes):
            raise RecordError(f"values of shape {values.shape} need {values.ndim} axis words, not {len(axes)}: {axes}")
        wrong = [axis for axis in axes if not isinstance(axis, str) or not axis.isidentifier()]
        if wrong or len(set(axes)) < len(axes):
            raise RecordError(f"axes must be different words, not {axes}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "coords", self._checked_coords())
        if self.labels is not None:
            object.__setattr__(self, "labels", _fitting(np.asarray(self.labels), values.shape, "labels"))
        if self.examples is not None:
            examples = _numbers(self.examples, "examples")
            if examples.ndim != values.ndim + 1 or examples.shape[1:] != values.shape:
                raise RecordError(f"examples of shape {examples.shape} do not fit values of shape {values.shape}: "
                                  "a batch axis comes first, then the axes of the values")
            object.__setattr__(self, "examples", examples)
        self._check_statistics()

    def _check_statistics(self) -> None:
        for word in ("low", "high", "p"):
            if (given := getattr(self, word)) is not None:
                object.__setattr__(self, word, _fitting(_numbers(given, word), self.values.shape, word))
        if (self.low is None) != (self.high is None):
            raise RecordError("low and high are the two bounds of one interval: give both or neither")
        if self.low is not None and (np.asarray(self.low) > self.high).any():
            raise RecordError("an interval ends before it begins: low must not be above high")
        if not 0 < self.level < 1:
            raise RecordError(f"the level of an interval lies between 0 and 1, such as 0.95, and is {self.level}")
        if self.p is not None and ((self.p < 0) | (self.p > 1)).any():
            raise RecordError("a p-value lies between 0 and 1")
        if self.ends is not None:
            object.__setattr__(self, "ends", _two(self.ends))
        if self.control is not None and not same((self.control.axes, self.control.coords), (self.axes, self.coords)):
            raise RecordError("the control must have the same axes and labels as the scores: "
                              f"{self.control.axes} of {self.control.shape}, not {self.axes} of {self.shape}")

    def _checked_coords(self) -> dict[str, tuple[Any, ...]]:
        if extra := set(self.coords) - set(self.axes):
            raise RecordError(f"coords for {', '.join(sorted(map(str, extra)))}, which is no axis of {self.axes}")
        coords = {}
        for axis, size in zip(self.axes, self.values.shape, strict=True):
            labels = tuple(_plain(label) for label in self.coords.get(axis, range(size)))
            if len(labels) != size:
                raise RecordError(f"{len(labels)} labels for the axis {axis}, which has {size} entries")
            coords[axis] = labels
        return coords

    @property
    def shape(self) -> tuple[int, ...]:
        """Entries per axis."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers: values, and those for every example, of intervals, p-values and the control."""
        arrays = (self.values, self.examples, self.low, self.high, self.p)
        return sum(one.nbytes for one in arrays if one is not None) + (self.control.nbytes if self.control else 0)

    def top(self, k: int = 10) -> list[tuple[dict[str, Any], float]]:
        """The `k` cells furthest from zero, strongest first, each with its labels; what is not a number is left out.

        Raises:
            RecordError: `k` is negative.
        """
        if k < 0:
            raise RecordError(f"top({k}): the count must not be negative")
        return [(self._labels(cell), float(self.values.flat[cell])) for cell in self._strongest(k)]

    def _strongest(self, k: int) -> list[int]:
        """The same cells, counted through all axes."""
        flat = np.asarray(self.values, dtype=np.float64).reshape(-1)
        size = np.where(np.isnan(flat), -1.0, np.abs(flat))
        if 0 < k < size.size:  # only the largest need to be put in order
            cells = np.flatnonzero(size >= np.partition(size, -k)[-k])
        else:
            cells = np.arange(size.size)
        cells = cells[size[cells] >= 0]
        return cells[np.argsort(-size[cells], kind="stable")][:k].tolist()

    def _labels(self, cell: int) -> dict[str, Any]:
        """The labels of a cell, counted through all axes."""
        index = np.unravel_index(cell, self.shape) if self.axes else ()
        return {axis: self.coords[axis][i] for axis, i in zip(self.axes, index, strict=True)}

    def sel(self, **labels: Any) -> Scores:
        """The part under the labels: `sel(layer=3)` drops the axis, `sel(layer=[3, 4])` keeps it.

        A token's label such as "3: Mary" is also found by its number.

        Raises:
            RecordError: there is no such axis or label, or several entries share the label.
        """
        return select.under(self, labels)

    @property
    def raw(self) -> Scores:
        """Normalised scores on the metric's own scale: values, bounds and examples, 0 and 1 being `ends` again.

        The bounds are those of the share, in other units. The p-values are left out: they are about a share of 0, and 0
        on the metric's scale is something else. The control is brought back by its own ends, and left out if it has none.
        Ends that are equal are no scale: everything is nan then.

        >>> Scores(np.array([0.0, 0.5]), ("layer",), unit="fraction", ends=(-1.0, 3.0), raw_unit="logits").raw.values
        array([-1.,  1.])

        Raises:
            RecordError: there are no ends.
        """
        if self.ends is None:
            unit = f" ({self.unit})" if self.unit else ""
            raise RecordError(f"These scores have no ends: their values are on the metric's own scale already{unit}, so use "
                              "them as they are. If they are normalised, say by what: dataclasses.replace(scores, "
                              "ends=(corrupted, clean), raw_unit=…).raw")
        zero, span = self.ends[0], (self.ends[1] - self.ends[0]) or nan
        moved: dict[str, Any] = {word: None if (array := getattr(self, word)) is None else array * span + zero
                                 for word in ("values", "low", "high", "examples")}
        if span < 0:
            moved["low"], moved["high"] = moved["high"], moved["low"]
        control = None if self.control is None or self.control.ends is None else self.control.raw
        return replace(self, **moved, unit=self.raw_unit, p=None, ends=None, raw_unit="", control=control)

    def to_pandas(self, *, examples: bool = False) -> DataFrame:
        """A long table: a column per axis, the number in `score`, and what else the cells have: `low`, `high`, `p`,
        the number of the `control`, and `label` for text.

        Args:
            examples: The numbers of single examples instead: a row for each example and cell, with the number of the example
                in `example`, a column per axis, and `score`.

        Raises:
            RecordError: pandas is not installed, or there are no numbers of examples.

        >>> scores = Scores(np.array([2.0]), ("layer",), examples=np.array([[1.0], [3.0]]))
        >>> scores.to_pandas(examples=True).to_dict("list")
        {'example': [0, 1], 'layer': [0, 0], 'score': [1.0, 3.0]}
        """
        pandas = _optional("pandas", "to_pandas")
        return tables.of_examples(self, pandas) if examples else tables.frame(self, pandas)

    def to_xarray(self, *, examples: bool = False) -> DataArray:
        """The same as an xarray DataArray; unit and spec are its attributes, bounds and the like coordinates.

        Args:
            examples: The numbers of single examples instead, [batch, *axes].

        Raises:
            RecordError: xarray is not installed, or there are no numbers of examples.
        """
        return tables.array(self, _optional("xarray", "to_xarray"), examples)

    def plot(self, *, kind: str | None = None, log: bool = False, limits: tuple[float, float] | None = None,
             smooth: int | None = None, base: float | Scores | None = None) -> Figure:
        """A matplotlib figure of its own: bars, curves, a heat map, or several. Settings of pyplot stay as they are.

        Args:
            kind: `"bars"` of one axis; `"line"` or stacked `"area"`, of two axes with a curve for each entry of the shorter
                one over the ordered one; `"map"` of two axes. What fits the axes unless given.
            log: A log scale of the colours, or of the axis.
            limits: Where colours, or the axis, begin and end.
            smooth: Draw the centred mean of so many entries (an odd number) beside the raw line; at the ends, of those that
                are there.
            base: A number to draw as a base line; or Scores over the same axis, drawn as a second curve.

        >>> Scores(np.array([[0.1, 0.4], [0.9, 0.6]]), ("group", "layer")).plot(kind="area").axes[0].get_xlabel()
        'layer'

        Raises:
            RecordError: there is nothing to draw, or too much; an option does not fit the axes or the numbers.
        """
        from .plot import figure
        from .plot_options import checked

        return figure(self, checked(kind, log, limits, smooth, base))

    def show(self, **options: Any) -> View | Board:
        """The live view that fits the axes, with the options of that view, such as `title=`; see `hooklab.views.of`.

        Raises:
            ViewError: there is nothing to draw, or too much.
        """
        from ..views.choosing import of

        return of(self, **options)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False and dtype is not None and np.dtype(dtype) != self.values.dtype:
            raise ValueError(f"{self.values.dtype} cannot become {dtype} without a copy")
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)

    def __float__(self) -> float:
        if self.values.size != 1:
            raise TypeError(f"{self.values.size} scores are not one number: choose a cell with sel()")
        return float(self.values.reshape(-1)[0])

    def __eq__(self, other: object) -> bool:
        return same(self, other) if isinstance(other, Scores) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        from .sketch import text

        return text(self)

    def _repr_html_(self) -> str:
        from .. import html
        from .sketch import fragment

        return html.block(fragment(self))


def _numbers(given: Any, what: str) -> np.ndarray:
    """Real numbers as an array that refuses to be written to. Raises RecordError."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecordError(f"{what} are no array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise RecordError(f"{what} must be real numbers, not {array.dtype}")
    array = array.view()
    array.flags.writeable = False
    return array


def _fitting(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    if array.shape != shape:
        raise RecordError(f"{what} of shape {array.shape} do not fit values of shape {shape}")
    return array


def _two(ends: Any) -> tuple[float, float]:
    """Both ends of a scale. Raises RecordError when they are none."""
    try:
        zero, one = (float(end) for end in ends)
    except (TypeError, ValueError) as error:
        raise RecordError(f"ends are two numbers, the metric at 0 and at 1 of the scale, not {ends!r}") from error
    return zero, one


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _optional(package: str, method: str) -> Any:
    """A package that hooklab does without. Raises RecordError saying how to get it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RecordError(f"{method}() needs {package}: pip install {package}") from error
