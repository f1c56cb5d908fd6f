"""What all reducers share: how values become rows of float64 without padding, and how a state goes to a file and back.

In: values as a forward pass gave them, and the tokens they belong to. Out: `Rows`, which every reducer adds up in its way.
The reducers themselves are in `reducers`, `counts` and `aligned`.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...address import parse
from ...errors import HooklabError, RecordError
from ...positions import resolve
from ...sites import SITES
from ...tokens import Tokens

POSITIONS = ("pos", "query_pos", "key_pos", "step")


@dataclass(frozen=True)
class Rows:
    """The values of some examples, without padding.

    Attributes:
        values: Per example in float64 on the CPU, [row, *rest]: a row per position, or one where there are none.
        ids: The examples' ids.
        weights: One number per example.
    """

    values: list[Tensor]
    ids: tuple[str, ...]
    weights: tuple[float, ...]


class Reducer(ABC):
    """Base of what adds up values as they stream by, in float64.

    Every reducer has `update` for a batch, `merge` for what another worker has, `state` and `from_state` for a checkpoint,
    and `result`. What is refused with an error is not counted at all.

    Args:
        site: The address of what comes, such as "L3.resid_post"; or any name, with `axes`.
        axes: Axis words of the value of one example, where `site` is no site: ("pos", "feature").
        at: Which positions count: a selector, resolved per example. None counts all that come.
        per: "token" counts every row; "example" counts the mean of each example's rows, so that long ones weigh no more.
    """

    kind: ClassVar[str] = ""

    def __init__(self, site: str, *, axes: Sequence[str] | None = None, at: Any = None, per: str = "token") -> None:
        if per not in ("token", "example"):
            raise RecordError(f'per={per!r}: rows are counted per "token" or per "example"')
        self.site, self.at, self.per = site, None if at is None else str(at), per
        self.axes = SITES[parse(site).site].axes[1:] if axes is None else tuple(axes)
        self._given = None if axes is None else list(axes)
        places = [axis for axis in self.axes if axis in POSITIONS]
        self.pos = self.axes.index(places[0]) if len(places) == 1 else None
        self.n_positions = len(places)
        self._check()
        self.rest = tuple(axis for axis in self.axes if axis not in POSITIONS)

    def __repr__(self) -> str:
        said = "".join(f", {name}={value!r}" for name, value in self.options().items() if value not in (None, "token"))
        return f"{type(self).__name__}({self.site!r}{said})"

    def _check(self) -> None:
        if self.n_positions > 1:
            raise RecordError(f"{self.site} has the axes {' '.join(self.axes)}, which differ in length from example to "
                              "example: MeanPattern takes their mean over named spans")
        if self.at is not None and self.pos is None:
            raise RecordError(f"{self.site} has the axes {' '.join(self.axes)}: there are no positions for at={self.at!r}")

    @property
    def further(self) -> tuple[str, ...]:
        """Sites whose values it needs beside its own: `update(…, further={site: values})`."""
        return ()

    def of(self, model: Any) -> Self:
        """Take from the model whose values will come what is needed of it, such as weights. Returns itself."""
        return self

    def options(self) -> dict[str, Any]:
        """What it was made with, beside the site."""
        return {"axes": self._given, "at": self.at, "per": self.per}

    def update(self, values: Any, tokens: Tokens | None = None, example_ids: Sequence[Any] | None = None, *,
               weights: Iterable[float] | None = None) -> Self:
        """Take in the values of some examples. Returns itself.

        Args:
            values: A tensor [batch, *axes], padded as `tokens` are; or a tensor [*axes] for each example, without padding,
                and with all positions if `at` is to choose among them.
            tokens: Of the examples, as in `Activations.tokens` or `Batch.tokens`.
            example_ids: Names of the examples; numbers of this call where they are not given.
            weights: How much each example counts; 1 where they are not given.

        Raises:
            RecordError: shapes do not fit, or a value is no finite number.
            PositionError, TokenError: an example lacks what `at` asks for.
        """
        rows = self._rows(values, tokens, example_ids, weights, self.at)
        if rows.values:
            self._add(rows, tokens)
        return self

    def merge(self, other: Self) -> Self:
        """Take in what another reducer of the same kind and settings has. Returns itself.

        Raises:
            RecordError: it is another kind, or was made otherwise.
        """
        if type(other) is not type(self) or (other.site, other.options()) != (self.site, self.options()):
            raise RecordError(f"{_called(other)} cannot be merged into {_called(self)}: they must be made alike")
        self._merge(other)
        return self

    def state(self) -> dict[str, Tensor]:
        """All there is, as plain tensors; `from_state` makes the reducer again."""
        about = {"kind": self.kind, "site": self.site, "options": self.options()}
        return {"about": packed(about), **self._tensors()}

    @abstractmethod
    def result(self) -> Any:
        """What came of it; see the class."""

    @abstractmethod
    def _add(self, rows: Rows, tokens: Tokens | None) -> None:
        """Take in rows that were checked, of these tokens."""

    @abstractmethod
    def _merge(self, other: Any) -> None:
        """Take in what another one made alike has."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """What there is, beside `about`."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `_tensors` gave."""

    # Rows ------------------------------------------------------------------------------------------------------------

    def _rows(self, values: Any, tokens: Tokens | None, example_ids: Sequence[Any] | None,
              weights: Iterable[float] | None, at: str | None) -> Rows:
        each = self._unpadded(values, tokens)
        n = len(each)
        ids = tuple(map(str, range(n) if example_ids is None else example_ids))
        shares = tuple(float(weight) for weight in ([1.0] * n if weights is None else weights))
        for name, count in (("example_ids", len(ids)), ("weights", len(shares)), ("tokens", len(tokens or ids))):
            if count != n:
                raise RecordError(f"{name} are {count}, and there are values of {n} examples")
        if any(not math.isfinite(share) or share < 0 for share in shares):
            raise RecordError("weights are finite numbers from 0")
        if self.pos is not None:
            each = [value.movedim(self.pos, 0) for value in each]
            if at is not None:
                chosen = self._picked(at, each, tokens, ids)
                each = [value[rows] for value, rows in zip(each, chosen, strict=True)]
        else:
            each = [value[None] for value in each]
        for value, name in zip(each, ids, strict=True):
            self._checked(value, name)
        return Rows(each, ids, shares)

    def _checked(self, value: Tensor, name: str) -> None:
        if not value.isfinite().all():
            raise RecordError(f"{self.site} of example {name!r} holds what is no finite number")

    def _picked(self, at: str, each: list[Tensor], tokens: Tokens | None, ids: Sequence[str]) -> list[list[int]]:
        if tokens is None:
            raise RecordError(f"at={at!r} needs the tokens of the examples")
        found = []
        for i, (value, name) in enumerate(zip(each, ids, strict=True)):
            if len(value) != tokens.lengths[i]:
                raise RecordError(f"{self.site} of example {name!r} comes at {len(value)} positions for {tokens.lengths[i]} "
                                  f"tokens, so that at={at!r} cannot choose among them")
            found.append(positions_of(at, tokens[i], name))
        return found

    def _unpadded(self, values: Any, tokens: Tokens | None) -> list[Tensor]:
        """The value of each example, [*axes] in float64."""
        places = [axis for axis, word in enumerate(self.axes) if word in POSITIONS]
        if not isinstance(values, Tensor):
            each = [torch.as_tensor(value) for value in values]
            for value in each:
                if value.ndim != len(self.axes):
                    raise RecordError(f"{self.site} of one example has the axes {' '.join(self.axes) or '(none)'}, not the "
                                      f"shape {list(value.shape)}")
            return [value.detach().to("cpu", torch.float64) for value in each]
        if values.ndim != len(self.axes) + 1:
            raise RecordError(f"{self.site} has the axes batch {' '.join(self.axes)}, not the shape {list(values.shape)}. "
                              "Values of some positions only come as a list, a tensor per example.")
        whole = values.detach().to("cpu", torch.float64)
        if not places:
            return list(whole)
        if tokens is None:
            raise RecordError(f"{self.site} is padded: give the tokens that it belongs to")
        if len(tokens) != len(whole) or any(whole.shape[axis + 1] != tokens.width for axis in places):
            raise RecordError(f"{self.site} of shape {list(values.shape)} does not fit {len(tokens)} examples of up to "
                              f"{tokens.width} tokens. Values of some positions only come as a list, a tensor per example.")
        return [_cut(value, places, tokens.column(i, 0), tokens.lengths[i]) for i, value in enumerate(whole)]


