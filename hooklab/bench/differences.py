"""Where two runs, or two values, differ."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from .. import html
from ..errors import RecordError
from ..records.exact import is_tensor, same
from ..records.lines import text_table
from .artefacts import MOST_BITS, Picture
from .record import Record

Pair = tuple[str, str]


@dataclass(frozen=True, repr=False)
class Difference:
    """What differs between two runs; empty where nothing does.

    Attributes:
        runs: Their names.
        source: The lines of the code that differ, as a unified diff.
        arguments, environment, metrics, result: Name -> (the one's, the other's).
    """

    runs: Pair
    source: str = ""
    arguments: dict[str, Pair] = field(default_factory=dict)
    environment: dict[str, Pair] = field(default_factory=dict)
    metrics: dict[str, Pair] = field(default_factory=dict)
    result: dict[str, Pair] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.source or self.arguments or self.environment or self.metrics or self.result)

    def _tables(self) -> list[tuple[str, list[list[str]]]]:
        named = (("arguments", self.arguments), ("environment", self.environment), ("numbers", self.metrics),
                 ("result", self.result))
        return [(title, [[name, *pair] for name, pair in rows.items()]) for title, rows in named if rows]

    def __repr__(self) -> str:
        if not self:
            return f"{self.runs[0]} and {self.runs[1]}: no difference"
        parts = [self.source.rstrip()] if self.source else []
        parts += [text_table([title, *self.runs], rows) for title, rows in self._tables()]
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        if not self:
            return html.block(html.note(repr(self)))
        lines = "\n".join(map(_line, self.source.splitlines()))
        source = f"{html.heading('source')}<pre>{lines}</pre>" if self.source else ""
        return html.block(source, *(html.table([title, *self.runs], rows) for title, rows in self._tables()))


def _line(text: str) -> str:
    """A line of a diff, coloured where it came or went."""
    kind = "" if text.startswith(("+++", "---")) else {"+": "hl-pos", "-": "hl-neg"}.get(text[:1], "")
    return f'<span class="{kind}" style="--a:.25">{html.safe(text)}</span>' if kind else html.safe(text)


def difference(one: Record, other: Record, tolerance: float = 0.0) -> Difference:
    """What differs between two runs. Raises RecordError for a tolerance that is none."""
    check_tolerance(tolerance)
    lines = difflib.unified_diff(one.text.splitlines(), other.text.splitlines(), f"{one.name} {one.version}",
                                 f"{other.name} {other.version}", lineterm="")
    mine, theirs = (run.about.get("arguments", {}) for run in (one, other))
    nothing = {"text": "", "digest": None}
    pairs = {name: (mine.get(name, nothing), theirs.get(name, nothing)) for name in dict.fromkeys([*mine, *theirs])}
    given = {name: _pair(a["text"], b["text"], a["digest"], b["digest"]) for name, (a, b) in pairs.items()
             if a["digest"] != b["digest"]}
    around = _different(*(_flat({**run.environment, "models": run.models, "seed": run.seed,
                                 "tools": run.about.get("tools", {}),
                                 "plots": run.about.get("needs", {}).get("plots", {})}) for run in (one, other)))
    numbers = {name: (_number(one.metrics.get(name)), _number(other.metrics.get(name)))
               for name in dict.fromkeys([*one.metrics, *other.metrics])
               if not _close(one.metrics.get(name), other.metrics.get(name), tolerance)}
    return Difference((one.id, other.id), "\n".join(lines), given, around, numbers, _results(one, other, tolerance))


def _results(one: Record, other: Record, tolerance: float) -> dict[str, Pair]:
    if one.status != other.status:
        return {"status": (one.status, other.status)}
    if one.status != "finished":
        mine, theirs = (run.about.get("error", {}).get("message", "") for run in (one, other))
        return {} if mine == theirs else {"error": (mine, theirs)}
    try:
        found = list(differing(one.result, other.result, tolerance))
    except RecordError as error:
        return {"result": (str(error), "")}
    return {where: (left, right) for where, left, right, _ in found}


def check_tolerance(tolerance: Any) -> None:
    """Raises RecordError unless it is a number from 0."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance >= 0 or tolerance == math.inf:
        raise RecordError(f"a tolerance is a number from 0, not {tolerance!r}")


