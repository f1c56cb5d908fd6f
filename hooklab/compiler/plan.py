"""What a compiled spec is: runs over prompts, each with its sweep cells, edits and reads, all names resolved.

A `Plan` holds no tensors and no torch: sites, layers, heads, positions and token ids are numbers here, values are
small expressions over what earlier runs will have captured. The runtime needs nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..address import Place
from ..sites import SITES
from ..spec.ast import Span

Spread = tuple[tuple[int, ...], ...]
"""Per example, unpadded positions."""


@dataclass(frozen=True)
class Spot:
    """One site of one layer, or a part of it.

    Attributes:
        heads: Which heads; None for all, or for a site without heads.
        units: Which entries of the last axis: neurons, or dimensions of the stream; None for all.
        sae: Name of the dictionary whose `features` are meant, encoded from this site.
    """

    site: str
    layer: int | None = None
    heads: tuple[int, ...] | None = None
    units: tuple[int, ...] | None = None
    sae: str | None = None
    features: tuple[int, ...] | None = None

    @property
    def whole(self) -> Place:
        """The site that this is a part of."""
        return Place(self.site, self.layer)

    @property
    def key(self) -> str:
        """The address of the whole site."""
        return self.whole.key

    @property
    def order(self) -> tuple[int, int]:
        """The order in which a forward pass comes by."""
        return self.whole.order

    @property
    def axes(self) -> tuple[str, ...]:
        """Axis words of the value."""
        axes = SITES[self.site].axes
        return (*axes[:-1], "feature") if self.sae else axes

    def __str__(self) -> str:
        if self.sae is not None:
            return f"{self.sae}.F{_picked(self.features)}"
        neurons = SITES[self.site].axes[-1] == "d_mlp" and self.units is not None
        place = Place(self.site, self.layer, self.heads, self.units if neurons else None)
        return str(place) + ("" if neurons or self.units is None else f"[{','.join(map(str, self.units))}]")


def _picked(numbers: tuple[int, ...] | None) -> str:
    if numbers is None:
        return "*"
    return str(numbers[0]) if len(numbers) == 1 else f"[{','.join(map(str, numbers))}]"


@dataclass(frozen=True)
class Reach:
    """Which tokens: positions of each example, and whether the prompt and the tokens written on are meant.

    Attributes:
        at: Positions of each example of the prompt; None for all of them.
        prompt: Whether the pass over the prompt is meant.
        new: Whether every later step is meant.
        steps: A function of the step (0 is the prompt), or step numbers, that decides instead; None for neither.
    """

    at: Spread | None = None
    prompt: bool = True
    new: bool = False
    steps: Any = None

    def holds(self, step: int) -> bool:
        """Whether a step of a generation is meant."""
        if not (self.new if step else self.prompt):
            return False
        return self.steps is None or bool(self.steps(step) if callable(self.steps) else step in self.steps)


# Values ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Const:
    """A number."""

    value: float


@dataclass(frozen=True)
class Given:
    """What Python between braces evaluated to; `pick` chooses one of several."""

    source: str
    pick: int | None = None


@dataclass(frozen=True)
class Act:
    """An activation of an earlier run."""

    run: str
    spot: Spot
    at: Spread | None = None


@dataclass(frozen=True)
class Op:
    """Arithmetic: + - * / of two values, or `neg` of one."""

    op: str
    args: tuple[Value, ...]


@dataclass(frozen=True)
class Fn:
    """A function of values: mean, unit, …"""

    name: str
    args: tuple[Value, ...]


@dataclass(frozen=True)
class Sigma:
    """The standard deviation of a site in an untouched run, over all its real tokens."""

    run: str
    spot: Spot


@dataclass(frozen=True)
class FromFile:
    """A tensor of a safetensors file, under the site's address."""

    path: str


@dataclass(frozen=True)
class Same:
    """The same place in another run."""

    run: str
    at: Spread | None = None


Value = Const | Given | Act | Op | Fn | Sigma | FromFile | Same


def acts(value: Any) -> Iterator[Act | Sigma]:
    """Every activation that a value needs."""
    if isinstance(value, (Act, Sigma)):
        yield value
    elif isinstance(value, (Op, Fn)):
        for arg in value.args:
            yield from acts(arg)


