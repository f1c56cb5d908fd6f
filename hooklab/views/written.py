"""Continuations as columns of a view: text, tokens, what each was chosen among, the edits at work, the spec that writes it.

    Run ──texts, tokens, saved logits──▶ Column…        Plan ──before anything is written──▶ Column… ◀── steps as they come
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..analysis.continuing import Choice, Continuation, saved
from ..records import Run, Text
from ..records.drawing import where
from ..spec import ast
from ..spec.acting import Acting, acting
from ..spec.narrow import narrow
from ..spec.parser import parse
from ..tokens import Tokens
from .text import shown

if TYPE_CHECKING:
    from ..compiler import Plan

_WORDS = re.compile(r"\s*\S+|\s+$")


@dataclass
class Column:
    """One continuation.

    Attributes:
        label: What it is called.
        spec: The text that writes it.
        run: The name of its run there.
        cell: Values of the sweep axes.
        row: Which row of that cell: sample after sample, example after example.
        sample, example: The same, apart.
        prompt: What was given.
        ids: The tokens written on.
        pieces: Their texts.
        choices: What each was chosen among; none where nobody kept it.
        edits: The edits of its run and their steps.
        stopped: Why it ends; empty while it is being written.
        steps: How many there are at most.
    """

    label: str
    spec: str
    run: str
    cell: Mapping[str, Any] = field(default_factory=dict)
    row: int = 0
    sample: int = 0
    example: int = 0
    prompt: str = ""
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    edits: tuple[Acting, ...] = ()
    stopped: str = ""
    steps: int = 0

    def spell(self, step: int | None = None) -> str:
        """The spec of this continuation, up to and with a step. Raises SpecError, RecordError."""
        body = parse(narrow(self.spec, self.run, self.cell)).body
        return str(ast.Spec(body if step is None else tuple(_shorter(line, step + 1) for line in body)))


def first_difference(column: Column, columns: Sequence[Column]) -> int | None:
    """The first step at which a continuation differs from the first with its prompt and its number among the samples.

    None where it never does.
    """
    base = next(one for one in columns if (one.prompt, one.sample) == (column.prompt, column.sample))
    if base is column:
        return None
    for step, (a, b) in enumerate(zip(base.ids, column.ids, strict=False)):
        if a != b:
            return step
    shorter, longer = sorted((base, column), key=lambda one: len(one.ids))
    return len(shorter.ids) if shorter.stopped and len(shorter.ids) < len(longer.ids) else None


def of_run(run: Run, title: str = "") -> list[Column]:
    """The continuations of a run, those of one prompt and one sample beside each other."""
    return _arranged(_of_run(run, title))


def of_plan(plan: Plan, spec: str, decode: Callable[[list[int]], str]) -> list[Column]:
    """Empty columns for what a plan will write. `decode` makes text of ids."""
    return _arranged(_of_plan(plan, spec, decode))


def _arranged(columns: Iterator[Column]) -> list[Column]:
    return sorted(columns, key=lambda one: (one.example, one.sample))


def _of_run(run: Run, title: str) -> Iterator[Column]:
    for name, texts in run.texts.items():
        tokens, among = run.tokens_of.get(name), saved(run, name)
        rows = Counter[str]()
        for i, text in enumerate(texts):
            label, cell = where(name, text), str(text.cell)
            edits = acting(run.spec, name, len(text.ids), run.given) if run.spec else ()
            yield Column(f"{title} · {label}" if title else label, run.spec, name, text.cell, rows[cell], text.sample,
                         text.example, text.prompt, list(text.ids), _pieces(tokens, i, text),
                         list(among[i]) if among else [], edits, text.stopped, len(text.ids))
            rows[cell] += 1


def _of_plan(plan: Plan, spec: str, decode: Callable[[list[int]], str]) -> Iterator[Column]:
    for run in plan.runs:
        if run.writing is None:
            continue
        tokens, count = plan.prompts[run.prompt].tokens, run.writing.count
        edits = acting(spec, run.name, count, plan.values)
        for cell in run.cells:
            coords = {axis.name: axis.labels[i] for axis, i in zip(run.axes, cell.index, strict=True)}
            for row in range(run.samples * int(run.writing.option("samples", 1)) * len(tokens)):
                sample, example = divmod(row, len(tokens))
                prompt = decode(list(tokens.ids[example]))
                one = Text("", prompt, "", cell=coords, sample=sample, example=example)
                yield Column(where(run.name, one), spec, run.name, coords, row, sample, example, prompt, edits=edits,
                             steps=count)


def grow(columns: Sequence[Column], rows: Sequence[Continuation], pieces: Callable[[list[int]], list[str]]) -> None:
    """Take over the steps that rows have gained. `pieces` gives the texts of tokens."""
    mine = {one.row: one for one in columns if one.run == rows[0].run and one.cell == rows[0].cell}
    for row in rows:
        column = mine[row.row]
        if len(row.choices) > len(column.choices):
            column.choices = list(row.choices)
            column.ids = [choice.id for choice in row.choices]
            column.pieces = pieces(column.ids)


def finish(columns: Sequence[Column], run: Run) -> list[Column]:
    """The columns with what the finished run says, keeping what each token was chosen among."""
    made = of_run(run)
    return [replace(new, choices=old.choices if len(old.choices) == len(new.ids) else [], label=old.label, steps=old.steps)
            for old, new in zip(columns, made, strict=True)]


def _shorter(line: Any, count: int) -> Any:
    if isinstance(line, ast.Generate):
        return replace(line, count=count)
    return replace(line, body=tuple(_shorter(x, count) for x in line.body)) if isinstance(line, ast.Run) else line


def _pieces(tokens: Tokens | None, row: int, text: Text) -> list[str]:
    """The new text token by token; word by word, without ids, where the run kept no tokens of it."""
    if tokens is not None and row < len(tokens) and text.ids and tokens.ids[row][-len(text.ids):] == text.ids:
        return list(tokens.pieces[row][-len(text.ids):])
    words = _WORDS.findall(text.new)
    return words if len(words) == len(text.ids) else [text.new, *[""] * (len(text.ids) - 1)]


def running(piece: str) -> str:
    """A token for running text: its spaces before it stay spaces, all else is shown.

    >>> running(" she"), running(" "), running("a\\n")
    (' she', '·', 'a\\\\n')
    """
    core = piece.lstrip(" ")
    return " " * (len(piece) - len(core)) + shown(core) if core else shown(piece)
