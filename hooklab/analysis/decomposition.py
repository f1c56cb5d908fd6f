"""`decompose`: the residual stream at a place, taken apart into what was written to it.

    L3.resid_post = embed + pos_embed + Σ writes of layers 0 to 3

Every write is a vector of the stream: a whole layer, a component, a head, a neuron. The parts add up to the stream, and
`.error` says how closely. Where a norm stands between a component and the stream (Gemma 2, OLMo 2), heads and neurons go
through it with its divisor held at what it was, which makes their shares add up. Where norms stand in the stream itself
(BERT), rows `L0.rest` hold what they change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..address import check_index
from ..errors import RecordError, SiteError, did_you_mean
from ..records import Scores
from ..records.drawn import Drawn
from .asking import SweepError, check_word, whole
from .single import point, single
from .stream import ROUNDING, direction_name, direction_of, vector_of
from .written import BY, Part, sites, stretches

if TYPE_CHECKING:
    from ..model.model import Model

ROOM = 2**31
"""Bytes that the parts may take."""
REST = "rest: what no component wrote, such as norms in the stream"


@dataclass(frozen=True, repr=False, eq=False)
class Decomposition(Drawn):
    """A place of the stream as a sum.

    Attributes:
        at: The place.
        parts: What the sum is over: `embed`, `L0.attn_out`, `L0H3`, `L1N17` …
        vectors: [part pos d_model], float64.
        total: The stream itself, [pos d_model], float64.
        positions: A label for each position.
        direction: What `along` and `top` measure on unless told otherwise, [d_model]; or None.
        named: What that direction is called.
        spec: The line that names the prompt.
        note: What a reader should know.
    """

    at: str
    parts: tuple[str, ...]
    vectors: Tensor
    total: Tensor
    positions: tuple[str, ...]
    direction: np.ndarray | None = None
    named: str = ""
    spec: str = ""
    note: str = ""

    @property
    def error(self) -> float:
        """The largest entry of Σ parts − stream, relative to the stream's largest."""
        return float((self.vectors.sum(0) - self.total).abs().max() / self.total.abs().max())

    def norms(self) -> Scores:
        """The length of every part: Scores [part pos]."""
        return self._scores(self.vectors.norm(dim=-1), "norm of the write", "length")

    def along(self, direction: Any = None) -> Scores:
        """How far every part goes along a direction: Scores [part pos], which add up to how far the stream goes.

        Args:
            direction: A vector [d_model]; by default what `decompose` was given, which may also be a token.

        Raises:
            SweepError: there is none, or it is not of length d_model, not finite, or zero.
        """
        if direction is None and self.direction is None:
            raise SweepError('a direction is needed: along(vector), or decompose(…, direction=" Mary")')
        vector = self.direction if direction is None else vector_of(direction, self.total.shape[-1])
        named = self.named if direction is None else "the direction"
        return self._scores(self.vectors @ torch.as_tensor(vector), f"projection on {named}", "dot product")

    def top(self, k: int = 10) -> list[tuple[dict[str, Any], float]]:
        """The `k` largest shares, strongest first: along the direction where there is one, else by length.

        Raises:
            RecordError: `k` is negative.
        """
        return self._measured().top(k)

    def show(self, **options: Any) -> Any:  # a view of `hooklab.views`, which stands above
        """The same numbers as bars of one position, or as a map of several; with the options of that view.

        Raises:
            ViewError: there is too much to draw.
        """
        return self._alone(self._measured()).show(**options)

    def pictures(self) -> dict[str, Scores]:
        """The length of every part and, where there is a direction, how far it goes along that."""
        along = {} if self.direction is None else {"along": self._alone(self.along())}
        return {"length": self._alone(self.norms()), **along}

    def _alone(self, scores: Scores) -> Scores:
        """Without the axis of positions where there is one."""
        return scores.sel(pos=self.positions[0]) if len(self.positions) == 1 else scores

    def __getitem__(self, part: str) -> Tensor:
        """The vectors of a part, [pos d_model]. Raises RecordError where there is none."""
        if part not in self.parts:
            raise RecordError(f"there is no part {part!r}.{did_you_mean(part, self.parts)}")
        return self.vectors[self.parts.index(part)]

    def _measured(self) -> Scores:
        return self.norms() if self.direction is None else self.along()

    def _scores(self, values: Tensor, name: str, unit: str) -> Scores:
        return Scores(values.numpy(), ("part", "pos"), {"part": self.parts, "pos": self.positions}, unit, name, self.spec,
                      note=self.note)

    def __repr__(self) -> str:
        many = "1 position" if len(self.positions) == 1 else f"{len(self.positions)} positions"
        lines = [f"{cell['part']:<14} {value:10.4g}  at {cell['pos']}" for cell, value in self.top(8)]
        left = len(self.parts) * len(self.positions) - len(lines)
        return "\n".join([f"Decomposition of {self.at} at {many}: {len(self.parts)} parts, error {self.error:.1g}",
                          *(f"  {line}" for line in lines), *([f"  … and {left} more"] if left else [])])


