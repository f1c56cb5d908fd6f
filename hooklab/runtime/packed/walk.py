"""The walk: a chunk of cells carried through the blocks once, every cell joining where it departs from the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import NewGELUActivation

from ...compiler.packing import END, MIDDLE, START, Entry, Packing
from ..apply import Task
from ..passes import BUDGET, tasks_of
from ..store import Block, SomeLogits, Store
from ..trace import run as run_model
from .attend import Attention
from .base import Base
from .moves import Move, merged
from .probe import Arguments, instead, probe
from .strands import Last, Range, Strands, Whole

if TYPE_CHECKING:
    from ...compiler.plan import RunPlan
    from ...model.model import Model

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}
COARSE = 0.1
INNER = ("scores", "pattern")
DIRECT = ("embed", "pos_embed", "resid_pre")
"""Sites that the walk changes itself, or that the recorded pass has behind it."""


class Unpackable(Exception):
    """The check of a packed pass failed: its control does not give the recorded logits."""


class _Done(Exception):
    """Keys and values are there; the rest of the block is not needed."""


def chunks(model: Model, run: RunPlan, packing: Packing, size: int, lengths: tuple[int, ...],
           rows: int | None) -> Iterator[list[tuple[Block, Entry]]]:
    """The cells of a run, as many at a time as fit into memory (or into `rows` whole rows)."""
    facts = model.facts
    wide = 12 * facts.d_model + 3 * (facts.d_mlp or 4 * facts.d_model)
    most = rows * max(lengths) if rows else max(1, BUDGET // (4 * wide))
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


def walk(model: Model, store: Store, base: Base, blocks: list[tuple[Block, Entry]], *,
         answers: Tensor | None = None, control: RunPlan | None = None) -> float:
    """Run a chunk; the logits of its last positions go into the store. Returns how far the control was off.

    Args:
        model: The model.
        store: What earlier runs left.
        base: The recorded pass.
        blocks: Cells, each with where it departs.
        answers: Token ids whose logits are wanted, ascending; None for all.
        control: The run that was recorded, to be computed again beside the cells and compared.

    Raises:
        Unpackable: the control is off by more than rounding.
    """
    beside = [] if control is None else checks(control, blocks)
    made = Walk(model, store, base, [*blocks, *beside])
    if len(made.strands):
        with fused(model.hf):
            run_model(model, made.through, made.callbacks(), attends=made.attention)
    return made.leave([block for block, _ in blocks], [block for block, _ in beside], answers)


def checks(run: RunPlan, blocks: list[tuple[Block, Entry]]) -> list[tuple[Block, Entry]]:
    """The recorded run as a cell that departs first of all, and changes nothing."""
    firsts = [min((p for p in starts if p is not None), default=None)
              for starts in zip(*(entry.starts for _, entry in blocks), strict=True)]
    if all(first is None for first in firsts):
        return []
    return [(Block(run, 0, max(block.rows.stop for block, _ in blocks), blocks[0][0].size), Entry(0, START, tuple(firsts)))]


@contextmanager
def fused(hf: torch.nn.Module) -> Iterator[None]:
    """The tanh form of GELU by torch's one kernel, where transformers writes it out in nine: a fifth of GPT-2's time."""
    with ExitStack() as stack:
        for module in hf.modules():
            if type(module) is NewGELUActivation:
                stack.enter_context(instead(module, partial(F.gelu, approximate="tanh")))
        yield


class Walk:
    """One chunk on its way."""

    def __init__(self, model: Model, store: Store, base: Base, blocks: list[tuple[Block, Entry]]) -> None:
        self.model, self.store, self.base = model, store, base
        self.entries = {block.key: entry for block, entry in blocks}
        self.layers = model.facts.n_layers
        self.strands = Strands(base, blocks, self.layers)
        self.tasks = tasks_of(store, [block for block, _ in blocks])
        self.moves: dict[tuple[str, int | None], list[Move] | None] = {}
        self.where: Any = None
        self.range = Range(0, 0)
        self.attend: Callable[..., Any] | None = None
        self.final: Tensor | None = None

    # Edits

    def callbacks(self) -> dict[str, list[Callable[[Tensor, int], None]]]:
        """Location -> edits of the strands that are running."""
        port = self.model.layout.port
        return {port(*place).location: [partial(self._changed, place)] for place in self.tasks if place[0] not in DIRECT}

    def _changed(self, place: tuple[str, int | None], value: Tensor, step: int) -> None:
        self._change(place, value)

    def _change(self, place: tuple[str, int | None], value: Tensor) -> None:
        """Apply the edits of a place to the strands that are running."""
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
            self._apply(task, value)

    def _apply(self, task: Task, value: Tensor) -> None:
        """Apply an edit to the blocks that have joined."""
        joined = [block for block in task.blocks if self._running(block)]
        if joined:
            part = Task(self.store, task.edit, task.spot)
            part.blocks = joined
            part(value, where=self.where)

    def _running(self, block: Block) -> bool:
        entry = self.entries[block.key]
        first, last = self.depths
        return first <= 3 * entry.layer + entry.stage <= last and any(p is not None for p in entry.starts)

    # Blocks

    def through(self) -> None:
        """All blocks, then what is left of every strand: its last token."""
        arguments = self._arguments()
        hidden: Tensor | None = None
        for layer in range(self.layers):
            started = self.strands.joining(layer, START)
            running = Range(0, started.stop)
            parts = [self._edited(layer, hidden, Range(0, started.first))] if hidden is not None else []
            if started:
                joining = self._based("resid_pre", layer, self.strands.tokens(started))
                parts.append(self._edited(layer, joining, started))
            last = layer == self.layers - 1
            out = []
            if parts:
                together = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
                hidden, parts = None, []  # memory for the block
                out.append(self._block(layer, together, running, arguments, last=last))
            middle = self.strands.joining(layer, MIDDLE)
            if middle:
                out.append(self._middle(layer, middle, arguments, last=last))
            end = self.strands.joining(layer, END)
            if end:
                out.append(self._end(layer, end, last=last))
            hidden = torch.cat(out, 1) if len(out) > 1 else out[0] if out else None
        assert hidden is not None
        self.final = self._normed(hidden)

    def _edited(self, layer: int, stream: Tensor, which: Range) -> Tensor:
        """The stream before a block, with its edits: in place, for it belongs to the walk."""
        with self._standing(Whole(self.strands, which), (0, 3 * layer + START)):
            self._change(("resid_pre", layer), stream)
        return stream

    def _arguments(self) -> Arguments:
        """What blocks are given beside the stream; the same for every chunk of a base."""
        if self.base.arguments is None:
            with self.model.interleaver.apart():
                self.base.arguments = probe(self.model, int(self.strands.position.max()) + 1,
                                            self.base.tuples["block"] > 0)
        return self.base.arguments

    def _based(self, site: str, layer: int, tokens: slice | Tensor) -> Tensor:
        """Recorded values of tokens, [1 token …]."""
        recorded = self.base.sites[site, layer]
        return recorded.flatten(0, 1).index_select(0, self.strands.flat[tokens].to(recorded.device))[None]

    @contextmanager
    def _standing(self, where: Any, depths: tuple[int, int]) -> Iterator[None]:
        before = self.where
        self.where, self.depths = where, depths
        try:
            yield
        finally:
            self.where = before

    def _call(self, layer: int, hidden: Tensor, positions: Tensor, arguments: Arguments) -> Tensor:
        args, kwargs = arguments.of(layer, hidden, positions)
        found = self.model.layout.blocks[layer](*args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    def _block(self, layer: int, hidden: Tensor, running: Range, arguments: Arguments, *, last: bool) -> Tensor:
        """A whole block of the strands that have joined."""
        s = self.strands
        positions = s.position[s.tokens(running)]
        depths = (0, 3 * layer + START)
        if not last:
            with self._standing(Whole(s, running), depths):
                self.attend = self._attending(running, layer, only_last=False)
                return self._call(layer, hidden, positions, arguments)
        taken: list[Tensor] = []

        def keys_only(module: Any, q: Tensor, k: Tensor, v: Tensor, run: Any, inner: Any, **kwargs: Any) -> Any:
            taken.extend((k, v))
            raise _Done

        with self._standing(Whole(s, running), depths):
            self.attend = keys_only
            try:
                self._call(layer, hidden, positions, arguments)
            except _Done:
                pass
        lasts = s.lasts(running)
        inside = self._attending(running, layer, only_last=True)

        def with_keys(module: Any, q: Tensor, k: Tensor, v: Tensor, run: Any, inner: Any, **kwargs: Any) -> Any:
            return inside(module, q, taken[0], taken[1], run, inner, **kwargs)

        with self._standing(Last(s, running), depths):
            self.attend = with_keys
            return self._call(layer, hidden[:, lasts.to(hidden.device)], positions[lasts], arguments)

    def _middle(self, layer: int, joining: Range, arguments: Arguments, *, last: bool) -> Tensor:
        """A block from its heads' output on."""
        s, layout = self.strands, self.model.layout
        tokens = s.tokens(joining)
        picked = torch.arange(tokens.start, tokens.stop)
        if last:
            picked = picked[s.lasts(joining)]
        stream, z = self._based("resid_pre", layer, picked), self._based("z", layer, picked).flatten(2)
        out = layout.role(layer, "o")
        more = self.base.tuples["attn"] - 1  # attention returns its write, and things that nobody reads here
        where = Last(s, joining) if last else Whole(s, joining)
        depth = 3 * layer + MIDDLE
        with self._standing(where, (depth, depth)), instead(
                layout.role(layer, "attn"), lambda *args, **kwargs: (out(z), *[None] * more) if more >= 0 else out(z)):
            self._change(("resid_pre", layer), stream)
            return self._call(layer, stream, s.position[picked], arguments)

    def _end(self, layer: int, joining: Range, *, last: bool) -> Tensor:
        """The output of a block whose MLP's write, or whose output, is edited."""
        s = self.strands
        tokens = s.tokens(joining)
        picked = torch.arange(tokens.start, tokens.stop)
        if last:
            picked = picked[s.lasts(joining)]
        stream = self._based("resid_post", layer, picked)
        depth = 3 * layer + END
        with self._standing(Last(s, joining) if last else Whole(s, joining), (depth, depth)):
            if ("mlp_out", layer) in self.tasks:
                write = self._based("mlp_out", layer, picked)
                changed = write.clone()
                self._change(("mlp_out", layer), changed)
                stream = stream + (changed - write)
            self._change(("resid_post", layer), stream)
        return stream

    def _normed(self, hidden: Tensor) -> Tensor:
        """The last tokens through the final norm, [strand d_model]."""
        layout = self.model.layout
        everyone = Range(0, len(self.strands))
        if layout.family.ln_final is None:
            return hidden[0]
        with self._standing(Last(self.strands, everyone), (0, 3 * self.layers)):
            return layout.module(layout.base, layout.family.ln_final)(hidden)[0]

    # Attention

    def attention(self, module: Any, q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Any:
        """What the attention function of the model does while the walk is on."""
        assert self.attend is not None
        inner = self.model.layout.attention_ports[id(module)]
        return self.attend(module, q, k, v, self.model.interleaver, inner, **kwargs)

    def _attending(self, running: Range, layer: int, *, only_last: bool) -> Attention:
        edited = torch.zeros(len(self.strands), dtype=torch.bool)
        for site in INNER:
            for task in self.tasks.get((site, layer), ()):
                rows = torch.tensor([row for block in task.blocks for row in block.rows])
                strand = self.strands.of_row[rows]
                edited[strand[strand >= 0]] = True
        return Attention(self.base, self.strands, running, layer, only_last=only_last, edited=edited, serve=self._open)

    def _open(self, where: Any) -> AbstractContextManager[None]:
        return self._standing(where, self.depths)

    # The end

    def leave(self, blocks: list[Block], beside: list[Block], answers: Tensor | None) -> float:
        """Put the last logits of every cell into the store; returns how far the control was off."""
        known = self.base.logits if answers is None else self.base.logits[:, answers.to(self.base.logits.device)]
        logits = known.new_empty((0, known.shape[-1]))
        if self.final is not None:
            with torch.no_grad():
                logits = self.model.layout.unembed(self.final, answers).to(known.dtype)
        off = max((_off(self._logits(block, known, logits), known) for block in beside), default=0.0)
        for block in blocks:
            found = self._logits(block, known, logits)[:, None]
            self.store.logits[block.key] = found if answers is None else SomeLogits(found, answers)
        return off

    def _logits(self, block: Block, known: Tensor, logits: Tensor) -> Tensor:
        """Logits of the rows of a cell: the recorded ones, where nothing changed."""
        strand = self.strands.of_row[block.start:block.rows.stop]
        if bool((strand >= 0).all()):
            return logits.index_select(0, strand.to(logits.device))
        found = known.clone()
        moved = strand >= 0
        found[moved.to(known.device)] = logits[strand[moved].to(logits.device)]
        return found


def _off(found: Tensor, known: Tensor) -> float:
    """How far a control is from what was recorded. Raises Unpackable when it is more than rounding."""
    scale = max(1.0, float(known.abs().clamp(max=1e4).max()))
    off = float((found - known).abs().max())
    if not off <= TOLERANCE.get(known.dtype, COARSE) * scale:
        raise Unpackable(f"the recorded pass came out different by {off:.1e}")
    return off
