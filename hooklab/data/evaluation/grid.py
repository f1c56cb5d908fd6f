"""The cells of an evaluation: the model as it is, and as edits leave it, once for every point of a grid of values.

    edits + grid ──▶ Grid: cells with labels ──▶ lines of one spec that runs a batch of questions in every cell

In: lines of the hook language, with names in braces. Out: the text of a spec, and values for its braces. Nothing runs here.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...errors import RecordError, did_you_mean
from ...positions import select
from ...problems import Problem, SpecError
from ...spec import ast
from ...spec.names import EDITS
from ...spec.parser import read
from ...spec.parts import Span
from ...spec.printer import line as printed
from ...spec.scan import scan

BASE, PROMPT = "base", "main"
DECLARED = (ast.Prompt, ast.Mark, ast.Let, ast.Group, ast.Sae)
SWEEPS = (ast.EachValue, ast.AtEach, select.Each, select.Split)
TOGETHER = ("mean", "std", "sum", "max")
COLUMNS = frozenset("id edited prompt reply answer right score reason stopped log_probs activations cell number question "
                    "tokens n_tokens".split())
"""Columns of the table, which no name of a grid may take."""


@dataclass(frozen=True)
class Cell:
    """One way to run the model.

    Attributes:
        number: 0 is the model as it is; edited ones count from 1, the last name of the grid fastest.
        name: Its run in the spec.
        labels: Name of the grid -> label of the value there.
        lines: What acts, with braces of its own.
    """

    number: int
    name: str
    labels: Mapping[str, Any]
    lines: tuple[str, ...] = ()

    @property
    def edited(self) -> bool:
        """Whether anything acts."""
        return self.number > 0


@dataclass(frozen=True)
class Grid:
    """All cells.

    Attributes:
        declared: Lines that stand before the runs: prompts, marks, values, groups, dictionaries.
        acting: Edits as they were written.
        axes: Name -> labels.
        cells: The model as it is, then the edited ones.
        values: What braces of all cells stand for.
        prompts: Whether a line declares a prompt beside that of the questions.
        apart: Whether a question must run alone, because what edits do to it would depend on those beside it.
        from_end: A position counted from the end, as written; empty where there is none.
        text: What the user wrote.
        spans: Where in it the lines that declare stand, and after these those that act.
    """

    declared: tuple[str, ...] = ()
    acting: tuple[str, ...] = ()
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    cells: tuple[Cell, ...] = (Cell(0, BASE, {}),)
    values: Mapping[str, Any] = field(default_factory=dict)
    prompts: bool = False
    apart: bool = False
    from_end: str = ""
    text: str = ""
    spans: tuple[Span | None, ...] = ()

    def spec(self, seed: int, metrics: Sequence[str] = (), inside: Sequence[str] = ()) -> str:
        """The text that runs the prompt `{main}` in every cell.

        Args:
            seed: Of all draws.
            metrics: Lines that measure every run.
            inside: Lines that stand in every run.
        """
        return "\n".join(line for line, _ in self._lines(seed, metrics, inside))

    def _lines(self, seed: int, metrics: Sequence[str] = (), inside: Sequence[str] = ()) -> list[tuple[str, Span | None]]:
        """Its lines, each with the place of what the user wrote; None where it is not the user's."""
        at = len(self.declared)
        declared = zip(self.declared, self.spans[:at] or [None] * at, strict=True)
        found: list[tuple[str, Span | None]] = [(f"seed {seed}", None), (f"prompt {PROMPT} = {{{PROMPT}}}", None), *declared,
                                                *((one, None) for one in metrics)]
        for cell in self.cells:
            own = [*zip(cell.lines, self.spans[at:] or [None] * len(cell.lines), strict=False),
                   *((one, None) for one in inside)]
            if self.run_of(cell, metrics, inside) == PROMPT:
                found += own
            elif own:
                found += [(f"run {cell.name} on {PROMPT}:", None), *((f"    {one}", span) for one, span in own)]
        return [(line, span) for text, span in found for line in text.split("\n")]

    def placed(self, error: SpecError, metrics: Sequence[str] = (), inside: Sequence[str] = ()) -> SpecError:
        """What is wrong with that text, at the places of what the user wrote."""
        lines, text = self._lines(0, metrics, inside), self.text.split("\n")

        def moved(problem: Problem) -> Problem:
            line, span = lines[problem.line - 1] if 0 < problem.line <= len(lines) else ("", None)
            if span is None:
                return replace(problem, line=0, column=0)
            part, whole = line[problem.column - 1 : problem.column - 1 + problem.width], text[span.line - 1]
            if part and whole.count(part) == 1:
                return replace(problem, line=span.line, column=whole.index(part) + 1)
            return replace(problem, line=span.line, column=span.column, width=len(whole.rstrip()) - span.column + 1)

        return SpecError(map(moved, error.problems), self.text)

    def run_of(self, cell: Cell, metrics: Sequence[str] = (), inside: Sequence[str] = ()) -> str:
        """The run of a cell in that text: what is measured untouched is the run of the prompt, which is there anyway."""
        untouched = metrics and not cell.lines and not (inside and self.prompts)
        return PROMPT if untouched else cell.name


