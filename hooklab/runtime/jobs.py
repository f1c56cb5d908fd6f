"""A plan as jobs: ordinary passes, and packed ones that continue them, in an order that serves every run's needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ..compiler.packing.entries import MIDDLE, START, Entry, Packing
from ..compiler.plan.plan import Plan
from ..compiler.plan.runs import RunPlan
from ..compiler.schedule import schedule
from ..errors import HooklabWarning
from .measure import references, wanted_tokens
from .packed.base import Base
from .packed.cells import chunks
from .packed.walk import Unpackable, walk
from .passes import blocks_of, forward, rows_that_fit, width_of
from .store import Block, Store

if TYPE_CHECKING:
    from ..model.model import Model


@dataclass(frozen=True)
class Job:
    """One pass: blocks that share it, and for a packed one, where each departs."""

    blocks: tuple[Block, ...]
    entries: tuple[Entry, ...] = ()
    first: bool = False

    @property
    def what(self) -> str:
        """The runs that it serves."""
        return ", ".join(dict.fromkeys(block.run.name.rstrip("~") for block in self.blocks))


@dataclass
class Jobs:
    """The passes of a plan.

    Attributes:
        rows: Most rows of a pass; None for what fits into memory.
        bases: Recorded passes, by run.
        off: Run -> how far the control of its packed passes was from the recorded logits.
    """

    model: Model
    store: Store
    packings: dict[str, Packing]
    rows: int | None = None
    bases: dict[str, Base] = field(default_factory=dict)
    off: dict[str, float] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """What is done."""
        return self.store.plan

    def all(self) -> list[Job]:
        """Every pass, in order."""
        found: list[Job] = []
        for group in schedule(self.plan):
            whole = tuple(run for run in group if run.name not in self.packings)
            if whole:
                found += [Job(tuple(chunk)) for chunk in self._whole(whole)]
            for run in group:
                if run.name in self.packings:
                    found += self._packed(run)
        return found

    def _whole(self, runs: tuple[RunPlan, ...]) -> Iterator[list[Block]]:
        return blocks_of(runs, self.store, self.rows or rows_that_fit(self.model, width_of(self.plan, runs)))

    def _packed(self, run: RunPlan) -> list[Job]:
        prompt = self.plan.prompts[run.prompt]
        parts = chunks(self.model, run, self.packings[run.name], int(prompt.size), prompt.tokens.lengths, self.rows)
        return [Job(tuple(block for block, _ in part), tuple(entry for _, entry in part), first=number == 0)
                for number, part in enumerate(parts)]

    def work(self, job: Job) -> int:
        """How much a pass has to do, in tokens times blocks."""
        layers = self.model.facts.n_layers
        if not job.entries:
            return layers * sum(sum(self.plan.prompts[block.run.prompt].tokens.lengths) * block.run.samples
                                for block in job.blocks)
        lengths = self.plan.prompts[job.blocks[0].run.prompt].tokens.lengths
        return job.blocks[0].run.samples * sum((layers - entry.layer) * (n - p) for entry in job.entries
                                               for p, n in zip(entry.starts, lengths, strict=True) if p is not None)

    def do(self, job: Job, tick: Callable[[float], None] = lambda done: None) -> None:
        """One pass; `tick` is told on the way what share of it is done."""
        if not job.entries:
            self.bases |= forward(self.model, self.store, list(job.blocks), self._recorded())
            return
        run = job.blocks[0].run
        if run.name in self.packings:
            ids = wanted_tokens(run.metrics)
            if any(run.name in references(plan.value) for other in self.plan.runs for plan in other.metrics):
                ids = None  # whoever compares with it wants the whole vocabulary
            answers = None if ids is None else torch.tensor(ids, dtype=torch.long)
            try:
                off = walk(self.model, self.store, self.bases[self.packings[run.name].base],
                           list(zip(job.blocks, job.entries, strict=True)), answers=answers,
                           control=self.plan.run(self.packings[run.name].base) if job.first else None, tick=tick)
                self.off[run.name] = max(off, self.off.get(run.name, 0.0))
                return
            except Unpackable as trouble:
                del self.packings[run.name]
                warnings.warn(f"{run.name} is run in whole passes: packed, {trouble}.", HooklabWarning, stacklevel=2)
        numbers = {block.number for block in job.blocks}
        for chunk in self._whole((run,)):
            wanted = [block for block in chunk if block.number in numbers]
            if wanted:
                forward(self.model, self.store, _from_zero(wanted))

    def _recorded(self) -> dict[str, set[tuple[str, int]]]:
        """Base -> the sites at which cells join."""
        found: dict[str, set[tuple[str, int]]] = {}
        for name, packing in self.packings.items():
            sites = found.setdefault(packing.base, {("resid_pre", 0)})
            for layer, stage in {(entry.layer, entry.stage) for entry in packing.entries}:
                names = ("resid_pre",) if stage == START else ("resid_pre", "z") if stage == MIDDLE else (
                    "resid_post", "mlp_out")
                sites.update((site, layer) for site in names)
            run = self.plan.run(name)
            sites.update((spot.site, spot.layer) for spot in run.captures if spot.layer is not None)
            sites.update((spot.site, spot.layer) for edit in packing.shared for spot in edit.spots
                         if spot.site == "z" and spot.layer is not None)  # held heads need not attend
        return found


def _from_zero(blocks: list[Block]) -> list[Block]:
    """The same blocks, their rows counted from the first."""
    made, at = [], 0
    for block in blocks:
        made.append(Block(block.run, block.number, at, block.size))
        at += len(block.rows)
    return made
