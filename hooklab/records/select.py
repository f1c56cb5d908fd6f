"""Parts of Scores by their labels: what `Scores.sel` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError, did_you_mean

if TYPE_CHECKING:
    from .scores import Scores

ARRAYS = {"values": 0, "labels": 0, "low": 0, "high": 0, "p": 0, "examples": 1}
"""What Scores have per cell, and how many axes come before those of the cells."""


def under(scores: Scores, labels: Mapping[str, Any]) -> Scores:
    """The part under the labels; a single one drops its axis. Raises RecordError when there is no such axis or label."""
    for axis, label in labels.items():
        if axis not in scores.axes:
            raise RecordError(f"There is no axis {axis}: the axes are {', '.join(scores.axes) or 'none'}."
                              + did_you_mean(axis, scores.axes))
        several = isinstance(label, (list, tuple, range)) and label not in scores.coords[axis]
        scores = take(scores, axis, [index(scores, axis, one) for one in label] if several else index(scores, axis, label))
    return scores


def index(scores: Scores, axis: str, label: Any) -> int:
    """Where a label stands along an axis; a token is also found by its number. Raises RecordError."""
    labels = scores.coords[axis]
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


def take(scores: Scores, axis: str, picked: int | list[int]) -> Scores:
    """The entries of one axis, of everything that the scores have per cell; a single index drops the axis."""
    at, keep = scores.axes.index(axis), isinstance(picked, list)
    cut: dict[str, Any] = {}
    for word, before in ARRAYS.items():
        array = getattr(scores, word)
        cut[word] = None if array is None else np.asarray(np.take(array, picked, axis=at + before))
    coords = {a: tuple(labels[i] for i in picked) if a == axis and isinstance(picked, list) else labels
              for a, labels in scores.coords.items() if keep or a != axis}
    return replace(scores, axes=tuple(a for a in scores.axes if keep or a != axis), coords=coords, **cut,
                   control=None if scores.control is None else take(scores.control, axis, picked))
