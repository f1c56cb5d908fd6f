"""Entries: where the cells of a sweep depart from the pass that they share, and what a run packed so costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..plan.edits import Edit

START, MIDDLE, END = 0, 1, 2
"""Stages of a block at which a cell may depart: its input, the output of attention's heads, its output."""
STAGE = {"resid_pre": START, "ln1": START, "ln1_scale": START, "q": START, "k": START, "v": START, "rot_q": START,
         "rot_k": START, "scores": START, "pattern": START, "z": MIDDLE, "result": MIDDLE, "attn_out": MIDDLE,
         "resid_mid": MIDDLE, "ln2": MIDDLE, "ln2_scale": MIDDLE, "mlp_pre": MIDDLE, "mlp_pre_linear": MIDDLE,
         "mlp_post": MIDDLE, "mlp_out": END, "resid_post": END, "ln_final": END, "ln_final_scale": END}


@dataclass(frozen=True)
class Entry:
    """Where a cell departs from the shared pass.

    Attributes:
        layer: The block.
        stage: START, MIDDLE or END of it.
        starts: Per example, the first unpadded position that can change; None where nothing can.
    """

    layer: int
    stage: int
    starts: tuple[int | None, ...]


@dataclass(frozen=True)
class Packing:
    """How a swept run is packed.

    Attributes:
        base: The run whose pass the cells continue.
        shared: Edits that are in every cell, and in the base.
        entries: One for each cell.
        work: Tokens times blocks to compute.
        plain: The same for one whole pass per cell.
        idle: Cells and examples in which nothing can change.
    """

    base: str
    shared: tuple[Edit, ...]
    entries: tuple[Entry, ...]
    work: int
    plain: int
    idle: int


def in_words(packing: Packing) -> Iterator[str]:
    """A packing in words."""
    share = packing.work / max(1, packing.plain)
    yield f"packed: continues {packing.base.rstrip('~')}, {share:.0%} of the work of whole passes"
    if packing.idle:
        yield f"{packing.idle} of the results are known without running: nothing changes there"