def _cut(value: Tensor, axes: Sequence[int], start: int, length: int) -> Tensor:
    for axis in axes:
        value = value.narrow(axis, start, length)
    return value


def positions_of(selector: Any, tokens: Tokens, name: str) -> list[int]:
    """The positions that a selector means in one example; errors name it."""
    try:
        return resolve(selector, tokens)[0]
    except HooklabError as error:
        raise type(error)(f"example {name!r}: {error}") from None


def _called(reducer: Any) -> str:
    if not isinstance(reducer, Reducer):
        return type(reducer).__name__
    said = ", ".join(f"{name}={value!r}" for name, value in reducer.options().items() if value is not None)
    return f"{type(reducer).__name__}({reducer.site!r}, {said})"


def packed(value: Any) -> Tensor:
    """Text, numbers, lists and dictionaries as a tensor of bytes.

    >>> unpacked(packed({"a": [1, "é"]}))
    {'a': [1, 'é']}
    """
    return torch.tensor(list(json.dumps(value, ensure_ascii=False).encode()), dtype=torch.uint8)


def unpacked(tensor: Tensor) -> Any:
    """What was packed. Raises RecordError where it was not."""
    try:
        return json.loads(bytes(tensor.tolist()))
    except (ValueError, TypeError) as error:
        raise RecordError(f"this is no state of a reducer: {error}") from None