def differing(one: Any, other: Any, tolerance: float = 0.0, where: str = "result") -> Iterator[tuple[str, str, str, float]]:
    """Where two values differ: the place, both in words, and by how much (nan where that is no number).

    >>> list(differing({"a": 1.0, "b": [1, 2]}, {"a": 1.5, "b": [1, 2]}))
    [("result['a']", '1.0', '1.5', 0.5)]
    """
    if is_tensor(one) and is_tensor(other):
        yield from _arrays(one, other, tolerance, where)
    elif isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        yield from _arrays(one, other, tolerance, where)
    elif _is_number(one) and _is_number(other) and type(one) is type(other):
        if not _close(one, other, tolerance):
            yield where, _digits(one), _digits(other), _apart(one, other)
    elif type(one) is not type(other):
        yield where, _words(one), _words(other), math.nan
    elif isinstance(one, Picture):  # its pixels are no result
        return
    elif isinstance(one, Mapping) and not is_dataclass(one):
        for key in dict.fromkeys([*one, *other]):
            if key not in one or key not in other:
                mine, theirs = ("there" if key in part else "missing" for part in (one, other))
                yield f"{where}[{key!r}]", mine, theirs, math.nan
            else:
                yield from differing(one[key], other[key], tolerance, f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            yield where, f"{len(one)} items", f"{len(other)} items", math.nan
        for i, (left, right) in enumerate(zip(one, other, strict=False)):
            yield from differing(left, right, tolerance, f"{where}[{i}]")
    elif is_dataclass(one):
        for part in fields(one):
            yield from differing(getattr(one, part.name), getattr(other, part.name), tolerance, f"{where}.{part.name}")
    elif type(one).__name__ == "DataFrame":
        if not one.equals(other):
            yield where, f"table {one.shape}", f"table {other.shape}", math.nan
    elif not same(one, other):
        yield where, _words(one), _words(other), math.nan


def _arrays(one: Any, other: Any, tolerance: float, where: str) -> Iterator[tuple[str, str, str, float]]:
    left, right = (f"{one_.dtype} {list(one_.shape)}" for one_ in (one, other))
    if left != right:
        yield where, left, right, math.nan
        return
    if same(one, other):
        return
    a, b = (_wide(value) for value in (one, other))
    if a is None or b is None:
        yield where, left, "other entries", math.nan
        return
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
    apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, apart)
    count = int((~(apart <= tolerance)).sum())
    if count or (tolerance == 0 and not apart.any()):  # the same numbers in other bits: -0.0, another nan
        most = float(np.nanmax(apart)) if not np.isnan(apart).all() else math.nan
        said = f"{count} entries differ, by up to {most:.6g}" if count else "the same numbers, in other bits"
        single = a.size == 1 and count
        yield where, *((str(a.item()), str(b.item())) if single else (left, said)), most


def _wide(value: Any) -> np.ndarray | None:
    array = value.detach().cpu() if is_tensor(value) else value
    if is_tensor(array):
        if array.is_complex():
            return np.asarray(array.to_dense().numpy())
        array = array.double().numpy()
    assert isinstance(array, np.ndarray)
    return array.astype(complex if array.dtype.kind == "c" else float) if array.dtype.kind in "biufc" else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _close(one: Any, other: Any, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    if one == other or (one != one and other != other):
        return True
    return tolerance > 0 and abs(one - other) <= tolerance


def _digits(value: Any) -> str:
    return hex(value) if isinstance(value, int) and value.bit_length() > MOST_BITS else repr(value)


def _apart(one: Any, other: Any) -> float:
    try:
        return abs(float(one - other))
    except OverflowError:
        return math.inf


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _words(value: Any) -> str:
    from .experiment import in_words

    return in_words(value)


def _pair(one: str, other: str, left: Any, right: Any) -> Pair:
    return (one, other) if one != other else (f"{one} #{left}", f"{other} #{right}")


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key} ")
        elif key != "pid":
            found[f"{prefix}{key}"] = str(value)
    return found


def _different(one: dict[str, str], other: dict[str, str]) -> dict[str, Pair]:
    return {name: (one.get(name, ""), other.get(name, "")) for name in dict.fromkeys([*one, *other])
            if one.get(name) != other.get(name)}