def at_spot(value: Any, spot: Spot) -> Any:
    """A value as it is at one of a line's places: `sigma` is the spread of each place for itself."""
    if isinstance(value, Sigma):
        return Sigma(value.run, Spot(spot.site, spot.layer))
    if isinstance(value, (Op, Fn)):
        return replace(value, args=tuple(at_spot(arg, spot) for arg in value.args))
    return value


# What a run does ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """One change, in one cell.

    Attributes:
        verb: What is done.
        spots: To which places.
        reach: At which tokens.
        value: With what; None where the verb needs nothing.
        options: Further settings (`min`, `renorm`, `method`, …).
        keys: For attention edges: the key positions.
        draw: Identifies its random numbers: (seed, line).
        span: Where it was written.
    """

    verb: str
    spots: tuple[Spot, ...]
    reach: Reach
    value: Value | None = None
    options: tuple[tuple[str, Any], ...] = ()
    keys: Spread | None = None
    draw: tuple[int, int] = (0, 0)
    span: Span | None = field(default=None, compare=False)

    def option(self, name: str, default: Any = None) -> Any:
        """A setting."""
        return dict(self.options).get(name, default)


def sources(edit: Edit) -> tuple[str, ...]:
    """The runs that an edit takes from."""
    same = (edit.value.run,) if isinstance(edit.value, Same) else ()
    return (*same, *(act.run for act in acts(edit.value)))


@dataclass(frozen=True)
class Axis:
    """An axis of a sweep: its name, the label of each value, and the `sweep` variable that makes it, if one does."""

    name: str
    labels: tuple[Any, ...]
    variable: str | None = field(default=None, compare=False)


def named_apart(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Axes with names of their own: a second `layer` becomes `layer_2`.

    >>> [axis.name for axis in named_apart((Axis("layer", ()), Axis("layer_2", ()), Axis("layer", ())))]
    ['layer', 'layer_2', 'layer_3']
    """
    found: list[Axis] = []
    for axis in axes:
        taken = {one.name for one in found}
        names = (axis.name if n == 1 else f"{axis.name}_{n}" for n in itertools.count(1))
        found.append(replace(axis, name=next(name for name in names if name not in taken)))
    return tuple(found)


@dataclass(frozen=True)
class Cell:
    """One point of a sweep: the index along each axis and the edits that apply there."""

    index: tuple[int, ...]
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Keep:
    """Activations to hand to the user."""

    name: str | None
    spots: tuple[Spot, ...]
    reach: Reach
    span: Span | None = field(default=None, compare=False)
    cells: tuple[Keep, ...] = ()

    def cell(self, number: int) -> Keep:
        """What is kept in one cell: the same in all of them, unless the places follow a sweep variable."""
        return self.cells[number] if self.cells else self


@dataclass(frozen=True)
class Reading:
    """An analysis of a run: `attribute`, `score` or `lens`.

    Attributes:
        spots: Where.
        each: Positions singled out one by one, per example; None for no position axis.
        options: Method, metric, source and so on.
        axes: The axes of the result, with their labels.
    """

    verb: str
    name: str
    spots: tuple[Spot, ...]
    axes: tuple[Axis, ...]
    at: Spread | None = None
    each: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    value: Any = None
    span: Span | None = field(default=None, compare=False)

    def option(self, name: str, default: Any = None) -> Any:
        """A setting."""
        return dict(self.options).get(name, default)


@dataclass(frozen=True)
class Writing:
    """Generation: how many tokens, and how they are chosen."""

    count: int
    options: tuple[tuple[str, Any], ...] = ()
    span: Span | None = field(default=None, compare=False)

    def option(self, name: str, default: Any = None) -> Any:
        """A setting."""
        return dict(self.options).get(name, default)


