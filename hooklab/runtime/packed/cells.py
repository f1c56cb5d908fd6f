"""What the cells of a chunk do and lend: their edits, wherever their strands lie, and the sites that later runs take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...compiler.packing.entries import END, STAGE, START, Entry, Packing
from ...compiler.plan.reaches import Reach
from ...compiler.plan.runs import RunPlan
from ...compiler.plan.values import Same
from ..apply import Task
from ..passes import BUDGET, tasks_of, tokens_at_once
from ..store import Block, Store
from .base import Base
from .moves import Move, merged
from .strands import Strands, Whole

if TYPE_CHECKING:
    from ...model.model import Model

Place = tuple[str, "int | None"]
DIRECT = ("embed", "pos_embed", "resid_pre")
"""Sites that the walk changes itself, or that the recorded pass has behind it."""


def chunks(model: Model, run: RunPlan, packing: Packing, size: int, lengths: tuple[int, ...],
           rows: int | None) -> Iterator[list[tuple[Block, Entry]]]:
    """The cells of a run, as many at a time as fit into memory (or into `rows` whole rows)."""
    facts = model.facts
    wide = 12 * facts.d_model + 3 * (facts.d_mlp or 4 * facts.d_model)
    most = rows * max(lengths) if rows else max(1, min(BUDGET // (4 * wide), tokens_at_once(model)))
    chunk: list[tuple[Block, Entry]] = []
    used = at = 0
    for number, entry in enumerate(packing.entries):
        tokens = run.samples * sum(0 if p is None else n - p for p, n in zip(entry.starts, lengths, strict=True))
        if chunk and used + tokens > most:
            yield chunk
            chunk, used, at = [], 0, 0
        chunk.append((Block(run, number, at, size), entry))
        at += run.samples * size
        used += tokens
    if chunk:
        yield chunk


class Cells:
    """The cells of a chunk, and the control beside them.

    Attributes:
        where: Where rows and columns of the cells lie in what is running.
        depths: The first and the last depth (three times the block, plus the stage) at which what is running joined.
        last_layer: The last block that anybody needs; the number of blocks when logits are wanted.
    """

    def __init__(self, model: Model, store: Store, base: Base, strands: Strands, blocks: list[tuple[Block, Entry]]) -> None:
        self.model, self.store, self.base, self.strands = model, store, base, strands
        self.entries = {block.key: entry for block, entry in blocks}
        self.all = [block for block, _ in blocks]
        self.tasks = tasks_of(store, self.all)
        self.moves: dict[Place, list[Move] | None] = {}
        self.own = [block for block in self.all if block.run.hidden and block.run.captures]
        self.captures = {(spot.site, spot.layer) for block in self.own for spot in block.run.captures}
        self.caught: dict[Place, list[tuple[Tensor, Tensor]]] = {}
        lends = bool(self.own) and not any(block.run.metrics for block in self.own)
        self.last_layer = max((n for _, n in self.captures if n is not None), default=0) if lends else model.facts.n_layers
        self.where: Any = None
        self.depths = (0, 0)

    @contextmanager
    def standing(self, where: Any, depths: tuple[int, int]) -> Iterator[None]:
        """What runs in the block lies there, and joined between these depths."""
        before = self.where
        self.where, self.depths = where, depths
        try:
            yield
        finally:
            self.where = before

    # Edits

    def callbacks(self) -> dict[str, list[Callable[[Tensor, int], None]]]:
        """Location -> edits of the strands that are running, and the keeping of what they lend."""
        port = self.model.layout.port
        return {port(*place).location: [partial(self._serve, place)] for place in (*self.tasks, *self.captures)
                if place[0] not in DIRECT or place in self.captures}

    def _serve(self, place: Place, value: Tensor, step: int) -> None:
        if place[0] not in DIRECT:
            self.change(place, value)
        self.catch(place, value)

    def touches(self, site: str, layer: int) -> bool:
        """Whether a site is edited, or lent, at all."""
        return (site, layer) in self.tasks or (site, layer) in self.captures

    def change(self, place: Place, value: Tensor) -> None:
        """Apply the edits of a place, in place, to the strands that are running."""
        if place not in self.tasks:
            return
        if place not in self.moves:
            self.moves[place] = merged(self.store, self.tasks[place])
        moves = self.moves[place]
        if moves is not None:
            for move in moves:
                move(value, self.where)
            return
        for task in self.tasks[place]:
            joined = [block for block in task.blocks if self._running(block)]
            if joined:
                part = Task(self.store, task.edit, task.spot)
                part.blocks = joined
                part(value, where=self.where)

    def _running(self, block: Block) -> bool:
        entry = self.entries[block.key]
        first, last = self.depths
        return first <= 3 * entry.layer + entry.stage <= last and any(p is not None for p in entry.starts)

    def held(self, layer: int) -> bool:
        """Whether every head of a block keeps its recorded output in all that run, so that nobody need attend."""
        if ("z", layer) not in self.base.sites or any(
                STAGE.get(site, END) == START and site != "resid_pre" for site, at in (*self.tasks, *self.captures)
                if at == layer):
            return False
        holding = [task for task in self.tasks.get(("z", layer), ()) if _holds(task, self.base.run)]
        held = {block.key for task in holding for block in task.blocks}
        with self.standing(None, (0, 3 * layer + START)):
            return all(block.key in held for block in self.all if self._running(block))

    # Lending

    def lends_at(self, layer: int) -> bool:
        """Whether later runs take something from a block, so that all its tokens must run."""
        return any(place[1] == layer for place in self.captures)

    def catch(self, place: Place, value: Tensor) -> None:
        """Keep the value of the strands that are running, if later runs take it."""
        if place in self.captures:
            assert isinstance(self.where, Whole)
            tokens = self.strands.tokens(self.where.range)
            self.caught.setdefault(place, []).append((torch.arange(tokens.start, tokens.stop), value[0].detach().clone()))

    def lend(self) -> None:
        """Put the sites that later runs take into the store, whole: recorded up to where a cell departs."""
        if not self.own:
            return
        s = self.strands
        rows = torch.tensor([row - block.start for block in self.own for row in block.rows])
        for site, layer in self.captures:
            assert layer is not None
            recorded = self.base.sites[site, layer]
            whole = recorded.index_select(0, rows.to(recorded.device))
            for tokens, value in self.caught.get((site, layer), ()):
                row = s.rows[s.strand[tokens]]
                mine = row < len(rows)
                at = (row[mine] * s.width + s.column[tokens[mine]]).to(whole.device)
                whole.flatten(0, 1).index_copy_(0, at, value[mine.to(value.device)].to(whole.dtype))
            for block in self.own:
                self.store.keep(block, (site, layer), whole[block.start:block.rows.stop])


def _holds(task: Task, base: str) -> bool:
    """Whether an edit keeps a whole site at what it is in the recorded run."""
    edit, spot = task.edit, task.spot
    return (edit.verb == "patch" and edit.value == Same(base) and edit.reach == Reach() and spot.heads is None
            and spot.units is None and spot.sae is None)
