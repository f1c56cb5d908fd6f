"""At which steps of a generation the edits of a run act, read from its text alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import ast
from .names import EDITS
from .narrow import Book
from .parser import parse
from .printer import line as printed


@dataclass(frozen=True)
class Acting:
    """An edit of a run and the steps at which it acts (0 is the pass over the prompt).

    Attributes:
        line: As it is written.
        steps: Numbers of steps, below the number that was asked for.
    """

    line: str
    steps: frozenset[int]


def acting(spec: ast.Spec | str, run: str, count: int, values: Mapping[str, Any] | None = None) -> tuple[Acting, ...]:
    """The edits that a run's text puts in force, and at which of its first `count` steps each acts.

    >>> acting('prompt "a"\\nzero L0H1 @new\\ngenerate 3', "hooked", 3)
    (Acting(line='zero L0H1 @new', steps=frozenset({1, 2})),)
    """
    book = Book(parse(str(spec)))
    lines: list[Any] = []
    while run in book.runs:
        block = book.runs[run]
        lines = [x for x in block.body if isinstance(x, EDITS)] + lines
        if block.on == run:
            break
        run = block.on
    return tuple(Acting(printed(x), frozenset(filter(_policy(book, x, values or {}), range(count)))) for x in lines)


_PLACES: dict[str | None, Callable[[int], bool]] = {
    "all": lambda step: True, "prompt": lambda step: step == 0, "new": lambda step: step > 0}


def _policy(book: Book, x: Any, values: Mapping[str, Any]) -> Callable[[int], bool]:
    """At which steps an edit acts: what `steps=` says, else what its place says; named positions are those of the prompt."""
    steps = next((opt.value for opt in x.opts if opt.name == "steps"), None)
    place = book.place_of(x.target)
    word = "all" if place is None else str(getattr(place, "pos", None))
    base = _PLACES.get(word, _PLACES["prompt"])
    if steps is None:
        return base
    value = values.get(steps.source) if isinstance(steps, ast.Py) else getattr(steps, "value", getattr(steps, "id", None))
    if isinstance(steps, ast.List):
        value = [getattr(item, "value", None) for item in steps.items]
    value = _PLACES.get(value, value) if isinstance(value, str) else [value] if isinstance(value, int) else value
    if callable(value):
        return lambda step: base(step) and bool(value(step))
    return lambda step: base(step) and (value is None or step in value)