def decompose(model: Model, prompt: Any, at: str | None = None, *, positions: Any = "last", by: str = "components",
              direction: Any = None, top: int | None = None, **inputs: Any) -> Decomposition:
    """Take the stream at a place apart into the embeddings and everything that was written to it.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        at: A place of the stream, such as `"L3.resid_post"`; by default the last.
        positions: Which ones: `"last"`, `3`, `"each"` or any selector.
        by: `"layers"`; `"components"`, attention and MLP of each layer; `"heads"`, each head's write (bias apart) and
            attention's bias, MLPs whole; `"neurons"`, heads and each neuron's write and the MLP's bias.
        direction: What to measure on: a vector [d_model], a token, or two tokens for the difference of theirs, as in
            `stream`.
        top: Keep only the strongest so many (by their largest share over positions) and add up all else in a part
            `others`.
        inputs: Further inputs, such as `images=`.

    Raises:
        SiteError: `at` is no single place of the stream, or the model's neurons cannot be told apart.
        SweepError: no such `by`, no direction of the right length, `top` below 1, or more parts than fit into memory.
        PromptError: there are several prompts.
        PositionError, TokenError: there is no such position or token.

    Example:
        >>> import hooklab as hl
        >>> found = decompose(hl.load("lab"), "When Mary and John went to the store", "L1.resid_post", by="heads")
        >>> found.parts[:4], found.error < 1e-5
        (('embed', 'pos_embed', 'L0H0', 'L0H1'), True)
    """
    check_word("way to take the stream apart: by", by, BY)
    if top is not None:
        top = whole("top", top)
    end = point(model, at or f"L{model.facts.n_layers - 1}.resid_post")
    if by == "neurons" and (reason := model.sites.missing("mlp_post")) is not None:
        raise SiteError(reason)
    vector = None if direction is None else direction_of(model, direction)
    seen = single(model, prompt, sites(model, end, by), positions, **inputs)
    kept = _Kept(top, vector)
    _check_room(model, by, len(seen.positions), top)
    tolerance = max(ROUNDING, 8 * torch.finfo(model.dtype).eps)
    total, rests = seen[end.key], []
    for block, start, stop, parts in stretches(model, seen, end, by):
        found = list(parts)
        rest = stop - start - sum((value for _, value in found), torch.zeros(()))
        if rest.norm(dim=-1).max() > tolerance * stop.norm(dim=-1).max():
            found.append((f"{block}.rest".removeprefix("."), rest))
            rests.append(found[-1][0])
        kept.add(found)
    labels, vectors = kept.parts()
    return Decomposition(end.key, labels, vectors, total, seen.positions, vector, direction_name(direction),
                         seen.spec, REST if rests else "")


def block_parts(model: Model, prompt: Any, layer: int, *, positions: Any = "last", direction: Any = None,
                **inputs: Any) -> Decomposition:
    """The stream after one block as what came in and what the block wrote: `from_prev`, `from_attn`, `from_mlp`.

    Where norms stand in the stream itself (BERT) a fourth part, `rest`, holds what they change.

    Raises:
        LayerError: there is no such layer.
        SweepError, PromptError, PositionError, TokenError: as `decompose` does.

    Example:
        >>> import hooklab as hl
        >>> block_parts(hl.load("lab"), "When Mary and John went to the store", 2).parts
        ('from_prev', 'from_attn', 'from_mlp')
    """
    name = f"L{check_index(layer, model.facts.n_layers, 'layer')}"
    vector = None if direction is None else direction_of(model, direction)
    *writes, end = (f"{name}.{site}" for site in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
    seen = single(model, prompt, [*writes, end], positions, **inputs)
    parts = dict(zip(("from_prev", "from_attn", "from_mlp"), (seen[write] for write in writes), strict=True))
    total = seen[end]
    rest = total - torch.stack(list(parts.values())).sum(0)
    if rest.norm(dim=-1).max() > max(ROUNDING, 8 * torch.finfo(model.dtype).eps) * total.norm(dim=-1).max():
        parts["rest"] = rest
    return Decomposition(end, tuple(parts), torch.stack(list(parts.values())), total, seen.positions, vector,
                         direction_name(direction), seen.spec, REST if "rest" in parts else "")


def _check_room(model: Model, by: str, positions: int, top: int | None) -> None:
    facts = model.facts
    each = {"layers": 1, "components": 2, "heads": facts.n_heads + 2, "neurons": facts.n_heads + (facts.d_mlp or 0) + 2}[by]
    needed = each * (facts.n_layers if top is None else 1) * positions * facts.d_model * 8
    if needed > ROOM:
        raise SweepError(f"{each} parts in each layer at {positions} positions take {needed / 2**30:.1f} GiB: take fewer "
                         "positions, or keep only the strongest with top=100")


# Which are kept ---------------------------------------------------------------------------------------------------------


@dataclass
class _Kept:
    """The parts so far: all of them, or the strongest and the sum of the others."""

    top: int | None
    direction: np.ndarray | None
    found: list[Part] = field(default_factory=list)
    others: Tensor | None = None
    left: int = 0

    def add(self, parts: list[Part]) -> None:
        """Take in parts, and let go of the weakest."""
        self.found += parts
        if self.top is None or len(self.found) <= self.top:
            return
        vectors = torch.stack([value for _, value in self.found])
        sizes = vectors.norm(dim=-1) if self.direction is None else (vectors @ torch.as_tensor(self.direction)).abs()
        strongest = set(sizes.max(dim=-1).values.argsort(descending=True, stable=True)[:self.top].tolist())
        weak = [i for i in range(len(vectors)) if i not in strongest]
        summed = vectors[weak].sum(0)
        self.others = summed if self.others is None else self.others + summed
        self.left += len(weak)
        self.found = [part for i, part in enumerate(self.found) if i in strongest]

    def parts(self) -> tuple[tuple[str, ...], Tensor]:
        """Labels, and vectors [part pos d_model]."""
        found = [*self.found, *([] if self.others is None else [(f"others ({self.left})", self.others)])]
        return tuple(label for label, _ in found), torch.stack([value for _, value in found])
