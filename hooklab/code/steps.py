"""The edits of a plan as lines of code on a site's tensor `x`, one for every point of a sweep.

    plan.Edit ──by site──▶ Step (what to write, at each point) ──Loop──▶ lines that both programs share
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ..compiler.plan import Edit, FromFile, Given, Reach, RunPlan, Same, Spot
from ..sites import ORDER, SITES
from .index import PAIRS, Entries, entries, index
from .loop import Loop
from .text import CodeError, I, Leaf, Text, X, cat, joined, listed, ranged, skeleton
from .values import Expr, _python, expression, laid, table

if TYPE_CHECKING:
    from .program import Program


@dataclass(frozen=True)
class Made:
    """One edit of one site at one point: the layers, and the lines."""

    site: str
    layers: tuple[int, ...] | None
    lines: tuple[Text, ...]

    @property
    def where(self) -> Text:
        """The layers as text: one number, or several to go over."""
        if self.layers is None:
            return ()
        if len(self.layers) == 1:
            return cat(Leaf("layer", str(self.layers[0]), str(self.layers[0])))
        return cat(Leaf("layers", ranged(self.layers), ranged(self.layers)))

    @property
    def shape(self) -> Any:
        """What must agree for two to be one line of a loop."""
        many = self.layers is not None and len(self.layers) > 1
        return self.site, self.layers is None, many, tuple(skeleton(line) for line in self.lines)


@dataclass
class Step:
    """What happens at one site, in all points that do alike.

    Attributes:
        site: The site.
        layers: None for a site of the whole model; else the layer, or several to go over, as text.
        numbers: The layers, when they are the same at every point.
        lines: Code on `X`, the tensor, and `I`, the layer.
        only: The condition on the point of the sweep; empty for all points.
        note: The line of the spec that it comes from.
        verb: What it does; `keep` for reading.
        edit: Its place among the edits.
    """

    site: str
    layers: str | None
    numbers: tuple[int, ...] | None
    lines: list[str]
    only: str = ""
    note: str = ""
    verb: str = "keep"
    edit: int = 1 << 30
    many: bool = field(default=False)

    @property
    def rank(self) -> tuple[int, int]:
        """The order of steps in one layer."""
        return ORDER[self.site], self.edit

    @property
    def early(self) -> bool:
        """Whether it comes before the blocks."""
        return self.layers is None and ORDER[self.site] < ORDER["resid_pre"]


def steps(program: Program, run: RunPlan, loop: Loop, step: int = 0) -> list[Step]:
    """The edits of a run at one step of its forward passes (0 is the prompt), in the order of their lines."""
    counts = {len(cell.edits) for cell in run.cells}
    if len(counts) != 1:
        raise CodeError("the points of this sweep have different numbers of edits")
    made: list[dict[int, list[Made]]] = []
    for number in range(counts.pop()):
        edits = {point: cell.edits[number] for point, cell in enumerate(run.cells)}
        with program.about(edits[0]):
            made.append({point: _made(program, run, edit, point, step) for point, edit in edits.items()
                         if edit.reach.holds(step)})
    for found in made:
        for variant in _variants(found):
            loop.learn({point: cat(*one.lines, one.where) for point, one in variant.items()})
    out = []
    for number, found in enumerate(made):
        edit = run.cells[0].edits[number]
        for variant in _variants(found):
            out.append(_step(variant, loop, edit.verb, program.note(edit), number))
    return out


def _variants(found: dict[int, list[Made]]) -> list[dict[int, Made]]:
    """The sites of an edit, each with the points that write alike."""
    groups: dict[Any, dict[int, Made]] = {}
    for point, sites in found.items():
        seen: dict[Any, int] = {}
        for made in sites:
            count = seen[made.shape] = seen.get(made.shape, -1) + 1
            groups.setdefault((made.shape, count), {})[point] = made
    return list(groups.values())


def _step(made: dict[int, Made], loop: Loop, verb: str, note: str, number: int) -> Step:
    first = next(iter(made.values()))
    same = {one.layers for one in made.values()}
    layers = None if first.layers is None else loop.fill({point: one.where for point, one in made.items()})
    lines = [loop.fill({point: one.lines[n] for point, one in made.items()}) for n in range(len(first.lines))]
    return Step(first.site, layers, first.layers if len(same) == 1 else None, lines, loop.only(made), note, verb, number,
                first.layers is not None and len(first.layers) > 1)


def _made(program: Program, run: RunPlan, edit: Edit, point: int, step: int) -> list[Made]:
    """An edit at one point: spots that are written alike become one."""
    groups: dict[Any, list[int]] = {}
    for spot in edit.spots:
        if spot.sae is not None:
            raise CodeError("features of a dictionary are not written as code")
        lines = tuple(Writer(program, run, edit, spot, point, step).lines())
        known = groups.setdefault((spot.site, spot.layer is None, lines), [])
        if spot.layer is not None:
            known.append(spot.layer)
    return [Made(site, None if whole else tuple(dict.fromkeys(layers)), lines)
            for (site, whole, lines), layers in groups.items() if lines]


class Writer:
    """Writes one edit of one spot at one point."""

    def __init__(self, program: Program, run: RunPlan, edit: Edit, spot: Spot, point: int, step: int) -> None:
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
        return [cat(self.at(), " = ", whole, self._answering(source, value))]

    def _answering(self, source: RunPlan, value: Same) -> Text:
        """The source's entries that answer to the place's, in the same shape."""
        program, mean = self.program, self.edit.verb == "mean"
        tokens = program.plan.prompts[source.prompt].tokens
        height = 1 if mean else len(tokens) * source.samples
        drawn = self._drawn(len(tokens)) if self.edit.verb == "resample" else None
        rows, columns = [], []
        for row in range(len(self.found.columns)):
            inside = drawn[row] if drawn is not None else 0 if height == 1 else self._source_row(row, height)
            example = inside % len(tokens)
            if value.at is None:
                taken = range(tokens.lengths[example])
            else:
                taken = value.at[min(example if len(value.at) > 1 else row % self.size, len(value.at) - 1)]
            found = tuple(tokens.column(example, p) for p in taken)
            rows.append(inside)
            columns.append(found[:len(self.found.columns[row])])
        picked = cat(".mean(0, keepdim=True)") if mean else ()
        every = self.found.every and [c for c in columns] == list(self.found.columns) and tokens.width == self.tokens.width
        lined = rows == list(range(height)) or (height == 1 and not any(rows))
        places = Entries(tuple(columns), int(tokens.width), every)
        if self.found.common is None and not self.found.every:
            return cat(picked, index(_Pairs(tuple(columns), int(tokens.width), False, tuple(rows)), self.spot, program.sizes))
        if not lined:
            picked = cat(picked, "[", Leaf("examples", listed(rows), listed(rows)), "]")
        if places.common is None and not every:
            raise CodeError("the source's positions differ from example to example")
        return cat(picked, index(places, self.spot, program.sizes)) if not every or self.spot.heads or self.spot.units else picked

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
        placed, keep = laid(_python(tensor, text), self.spot, self.found, self.run.samples, self.size)
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
        from .index import Part

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


__all__ = ["Made", "Reach", "Step", "Writer", "steps"]
