"""`MeanPattern` and `VariancePattern`: over examples of different lengths, on spans that all of them have.

    mean = MeanPattern("L5.pattern", {"subject": '"Mary"[0]', "verb": "[4, 5]", "end": "last"})
    hl.extract(model, prompts, reduce={"written": MeanPattern("L5.pattern", spans, weighting="write")})

In: attention, or anything else with positions. Out: its mean with `subject`, `verb 0`, `verb 1`, `end` on the axes. Examples
that do not line up are an error: nothing is cut, padded or broadcast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...address import parse
from ...errors import RecordError
from ...positions import positions
from ...records import Scores
from ...tokens import Tokens
from .reducers import KINDS, Mean, Sums, _divisor, _weighted
from .reducing import POSITIONS, Rows, positions_of
from .weighing import Writes, writes

ALL = ""
"""The name of the one span where none are given."""


class MeanPattern(Mean):
    """The mean over examples of a value at spans of tokens.

    `result` is Scores with the axes of the site, positions labelled by the span, and by the number in it where it has
    several; without spans, by the position.

    Args:
        site: Such as "L5.pattern", "L5.resid_post"; or any name, with `axes`.
        spans: Name -> selector. Each must have the same number of tokens in every example. None takes all tokens, of
            examples of the same length.
        pooled: One entry for each span, however many tokens it has: the mean over its tokens, but their sum on the axis
            `key_pos`, so that it is the attention that the span gets.
        weighting: "write" weighs each entry of a pattern with the length of what the head writes for that key,
            A[q,k] · ‖v_k W_O‖, behind the norm after attention where a model has one. It needs the model (`of`, which
            `hl.extract` calls) and the values (`further`). None takes attention as it is.
        axes: Axis words of the value of one example, where `site` is no site.
    """

    kind: ClassVar[str] = "mean_pattern"
    writes: Writes | None = None

    def __init__(self, site: str, spans: Mapping[str, Any] | None = None, *, pooled: bool = False,
                 weighting: str | None = None, axes: Sequence[str] | None = None) -> None:
        if weighting not in (None, "write"):
            raise RecordError(f'weighting={weighting!r}: attention is weighed with what is written, "write", or not, None')
        self.weighting = weighting
        self.spans = None if spans is None else {str(name): str(positions(value)) for name, value in spans.items()}
        self.pooled = bool(pooled)
        self.widths: dict[str, int] | None = None
        super().__init__(site, axes=axes)
        if spans is not None and not self.spans:
            raise RecordError("there are no spans: give {name: selector}, or None for all tokens")

    def _check(self) -> None:
        if not self.n_positions:
            raise RecordError(f"{self.site} has no positions that could be aligned")
        self.pos = None
        if self.weighting is not None and (self._given is not None or parse(self.site).site != "pattern"):
            raise RecordError(f'weighting="write" weighs a pattern, such as "L5.pattern", and not {self.site}')

    def options(self) -> dict[str, Any]:
        return {"axes": self._given, "spans": self.spans, "pooled": self.pooled, "weighting": self.weighting}

    @property
    def further(self) -> tuple[str, ...]:
        """The values, where they weigh; known of a model (`of`)."""
        return () if self.writes is None else self.writes.sites

    def of(self, model: Any) -> Self:
        """Take W_O, where what is written weighs. Raises SiteError where the model has none."""
        if self.weighting is not None:
            self.writes = writes(model, self.site)
        return self

    def update(self, values: Any, tokens: Tokens | None = None, example_ids: Sequence[Any] | None = None, *,
               weights: Iterable[float] | None = None, further: Mapping[str, Any] | None = None) -> Self:
        """As for every reducer; the tokens are needed, and all positions must come.

        Args:
            values: As for every reducer.
            tokens: Of the examples.
            example_ids: Their names.
            weights: How much each counts.
            further: Values of the sites in `further`, in the same form.

        Raises:
            RecordError: examples do not line up; the message names one, and the span.
        """
        if tokens is None:
            raise RecordError("spans are found in tokens: give them")
        rows = self._weighed(self._rows(values, tokens, example_ids, weights, None), tokens, further or {})
        chosen = [{name: self._of(tokens, i, name, rows.ids[i]) for name in self._names()}
                  for i in range(len(rows.ids))]
        widths = self._agreed(chosen, rows.ids)
        aligned = [self._aligned(value[0], spans, tokens.lengths[i], rows.ids[i])[None]
                   for i, (value, spans) in enumerate(zip(rows.values, chosen, strict=True))]
        if aligned:
            self._add(replace(rows, values=aligned), tokens)
            self.widths = widths
        return self

    def _weighed(self, rows: Rows, tokens: Tokens, further: Mapping[str, Any]) -> Rows:
        """Patterns [1, head query_pos key_pos] times what is written for each key, where that is asked for."""
        if self.weighting is None:
            return rows
        if self.writes is None:
            raise RecordError('weighting="write" needs the weights of the model: reducer.of(model)')
        if lacking := [site for site in self.writes.sites if site not in further]:
            raise RecordError(f"{self!r} needs {lacking[0]} too: update(…, further={{{lacking[0]!r}: values}})")
        each = {site: Mean(site)._unpadded(further[site], tokens) for site in self.writes.sites}
        if odd := [site for site, some in each.items() if len(some) != len(rows.ids)]:
            raise RecordError(f"{odd[0]} comes of {len(each[odd[0]])} examples, and {self.site} of {len(rows.ids)}")
        return replace(rows, values=[self.writes(value[0], {site: some[i] for site, some in each.items()}, rows.ids[i])[None]
                                     for i, value in enumerate(rows.values)])

    def _names(self) -> list[str]:
        return [ALL] if self.spans is None else list(self.spans)

    def _of(self, tokens: Tokens, i: int, name: str, example: str) -> list[int]:
        if self.spans is None:
            return list(range(tokens.lengths[i]))
        return positions_of(self.spans[name], tokens[i], example)

    def _agreed(self, chosen: Sequence[Mapping[str, Sequence[int]]], ids: Sequence[str]) -> dict[str, int] | None:
        """How many tokens each span has in all examples."""
        widths = None if self.widths is None else dict(self.widths)
        for spans, example in zip(chosen, ids, strict=True):
            found = {name: 1 if self.pooled else len(some) for name, some in spans.items()}
            for name, n in found.items():
                if widths is not None and widths[name] != n:
                    what = f"the span {name!r} of example {example!r}" if self.spans else f"example {example!r}"
                    raise RecordError(f"{what} has {n} tokens, and {widths[name]} in the examples before it, so that they "
                                      "do not line up. " + ("Choose a span that has the same number in all, or pooled=True."
                                                         if self.spans else 'Name spans: {"end": "last", …}.'))
            widths = widths or found
        return widths

    def _aligned(self, value: Tensor, spans: Mapping[str, Sequence[int]], length: int, example: str) -> Tensor:
        for axis, word in enumerate(self.axes):
            if word not in POSITIONS:
                continue
            if value.shape[axis] != length:
                raise RecordError(f"{self.site} of example {example!r} comes at {value.shape[axis]} positions for {length} "
                                  "tokens: all are needed")
            parts = [value.index_select(axis, torch.tensor(some, dtype=torch.int64)) for some in spans.values()]
            if self.pooled:
                parts = [part.sum(axis, keepdim=True) if word == "key_pos" else part.mean(axis, keepdim=True)
                         for part in parts]
            value = torch.cat(parts, axis)
        return value

    def result(self) -> Scores:
        """The mean. Raises RecordError where nothing was added."""
        return self._labelled(self._summed().mean, "mean")

    def _labelled(self, values: Tensor, what: str) -> Scores:
        """Scores whose positions are called by their spans."""
        assert self.widths is not None
        labels: list[str | int] = [name if n == 1 else f"{name} {i}" for name, n in self.widths.items() for i in range(n)]
        if self.spans is None and not self.pooled:
            labels = list(range(self.widths[ALL]))
        elif self.spans is None:
            labels = ["all"]
        coords = {word: tuple(labels) for word in self.axes if word in POSITIONS}
        written = "" if self.weighting is None else " what is written through"
        return self._scores(values, f"{what}{written}", self.axes, coords)

    def _merge(self, other: Any) -> None:
        if other.sums is None:
            return
        if self.widths is not None and other.widths != self.widths:
            raise RecordError(f"spans of {other.widths} tokens do not line up with those of {self.widths}")
        super()._merge(other)
        self.widths = other.widths

    def _tensors(self) -> dict[str, Tensor]:
        found = super()._tensors()
        return found if self.widths is None else {**found, "widths": torch.tensor(list(self.widths.values()))}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        if "widths" in state:
            self.widths = dict(zip(self._names(), state["widths"].tolist(), strict=True))


class VariancePattern(MeanPattern):
    """The variance over examples of a value at spans of tokens, made and asked as `MeanPattern` is.

    `result` is divided by Σw - Σw²/Σw, as of `Variance`; `mean` is the mean.
    """

    kind: ClassVar[str] = "variance_pattern"

    def result(self) -> Scores:
        """The variance. Raises RecordError with fewer than two examples."""
        sums: Sums = self._summed()
        assert sums.spread is not None
        return self._labelled(sums.spread / _divisor(sums), "variance of")

    def mean(self) -> Scores:
        """The mean."""
        return super().result()

    def _spread(self, apart: Tensor, weights: Tensor) -> Tensor | None:
        return _weighted(apart * apart, weights)


KINDS.update({one.kind: one for one in (MeanPattern, VariancePattern)})
