"""The edits of a plan as lines of code on a site's tensor `x`, one for every point of a sweep.

    plan.Edit ──by site──▶ Step (what to write, at each point) ──Loop──▶ lines that both programs share
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..compiler.plan.edits import Edit
from ..compiler.plan.runs import RunPlan
from ..sites import ORDER
from .loop import Loop
from .text import CodeError, Leaf, Text, cat, ranged, skeleton
from .writer import Writer

if TYPE_CHECKING:
    from .program import Base


@dataclass(frozen=True)
class Made:
    """One edit of one site at one point: the layers, and the lines."""

    site: str
    layers: tuple[int, ...] | None
    lines: tuple[Text, ...]
    many: bool = False

    @property
    def where(self) -> Text:
        """The layers as text: one number, or several to go over."""
        if self.layers is None:
            return ()
        if not self.many:
            return cat(Leaf("layer", str(self.layers[0]), str(self.layers[0])))
        return cat(Leaf("layers", ranged(self.layers), ranged(self.layers)))

    @property
    def shape(self) -> Any:
        """What must agree for two to be one line of a loop."""
        return self.site, self.layers is None, self.many, tuple(skeleton(line) for line in self.lines)


@dataclass
class Step:
    """What happens at one site, in all points that do alike.

    Attributes:
        site: The site.
        layers: None for a site of the whole model; else the layer, or several to go over, as text.
        numbers: The layers, when they are the same at every point.
        lines: Code on `X`, the tensor, and `I`, the layer.
        only: The condition on the point of the sweep; empty for all points.
        when: Under generation: the condition on the number of the pass, with `{0}` for it; empty for all passes.
        note: The line of the spec that it comes from.
        verb: What it does; `keep` for reading.
        edit: Its place among the edits.
    """

    site: str
    layers: str | None
    numbers: tuple[int, ...] | None
    lines: list[str]
    only: str = ""
    when: str = ""
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


def steps(program: Base, run: RunPlan, loop: Loop, step: int = 0) -> list[Step]:
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
    made = [_alike(found) for found in made]
    for found in made:
        for variant in _variants(found):
            loop.learn({point: cat(*one.lines, one.where) for point, one in variant.items()})
    out = []
    for number, found in enumerate(made):
        edit = run.cells[0].edits[number]
        for variant in _variants(found):
            out.append(_step(variant, loop, edit.verb, program.note(edit), number))
    return _merged(out)


def _alike(found: dict[int, list[Made]]) -> dict[int, list[Made]]:
    """Where some points of an edit have several layers, those with one layer are written as several too."""
    wide = {replace(made, many=False).shape for sites in found.values() for made in sites if made.many}
    return {point: [replace(made, many=True) if made.shape in wide else made for made in sites]
            for point, sites in found.items()}


def _merged(found: list[Step]) -> list[Step]:
    """Edits of one line that do the same in different layers become one."""
    out: dict[Any, Step] = {}
    for step in found:
        key = (step.site, tuple(step.lines), step.only, step.note, step.verb) if step.numbers and step.note else id(step)
        known = out.get(key)
        if known is None or set(known.numbers or ()) & set(step.numbers or ()):
            out[key if known is None else id(step)] = step
            continue
        layers = tuple(sorted((*(known.numbers or ()), *(step.numbers or ()))))
        out[key] = replace(known, layers=ranged(layers), numbers=layers, many=True)
    return list(out.values())


def passes(program: Base, run: RunPlan, loop: Loop, count: int) -> list[Step]:
    """The edits of a run while it writes on, each with the passes that it acts in."""
    chosen = any(edit.reach.steps is not None for cell in run.cells for edit in cell.edits)
    last = count if chosen else min(count, 2)  # all passes after the first are alike unless the spec tells them apart
    found: list[tuple[Step, list[int]]] = []
    for number in range(last):
        for made in steps(program, run, loop, number):
            same = next((numbers for known, numbers in found if known == made), None)
            if same is None:
                found.append((made, [number]))
            else:
                same.append(number)
    return [replace(step, when=_when(numbers, last)) for step, numbers in found]


def _when(numbers: list[int], count: int) -> str:
    if len(numbers) == count:
        return ""
    if count > 1 and numbers == list(range(1, count)):
        return "{0} > 0"
    return f"{{0}} == {numbers[0]}" if len(numbers) == 1 else f"{{0}} in {ranged(numbers)}"


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
    return Step(first.site, layers, first.layers if len(same) == 1 else None, lines, loop.only(made), "", note, verb,
                number, first.many)


def _made(program: Base, run: RunPlan, edit: Edit, point: int, step: int) -> list[Made]:
    """An edit at one point: spots that are written alike become one."""
    groups: dict[Any, list[int]] = {}
    for spot in edit.spots:
        if spot.sae is not None:
            raise CodeError("features of a dictionary are not written as code")
        lines = tuple(Writer(program, run, edit, spot, point, step).lines())
        known = groups.setdefault((spot.site, spot.layer is None, lines), [])
        if spot.layer is not None:
            known.append(spot.layer)
    return [Made(site, None if whole else tuple(dict.fromkeys(layers)), lines, len(set(layers)) > 1)
            for (site, whole, lines), layers in groups.items() if lines]