def gridded(edits: str | Sequence[str] = (), grid: Mapping[str, Any] | None = None,
            values: Mapping[str, Any] | None = None) -> Grid:
    """Read edits, and make a cell of every combination of the grid's values.

    Args:
        edits: Lines of the language that act, and what they declare.
        grid: A name between braces in `edits` -> its values; or label -> value.
        values: What further names between braces stand for.

    Raises:
        SpecError: a line cannot be read.
        RecordError: a line is no edit, a name of the grid stands nowhere, or a name between braces has no value.

    >>> found = gridded("scale {where} by {much}", {"where": ["L0.attn_out", "L1.attn_out"], "much": [0, 2]})
    >>> [tuple(cell.labels.values()) for cell in found.cells]
    [(), ('L0.attn_out', 0), ('L0.attn_out', 2), ('L1.attn_out', 0), ('L1.attn_out', 2)]
    >>> print(found.spec(0).splitlines()[-1])
        scale {where_of_4} by {much_of_4}
    """
    text = textwrap.dedent(edits) if isinstance(edits, str) else "\n".join(edits)
    statements, problems = read(text)
    if problems:
        raise SpecError(problems, text)
    kept = [one for one in statements if not isinstance(one, ast.Header)]
    _check_kinds(kept)
    kept.sort(key=lambda one: isinstance(one, EDITS))
    declared = tuple(printed(one) for one in kept if not isinstance(one, EDITS))
    acting = tuple(printed(one) for one in kept if isinstance(one, EDITS))
    axes = {name: _labelled(name, some) for name, some in (grid or {}).items()}
    given = dict(values or {})
    _check_names(declared, acting, axes, given)
    if not acting:
        if declared:
            raise RecordError("the edits only declare: add a line that acts, such as `zero L1H*`")
        return Grid()
    cells, held = [Cell(0, BASE, {})], given
    for number, point in enumerate(itertools.product(*(some.items() for some in axes.values())), 1):
        own = {name: f"{name}_of_{number}" for name in axes}
        held |= {own[name]: value for name, (_, value) in zip(axes, point, strict=True)}
        labels = {name: label for name, (label, _) in zip(axes, point, strict=True)}
        cells.append(Cell(number, f"cell_{number}", labels, tuple(_renamed(one, own) for one in acting)))
    return Grid(declared, acting, {name: tuple(some) for name, some in axes.items()}, tuple(cells), held,
                prompts=any(isinstance(one, ast.Prompt) for one in kept), apart=any(map(_depends, kept)),
                from_end=next((str(one) for one in _selectors(kept) if _ends(one)), ""), text=text,
                spans=tuple(one.span for one in kept))


