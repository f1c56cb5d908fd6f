"""Forward passes of a plan: runs that may share a pass become rows of one batch, in chunks that fit in memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.plan.edits import Edit, sources
from ..compiler.plan.measures import looks_back
from ..compiler.plan.plan import Plan
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.spots import Spot
from .apply import Task
from .evaluate import columns
from .packed.base import Base, Recorder
from .spliced import hold_features
from .store import Block, Store
from .trace import run as run_model

if TYPE_CHECKING:
    from ..model.model import Model

BUDGET = 1 << 30
"""Bytes that the widest activations of one chunk may take."""


def blocks_of(group: tuple[RunPlan, ...], store: Store, rows: int) -> Iterator[list[Block]]:
    """The cells of a group of runs as rows of batches of at most `rows` rows (one cell at least)."""
    chunk: list[Block] = []
    at = 0
    for run in group:
        size = int(store.plan.prompts[run.prompt].size)
        for number in range(len(run.cells)):
            if chunk and at + size * run.samples > rows:
                yield chunk
                chunk, at = [], 0
            chunk.append(Block(run, number, at, size))
            at += size * run.samples
    if chunk:
        yield chunk


def width_of(plan: Plan, runs: tuple[RunPlan, ...]) -> int:
    """Columns of a batch over several runs."""
    return max(int(plan.prompts[run.prompt].tokens.width) for run in runs)


def rows_that_fit(model: Model, width: int) -> int:
    """How many rows of `width` tokens a pass may have."""
    facts = model.facts
    wide = max(facts.d_vocab, 8 * facts.d_model, 4 * (facts.d_mlp or facts.d_model), facts.n_heads * width)
    return max(1, min(BUDGET // (4 * width * wide), tokens_at_once(model) // width))


def tokens_at_once(model: Model) -> int:
    """Tokens of a pass beyond which it only gets longer, not faster; short passes show progress and can be stopped."""
    return 1 << 13 if model.device.type == "cpu" else 1 << 16


def tasks_of(store: Store, blocks: list[Block]) -> dict[tuple[str, int | None], list[Task]]:
    """The edits of a batch by site and layer, in the order of their lines; shared ones are done once."""
    found: dict[tuple[int, int, Spot, Any], Task] = {}
    for block in blocks:
        for line, edit in enumerate(block.run.cells[block.number].edits):
            for spot in dict.fromkeys(edit.spots):
                key = (line, id(edit), spot, _shared_by(store, edit, block))
                if key not in found:
                    found[key] = Task(store, edit, spot)
                found[key].blocks.append(block)
    by_place: dict[tuple[str, int | None], list[Task]] = {}
    # Line by line: an edit that all cells share acts between those that they have of their own.
    for (_, _, spot, _), task in sorted(found.items(), key=lambda item: item[0][0]):
        by_place.setdefault((spot.written.site, spot.written.layer), []).append(task)
    hold_features(store, by_place)
    return by_place


def _shared_by(store: Store, edit: Edit, block: Block) -> Any:
    """What blocks must have in common for an edit to do the same to all of them."""
    own = edit.verb == "resample" or any(len(store.plan.run(name).cells) > 1 for name in sources(edit))
    return block.key if own else (block.run.prompt, block.run.samples)


def forward(model: Model, store: Store, blocks: list[Block], record: Mapping[str, set[tuple[str, int]]] | None = None
            ) -> dict[str, Base]:
    """One pass: edits applied, captures and logits put into the store.

    `record` names runs, and the sites at which other passes will continue them; what they left is returned.
    """
    record = {block.run.name: record[block.run.name] for block in blocks if record and block.run.name in record}
    recorder = Recorder(model)
    places = tasks_of(store, blocks)
    captured: dict[tuple[str, int | None], list[Block]] = {}
    for block in blocks:
        for spot in block.run.captures:
            captured.setdefault((spot.site, spot.layer), []).append(block)
        if block.run.metrics or block.run.name in record or _reads_logits(store, block.run):
            captured.setdefault(("logits", None), []).append(block)
    callbacks: dict[str, list[Any]] = {}
    for place in dict.fromkeys((*places, *captured)):
        port = model.layout.port(*place)
        callbacks[port.location] = [_callback(store, place, places.get(place, []), captured.get(place, []))]
    for location, note in recorder.callbacks(set().union(*record.values())).items():
        callbacks.setdefault(location, []).insert(0, note)
    prompts = [store.plan.prompts[block.run.prompt] for block in blocks for _ in range(block.run.samples)]
    options: dict[str, Any] = {"logits_to_keep": 1} if last_only(store.plan) and unembeds_less(model) else {}
    if not record:
        run_model(model, "__call__", callbacks, *prompts, **options)
        return {}
    with recorder.shapes():
        run_model(model, "__call__", callbacks, *prompts, watcher=recorder.watch, **options)
    return {block.run.name: recorder.base(block.run.name, block.rows, store.plan.prompts[block.run.prompt].tokens,
                                           last_logits(store, block))
            for block in blocks if block.run.name in record}


@lru_cache(maxsize=64)
def _takes(forward_: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward_).parameters


def unembeds_less(model: Model) -> bool:
    """Whether the model can leave out the logits of all but the last column, which holds every row's last token."""
    return _takes(type(model.hf).forward) and model.reader.side == "left" and not model.hooks


def last_only(plan: Plan) -> bool:
    """Whether nothing in a plan looks at logits other than those of the last position."""
    for run in plan.runs:
        spots = {spot for keep in run.keeps for spot in keep.spots} | run.captures | {
            spot for cell in run.cells for edit in cell.edits for spot in edit.spots}
        if any(spot.site == "logits" for spot in spots) or any(looks_back(m.value, plan.values) for m in run.metrics):
            return False
    return True


def _reads_logits(store: Store, run: RunPlan) -> bool:
    """Whether anybody asks for the logits of a run: a metric elsewhere, or the table of next tokens."""
    if run.hidden or run.prompt.startswith("{") or store.plan.about.missing("logits"):
        return False
    return True


def _callback(store: Store, place: tuple[str, int | None], tasks: list[Task],
              kept: list[Block]) -> Callable[[Tensor, int], None]:
    """What happens at a site in a pass: its edits, then each block's rows are put into the store if they are asked for."""

    def serve(value: Tensor, step: int) -> None:
        for task in tasks:
            task(value)
        for block in kept:
            rows = value[block.rows.start:block.rows.stop].detach()
            if place[0] != "logits":
                store.keep(block, place, rows.clone())
                continue
            if any(spot.site == "logits" for spot in block.run.captures):
                store.keep(block, place, rows.clone())
            store.logits[block.key] = rows if len(kept) == 1 else rows.clone()

    return serve


def last_logits(store: Store, block: Block) -> Tensor:
    """Logits at the last position of every row, [row d_vocab]."""
    tokens = store.plan.prompts[block.run.prompt].tokens
    logits = store.logits[block.key]
    assert isinstance(logits, Tensor)
    cols = [[columns(tokens, None, r % block.size)[-1]] for r in range(len(logits))]
    return at_columns(logits, cols, tokens.width)[:, 0]


def at_columns(logits: Tensor, cols: list[list[int]], width: int) -> Tensor:
    """Logits at columns of each row, [row pos d_vocab]; they may have been kept for the last columns only."""
    if logits.shape[1] == 1 and len(cols[0]) == 1:
        return logits
    index = torch.tensor(cols) - (width - logits.shape[1])
    return logits[torch.arange(len(logits))[:, None], index]
