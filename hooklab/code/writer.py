"""One edit of one place at one point of a sweep, written as code on the site's tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..compiler.plan.edits import Edit
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.spots import Spot
from ..compiler.plan.values import FromFile, Given, Same
from ..sites import SITES
from .index import PAIRS, Entries, Part, entries, index
from .text import CodeError, I, Leaf, Text, X, cat, joined, listed
from .values import Expr, expression, laid, table, value_of

if TYPE_CHECKING:
    from .program import Base


class Writer:
    """Writes one edit of one spot at one point."""

    def __init__(self, program: Base, run: RunPlan, edit: Edit, spot: Spot, point: int, step: int) -> None:
        self.program, self.run, self.edit, self.spot, self.point = program, run, edit, spot, point
        self.tokens = program.plan.prompts[run.prompt].tokens
        self.size = len(self.tokens)
        self.later = step > 0
        rows = self.size * run.samples
        self.found = Entries(((0,),) * rows, 1, True) if self.later else entries(self.tokens, edit.reach.at, rows)

    def lines(self) -> list[Text]:
        """The code."""
        if not any(self.found.columns):
            return []
        return self.WRITERS[self.edit.verb](self)

    def at(self, *, keep: bool = False) -> Text:
        """The tensor at the entries that are meant."""
        return cat(X, index(self.found, self.spot, self.program.sizes, keep=keep))

    def value(self) -> tuple[Expr, bool]:
        """The amount, laid over the entries."""
        found = expression(self.program, self.edit.value, self.point, len(self.run.cells))
        return laid(found, self.spot, self.found, self.run.samples, self.size)

    # One method for each verb

    def zero(self) -> list[Text]:
        return [cat(self.at(), " = 0")]

    def clamp(self) -> list[Text]:
        bounds = [cat(f"{name}=", _bound(self.edit.option(name))) for name in ("min", "max")
                  if self.edit.option(name) is not None]
        return [cat(self.at(), " = ", self.at(), ".clamp(", joined(bounds, ", "), ")")]

    def arithmetic(self) -> list[Text]:
        sign = {"set": "=", "steer": "+=", "scale": "*="}[self.edit.verb]
        value, keep = self.value()
        return [cat(self.at(keep=keep), f" {sign} ", value.text)]

    def project_out(self) -> list[Text]:
        value, keep = self.value()
        place = self.at(keep=keep or self.spot.units is not None)
        if not value.tensor:
            value = replace(value, text=cat("torch.tensor(", value.text, ")"))
        return [cat(place, " = ", self.program.tool("without"), "(", place, ", ", value.text, ")")]

    def noise(self) -> list[Text]:
        if self.spot.site in PAIRS:
            raise CodeError("noise on attention is not written as code")
        if self.spot.site == "pos_embed" and self.size * self.run.samples > 1:
            raise CodeError("noise on pos_embed, which is the same for all examples, is not written as code")
        if len(set(self.tokens.lengths)) > 1 and not self.later:
            self.found = replace(self.found, every=False)  # padding takes no numbers from the generator
        value, keep = self.value()
        place = self.at(keep=keep)
        seed, line = self.edit.draw
        first, second = self.spot.order
        layer = str(first % 4096) if self.spot.layer is None else I
        drawn = cat(self.program.tool("gaussian"), "(", place, f", ({seed}, {line}, {layer}, {second}))")
        return [cat(place, " += ", value.inner, " * ", drawn)]

    def source(self) -> list[Text]:
        """patch, mean and resample: what another run, or a table, has."""
        value = self.edit.value
        if isinstance(value, Given | FromFile):
            return self._table(value)
        assert isinstance(value, Same)
        if self.later:
            raise CodeError(f"{value.run} has no tokens that were written on; name positions of the prompt: @prompt")
        number = self.edit.option("cell")
        source = self.program.plan.run(value.run)
        acts = self.program.acts(value.run, self.point if number is None else number,
                                 len(self.run.cells) if number is None else len(source.cells))
        whole = cat(acts, f'["{self.spot.site}"', "" if self.spot.layer is None else f", {I}", "]")
        if self.edit.verb == "mean" and self.edit.option("per") == "all":
            mean = cat(whole, self.program.real(source), ".mean(0)" if self.program.real(source) else ".mean((0, 1))")
            if self.spot.site in PAIRS:
                raise CodeError("a mean over all tokens of attention is not written as code")
            part = index(Entries(((0,),), 1, True), self.spot, self.program.sizes, keep=True)
            narrow = self.spot.heads is not None or self.spot.units is not None
            return [cat(self.at(keep=True), " = ", mean, _after_position(part) if narrow else ())]
        answer, uneven = self._answering(source, value)
        if uneven:  # what answers differs from example to example, so both sides go entry by entry
            self.found = _Pairs(self.found.columns, self.found.width, False, tuple(range(len(self.found.columns))))
        return [cat(self.at(), " = ", whole, answer)]

    def _answering(self, source: RunPlan, value: Same) -> tuple[Text, bool]:
        """The source's entries that answer to the place's, in the same shape; and whether they go entry by entry."""
        program, mean = self.program, self.edit.verb == "mean"
        tokens = program.plan.prompts[source.prompt].tokens
        height = 1 if mean else len(tokens) * source.samples
        drawn = self._drawn(len(tokens)) if self.edit.verb == "resample" else None
        rows, columns = [], []
        for row in range(len(self.found.columns)):
            inside = drawn[row] if drawn is not None else 0 if height == 1 else self._source_row(row, height)
            example = inside % len(tokens)
            taken: Sequence[int] = range(tokens.lengths[example])
            if value.at is not None:
                taken = value.at[min(example if len(value.at) > 1 else row % self.size, len(value.at) - 1)]
            found = tuple(tokens.column(example, p) for p in taken)
            rows.append(inside)
            columns.append(found[:len(self.found.columns[row])])
        picked = cat(".mean(0, keepdim=True)") if mean else ()
        every = self.found.every and columns == list(self.found.columns) and tokens.width == self.tokens.width
        lined = rows == list(range(height)) or (height == 1 and not any(rows))
        places = Entries(tuple(columns), int(tokens.width), every)
        if (self.found.common is None and not self.found.every) or (places.common is None and not every):
            pairs = _Pairs(tuple(columns), int(tokens.width), False, tuple(rows))
            return cat(picked, index(pairs, self.spot, program.sizes)), True
        if not lined:
            picked = cat(picked, "[", Leaf("examples", listed(rows), listed(rows)), "]")
        narrow = not every or self.spot.heads is not None or self.spot.units is not None
        return cat(picked, index(places, self.spot, program.sizes)) if narrow else picked, False

    def _source_row(self, row: int, height: int) -> int:
        if height == self.size * self.run.samples:
            return row
        return row % self.size if height == self.size else row // self.size

    def _drawn(self, size: int) -> list[int]:
        """Which example each row takes: the same draw as when the spec is run."""
        made = torch.Generator().manual_seed(hash(self.edit.draw) % (1 << 63))
        return [int(n) for n in torch.randint(size, (self.size * self.run.samples,), generator=made).tolist()]

    def _table(self, value: Given | FromFile) -> list[Text]:
        found = table(self.program, value, self.spot)
        if found is None:
            laid_, keep = self.value()
            return [cat(self.at(keep=keep), " = ", laid_.text)]
        text, tensor = found
        tensor = torch.as_tensor(tensor)
        axes = SITES[self.spot.site].axes
        whole = tensor.ndim == len(axes) and tensor.shape[2 if self.spot.site in PAIRS else 1] == self.tokens.width
        if whole and len(tensor) in (1, len(self.tokens)) and not self.later:
            if len(tensor) == 1 < self.size and self.found.common is None:
                raise CodeError("one example cannot be laid over positions that differ from example to example")
            return [cat(self.at(), " = ", text, index(self.found, self.spot, self.program.sizes))]
        placed, keep = laid(value_of(tensor, text), self.spot, self.found, self.run.samples, self.size)
        return [cat(self.at(keep=keep), " = ", placed.text)]

    def cut(self) -> list[Text]:
        renorm = bool(self.edit.option("renorm"))
        value = f"torch.finfo({X}.dtype).min" if renorm else "0"
        rows = len(self.found.columns)
        keys = entries(self.tokens, self.edit.keys, rows)
        queries = self.found.common
        if queries is not None and keys.common is not None:
            return self._edges(":", queries, keys.common, 1 if self.later else int(self.tokens.width), value)
        out = []
        for row in range(rows):
            out += self._edges(str(row), self.found.columns[row], keys.columns[row], 0, value)
        return out

    def _edges(self, row: str, queries: Sequence[int], keys: Sequence[int], width: int, value: str) -> list[Text]:
        if not queries or not keys:
            return []
        query = ":" if self.later else Part("query", tuple(queries), width)
        key = Part("key", tuple(keys))
        nested = not isinstance(query, str) and query.is_list() and key.is_list()
        ends = [query if isinstance(query, str) else query.leaf(False, int(nested)), key.leaf(False)]
        if self.spot.heads is not None and (key.is_list() or (not isinstance(query, str) and query.is_list())):
            heads: list[Any] = [str(head) for head in self.spot.heads]
        else:
            heads = [Part("head", self.spot.heads).leaf(False)]
        return [cat(X, "[", joined([row, head, *ends], ", "), f"] = {value}") for head in heads]

    WRITERS: dict[str, Callable[[Writer], list[Text]]] = {
        "zero": zero, "clamp": clamp, "set": arithmetic, "steer": arithmetic, "scale": arithmetic,
        "project_out": project_out, "noise": noise, "patch": source, "mean": source, "resample": source, "cut": cut,
    }


@dataclass(frozen=True)
class _Pairs(Entries):
    """Entries whose rows are not their own."""

    chosen: tuple[int, ...] = ()

    @property
    def common(self) -> tuple[int, ...] | None:
        return None

    @property
    def rows(self) -> list[int]:
        return [self.chosen[row] for row, columns in enumerate(self.columns) for _ in columns]


def _bound(given: float) -> Leaf:
    return Leaf("bound", repr(given), repr(given))


def _after_position(brackets: Text) -> Text:
    """Brackets of [row pos …] without the first two axes."""
    head, *rest = brackets
    assert isinstance(head, str)
    return cat("[" + head.removeprefix("[:, :, ") if head.startswith("[:, :, ") else head, *rest)
