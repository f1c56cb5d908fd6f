"""The walk: a chunk of cells carried through the blocks once, every cell joining where it departs from the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import NewGELUActivation

from ...compiler.packing.entries import END, MIDDLE, START, Entry
from ..store import Block, SomeLogits, Store
from ..trace import run as run_model
from .attend import Attention
from .base import Base
from .cells import Cells
from .probe import Arguments, instead, probe
from .strands import Last, Range, Strands, Whole

if TYPE_CHECKING:
    from ...compiler.plan.runs import RunPlan
    from ...model.model import Model

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}
COARSE = 0.1
INNER = ("scores", "pattern")

class Unpackable(Exception):
    """The check of a packed pass failed: its control does not give the recorded logits."""


class _Done(Exception):
    """Keys and values are there; the rest of the block is not needed."""


def walk(model: Model, store: Store, base: Base, blocks: list[tuple[Block, Entry]], *,
         answers: Tensor | None = None, control: RunPlan | None = None,
         tick: Callable[[float], None] = lambda done: None) -> float:
    """Run a chunk; the logits of its last positions go into the store. Returns how far the control was off.

    Args:
        model: The model.
        store: What earlier runs left.
        base: The recorded pass.
        blocks: Cells, each with where it departs.
        answers: Token ids whose logits are wanted, ascending; None for all.
        control: The run that was recorded, to be computed again beside the cells and compared.
        tick: Told before each block what share of the work is done.

    Raises:
        Unpackable: the control is off by more than rounding.
    """
    beside = [] if control is None else checks(control, blocks)
    made = Walk(model, store, base, [*blocks, *beside], tick)
    if len(made.strands):
        with fused(model.hf):
            run_model(model, made.through, made.edits.callbacks(), attends=made.attention)
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

    def __init__(self, model: Model, store: Store, base: Base, blocks: list[tuple[Block, Entry]],
                 tick: Callable[[float], None]) -> None:
        self.model, self.store, self.base, self.tick = model, store, base, tick
        self.layers = model.facts.n_layers
        self.strands = Strands(base, blocks, self.layers)
        self.edits = Cells(model, store, base, self.strands, blocks)
        self.until = self.edits.last_layer
        self.attend: Callable[..., Any] | None = None
        self.final: Tensor | None = None

    # Blocks

    def through(self) -> None:
        """All blocks, then what is left of every strand: its last token."""
        arguments = self._arguments()
        hidden: Tensor | None = None
        running_at = [int(self.strands.offset[self.strands.joining(layer, END).stop]) for layer in range(self.layers)]
        done = list(accumulate(running_at, initial=0))
        for layer in range(min(self.layers, self.until + 1)):
            self.tick(done[layer] / max(1, done[-1]))
            started = self.strands.joining(layer, START)
            running = Range(0, started.stop)
            parts = [self._edited(layer, hidden, Range(0, started.first))] if hidden is not None else []
            if started:
                joining = self._based("resid_pre", layer, self.strands.tokens(started))
                parts.append(self._edited(layer, joining, started))
            last = layer == self.layers - 1 and not self.edits.lends_at(layer)
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
        if self.until >= self.layers and hidden is not None:
            lasts = self.strands.lasts(Range(0, len(self.strands)))
            self.final = self._normed(hidden if last else hidden[:, lasts.to(hidden.device)])

    def _edited(self, layer: int, stream: Tensor, which: Range) -> Tensor:
        """The stream before a block, with its edits: in place, for it belongs to the walk."""
        with self.edits.standing(Whole(self.strands, which), (0, 3 * layer + START)):
            self.edits.change(("resid_pre", layer), stream)
        return stream

    def _arguments(self) -> Arguments:
        """What blocks are given beside the stream; the same for every chunk of a base."""
        if self.base.arguments is None:
            with self.model.interleaver.apart():
                self.base.arguments = probe(self.model, max(self.base.tokens.lengths),
                                            self.base.tuples["block"] > 0)
        return self.base.arguments

    def _based(self, site: str, layer: int, tokens: slice | Tensor) -> Tensor:
        """Recorded values of tokens, [1 token …]."""
        recorded = self.base.sites[site, layer]
        return recorded.flatten(0, 1).index_select(0, self.strands.flat[tokens].to(recorded.device))[None]

    def _call(self, layer: int, hidden: Tensor, positions: Tensor, arguments: Arguments) -> Tensor:
        args, kwargs = arguments.of(layer, hidden, positions)
        found = self.model.layout.blocks[layer](*args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    def _block(self, layer: int, hidden: Tensor, running: Range, arguments: Arguments, *, last: bool) -> Tensor:
        """A whole block of the strands that have joined."""
        s = self.strands
        if self.edits.held(layer):
            return self._middle(layer, running, arguments, last=last, stream=hidden)
        positions = s.position[s.tokens(running)]
        depths = (0, 3 * layer + START)
        if not last:
            with self.edits.standing(Whole(s, running), depths):
                self.attend = self._attending(running, layer, only_last=False)
                return self._call(layer, hidden, positions, arguments)
        taken: list[Tensor] = []

        def keys_only(module: Any, q: Tensor, k: Tensor, v: Tensor, run: Any, inner: Any, **kwargs: Any) -> Any:
            """Takes the keys and values of all positions, and ends the block there."""
            taken.extend((k, v))
            raise _Done

        with self.edits.standing(Whole(s, running), depths):
            self.attend = keys_only
            try:
                self._call(layer, hidden, positions, arguments)
            except _Done:
                pass
        lasts = s.lasts(running)
        inside = self._attending(running, layer, only_last=True)

        def with_keys(module: Any, q: Tensor, k: Tensor, v: Tensor, run: Any, inner: Any, **kwargs: Any) -> Any:
            """Lets the last positions look at the keys and values that were taken."""
            return inside(module, q, taken[0], taken[1], run, inner, **kwargs)

        with self.edits.standing(Last(s, running), depths):
            self.attend = with_keys
            return self._call(layer, hidden[:, lasts.to(hidden.device)], positions[lasts], arguments)

    def _middle(self, layer: int, joining: Range, arguments: Arguments, *, last: bool,
                stream: Tensor | None = None) -> Tensor:
        """A block from its heads' output on: of cells that join there, or of all that run, given their stream."""
        s, layout = self.strands, self.model.layout
        tokens = s.tokens(joining)
        picked = torch.arange(tokens.start, tokens.stop)
        if last:
            picked = picked[s.lasts(joining)]
        first, depth = (0, 3 * layer + START) if stream is not None else (3 * layer + MIDDLE, 3 * layer + MIDDLE)
        z = self._based("z", layer, picked).flatten(2)
        inside = self._based("resid_pre", layer, picked) if stream is None else (
            stream[:, (picked - tokens.start).to(stream.device)] if last else stream)
        out = layout.role(layer, "o")
        more = self.base.tuples["attn"] - 1  # attention returns its write, and things that nobody reads here
        where = Last(s, joining) if last else Whole(s, joining)
        with self.edits.standing(where, (first, depth)), instead(
                layout.role(layer, "attn"), lambda *args, **kwargs: (out(z), *[None] * more) if more >= 0 else out(z)):
            if stream is None:
                self.edits.change(("resid_pre", layer), inside)
            return self._call(layer, inside, s.position[picked], arguments)

    def _end(self, layer: int, joining: Range, *, last: bool) -> Tensor:
        """The output of a block whose MLP's write, or whose output, is edited."""
        s = self.strands
        tokens = s.tokens(joining)
        picked = torch.arange(tokens.start, tokens.stop)
        if last:
            picked = picked[s.lasts(joining)]
        stream = self._based("resid_post", layer, picked)
        depth = 3 * layer + END
        with self.edits.standing(Last(s, joining) if last else Whole(s, joining), (depth, depth)):
            if self.edits.touches("mlp_out", layer):
                write = self._based("mlp_out", layer, picked)
                changed = write.clone()
                self.edits.change(("mlp_out", layer), changed)
                stream = stream + (changed - write)
                self.edits.catch(("mlp_out", layer), changed)
            self.edits.change(("resid_post", layer), stream)
            self.edits.catch(("resid_post", layer), stream)
        return stream

    def _normed(self, hidden: Tensor) -> Tensor:
        """The last tokens through the final norm, [strand d_model]."""
        layout = self.model.layout
        everyone = Range(0, len(self.strands))
        if layout.family.ln_final is None:
            return hidden[0]
        with self.edits.standing(Last(self.strands, everyone), (0, 3 * self.layers)):
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
            for task in self.edits.tasks.get((site, layer), ()):
                rows = torch.tensor([row for block in task.blocks for row in block.rows])
                strand = self.strands.of_row[rows]
                edited[strand[strand >= 0]] = True
        return Attention(self.base, self.strands, running, layer, only_last=only_last, edited=edited, serve=self._open)

    def _open(self, where: Any) -> AbstractContextManager[None]:
        return self.edits.standing(where, self.edits.depths)

    # The end

    def leave(self, blocks: list[Block], beside: list[Block], answers: Tensor | None) -> float:
        """Put the last logits of every cell into the store; returns how far the control was off."""
        self.edits.lend()
        if self.until < self.layers:
            return 0.0
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