def _check_kinds(statements: Sequence[Any]) -> None:
    """Raises RecordError for what is neither an edit nor what edits need, and for what sweeps by itself."""
    for one in statements:
        if not isinstance(one, (*EDITS, *DECLARED)):
            raise RecordError(f"`{printed(one).splitlines()[0]}` is no edit: an evaluation takes lines that act on the "
                              "model, and what they declare. Prompts, answers and the number of tokens are arguments")
        if any(isinstance(node, SWEEPS) or getattr(node, "each", False) is True for node in _nodes(one)):
            raise RecordError(f"`{printed(one)}` makes a sweep of its own: write a name in braces in its place, and give "
                              "its values as grid={name: […]}")


def _check_names(declared: Sequence[str], acting: Sequence[str], axes: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    early, later = ({source.strip() for one in lines for source in scan(one).holes.values()} for lines in (declared, acting))
    for name in axes:
        if not str(name).isidentifier() or name in COLUMNS:
            raise RecordError(f"{name!r} cannot name an axis of the grid: it is to be a word, and none of "
                              f"{', '.join(sorted(COLUMNS))}")
        if name in early:
            raise RecordError(f"{{{name}}} stands in a line that declares, which all cells share: write it into the edit")
        if name not in later:
            raise RecordError(f"grid= has values for {{{name}}}, which no edit has.{did_you_mean(name, later)}")
        if name in given:
            raise RecordError(f"{{{name}}} has values in grid= and in values=: give one of them")
    for name in sorted((early | later) - axes.keys() - given.keys()):
        raise RecordError(f"there is no value for {{{name}}}: give it in values=, or several in grid=")
    if unused := sorted(given.keys() - early - later):
        raise RecordError(f"values= has {unused[0]!r}, which no line has in braces.{did_you_mean(unused[0], early | later)}")


def _labelled(name: str, some: Any) -> dict[Any, Any]:
    """Label -> value: a value that is a text or a number is its own label, another one is numbered."""
    if isinstance(some, Mapping):
        found = dict(some)
    else:
        if not isinstance(some, Iterable):
            raise RecordError(f"grid={{{name!r}: {some!r}}}: it takes a list of values, of one too, [{some!r}]; or label -> "
                              "value")
        values = list(some) if not isinstance(some, str) else [some]
        found = {value if isinstance(value, str | int | float | bool) else i: value for i, value in enumerate(values)}
        if len(found) < len(values):
            raise RecordError(f"grid={{{name!r}: …}} has a value twice")
    if not found or not all(isinstance(label, str | int | float | bool) for label in found):
        raise RecordError(f"grid={{{name!r}: …}} takes a list of values, or label -> value; it has {some!r}")
    return found


def _renamed(line: str, names: Mapping[str, str]) -> str:
    """A line whose braces hold other names."""
    for start, source in reversed(scan(line).holes.items()):
        if source.strip() in names:
            line = f"{line[:start + 1]}{names[source.strip()]}{line[start + 1 + len(source):]}"
    return line


def _nodes(part: Any) -> Iterator[Any]:
    """A part of a spec and all parts in it."""
    if isinstance(part, tuple):
        for one in part:
            yield from _nodes(one)
    elif isinstance(part, (ast.Node, ast.Statement, select.Selector)):
        yield part
        for one in fields(part):  # type: ignore[arg-type]  # every selector is a dataclass
            yield from _nodes(getattr(part, one.name))


def _selectors(statements: Sequence[Any]) -> Iterator[Any]:
    return (node for one in statements for node in _nodes(one) if isinstance(node, select.Selector))


def _ends(selector: Any) -> bool:
    """Whether a position is counted from the end of the text."""
    if isinstance(selector, select.Ends):
        return selector.side == "last"
    if isinstance(selector, select.Slice):
        return any(end is not None and end < 0 for end in (selector.start, selector.stop))
    return isinstance(selector, select.Index) and selector.n < 0


def _depends(statement: Any) -> bool:
    """Whether what a line does to a question could depend on the questions beside it: draws, and means over a batch."""
    if isinstance(statement, ast.Ablate):
        return statement.over is not None or statement.method not in (None, "zero")
    if isinstance(statement, ast.Noise):
        return True
    return any(isinstance(node, select.Sample) or (isinstance(node, ast.Call) and node.name in TOGETHER)
               for node in _nodes(statement))