@dataclass(frozen=True)
class RunPlan:
    """One run: a prompt with edits, perhaps swept.

    Attributes:
        name: Its name; that of the prompt for an untouched run.
        prompt: Name of the prompt.
        axes: Axes of the sweep; none for a single pass.
        cells: The points of the sweep in row-major order; one cell without edits for an untouched run.
        samples: Independent draws of each cell.
        needs: Names of runs that must be there first.
        captures: Whole sites that later runs, or the user, will ask for.
        metrics: Metrics to evaluate.
        hidden: A run that only serves another (the first half of path patching).
    """

    name: str
    prompt: str
    axes: tuple[Axis, ...] = ()
    cells: tuple[Cell, ...] = (Cell((), ()),)
    samples: int = 1
    needs: frozenset[str] = frozenset()
    captures: frozenset[Spot] = frozenset()
    keeps: tuple[Keep, ...] = ()
    metrics: tuple[MetricPlan, ...] = ()
    readings: tuple[Reading, ...] = ()
    writing: Writing | None = None
    hidden: bool = False


def answering(source: RunPlan, user: RunPlan, number: int) -> int | None:
    """The cell of a swept run that answers to cell `number` of a run that takes from it: the same point of the same axes.

    None when the two do not vary over the same things.

    >>> pair = (Axis("layer", (0, 1)), Axis("value", (5, 6, 7)))
    >>> swept = RunPlan("a", "p", pair[1:], tuple(Cell((i,), ()) for i in range(3)))
    >>> user = RunPlan("b", "p", pair, tuple(Cell((i, j), ()) for i in range(2) for j in range(3)))
    >>> answering(swept, user, 4), answering(user, swept, 0)
    (1, None)
    """
    if len(source.cells) == 1:
        return 0
    if source.name == user.name:
        return number
    places = {(axis.name, axis.labels): i for i, axis in enumerate(user.axes)}
    flat = 0
    for axis in source.axes:
        place = places.get((axis.name, axis.labels))
        if place is None:
            return None
        flat = flat * len(axis.labels) + user.cells[number].index[place]
    return flat if source.axes else None


# Metrics and claims ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number read from logits.

    Attributes:
        fn: logit, logit_diff, prob, logprob, kl, loss, rank, entropy, top.
        target, other: Token ids, one for each example.
        ref: The run to compare with (`kl`).
        at: Positions per example; None for the last.
        ref_at: The same positions in the prompt of `ref`.
    """

    fn: str
    target: tuple[int, ...] | None = None
    other: tuple[int, ...] | None = None
    ref: str | None = None
    at: Spread | None = None
    ref_at: Spread | None = None


@dataclass(frozen=True)
class MetricPlan:
    """A metric with its name; `value` is made of Measure, Const, Op and Given (a Python callable)."""

    name: str
    value: Any
    unit: str = ""
    span: Span | None = field(default=None, compare=False)


def looks_back(value: Any, values: dict[str, Any]) -> bool:
    """Whether a metric may look at logits before the last position."""
    if isinstance(value, Given):
        return not getattr(values[value.source], "at_last", False)
    if isinstance(value, Measure):
        return value.fn == "loss" or value.at is not None
    return any(looks_back(arg, values) for arg in getattr(value, "args", ()))


@dataclass(frozen=True)
class Claim:
    """An `expect` line."""

    text: str
    left: Any
    op: str
    right: Any
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Figure:
    """A metric of a run, in a claim."""

    run: str
    metric: str


@dataclass(frozen=True)
class View:
    """A `show` line."""

    view: str
    count: int | None
    sites: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, repr=False)
class Plan:
    """A compiled spec.

    Attributes:
        text: The spec as text.
        runs: In an order in which each comes after those that it needs.
        prompts: Prompt name -> the input, ready for the model.
        saes: Name -> (source, site).
        values: Python source -> its value.
        marks: Prompt name -> name -> positions, for what is resolved while generating.
    """

    text: str
    runs: tuple[RunPlan, ...]
    prompts: dict[str, Any]
    saes: dict[str, tuple[Any, Spot]]
    values: dict[str, Any]
    claims: tuple[Claim, ...]
    views: tuple[View, ...]
    seed: int
    about: Any = None

    def run(self, name: str) -> RunPlan:
        """The run of a name."""
        return next(run for run in self.runs if run.name == name)

    def __str__(self) -> str:
        from .describe import describe

        return describe(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"
