"""What travels to a view: arrays as bytes in one block, and the JSON that says where each lies.

In: numpy arrays. Out: `Block` (bytes and a table of contents), and codes for painting. A code is one byte:

    0 masked    1 not a number    2 +infinity    3 -infinity    4…255 the value on its scale

`probability` scales by the square root, so that small attention weights stay apart; `linear` runs from `low` to `high`;
`diverging` has 0 at code 130, exactly, and ±`high` at 255 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ViewError
from ..html import printable

MASKED, NAN, PLUS, MINUS = range(4)
FIRST, LAST, ZERO = 4, 255, 130
STEPS, HALF = LAST - FIRST, LAST - ZERO
SCALES = ("probability", "linear", "diverging")
KINDS = {"uint8": "u8", "uint16": "u16", "int32": "i32", "float16": "f16", "float32": "f32"}
ALIGNED = 8


@dataclass(frozen=True)
class Scale:
    """How numbers become codes, and back.

    Attributes:
        kind: One of `SCALES`.
        low: The value of code 4 (0 for a probability, minus `high` when diverging).
        high: The value of code 255.
    """

    kind: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.kind not in SCALES:
            raise ViewError(f"a scale is one of {', '.join(SCALES)}, not {self.kind!r}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ViewError(f"a scale runs from a number to a larger one, not from {self.low} to {self.high}")

    @property
    def facts(self) -> dict[str, Any]:
        """The same for the view."""
        return {"kind": self.kind, "low": self.low, "high": self.high}

    def codes(self, values: Any) -> np.ndarray:
        """One byte per value; what lies outside the scale gets its end.

        >>> Scale("diverging", -2.0, 2.0).codes([0.0, 2.0, -2.0, float("nan"), float("-inf")]).tolist()
        [130, 255, 5, 1, 3]
        """
        # As single numbers, which is how they travel, and then counted in double, as the front end does: the codes agree.
        values = np.asarray(values, dtype=np.float32).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.kind == "diverging":
                coded = ZERO + np.rint(HALF * np.clip(values / (self.high or 1.0), -1, 1))
            else:
                share = np.clip((values - self.low) / ((self.high - self.low) or 1.0), 0, 1)
                coded = FIRST + np.rint(STEPS * (np.sqrt(share) if self.kind == "probability" else share))
        if np.isfinite(values).all():
            return coded.astype(np.uint8)
        odd = np.select([np.isnan(values), values == np.inf, values == -np.inf], [NAN, PLUS, MINUS], -1)
        return np.where(odd >= 0, odd, np.nan_to_num(coded)).astype(np.uint8)

    def values(self, codes: Any) -> np.ndarray:
        """The numbers that codes stand for, nan where they are masked."""
        codes = np.asarray(codes)
        if self.kind == "diverging":
            found = (codes.astype(np.float64) - ZERO) / HALF * self.high
        else:
            share = (codes.astype(np.float64) - FIRST) / STEPS
            found = self.low + (share * share if self.kind == "probability" else share) * (self.high - self.low)
        return np.select([codes <= NAN, codes == PLUS, codes == MINUS], [np.nan, np.inf, -np.inf], found)


def fitting(values: Any, *, kind: str | None = None) -> Scale:
    """The scale that shows values best: diverging when some are below zero, else from zero to the largest.

    >>> fitting([0.5, -2.0])
    Scale(kind='diverging', low=-2.0, high=2.0)
    """
    values = np.asarray(values)
    finite = values[np.isfinite(values)] if values.size else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    kind = kind or ("diverging" if low < 0 else "linear")
    if kind == "probability":
        return Scale(kind, 0.0, max(high, 1.0))
    if kind == "diverging":
        largest = max(abs(low), abs(high)) or 1.0
        return Scale(kind, -largest, largest)
    return Scale(kind, min(low, 0.0), max(high, 0.0) or (0.0 if low < 0 else 1.0))


@dataclass(frozen=True)
class Block:
    """Arrays one after the other.

    Attributes:
        data: Their bytes, each array starting at a multiple of 8.
        table: Name -> `{"kind", "shape", "at"}`: the numbers' kind, axis lengths, and first byte.
    """

    data: bytes
    table: dict[str, dict[str, Any]]


def pack(arrays: Mapping[str, np.ndarray]) -> Block:
    """Arrays in one block, little-endian.

    >>> pack({"codes": np.array([[1, 2]], np.uint8)}).table
    {'codes': {'kind': 'u8', 'shape': [1, 2], 'at': 0}}

    Raises:
        ViewError: an array is of a kind that does not travel.
    """
    parts: list[bytes] = []
    table: dict[str, dict[str, Any]] = {}
    at = 0
    for name, array in arrays.items():
        if array.dtype.name not in KINDS:
            raise ViewError(f"{name} is {array.dtype}; a view takes {', '.join(KINDS)}")
        raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        table[name] = {"kind": KINDS[array.dtype.name], "shape": list(array.shape), "at": at}
        parts += [raw, bytes(-len(raw) % ALIGNED)]
        at += len(raw) + -len(raw) % ALIGNED
    return Block(b"".join(parts), table)


def triangle(square: np.ndarray) -> np.ndarray:
    """The lower triangle [… n n] with its diagonal, row by row, as [… n(n+1)/2].

    >>> triangle(np.array([[1, 0], [2, 3]])).tolist()
    [1, 2, 3]
    """
    rows, columns = np.tril_indices(square.shape[-1])
    return np.ascontiguousarray(square[..., rows, columns])


def plain(value: Any) -> Any:
    """A value that any JSON reader takes: numbers that are not finite become text, halves of characters escapes, arrays
    lists, keys text.

    >>> plain({"a": float("nan"), "b": (np.int64(1), 0.5)})
    {'a': 'nan', 'b': [1, 0.5]}
    """
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value is None or isinstance(value, (int, float, bool)):
        return value
    return "".join(c if not "\ud800" <= c <= "\udfff" else printable(c) for c in str(value))


def held(values: Any, what: str, *, dtype: type = np.float32) -> np.ndarray:
    """A copy on the CPU, so that no view keeps a GPU tensor, a graph or a part of a trace alive.

    Raises:
        ViewError: these are no real numbers, or too large ones.
    """
    if hasattr(values, "detach"):
        values = values.detach().to("cpu")
        values = values.float().numpy() if values.is_floating_point() else values.numpy()
    try:
        array = np.array(values)
    except (TypeError, ValueError) as error:
        raise ViewError(f"{what} are no array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ViewError(f"{what} must be real numbers, not {array.dtype}")
    with np.errstate(over="ignore"):
        found: np.ndarray = np.ascontiguousarray(array, dtype=dtype)
    if found.dtype.kind == "f" and (np.isinf(found) > np.isinf(array)).any():
        raise ViewError(f"{what} reach {np.abs(array[np.isfinite(array)]).max():.3g}, which is more than a view can draw")
    return found
