"""Tokens with numbers: what `tokens` draws.

    Tokens, strings, and numbers that someone gives ──rows; numbers per token, one set or several──▶ `Coloured`

Rows of different lengths lie one after the other: a number belongs to a token by its place in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ViewError
from ..spec.printer import quote
from ..tokens import Tokens
from . import wire
from .axes import Axis, axis
from .spelling import with_line

SAVED = "save L*.resid_post @{pos}"


@dataclass(frozen=True)
class Row:
    """Tokens in a row.

    Attributes:
        label: What the row is called.
        pieces: Their texts.
        special: Which are special tokens.
        apart: The pieces say nothing of the spaces between them, as the labels of scores do not.
        spec: Spec text that runs the same prompt, to which a line can be added; empty where there is none.
        run: The run of that text that the row belongs to.
    """

    label: str
    pieces: tuple[str, ...]
    special: tuple[bool, ...] = ()
    apart: bool = False
    spec: str = ""
    run: str = "main"

    def __len__(self) -> int:
        return len(self.pieces)

    def spell(self, pos: Any) -> str:
        """Spec text that saves the stream at a position; empty where the prompt cannot be written."""
        return with_line(self.spec, self.run, SAVED.format(pos=pos)) if self.spec else ""


@dataclass(frozen=True)
class Ahead:
    """What was expected after each token; tokens of all rows one after the other.

    Attributes:
        ids, probs: The likeliest next tokens, [token rank]; -1 where there are fewer.
        texts: Their texts by id.
        prob, rank: Of the token that came next, [token]; nan and -1 where that is not known.
    """

    ids: np.ndarray
    probs: np.ndarray
    texts: Mapping[int, str]
    prob: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class Coloured:
    """Rows of tokens and what colours them.

    Attributes:
        rows: The rows.
        values: [which token].
        which: The axis of the sets of numbers; None where there is one set, or none.
        names: What each set is: its name and unit.
        own: Each set has a scale of its own.
        positions: What a selection calls each position; counted from 0 unless given.
        ahead: What was expected next.
        note: A line about the whole.
        source: The run that the numbers are from.
        spell: Spec text of one number, from its place along each axis; in place of that of its row.
    """

    rows: tuple[Row, ...]
    values: np.ndarray
    which: Axis | None = None
    names: tuple[tuple[str, str], ...] = ()
    own: bool = False
    positions: Axis | None = None
    ahead: Ahead | None = None
    note: str = ""
    source: Any = None
    spell: Callable[[Mapping[str, Any]], str] | None = None

    @property
    def total(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.rows))


# Rows --------------------------------------------------------------------------------------------------------------------


def of_tokens(tokens: Tokens, label: str = "", spec: str = "", run: str = "main") -> tuple[Row, ...]:
    """The examples of a Tokens record."""
    found = []
    for i, pieces in enumerate(tokens.pieces):
        text = spec or (f"prompt {quote(tokens.text[i])}" if written(tokens, i) else "")
        name = label if len(tokens) == 1 else f"{label} {i}".strip()
        found.append(Row(name, tuple(pieces), tokens.special[i], spec=text, run=run))
    return tuple(found)


def written(tokens: Tokens, i: int) -> bool:
    """Whether writing the text of an example gives these tokens again: special ones are added by themselves."""
    spans, special = tokens.offsets[i], tokens.special[i]
    return bool(tokens.text[i]) and spans is not None and all(
        start == stop for (start, stop), odd in zip(spans, special, strict=True) if odd)


def of_strings(source: Sequence[Any]) -> tuple[Row, ...]:
    """A list of strings as one row, a list of lists as several. Raises ViewError."""
    rows = [source] if all(isinstance(one, str) for one in source) else list(source)
    found = []
    for i, row in enumerate(rows):
        if isinstance(row, str) or not isinstance(row, (list, tuple)) or not all(isinstance(one, str) for one in row):
            raise ViewError("tokens are strings: a list of strings for one row, a list of such lists for several; "
                            f"row {i} is {type(row).__name__}")
        if not row:
            raise ViewError(f"row {i} has no tokens")
        found.append(Row("" if len(rows) == 1 else str(i), tuple(row)))
    if not found:
        raise ViewError("there is nothing to draw: no tokens")
    return tuple(found)


# Numbers -----------------------------------------------------------------------------------------------------------------


def coloured(rows: tuple[Row, ...], values: Any, tokens: Tokens | None = None) -> Coloured:
    """Rows with numbers that someone gives: one set, several by name, or none.

    Raises:
        ViewError: they do not fit the tokens.
    """
    total = sum(map(len, rows))
    if values is None:
        return Coloured(rows, np.zeros((0, total), np.float32))
    if isinstance(values, Mapping):
        if not values:
            raise ViewError("values is an empty dict: give a set of numbers by name, or leave it out")
        sets = [_one(_sets(one, rows, tokens, f"values[{name!r}]"), name) for name, one in values.items()]
        names = tuple((str(name), "") for name in values)
        return Coloured(rows, np.stack(sets), axis("value", list(values)), names, own=True)
    found = _sets(values, rows, tokens, "values")
    if len(found) == 1:
        return Coloured(rows, found, names=(("value", ""),))
    return Coloured(rows, found, axis("value", range(len(found))), (("value", ""),) * len(found))


def _one(found: np.ndarray, name: Any) -> np.ndarray:
    if len(found) != 1:
        raise ViewError(f"values[{name!r}] has {len(found)} sets of numbers; under a name stands one")
    return np.asarray(found[0])


def _sets(values: Any, rows: tuple[Row, ...], tokens: Tokens | None, what: str) -> np.ndarray:
    """Numbers as [which token]. Raises ViewError."""
    lengths = [len(row) for row in rows]
    if isinstance(values, (list, tuple)) and len(values) and not np.isscalar(values[0]) and values[0] is not None:
        parts = [wire.held(_numbers(one), what) for one in values]
        if [one.shape for one in parts] == [(length,) for length in lengths]:
            return np.concatenate(parts)[None]
        if len({one.shape for one in parts}) > 1:
            raise ViewError(f"{what} have {', '.join(map(_size, parts))} numbers; the tokens are {_sizes(lengths)}")
        array = np.stack(parts)
    else:
        array = wire.held(_numbers(values), what)
    if array.shape[-1:] == (0,) or not array.size:
        raise ViewError(f"{what} are empty: give a number for each of the {_sizes(lengths)} tokens")
    cut = _cut(array, lengths, tokens)
    if cut is None:
        raise ViewError(f"{what} have shape {tuple(array.shape)}; the tokens are {_sizes(lengths)}: give [pos] for one row, "
                        "[batch pos] or a list per row for several, a dict for several numbers of the same tokens")
    return cut


def _cut(array: np.ndarray, lengths: Sequence[int], tokens: Tokens | None) -> np.ndarray | None:
    """[pos], [batch pos], [which pos] or [which batch pos] as [which token]; None where it does not fit."""
    if len(lengths) == 1 and array.shape[-1] == lengths[0] and array.ndim <= 2:
        return array.reshape(-1, lengths[0])
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1] != len(lengths):
        return None
    if tokens is not None and array.shape[2] == tokens.width and len(tokens) == len(lengths):
        starts = [tokens.column(i, 0) for i in range(len(tokens))]
    elif set(lengths) == {array.shape[2]}:
        starts = [0] * len(lengths)
    else:
        return None
    return np.concatenate([array[:, i, at:at + n] for i, (at, n) in enumerate(zip(starts, lengths, strict=True))], axis=1)


def _numbers(values: Any) -> Any:
    """None, as for a first token without a prediction, becomes nan."""
    if isinstance(values, (list, tuple)):
        return [np.nan if one is None else one for one in values]
    return values


def _size(array: np.ndarray) -> str:
    return "×".join(map(str, array.shape))


def _sizes(lengths: Sequence[int]) -> str:
    return str(lengths[0]) if len(lengths) == 1 else ", ".join(map(str, lengths[:6])) + (" …" if len(lengths) > 6 else "")


def starts(rows: Sequence[Row]) -> Iterator[int]:
    """Where each row begins among all tokens."""
    at = 0
    for row in rows:
        yield at
        at += len(row)
