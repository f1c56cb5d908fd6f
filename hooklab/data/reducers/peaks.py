"""`MaxK`: the strongest tokens of every number of a site, with what stands around them, over a stream of examples.

In: batches of activations with their tokens. Each is ranked by `analysis.counting`, and what it found is merged into what
was found before, in an order that neither batches nor workers change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ...analysis.counting import CHUNK, Chunk, First
from ...errors import RecordError
from ...records import Scores
from ...tokens import Tokens
from .reducers import KINDS
from .reducing import Reducer, Rows, packed, positions_of, unpacked


@dataclass(frozen=True)
class Peak:
    """A token at which a number is large, and what stands around it.

    Attributes:
        example: The example's id.
        pos: Which token of it.
        value: The number there.
        start: The position of the first token of the window.
        pieces: The window's tokens.
        values: Their numbers, [pos].
    """

    example: str
    pos: int
    value: float
    start: int
    pieces: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class _Ranked:
    """Places by rank: `score`, `example`, `pos` [feature rank], and around them `values` and `pieces` [feature rank window];
    `names` and `words` say which example and piece a number means. -inf scores are no places."""

    score: Tensor
    example: Tensor
    pos: Tensor
    values: Tensor
    pieces: Tensor
    names: tuple[str, ...]
    words: tuple[str, ...]


class MaxK(Reducer):
    """The `k` tokens at which each number of a site is largest, with `window` tokens on either side.

    Of equal ones the example whose id comes first is taken (numbers by their size, before other ids), then the earlier
    token, so that neither batches nor workers change what is found. An exact 0 does not count. Several axes are laid out as
    one, `feature`. `result` is Scores [feature rank], nan where there are fewer; `peaks` has the tokens.

    Args:
        site, axes, at: As for every reducer; all positions must come.
        k: Places of each.
        window: Tokens around them.
        per: "token", or "example": each example with its strongest token.
    """

    kind: ClassVar[str] = "max_k"
    ranked: _Ranked | None = None

    def __init__(self, site: str, k: int = 20, window: int = 12, *, axes: Sequence[str] | None = None, at: Any = None,
                 per: str = "token") -> None:
        super().__init__(site, axes=axes, at=at, per=per)
        for name, value, least in (("k", k, 1), ("window", window, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise RecordError(f"{name}={value!r}: it is a whole number from {least}")
        if self.pos is None:
            raise RecordError(f"{self.site} has no positions, among which the strongest could be found")
        self.k, self.window = k, window

    def options(self) -> dict[str, Any]:
        return {**super().options(), "k": self.k, "window": self.window}

    def update(self, values: Any, tokens: Tokens | None = None, example_ids: Sequence[Any] | None = None, *,
               weights: Any = None) -> Self:
        """As for every reducer; tokens and ids are needed, and weights are refused."""
        if weights is not None or tokens is None or example_ids is None:
            raise RecordError("the strongest tokens need tokens and example_ids, and examples have no weights among them")
        # Rows around a place are needed as well as those that count, so that `at` chooses only later.
        rows = self._rows(values, tokens, example_ids, None, None)
        for value, name, length in zip(rows.values, rows.ids, tokens.lengths, strict=True):
            if len(value) != length:
                raise RecordError(f"{self.site} of example {name!r} comes at {len(value)} positions for {length} tokens: "
                                  "all are needed")
        if rows.values:
            self._add(rows, tokens)
        return self

    def _add(self, rows: Rows, tokens: Tokens | None) -> None:
        assert tokens is not None
        found = self._found(rows, tokens)
        self.ranked = found if self.ranked is None else self._joined(self.ranked, found)

    def _found(self, rows: Rows, tokens: Tokens) -> _Ranked:
        """The strongest of one update."""
        order = sorted(range(len(rows.ids)), key=lambda i: _order(rows.ids[i]))
        width, size = max(map(len, rows.values)), rows.values[0][0].numel()
        values = torch.zeros(len(order), width, size, dtype=torch.float64)
        counted = torch.zeros(len(order), width, dtype=torch.bool)
        words: dict[str, int] = {}
        pieces = torch.full((len(order), width), -1)
        for row, i in enumerate(order):
            n = len(rows.values[i])
            values[row, :n] = rows.values[i].reshape(n, size)
            counted[row, self._at(tokens, i, rows.ids[i])] = True
            pieces[row, :n] = torch.tensor([words.setdefault(piece, len(words)) for piece in tokens.pieces[i]])
        score, text, pos, around = (torch.cat(parts) for parts in zip(*self._best(values, counted), strict=True))
        places = pos[..., None] + torch.arange(-self.window, self.window + 1)
        said = pieces[text[..., None].expand_as(places), places.clamp(0, width - 1)]
        said = said.masked_fill((places < 0) | (places >= width), -1)
        return _Ranked(score, text, pos, around, said, tuple(rows.ids[i] for i in order), tuple(words))

    def _best(self, values: Tensor, counted: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Score, row, position and what is around, [feature rank …], for some features at a time."""
        block = max(1, CHUNK // (values.itemsize * counted.numel()))
        for some in values.split(block, dim=2):
            first = First(some.shape[2], self.k, self.window, {"example": "text"}.get(self.per, self.per))
            first.see(Chunk(some, counted, 0))
            yield first.best.score, first.best.text, first.best.pos, first.best.around.double()

    def _at(self, tokens: Tokens, i: int, name: str) -> list[int]:
        return list(range(tokens.lengths[i])) if self.at is None else positions_of(self.at, tokens[i], name)

    def _joined(self, one: _Ranked, two: _Ranked) -> _Ranked:
        """The strongest of both, by score, then by the order of the ids, then by position."""
        if len(one.score) != len(two.score):
            raise RecordError(f"these values have {len(two.score)} numbers per token, those before had {len(one.score)}")
        names = tuple(sorted({*one.names, *two.names}, key=_order))
        words = tuple(dict.fromkeys((*one.words, *two.words)))
        parts = [(_renamed(part.example, part.names, names), part) for part in (one, two)]
        example = torch.cat([numbers for numbers, _ in parts], 1)
        pos, score = (torch.cat([getattr(part, name) for part in (one, two)], 1) for name in ("pos", "score"))
        order = pos.argsort(dim=1, stable=True)
        order = order.gather(1, example.gather(1, order).argsort(dim=1, stable=True))
        order = order.gather(1, score.gather(1, order).argsort(dim=1, descending=True, stable=True))[:, :self.k]
        wide = order[..., None].expand(-1, -1, 2 * self.window + 1)
        values = torch.cat([one.values, two.values], 1).gather(1, wide)
        pieces = torch.cat([_renamed(part.pieces, part.words, words) for part in (one, two)], 1).gather(1, wide)
        return _pruned(_Ranked(score.gather(1, order), example.gather(1, order), pos.gather(1, order), values, pieces,
                               names, words))

    def _merge(self, other: MaxK) -> None:
        if other.ranked is not None:
            self.ranked = other.ranked if self.ranked is None else self._joined(self.ranked, other.ranked)

    def result(self) -> Scores:
        """The largest numbers. Raises RecordError where nothing was added."""
        found = self._places()
        labels = np.full(found.score.shape, "", dtype=object)
        for feature, rank in found.score.isfinite().nonzero().tolist():
            piece = int(found.pieces[feature, rank, self.window])
            labels[feature, rank] = f"{found.names[int(found.example[feature, rank])]}: {found.words[piece]}"
        values = found.score.masked_fill(~found.score.isfinite(), torch.nan)
        return Scores(values.numpy().copy(), ("feature", "rank"), labels=labels, name=f"largest of {self.site}")

    def peaks(self, feature: int) -> list[Peak]:
        """The tokens of one number, strongest first. Raises RecordError where there is no such number."""
        found = self._places()
        if not 0 <= feature < len(found.score):
            raise RecordError(f"there is no number {feature}: {self.site} has {len(found.score)} per token")
        made = []
        for rank in range(int(found.score[feature].isfinite().sum())):
            pos, around = int(found.pos[feature, rank]), found.pieces[feature, rank].tolist()
            there = [i for i, piece in enumerate(around) if piece >= 0]
            made.append(Peak(found.names[int(found.example[feature, rank])], pos, float(found.score[feature, rank]),
                             pos - self.window + there[0], tuple(found.words[around[i]] for i in there),
                             found.values[feature, rank][there].numpy().copy()))
        return made

    def _places(self) -> _Ranked:
        if self.ranked is None:
            raise RecordError(f"nothing of {self.site} was added yet")
        return self.ranked

    def _tensors(self) -> dict[str, Tensor]:
        if self.ranked is None:
            return {}
        tensors = {name: getattr(self.ranked, name).clone() for name in ("score", "example", "pos", "values", "pieces")}
        return {**tensors, "texts": packed([self.ranked.names, self.ranked.words])}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        if "texts" in state:
            names, words = unpacked(state["texts"])
            parts = {name: state[name].clone() for name in ("score", "example", "pos", "values", "pieces")}
            self.ranked = _Ranked(**parts, names=tuple(names), words=tuple(words))


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers by their size, then other ids by their letters."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name


def _renamed(numbers: Tensor, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """Numbers of `old` names as those of `new` ones; -1 stays."""
    place = {name: i for i, name in enumerate(new)}
    table = torch.tensor([*(place[name] for name in old), -1])
    return table[numbers]  # -1 takes the last


def _pruned(ranked: _Ranked) -> _Ranked:
    """The same without names and words that are no longer meant."""
    def used(numbers: Tensor, texts: tuple[str, ...]) -> tuple[Tensor, tuple[str, ...]]:
        kept = [i for i in numbers.unique().tolist() if i >= 0]
        table = torch.full((len(texts) + 1,), -1)
        table[kept] = torch.arange(len(kept))
        return table[numbers], tuple(texts[i] for i in kept)

    example, names = used(ranked.example, ranked.names)
    pieces, words = used(ranked.pieces, ranked.words)
    return _Ranked(ranked.score, example, ranked.pos, ranked.values, pieces, names, words)


KINDS[MaxK.kind] = MaxK
