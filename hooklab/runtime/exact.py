"""The exact effect of cells that were attributed: each is zeroed or patched in a run of its own, packed where that can be.

What attribution estimates from one gradient is measured here on the model itself, with nothing held. `grad` and `ig` from
zero are compared with zeroing, `patch` and `ig` from a run with patching; `dla` with zeroing too, and there the difference
is what a place does through others.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..compiler.plan.cells import Axis, Cell
from ..compiler.plan.edits import Edit
from ..compiler.plan.plan import Plan
from ..compiler.plan.reaches import Reach, Spread
from ..compiler.plan.readings import Keep, Reading
from ..compiler.plan.spots import Spot
from ..compiler.plan.values import Same
from .gradients import reached
from .store import Block, Store

if TYPE_CHECKING:
    from ..compiler.aims import Aim
    from ..model.model import Model
    from ..records import Run

PLAIN, CHANGED, NODE = "plain~", "changed~", "node"


def chosen(count: int, cells: int, draw: int) -> list[int]:
    """Which cells to check: all of them, or some that are drawn."""
    return list(range(cells)) if count >= cells else sorted(random.Random(draw).sample(range(cells), count))


def exact(model: Model, store: Store, block: Block, reading: Reading, cells: list[int]) -> np.ndarray:
    """The exact effect of some cells, counted through all axes of a reading; its sign is that of the attribution."""
    from .execute import execute

    run = execute(model, _plan(store.plan, block, reading, [_edit(store.plan, block, reading, cell) for cell in cells]))
    aim: Aim | None = reading.option("aim")
    if aim is None:
        name = reading.value.name
        before, after = run.metrics[PLAIN][name], np.asarray(run.scores[f"{CHANGED}.{name}"].values)
    else:
        before, after = _reached(store, block, aim, run, PLAIN)[0], _reached(store, block, aim, run, CHANGED)
    return np.asarray(after - before if reading.option("method") == "patch" else before - after, dtype=np.float64)


def what(reading: Reading) -> str:
    """What is done to a cell to see its effect."""
    source = reading.option("source")
    return f"patching from {source}" if source else "zeroing"


def _edit(plan: Plan, block: Block, reading: Reading, cell: int) -> Edit:
    """What is done to one cell."""
    each = len(reading.at[0]) if reading.each and reading.at is not None else 1
    spot: Spot = reading.spots[cell // each]
    at: Spread | None = reading.at
    if reading.each and at is not None:
        at = tuple((row[cell % each],) for row in at)
    source = reading.option("source")
    if source is None:
        return Edit("zero", (spot,), Reach(at))
    lengths = plan.prompts[block.run.prompt].tokens.lengths
    whole = tuple(tuple(range(length)) for length in lengths)
    return Edit("patch", (spot,), Reach(at), Same(source, whole if at is None else at))


def _plan(plan: Plan, block: Block, reading: Reading, edits: list[Edit]) -> Plan:
    """A plan of two runs beside those that they need: as the attributed run is, and with one cell changed in each cell."""
    own = block.run.cells[block.number].edits
    aim: Aim | None = reading.option("aim")
    source = reading.option("source")
    spots = frozenset(Spot(spot.site, spot.layer) for spot in reading.spots) if source else frozenset()
    seen = frozenset() if aim is None else frozenset({Spot(aim.spot.site, aim.spot.layer)})
    base = replace(block.run, name=PLAIN, axes=(), cells=(Cell((), own),), keeps=_keeps(seen), readings=(), captures=seen,
                   metrics=() if reading.value is None else (reading.value,), hidden=False)
    changed = replace(base, name=CHANGED, axes=(Axis("cell", tuple(range(len(edits)))),),
                      cells=tuple(Cell((i,), (*own, edit)) for i, edit in enumerate(edits)))
    names = _needed(plan, base.needs | {base.prompt} | ({source} if source else set()))  # packed cells continue the prompt's
    before = [replace(run, keeps=(), readings=(), captures=run.captures | (spots if run.name == source else frozenset()))
              for run in plan.runs if run.name in names]
    return replace(plan, runs=(*before, base, changed), claims=(), views=())


def _keeps(seen: frozenset[Spot]) -> tuple[Keep, ...]:
    return (Keep(NODE, tuple(seen), Reach()),) if seen else ()


def _needed(plan: Plan, names: set[str] | frozenset[str]) -> set[str]:
    """Runs with all that they need in turn."""
    found: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += plan.run(name).needs
    return found


def _reached(store: Store, block: Block, aim: Aim, run: Run, name: str) -> np.ndarray:
    """The target's number in each cell, averaged over rows: [cell], one for a run that is not swept."""
    value = run[f"{name}.{NODE}"]
    whole = value.reshape(-1, block.run.samples * block.size, *value.shape[-_rank(aim):])
    with torch.no_grad():
        return np.array([float(reached(store, block, aim, cell).double().mean()) for cell in whole])


def _rank(aim: Aim) -> int:
    """Axes of the target's site, less the batch."""
    return len(aim.spot.axes) - 1
