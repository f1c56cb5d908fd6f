"""Scores for pandas and for xarray: the same numbers in the forms that other tools read."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError

if TYPE_CHECKING:
    from .scores import Scores


def columns(scores: Scores) -> dict[str, np.ndarray]:
    """What there is for each cell besides its number, by name; a name that is an axis of the scores gets a line after it.

    >>> from hooklab.records import Scores
    >>> list(columns(Scores(np.ones(2), ("low",), low=np.zeros(2), high=np.ones(2))))
    ['low_', 'high']
    """
    control = None if scores.control is None else scores.control.values
    given = {"low": scores.low, "high": scores.high, "p": scores.p, "control": control, "label": scores.labels}
    return {_free(word, scores): array for word, array in given.items() if array is not None}


def about(scores: Scores) -> dict[str, Any]:
    """What holds for all cells: unit, text, level of the intervals, ends of the scale; nothing that is not there."""
    known: dict[str, Any] = {"unit": scores.unit, "spec": scores.spec}
    known |= {} if scores.low is None else {"level": scores.level}
    known |= {} if scores.examples is None else {"examples": len(scores.examples)}
    return known | ({} if scores.ends is None else {"ends": scores.ends, "raw_unit": scores.raw_unit})


def frame(scores: Scores, pandas: Any) -> Any:
    """A DataFrame with a row per cell."""
    cells = list(product(*(scores.coords[axis] for axis in scores.axes)))
    table: dict[str, list[Any]] = {axis: [cell[i] for cell in cells] for i, axis in enumerate(scores.axes)}
    for word, array in {_free("score", scores): scores.values, **columns(scores)}.items():
        table[word] = list(array.reshape(-1))
    made = pandas.DataFrame(table)
    made.attrs.update(name=scores.name, **about(scores))
    return made


def of_examples(scores: Scores, pandas: Any) -> Any:
    """A DataFrame with a row per example and cell, the cells of one example together. Raises RecordError."""
    numbers = _each(scores)
    sizes, cells = numbers.shape, numbers.size
    table: dict[str, Any] = {_free("example", scores): np.repeat(np.arange(sizes[0]), numbers[:1].size)}
    for number, axis in enumerate(scores.axes, 1):
        at = np.arange(sizes[number]).reshape([-1 if i == number else 1 for i in range(len(sizes))])
        labels = scores.coords[axis]
        table[axis] = [labels[i] for i in np.broadcast_to(at, sizes).reshape(cells)]
    made = pandas.DataFrame(table | {_free("score", scores): numbers.reshape(cells)})
    made.attrs.update(name=scores.name, **about(scores))
    return made


def _each(scores: Scores) -> np.ndarray:
    """The numbers of single examples [batch, *axes]. Raises RecordError where there are none."""
    if scores.examples is None:
        raise RecordError("these scores have no numbers of single examples: they were made of one prompt, or only their "
                          "mean was kept")
    return scores.examples


def array(scores: Scores, xarray: Any, examples: bool = False) -> Any:
    """A DataArray with the axes of the scores, for single examples after an axis `batch`. Raises RecordError."""
    coords: dict[str, Any] = {axis: list(labels) for axis, labels in scores.coords.items()}
    coords |= {word: (scores.axes, np.array(values)) for word, values in columns(scores).items()}
    numbers, dims = scores.values, scores.axes
    if examples:
        numbers, dims = _each(scores), (_free("batch", scores), *scores.axes)
        coords[dims[0]] = list(range(len(numbers)))
    return xarray.DataArray(numbers.copy(), dims=dims, coords=coords, name=scores.name or None,
                            attrs=about(scores) | {"note": scores.note})


def _free(word: str, scores: Scores) -> str:
    return word + "_" if word in scores.axes else word
