"""One cell of a sweep as a spec of its own: what a view puts into a cell when a square of its grid is clicked.

    text ──parse──▶ Spec ──swept.Book: runs, axes──▶ what the cell's run needs, each line at one value (narrow_line)
    ──print──▶ text

No model is asked, so what only a model knows (how many layers there are, which tokens a text spells) is taken from the
labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import Any

from ..errors import RecordError, did_you_mean
from ..positions import marks_in, positions
from ..positions import select as s
from . import ast
from .freeze import number
from .names import IMPLICIT
from .narrow_line import INDICES, Label, Line, literal
from .parser import parse
from .printer import line as written
from .swept import ACTING, READINGS, Axis, Book, named_apart, names_in, parts


def narrow(text: str | ast.Spec, run: str, cell: Mapping[str, Any],
           coords: Mapping[str, Sequence[Any]] | None = None) -> str:
    """The spec of one cell of a swept run.

    Kept are the declarations, the run and the runs that it takes from; every `each`, `@each` and `sweep` has the one value
    of the cell. Other runs, `show` and `expect` lines are dropped. Braces stay as they are. A reading (`score`, `attribute`,
    `lens`) is kept where the cell has its axes; the ranks of a lens stay together.

    Args:
        text: The spec that was swept, such as `scores.spec`.
        run: The name of the swept run.
        cell: Axis -> label, for every axis of the scores: `{"layer": 3, "pos": "5: Mary"}`; a token also by its number.
        coords: The labels of every axis, `scores.coords`. With them a label is checked against those that there are, and
            more can be narrowed: positions that differ between examples or prompts, numbers that Python gives.

    Returns:
        Text that parses, prints as itself and sweeps over nothing.

    Raises:
        SpecError: the text cannot be read.
        RecordError: there is no such run, axis or label, or the cell cannot be written without a sweep: a value between
            braces that is no number; positions that the language cannot name alone; random numbers that derive from a line
            which narrowing changes (unless the line has `seed=`).

    >>> print(narrow('prompt "Hi"\\nmetric loss\\nzero each L*H* @each\\nshow grid', "hooked",
    ...              {"layer": 1, "head": 3, "pos": "0: Hi"}))
    prompt "Hi"
    metric loss
    zero L1H3 @0
    """
    return Narrower(Book(parse(str(text))), dict(cell), dict(coords or {})).text(run)


@dataclass
class Narrower:
    """The work on one cell.

    Attributes:
        swept: The axes of the run's sweep.
        values: Sweep variable -> its value in the cell.
        kept: Run -> its lines, narrowed; each by its number in the body.
    """

    book: Book
    cell: dict[str, Any]
    coords: dict[str, Sequence[Any]]
    swept: set[str] = field(default_factory=set)
    values: dict[str, Label] = field(default_factory=dict)
    kept: dict[str, dict[int, Any]] = field(default_factory=dict)

    def text(self, run: str) -> str:
        """The narrowed spec."""
        book = self.book
        if run not in book.runs:
            raise RecordError(f"There is no run {run} to narrow: the runs are {', '.join(book.runs) or 'none'}."
                              + did_you_mean(run, book.runs))
        swept = book.axes(run)
        self.swept = {axis.name for axis in swept}
        readings = self._readings(run, swept)
        self._check_axes(run, swept, [axis for found in readings.values() for axis in found])
        self._keep(run, readings)
        lines = self._lines(run)
        self._same_draws()
        return str(parse(str(ast.Spec(tuple(lines)))))

    def _readings(self, run: str, swept: list[Axis]) -> dict[int, list[Axis]]:
        """The readings of a run by line, each with its axes; of those that the cell is of, if it is of one."""
        body = self.book.runs[run].body
        found = {i: named_apart([*swept, *self.book.line_axes(x, i)])[len(swept):]
                 for i, x in enumerate(body) if isinstance(x, READINGS)}
        extra = set(self.cell) - self.swept
        return {i: axes for i, axes in found.items()
                if {axis.name for axis in axes} == extra - ({"rank"} if isinstance(body[i], ast.Lens) else set())} or (
                    found if extra else {})

    def _check_axes(self, run: str, swept: list[Axis], own: list[Axis]) -> None:
        """Refuse a cell that names an axis too many, or one too few."""
        known = list(dict.fromkeys(axis.name for axis in (*swept, *own)))
        ranks = any(isinstance(x, ast.Lens) for x in self.book.runs[run].body)
        for name in self.cell:
            if name not in known and not (name == "rank" and ranks):
                raise RecordError(f"{run} has no axis {name}: its axes are {', '.join(known) or 'none'}."
                                  + did_you_mean(str(name), known))
        for axis in known:
            if axis not in self.cell:
                labels = [str(one) for one in self.coords.get(axis, ())[:1]]
                raise RecordError(f"the cell says nothing about {axis}; the axes of {run} are {', '.join(known)}: give it a "
                                  f"label of each{f', such as {axis}={labels[0]!r}' if labels else ''}")

    def _keep(self, run: str, readings: Mapping[int, list[Axis]]) -> None:
        """Narrow a run and the runs that it takes from."""
        block = self.book.runs[run]
        axes = self.book.axes(run)
        if lost := self._apart(run):
            raise RecordError(f"{run}, which is taken from, is swept over {', '.join(lost)}, and the cell is not")
        for axis in axes:
            if axis.variable:
                self.values[axis.variable] = self._value_of(axis)
        below = 0 if block.on == run else len(self.book.axes(block.on))
        dropped = (ast.Show, ast.Expect, *READINGS)
        own = [*axes[below:], *(axis for found in readings.values() for axis in found)]
        lines = {i: Line(self, run, x, {axis.role: axis for axis in own if axis.line == i}).narrowed()
                 for i, x in enumerate(block.body) if not isinstance(x, dropped) or i in readings}
        self.kept[run] = lines
        metrics = tuple(x for x in self.book.spec.body if isinstance(x, ast.Metric))
        needed = {block.on, *names_in(tuple(lines.values()), self.book)}
        needed |= {name for name in names_in(metrics, self.book) if not self._apart(name)}
        for name in self.book.runs:
            if name in needed and name not in self.kept:
                self._keep(name, {})

    def _apart(self, run: str) -> list[str]:
        """The axes of a run that the cell is not on."""
        return [axis.name for axis in self.book.axes(run) if axis.name not in self.swept]

    def _value_of(self, axis: Axis) -> Label:
        """The value of a sweep variable."""
        values = self.book.sweeps[axis.variable].values
        if isinstance(values, ast.Range):
            start, stop, *step = (int(part) if part else None for part in values.text.split(":"))
            labels: list[Any] = list(range(start or 0, stop or 0, *(n for n in step if n)))
            return labels[self.place(axis, labels)]
        if isinstance(values, ast.List):
            labels = [literal(item) for item in values.items]
            return labels[self.place(axis, labels)]
        sure = any(one == f"${axis.variable}" or (isinstance(one, s.Selector) and axis.variable in marks_in(one))
                   for one in parts(self.book.spec.body) if isinstance(one, (str, s.Selector)))
        return self.plain(axis, values, sure=sure)  # an index, or a position, is no vector

    def plain(self, axis: Axis, values: ast.Py, *, sure: bool = False) -> Label:
        """The value that Python gave, where the label is the value and no number counted from 0."""
        at, label = self.find(axis)
        if not sure and isinstance(label, int) and (at is None or at == label):
            raise RecordError(f"{axis.name}={label} may be the number of a value of {{{values.source}}} or the value, "
                              "so it cannot be written: give coords=scores.coords, or the spec its numbers (spec.freeze)")
        return label

    def find(self, axis: Axis) -> tuple[int | None, Any]:
        """Where the cell stands along an axis, and the label there; without coords, only the label given."""
        label = self.cell[axis.name]
        if axis.name not in self.coords:
            return None, label
        labels = list(self.coords[axis.name])
        at = self.place(axis, labels)
        return at, labels[at]

    def place(self, axis: Axis, labels: Sequence[Any]) -> int:
        """The number of the cell's label among all of an axis."""
        label = self.cell[axis.name]
        hits = [i for i, one in enumerate(labels) if one == label]
        if not hits and isinstance(label, int):
            hits = [i for i, one in enumerate(map(str, labels)) if one == str(label) or one.startswith(f"{label}: ")]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise RecordError(f"{len(hits)} entries of {axis.name} are labelled {label!r}, so none can be told by its label")
        listed = ", ".join(repr(one) for one in labels[:12]) + (" …" if len(labels) > 12 else "")
        raise RecordError(f"{axis.name} has no {label!r}; it has {listed}." + did_you_mean(str(label), map(str, labels)))

    def _lines(self, run: str) -> Iterator[ast.Statement]:
        """The statements of the narrowed spec, in the order of the old one."""
        book, alone = self.book, self._alone(run)
        kept = {book.runs[name].number: name for name in self.kept}
        last = max((i for i, x in enumerate(book.spec.body) if isinstance(x, ACTING)), default=-1)
        places = {id(x): n for n, x in enumerate(book.runs[run].body)}
        needed = self._needed()
        for i, x in enumerate(book.spec.body):
            if isinstance(x, (ast.Run, *ACTING)):
                name = kept.get(i) if isinstance(x, ast.Run) else run if kept.get(None) and not alone and i == last else None
                if name is not None:
                    spoken = x.name if alone and isinstance(x, ast.Run) else name
                    yield ast.Run(spoken, book.runs[name].on, tuple(self.kept[name].values()))
                elif alone and id(x) in places and places[id(x)] in self.kept[run]:
                    yield self.kept[run][places[id(x)]]
            elif isinstance(x, ast.Sweep):
                if x.name in needed and not isinstance(self.values.get(x.name, ""), str):
                    yield ast.Let(x.name, number(self.values[x.name]))  # type: ignore[arg-type]
            elif not isinstance(x, (ast.Expect, ast.Show)) and self._stays(x):
                yield self.put(x)

    def _alone(self, run: str) -> bool:
        """Whether the run's lines stand outside of blocks and can stay there."""
        block = self.book.runs[run]
        return block.number is None and (block.on == run or (run == IMPLICIT and len(self.kept) == 1))

    def _needed(self) -> set[str]:
        """Names that the kept runs use."""
        return {name for lines in self.kept.values() for name in names_in(tuple(lines.values()), self.book)}

    def _stays(self, x: ast.Statement) -> bool:
        """Whether a declaration means something without the runs and variables that are dropped."""
        gone = (self.book.runs.keys() - self.kept.keys() - set(self.book.prompts)) | (
            self.book.sweeps.keys() - self.values.keys())
        named = isinstance(x, (ast.Let, ast.Group, ast.Mark, ast.Metric))
        return not (named and gone & set(names_in(x, self.book)))

    def _same_draws(self) -> None:
        """Refuse lines that would draw other random numbers: without `seed=` these derive from what the line says."""
        before, after = self._draws(None), self._draws(self.kept)
        for key, drawn in after.items():
            if drawn != before[key]:
                name, i = key
                raise RecordError(f"the random numbers of `{written(self.book.runs[name].body[i])}` derive from what it "
                                  "says, so alone it would draw others: give it a seed, as in seed=0, and sweep again")

    def _draws(self, kept: Mapping[str, Mapping[int, Any]] | None) -> dict[tuple[str, int], tuple[str, int]]:
        """What every drawing line derives its numbers from: its text, and how many like it come before."""
        found: dict[tuple[str, int], tuple[str, int]] = {}
        counts: dict[str, Iterator[int]] = {}
        for name, block in self.book.runs.items():
            lines = dict(enumerate(block.body)) if kept is None else kept.get(name, {})
            for i, x in lines.items():
                draws = isinstance(x, ast.Noise) or (isinstance(x, ast.Ablate) and x.method == "resample")
                if draws and not any(opt.name == "seed" for opt in x.opts):
                    found[name, i] = written(x), next(counts.setdefault(written(x), count()))
        return found

    def put(self, node: Any) -> Any:
        """A node with the values of sweep variables for indices and positions, where no name can stand."""
        if isinstance(node, s.Selector):
            return self._put_position(node)
        if isinstance(node, tuple):
            return tuple(self.put(item) for item in node)
        if isinstance(node, ast.AtEach):
            return None if node.pos is None else ast.At(self.put(node.pos))
        if not isinstance(node, ast.Node):
            return node
        changed = {f.name: self.put(getattr(node, f.name)) for f in fields(node) if f.name != "span"}
        for name in INDICES:
            index = changed.get(name)
            if isinstance(index, tuple):
                found = tuple(self.values.get(i[1:], i) if isinstance(i, str) and i.startswith("$") else i for i in index)
                changed[name] = found[0] if len(found) == 1 and found != index else found
        return replace(node, span=None, **changed)

    def _put_position(self, pos: s.Selector) -> s.Selector:
        if isinstance(pos, s.Mark) and pos.name in self.values:
            value = self.values[pos.name]
            return positions(value) if isinstance(value, (int, str)) else pos
        changed: dict[str, Any] = {}
        for f in fields(pos):  # type: ignore[arg-type]
            value = getattr(pos, f.name)
            if isinstance(value, s.Selector):
                changed[f.name] = self._put_position(value)
            elif isinstance(value, tuple) and any(isinstance(one, s.Selector) for one in value):
                changed[f.name] = tuple(self._put_position(one) for one in value)
        return replace(pos, **changed) if changed else pos  # type: ignore[type-var]
