"""Scores: numbers with named axes and labels; what every analysis, sweep and metric over cells hands back.

In: an array and the words for its axes. Out: the same, to be looked up by label, drawn, or handed on to pandas or xarray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError, did_you_mean
from .exact import same

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from xarray import DataArray


@dataclass(frozen=True, repr=False, eq=False)
class Scores:
    """Numbers, one per cell of named axes. Two Scores are equal when every part is, bit for bit.

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

    def top(self, k: int = 10) -> list[tuple[dict[str, Any], float]]:
        """The `k` cells furthest from zero, strongest first, each with its labels; what is not a number is left out.

        Raises:
            RecordError: `k` is negative.
        """
        if k < 0:
            raise RecordError(f"top({k}): the count must not be negative")
        flat = np.asarray(self.values, dtype=np.float64).reshape(-1)
        size = np.where(np.isnan(flat), -1.0, np.abs(flat))
        if 0 < k < size.size:  # only the largest need to be put in order
            cells = np.flatnonzero(size >= np.partition(size, -k)[-k])
        else:
            cells = np.arange(size.size)
        cells = cells[size[cells] >= 0]
        cells = cells[np.argsort(-size[cells], kind="stable")][:k]
        return [(self._labels(int(cell)), float(flat[cell])) for cell in cells]

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
        found = self
        for axis, label in labels.items():
            if axis not in self.axes:
                raise RecordError(f"There is no axis {axis}: the axes are {', '.join(self.axes) or 'none'}."
                                  + did_you_mean(axis, self.axes))
            several = isinstance(label, (list, tuple, range)) and label not in found.coords[axis]
            picked = [found._index(axis, one) for one in label] if several else found._index(axis, label)
            found = found._take(axis, picked)
        return found

    def _index(self, axis: str, label: Any) -> int:
        labels = self.coords[axis]
        hits = [i for i, one in enumerate(labels) if one == label]
        if not hits and isinstance(label, int):
            hits = [i for i, one in enumerate(labels) if isinstance(one, str) and one.startswith(f"{label}:")]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise RecordError(f"{len(hits)} entries of {axis} are labelled {label!r}: take one with `.values` by index")
        shown = ", ".join(repr(one) for one in labels[:12]) + (" …" if len(labels) > 12 else "")
        raise RecordError(f"{axis} has no {label!r}; it has {shown or 'no entries'}."
                          + did_you_mean(str(label), [str(one) for one in labels]))

    def _take(self, axis: str, picked: int | list[int]) -> Scores:
        """The entries of one axis; a single index drops the axis."""
        at, keep = self.axes.index(axis), isinstance(picked, list)

        def cut(array: np.ndarray | None, offset: int = 0) -> np.ndarray | None:
            return None if array is None else np.asarray(np.take(array, picked, axis=at + offset))

        kept = {a: tuple(labels[i] for i in picked) if a == axis and isinstance(picked, list) else labels
                for a, labels in self.coords.items() if keep or a != axis}
        values = cut(self.values)
        assert values is not None
        return Scores(values, tuple(a for a in self.axes if keep or a != axis), kept, self.unit, self.name, self.spec,
                      cut(self.labels), cut(self.examples, 1), self.note)

    def to_pandas(self) -> DataFrame:
        """A long table: a column per axis, the number in `score`, and `label` where cells have text.

        Raises:
            RecordError: pandas is not installed.
        """
        pandas = _optional("pandas", "to_pandas")
        cells = list(product(*(self.coords[axis] for axis in self.axes)))
        columns: dict[str, list[Any]] = {axis: [cell[i] for cell in cells] for i, axis in enumerate(self.axes)}
        for word, array in (("score", self.values), ("label", self.labels)):
            if array is not None:
                columns[word if word not in self.axes else word + "_"] = list(array.reshape(-1))
        frame = pandas.DataFrame(columns)
        frame.attrs.update(name=self.name, unit=self.unit, spec=self.spec)
        return frame

    def to_xarray(self) -> DataArray:
        """The same as an xarray DataArray; unit and spec are its attributes.

        Raises:
            RecordError: xarray is not installed.
        """
        xarray = _optional("xarray", "to_xarray")
        coords: dict[str, Any] = {axis: list(labels) for axis, labels in self.coords.items()}
        if self.labels is not None:
            coords["label" if "label" not in self.axes else "label_"] = (self.axes, self.labels)
        attrs = {"unit": self.unit, "spec": self.spec, "note": self.note}
        return xarray.DataArray(self.values.copy(), dims=self.axes, coords=coords, name=self.name or None, attrs=attrs)

    def plot(self) -> Figure:
        """A matplotlib figure of its own: bars or a line, a heat map, or several. Settings of pyplot stay as they are.

        Raises:
            RecordError: matplotlib is not installed, or the axes leave too many maps to draw.
        """
        _optional("matplotlib", "plot")
        from .plot import figure

        return figure(self)

    def show(self) -> Scores:
        """What a notebook draws as a picture."""
        return self

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


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _optional(package: str, method: str) -> Any:
    """A package that hooklab does without. Raises RecordError saying how to get it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RecordError(f"{method}() needs {package}: pip install {package}") from error
