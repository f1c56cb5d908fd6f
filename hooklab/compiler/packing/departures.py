"""Departures: the first block, and the first position of each example, that the cells of a sweep change."""

from __future__ import annotations

from ..plan.edits import Edit
from ..plan.plan import Plan
from ..plan.runs import RunPlan
from ..plan.spots import Spot
from ..plan.values import Same
from .entries import END, MIDDLE, STAGE, START, Entry, Packing
from .shared import among, shared_edits


def departures(plan: Plan, run: RunPlan, known: dict[str, Packing]) -> Packing:
    """A swept run packed: where each of its cells departs, given how the runs before it are packed."""
    shared = shared_edits(plan, run)
    tokens = plan.prompts[run.prompt].tokens
    lengths = tokens.lengths
    layers = int(plan.about.facts.n_layers)
    starts: dict[int, tuple[int | None, ...]] = {}
    entries = []
    work = idle = 0
    for cell in run.cells:
        own = [edit for edit in cell.edits if not among(edit, shared)]
        for edit in own:
            if id(edit) not in starts:
                starts[id(edit)] = tuple(_start(plan, run, shared, edit, e, known) for e in range(len(lengths)))
        entry = _entry(own, [starts[id(edit)] for edit in own], shared, layers, len(lengths))
        entries.append(entry)
        for start, length in zip(entry.starts, lengths, strict=True):
            if start is None:
                idle += 1
            else:
                work += run.samples * (length - start) * (layers - entry.layer)
    idle_lines = all(_start(plan, run, (), edit, e, {}) is None for edit in shared for e in range(len(lengths)))
    recorded = 0 if idle_lines else run.samples * sum(lengths) * layers
    plain = len(run.cells) * run.samples * sum(lengths) * layers
    base = run.prompt if idle_lines and run.samples == 1 else f"{run.name}~"
    return Packing(base, shared, tuple(entries), work + recorded, plain, idle * run.samples)


def _entry(own: list[Edit], starts: list[tuple[int | None, ...]], shared: tuple[Edit, ...], layers: int,
           size: int) -> Entry:
    """The first place and the first position of a cell's own edits."""
    doing = [edit for edit, start in zip(own, starts, strict=True) if any(p is not None for p in start)]
    first = tuple(min((start[e] for start in starts if start[e] is not None), default=None)  # type: ignore[type-var]
                  for e in range(size))
    if not doing:
        return Entry(layers - 1, END, (None,) * size)
    layer, stage = min(_depth(spot, layers) for edit in doing for spot in edit.spots)
    if stage == END and any(_depth(spot, layers) == (layer, END) for edit in shared for spot in edit.spots):
        stage = MIDDLE  # what the shared edits did to the block's output has to be done again
    return Entry(layer, stage, first)


def _depth(spot: Spot, layers: int) -> tuple[int, int]:
    if spot.layer is None:
        return (0, START) if spot.site in ("embed", "pos_embed") else (layers - 1, END)
    return spot.layer, STAGE[spot.site]


def _start(plan: Plan, run: RunPlan, shared: tuple[Edit, ...], edit: Edit, example: int,
           known: dict[str, Packing]) -> int | None:
    """The first position that an edit can change in an example; None when it can change none."""
    n = plan.prompts[run.prompt].tokens.lengths[example]
    at = range(n) if edit.reach.at is None else edit.reach.at[example]
    if not isinstance(edit.value, Same) or edit.verb != "patch":
        return min(at, default=None)
    source = edit.value
    cell = edit.option("cell")
    same_until = _alike(plan, run, shared, source.run, example) if cell is None else _departs(
        plan, run, shared, source.run, cell, example, known)
    theirs = at if source.at is None else source.at[example if len(source.at) > 1 else 0]
    return min((p for p, q in zip(at, theirs, strict=False) if p != q or p >= same_until), default=None)


def _alike(plan: Plan, run: RunPlan, shared: tuple[Edit, ...], source: str, example: int) -> int:
    """How many positions from the start are the same in the shared pass and in another run, whatever the layer."""
    other = plan.run(source)
    if len(other.cells) > 1 or other.samples > 1:
        return 0
    mine, theirs = plan.prompts[run.prompt], plan.prompts[other.prompt]
    if run.prompt != other.prompt and (mine.extras or theirs.extras):
        return 0  # pictures and the like: what the tokens show of them is not compared
    if len(theirs.tokens) not in (1, len(mine.tokens)):
        return 0
    elsewhere = example if len(theirs.tokens) > 1 else 0
    ours, others = mine.tokens.ids[example], theirs.tokens.ids[elsewhere]
    until = next((i for i, (a, b) in enumerate(zip(ours, others, strict=False)) if a != b), min(len(ours), len(others)))
    for edits, where in ((shared, example), (other.cells[0].edits, elsewhere)):
        for edit in edits:
            until = min(until, _first(edit, where))
    return until


def _departs(plan: Plan, run: RunPlan, shared: tuple[Edit, ...], source: str, cell: int, example: int,
             known: dict[str, Packing]) -> int:
    """How many positions from the start a cell of a packed run has in common with the pass that both continue."""
    if source not in known or known[source].base != run.prompt or plan.run(source).prompt != run.prompt:
        return 0
    start = known[source].entries[cell].starts[example]
    length = plan.prompts[run.prompt].tokens.lengths[example]
    return min([length if start is None else start, *(_first(edit, example) for edit in shared)])


def _first(edit: Edit, example: int) -> int:
    return 0 if edit.reach.at is None else min(edit.reach.at[example], default=1 << 30)
