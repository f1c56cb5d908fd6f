"""One line of a swept run at one value of each axis that it makes: its place, its positions, its amount."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import RecordError, did_you_mean
from ..positions import select as s
from . import ast
from .freeze import number
from .names import EDITS
from .parser import read
from .printer import text as shown
from .swept import READINGS, Axis

if TYPE_CHECKING:
    from .narrow import Narrower

Label = int | float | str
INDICES = ("layer", "head", "neuron", "dims", "feature")
TOKEN = re.compile(r"(\d+)(?::(\d+))?(?:: ?(.*))?", re.DOTALL)


@dataclass
class Line:
    """A line of a run, and the axes that it makes, by their role."""

    work: Narrower
    run: str
    x: Any
    axes: dict[str, Axis]

    def narrowed(self) -> Any:
        """The line at one value of each of its axes."""
        x, work = self.x, self.work
        changed: dict[str, Any] = {}
        if isinstance(x, (*EDITS, *READINGS)):
            target, place = (x.target, work.book.place_of(x.target)) if isinstance(x, EDITS) else work.book.read_at(x)
            place = self._at(place, "key" if isinstance(x, ast.Cut) else "pos")
            changed["target"] = self._target(target, place)
        elif isinstance(x, ast.Save):
            changed["target"] = replace(x.target, each=False)
        if "value" in self.axes:
            changed["amount"] = self._amount(x.amount.values)
        if isinstance(x, ast.Attribute):  # a check compares cells with each other
            changed["opts"] = tuple(opt for opt in x.opts if opt.name not in ("check", "seed"))
        return work.put(replace(x, **changed))

    def _target(self, target: ast.Target, place: ast.Place | None) -> ast.Target:
        if "site" in self.axes:
            sites: tuple[Any, ...] = (self._site(target),)
        else:
            picked = {role: self._index(role, getattr(target.sites[0], role)) for role in INDICES if role in self.axes}
            sites = (replace(target.sites[0], **picked), *target.sites[1:])
        to = self._at(target.to, "query") if isinstance(target.to, ast.At | ast.AtEach) else target.to
        excluding = () if "site" in self.axes else target.excluding
        return replace(target, sites=tuple(replace(where, at=place) for where in sites), each=False, excluding=excluding,
                       to=to)

    def _index(self, role: str, index: Any) -> Any:
        """One layer, head, neuron … of those written."""
        axis = self.axes[role]
        _, label = self.work.find(axis)
        if isinstance(label, bool) or not isinstance(label, int) or not could(index, label):
            known = [i for i in (index if isinstance(index, tuple) else ()) if isinstance(i, int)]
            raise RecordError(f"{axis.name} has no {label!r}: the line says {shown(self.x.target)}."
                              + did_you_mean(str(label), map(str, known)))
        return (label,) if role == "dims" else label

    def _site(self, target: ast.Target) -> ast.Where:
        """The place that a label names."""
        axis = self.axes["site"]
        _, label = self.work.find(axis)
        found, problems = read(f"zero {label}") if isinstance(label, str) else ((), [None])
        place = found[0].target.sites[0] if not problems and len(found) == 1 else None  # type: ignore[attr-defined]
        if not isinstance(place, (ast.Site, ast.Feature)) or not self._among(place, target):
            wheres = [shown(replace(where, at=None)) for where in target.sites]
            raise RecordError(f"{axis.name} has no {label!r}: the places are {', '.join(wheres)}."
                              + did_you_mean(str(label), wheres))
        return place

    def _among(self, place: Any, target: ast.Target) -> bool:
        """Whether a place may be one of a target's."""
        for where in target.sites:
            if isinstance(where, ast.PySite):
                return True
            if isinstance(where, ast.Ref):
                if self._among(place, self.work.book.groups[where.group].target):
                    return True
            elif type(where) is type(place) and all(
                    could(getattr(where, name), getattr(place, name)) for name in ("layer", "head", "feature")
                    if hasattr(place, name)) and getattr(where, "comp", None) in (None, getattr(place, "comp", None)):
                return True
        return False

    def _amount(self, values: ast.List | ast.Py) -> Any:
        """One of the amounts that are taken in turn."""
        axis = self.axes["value"]
        if isinstance(values, ast.Py):
            return number(self.work.plain(axis, values))
        labels = [i if (label := literal(item)) is None else label for i, item in enumerate(values.items)]
        return values.items[self.work.place(axis, labels)]

    # Positions

    def _at(self, place: ast.Place | None, role: str) -> ast.Place | None:
        """The positions of the cell."""
        if not isinstance(place, ast.AtEach):
            return place
        axis, pos = self.axes[role], place.pos
        if isinstance(pos, s.Several):
            at = self.work.place(axis, [str(item) for item in pos.items])
            return ast.At(s.Slice(0) if pos.items[at] in (s.All(), s.Role("prompt")) else pos.items[at])
        place_at, label = self.work.find(axis)
        found = TOKEN.fullmatch(str(label))
        if found is None or (found[2] is not None and not isinstance(pos, s.Split)):
            self._refuse(axis, label, "it is no token" if found is None else "its label leaves tokens out")
        assert found is not None
        pos = None if pos is None else self.work.put(pos)
        same = found[3] is not None
        if fixed(pos) or (same and not self._elsewhere()):
            return ast.At(s.Index(int(found[1])) if found[2] is None else s.Slice(int(found[1]), int(found[2])))
        if not self._draws_rows():
            chosen = self._counted(pos, place_at)
            if chosen is not None:
                return ast.At(chosen)
        self._refuse(axis, label, "it is another one in other examples or prompts")
        return None

    def _refuse(self, axis: Axis, label: Any, why: str) -> None:
        raise RecordError(f"{axis.name}={label!r} cannot be written alone: {why}. Name the positions one by one, as in "
                          "@each[subject.first, last]" + ("" if self.work.coords else ", or give coords=scores.coords"))

    def _elsewhere(self) -> bool:
        """Whether positions are found in another prompt as well."""
        x, book = self.x, self.work.book
        if isinstance(x, ast.Patch) and isinstance(x.source, ast.Name) and x.source.id not in {*book.lets, *book.sweeps}:
            aligned = any(opt.name == "align" and opt.value != ast.Word("name") for opt in x.opts)
            return not aligned and x.source.id != "baseline" and book.prompt(x.source.id) != book.prompt(self.run)
        return isinstance(x, ast.Freeze) and x.to not in (None, "baseline") and (
            book.prompt(str(x.to)) != book.prompt(self.run))

    def _draws_rows(self) -> bool:
        """Whether values are taken at the positions of the first example."""
        return isinstance(self.x, ast.Ablate) and (self.x.method not in (None, "zero") or self.x.over is not None)

    def _counted(self, pos: Any, at: int | None) -> s.Selector | None:
        """The position of a number among those selected, where the selection is one stretch."""
        if isinstance(pos, s.Edge) or (isinstance(pos, s.Ends) and pos.k == 1) or isinstance(pos, s.Index):
            return pos
        if at is None:
            return None
        if isinstance(pos, s.Split):
            return s.Part(pos, at)
        if not self._stretch(pos):
            return None
        return pos.first if at == 0 else pos.first.offset(at)

    def _stretch(self, pos: Any) -> bool:
        """Whether the selected positions follow one another."""
        if isinstance(pos, s.Mark):
            marks = [x.pos for x in self.work.book.spec.body if isinstance(x, ast.Mark) and x.name == pos.name]
            return bool(marks) and all(map(self._stretch, marks))
        if isinstance(pos, s.Shift):
            return self._stretch(pos.of)
        if isinstance(pos, (s.TokenText, s.Span, s.TurnOf)):
            return pos.which != "*"
        return isinstance(pos, (s.All, s.Part, s.Ends, s.Edge)) or (isinstance(pos, s.Slice) and pos.step in (None, 1))


