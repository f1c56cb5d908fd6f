"""What runs leave for later ones: captured activations and logits, by run and cell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..compiler.plan.plan import Plan
from ..compiler.plan.runs import RunPlan, answering
from ..compiler.plan.spots import Spot
from ..problems import Problem, SpecError


@dataclass(frozen=True)
class Block:
    """The rows of one cell of one run in a shared batch: sample after sample, example after example.

    Attributes:
        number: Which cell of the run.
        start: Its first row.
        size: Examples of the prompt.
    """

    run: RunPlan
    number: int
    start: int
    size: int

    @property
    def rows(self) -> range:
        """Rows of the batch."""
        return range(self.start, self.start + self.run.samples * self.size)

    @property
    def key(self) -> tuple[str, int]:
        """Under which its activations are stored."""
        return self.run.name, self.number


@dataclass(frozen=True)
class SomeLogits:
    """Logits of the last position, of some tokens only.

    Attributes:
        values: [row pos token], with one position.
        ids: The tokens, ascending, [token].
    """

    values: Tensor
    ids: Tensor


@dataclass
class Store:
    """Activations by (run, cell) and (site, layer); everything of one prompt has the same columns."""

    plan: Plan
    acts: dict[tuple[str, int], dict[tuple[str, int | None], Tensor]] = field(default_factory=dict)
    logits: dict[tuple[str, int], Tensor | SomeLogits] = field(default_factory=dict)
    saes: dict[str, Any] = field(default_factory=dict)
    given: dict[Any, Any] = field(default_factory=dict)

    def keep(self, block: Block, spot: tuple[str, int | None], value: Tensor) -> None:
        """Store a whole site of a block."""
        self.acts.setdefault(block.key, {})[spot] = value

    def cell(self, run: str, user: RunPlan, number: int) -> int:
        """The cell of an earlier run that answers to cell `number` of a run that takes from it."""
        found = answering(self.plan.run(run), user, number)
        if found is None:
            raise trouble(f"{run} is swept over axes that {user.name} lacks",
                          hint="sweep both over the same axes, or take from a run that is not swept")
        return found

    def act(self, run: str, spot: Spot, user: RunPlan, number: int) -> Tensor:
        """A whole site of an earlier run, at the cell that answers to cell `number` of the run that takes from it."""
        return self.acts[run, self.cell(run, user, number)][spot.site, spot.layer]

    def release(self, names: set[str]) -> None:
        """Forget the activations of runs that nobody asks any more."""
        for key in [key for key in self.acts if key[0] in names]:
            del self.acts[key]


@contextmanager
def standing_at(span: Any, text: str) -> Iterator[None]:
    """Problems that come without a place get the place of the line that was at work."""
    try:
        yield
    except SpecError as error:
        if span is None or any(problem.line for problem in error.problems):
            raise
        width = span.end_column - span.column if span.end_line == span.line else 1
        raise SpecError([replace(p, line=span.line, column=span.column, width=max(1, width)) for p in error.problems],
                        text) from error.__cause__


def trouble(message: str, span: Any = None, hint: str = "", text: str = "", kind: str = "run") -> SpecError:
    """What went wrong while a plan ran, as an error of the spec."""
    if span is None:
        return SpecError([Problem(kind, message, hint=hint)], text)
    width = span.end_column - span.column if span.end_line == span.line else 1
    return SpecError([Problem(kind, message, span.line, span.column, max(1, width), hint)], text)
