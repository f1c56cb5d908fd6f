"""Patches of many cells at one place, done as one copy.

A sweep of patches has one small edit per cell. Where all take from runs that are not swept, they are merged, line by
line: one list of where to write, one of where to read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.plan.values import Same
from ...sites import SITES
from ..apply import Task, Where
from ..store import Store


@dataclass(frozen=True)
class Move:
    """Entries to copy from one tensor.

    Attributes:
        source: The site in another run, [row pos …].
        rows, columns: Row of the chunk's blocks, and column, of each entry.
        taken: Row and column of each in `source`.
        head: The head of each; None where whole positions are copied.
    """

    source: Tensor
    rows: Tensor
    columns: Tensor
    taken: tuple[Tensor, Tensor]
    head: Tensor | None

    def __call__(self, value: Tensor, where: Where) -> None:
        """Copy into a packed tensor [1 token …] whose entries lie where `where` says."""
        row, column, there = where(self.rows, self.columns)
        if not bool(there.any()):
            return
        index: list[Tensor] = [row[there], column[there]]
        read: list[Tensor] = [x[there] for x in self.taken]
        if self.head is not None:
            index.append(self.head[there])
            read.append(self.head[there])
        at, of = value.device, self.source.device
        value[tuple(i.to(at) for i in index)] = self.source[tuple(i.to(of) for i in read)].to(value)


def merged(store: Store, tasks: list[Task]) -> list[Move] | None:
    """The tasks of one place as moves; None when they must be done one by one."""
    if not all(_plain(store, task) for task in tasks):
        return None
    lines: list[dict[tuple[str, bool], list[Task]]] = []
    seen: set[tuple[str, int]] = set()
    for task in tasks:  # in the order of their lines: a second edit of a cell comes after the first
        mine = {block.key for block in task.blocks}
        if not lines or seen & mine:
            lines.append({})
            seen = set()
        seen |= mine
        assert isinstance(task.edit.value, Same)
        lines[-1].setdefault((task.edit.value.run, task.spot.heads is None), []).append(task)
    try:
        return [_move(store, run, own) for line in lines for (run, _), own in line.items()]
    except ValueError:
        return None  # places and sources of different lengths: one by one, the first that is wrong says so


def _plain(store: Store, task: Task) -> bool:
    """Whether a task copies whole positions, or single heads at positions, from a run that is not swept."""
    edit, spot = task.edit, task.spot
    if edit.verb != "patch" or not isinstance(edit.value, Same) or spot.sae is not None or spot.units is not None:
        return False
    if SITES[spot.site].axes[1] != "pos" or edit.option("cell") is not None:
        return False
    return len(store.plan.run(edit.value.run).cells) == 1


def _move(store: Store, run: str, tasks: list[Task]) -> Move:
    whole = store.acts[run, 0][tasks[0].spot.site, tasks[0].spot.layer]
    theirs = store.plan.prompts[store.plan.run(run).prompt].tokens
    entries: list[tuple[int, int, int, int, int]] = []
    for task in tasks:
        assert isinstance(task.edit.value, Same)
        ours, source = task.tokens, task.edit.value.at
        heads = task.spot.heads or (-1,)
        known: dict[int, list[tuple[int, int, int]]] = {}
        for block in task.blocks:
            for row in block.rows:
                inside = row - block.start
                if inside not in known:
                    example = inside % block.size
                    chosen = task.source_row(row, len(whole)) if len(whole) > 1 else 0
                    elsewhere = chosen % len(theirs)
                    named = elsewhere if len(theirs) > 1 else example
                    mine = range(ours.lengths[example]) if task.edit.reach.at is None else task.edit.reach.at[example]
                    other = range(theirs.lengths[elsewhere]) if source is None else source[named if len(source) > 1 else 0]
                    known[inside] = [(ours.column(example, p), chosen, theirs.column(elsewhere, q))
                                     for p, q in zip(mine, other, strict=True)]
                entries += [(row, column, chosen, of, head) for column, chosen, of in known[inside] for head in heads]
    table = torch.tensor(entries, dtype=torch.long).reshape(-1, 5)
    single = tasks[0].spot.heads is not None
    return Move(whole, table[:, 0], table[:, 1], (table[:, 2], table[:, 3]), table[:, 4] if single else None)