def literal(node: Any) -> Label | None:
    """The number or text that a node is; None for anything else."""
    if isinstance(node, ast.Neg) and isinstance(node.of, ast.Num):
        return -node.of.value
    return node.value if isinstance(node, (ast.Num, ast.Str)) else None


def could(index: Any, label: Any) -> bool:
    """Whether an index may name a number: whether it does not, as far as is known without the model's sizes.

    >>> could((0, "4:6"), 5), could((0, "4:6"), 6), could(-1, 3)
    (True, False, True)
    """
    if index is None or label is None:
        return True
    if isinstance(index, tuple):
        return any(could(item, label) for item in index)
    if isinstance(index, int):
        return index < 0 or index == label
    if index == "*" or index.startswith("$"):
        return bool(label >= 0)
    start, stop, step = ([int(part) if part else None for part in index.split(":")] + [None])[:3]
    if (start or 0) < 0 or (stop or 0) < 0:
        return bool(label >= 0)
    return label in range(start or 0, label + 1 if stop is None else stop, step or 1)


def fixed(pos: Any) -> bool:
    """Whether a selector means the same numbers in every prompt.

    >>> from hooklab.positions import positions
    >>> [fixed(positions(text)) for text in ("all", "2:5", "-2:", "subject")]
    [True, True, False, False]
    """
    if isinstance(pos, s.Slice):
        return (pos.step or 1) > 0 and (pos.start or 0) >= 0 and (pos.stop or 0) >= 0
    return pos is None or pos == s.All() or (isinstance(pos, s.Index) and pos.n >= 0) or (
        isinstance(pos, s.Ends) and pos.side == "first")
