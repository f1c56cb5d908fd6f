"""`lens`: any vector of the stream read as a prediction of the next token (nostalgebraist 2020, "interpreting GPT: the logit
lens").

    prompt ──one pass──▶ stream, writes, heads, neurons ──final norm──▶ unembedding ──▶ Scores [layer (head) pos]

How a vector gets through the final norm decides what the number means, and `norm=` says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import PromptError, did_you_mean
from ..model import unembedding
from ..positions import resolve
from ..records import Scores
from ..tokens import Tokens
from .asking import Asking, places
from .lens_cells import ALL, ATTENTION_BIAS, BIAS, Cell, Cells, cells_of
from .lens_values import COMPARE, VALUES, LensError, chosen, ids_of, measured
from .predictions import ROOM, check, final_norm
from .stream import direction_of
from .tuned import TunedLens
from .watching import averaged

if TYPE_CHECKING:
    from ..model.model import Model

NOTES = {"own": "each vector through the final norm by itself",
         "frozen": "the final norm's divisor held at that of the last stream; before any soft-cap",
         None: "without the final norm"}


def lens(model: Model, prompt: Any, sites: str | Iterable[str] = "L*.resid_post", *, norm: str | None = "own",
         answer: Any = None, wrong: Any = None, direction: Any = None, positions: Any = "each", value: str | None = None,
         tuned: TunedLens | None = None, seed: int = 0) -> Scores:
    """What places of a model say about the next token, each read by itself through the final norm and the unembedding.

    Norms, by what a vector x becomes before the unembedding:

    - `"own"`: norm(x), with bias, mean and divisor of x itself; then the model's own unembedding, with its bias and, where
      the model has one, its soft-cap. At the last `resid_post` these are the model's logits.
    - `"frozen"`: x over the divisor of the real last stream at that position, centred where the norm does so, times the
      gain. That is linear: rows of `sites="heads"` or `"components"` add up to the logits before any soft-cap. The biases of
      norm and unembedding belong to no part and are the row `"bias"`; the stream itself (`resid_…`) has them in it. logit,
      logit_diff and direction are before the soft-cap; of the stream, probabilities and what is made of them are after it.
    - `None`: x as it is, through the model's own unembedding.

    Args:
        model: A model that predicts the next token.
        prompt: Text, ids, or a list of them; over several the mean is given, and each in `.examples`.
        sites: Addresses: the stream (`"L*.resid_post"`), what is written to it (`"embed"`, `"L*.attn_out"`, `"L*.mlp_out"`),
            heads (`"L*H*"`), neurons (`"L3N[5,7]"`), `"L*.b_O"` for attention's bias, `"bias"`; a list of them; or
            `"components"` or `"heads"` for all that is written. Behind a norm of its own (Gemma 2), a head or neuron is read
            as it enters the stream, that norm's divisor held.
        norm: See above.
        answer: The right next token: text or an id, one for all prompts or a list with one for each.
        wrong: The wrong one that it is compared with.
        direction: In place of a value: the dot product of the normed vector with a vector [d_model], with the column of the
            unembedding of a token, or with the difference of two (`(" Mary", " John")`).
        positions: `"each"`, or a position (`"last"`, `3`, `'"Mary"'`); several are averaged. Prompts of different lengths
            are lined up at their first tokens, and a position's mean is over those that have it.
        value: `"logit"`, `"logit_diff"`, `"prob"`, `"logprob"`, `"rank"` (how many tokens are likelier), `"accuracy"` (1
            where none is), `"entropy"`, `"kl"` (from the model's last prediction: KL(last ‖ lens)), `"agreement"` (whether
            both have the same likeliest token). By default logit_diff with `wrong`, else logit.
        tuned: A tuned lens: its translators come before the norm. It reads `resid_pre` and `resid_post`.
        seed: Draws the intervals over several prompts.

    Returns:
        Scores over layer, head or neuron for one address, over site for a list; then pos, for each position.

    Raises:
        LensError: an unknown norm or value, one without what it needs, or a place that cannot be read so.
        PredictionError: the model predicts no next token, or an answer is not one token.
        SiteError, LayerError, PositionError: there is no such place.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.lens import lens
        >>> model = hl.load("lab")
        >>> prompt = "When Mary and John went to the store, John gave a drink to"
        >>> lens(model, prompt, answer=" Mary", wrong=" John", positions="last").axes
        ('layer',)
        >>> parts = lens(model, prompt, "heads", norm="frozen", answer=" Mary", positions="last")
        >>> real = lens(model, prompt, f"L{model.facts.n_layers - 1}.resid_post", answer=" Mary", positions="last")
        >>> bool(abs(parts.values.sum() - float(real)) < 1e-4)
        True
    """
    check(model, 1)
    if direction is not None and any(given is not None for given in (value, answer, wrong)):
        raise LensError("a direction is read in place of a value: leave out value=, answer= and wrong=, or direction=.")
    name = "direction" if direction is not None else chosen(value, answer, wrong)
    cells = cells_of(model, sites)
    _check(model, cells.cells, norm, tuned)
    last = f"L{model.facts.n_layers - 1}.resid_post"
    wanted = {cell.source for cell in cells.cells if cell.source} | {last}
    each = isinstance(positions, str) and positions == "each"
    with model.interleaver.lock, torch.no_grad():
        acts = model.capture(prompt, sorted(wanted), at="all" if each else positions)
        if acts.tokens is None:
            raise PromptError("embeddings have no tokens that positions could be counted on: give text or ids.")
        at = resolve("all" if each else positions, acts.tokens)
        rows = torch.tensor([i for i, row in enumerate(at) for _ in row])
        right, wrong_ = (ids_of(model, token, len(at))[rows] for token in (answer, wrong))
        along = None if direction is None else torch.as_tensor(direction_of(model, direction))
        reader = _Reader(model, norm, name, acts[last], right, wrong_, along)
        found = np.stack([_read(reader, cell, acts, tuned) for cell in cells.cells])
    said = "" if tuned is not None else _spec(prompt, sites, norm, name, answer, wrong, positions, acts.tokens)
    unit = "dot product" if direction is not None else VALUES[name].unit
    note = NOTES[norm] + ("" if tuned is None else "; a tuned lens")
    return _scores(found, at, cells, acts.tokens if each else None, seed, unit=unit, name=f"lens_{name}", note=note,
                   spec=said)


def _check(model: Model, cells: tuple[Cell, ...], norm: str | None, tuned: TunedLens | None) -> None:
    """Refuse what would have no meaning. Raises LensError."""
    if norm not in unembedding.NORMS:
        raise LensError(f"there is no norm={norm!r}.{did_you_mean(norm, ('own', 'frozen'))} There are \"own\", "
                        "\"frozen\" and None.")
    parts = [cell for cell in cells if not cell.in_stream]
    if norm != "frozen" and Cell(BIAS) in cells:
        raise LensError("the biases stand apart under norm=\"frozen\" only: elsewhere they are in every reading.")
    if norm == "frozen" and not model.layout.family.adds_up and parts:
        raise LensError(f"{model.facts.family} puts the stream through a norm after every addition, so the share of "
                        f"{parts[0]} in the last stream is not its own: read it with norm=\"own\".")
    if tuned is not None:
        if not isinstance(tuned, TunedLens):
            raise LensError(f"tuned= is a TunedLens, of train_tuned_lens or TunedLens.load, not {type(tuned).__name__}.")
        if norm != "own":
            raise LensError("a tuned lens was fitted through the norm that each vector has itself: norm=\"own\".")
        tuned.check(model)
        for cell in cells:
            tuned.index(str(cell))


def _read(reader: _Reader, cell: Cell, values: Mapping[str, Tensor], tuned: TunedLens | None) -> np.ndarray:
    """The numbers of a cell, [row]."""
    if cell.site == BIAS:
        return reader.bias()
    x = cell.vectors(reader.model, values)
    return reader.numbers(x if tuned is None else tuned(x, str(cell)), whole_stream=cell.in_stream)


@dataclass(frozen=True)
class _Reader:
    """Vectors to numbers, some rows at a time.

    Attributes:
        name: Of the value; `direction` for a dot product with `along`.
        last: The last stream, [row d_model].
        right, wrong: Tokens, [row].
    """

    model: Model
    norm: str | None
    name: str
    last: Tensor
    right: Tensor
    wrong: Tensor
    along: Tensor | None

    def numbers(self, x: Tensor, *, whole_stream: bool) -> np.ndarray:
        """The value of vectors [row d_model], [row]; `whole_stream` where they are the stream, not a part of it."""
        width = self.model.facts.d_vocab if self._whole else 2
        step = max(1, ROOM * (1 if self.model.device.type == "cpu" else 4) // width)
        parts = [self._some(x[at:at + step].to(self.model.device), slice(at, at + step), whole_stream=whole_stream)
                 for at in range(0, len(x), step)]
        return torch.cat(parts).cpu().numpy()

    def bias(self) -> np.ndarray:
        """The value of the last biases, which are the same in every row, [row]."""
        if self.along is not None:
            number = unembedding.norm_bias(self.model).double().cpu() @ self.along
            return np.full(len(self.last), float(number))
        row = unembedding.logit_bias(self.model)[None].expand(len(self.last), -1)
        own = unembedding.lens_logits(self.model, self.last.to(self.model.device)) if self.name in COMPARE else None
        return measured(self.name, row, self.right, self.wrong, own).cpu().numpy()

    @property
    def _whole(self) -> bool:
        return self.along is None and VALUES[self.name].whole

    def _some(self, x: Tensor, rows: slice, *, whole_stream: bool) -> Tensor:
        model, last = self.model, self.last[rows].to(self.model.device)
        if self.along is not None:
            return self._along(x, last, whole_stream=whole_stream)
        right, wrong = self.right[rows], self.wrong[rows]
        if self._whole:
            logits = unembedding.lens_logits(model, x, self.norm, last, stream=whole_stream)
            own = unembedding.lens_logits(model, last) if self.name in COMPARE else None
            return measured(self.name, logits, right, wrong, own)
        ids, places = torch.unique(torch.stack([right, wrong]), return_inverse=True)
        logits = unembedding.lens_logits(model, x, self.norm, last, stream=whole_stream, whole=False, ids=ids)
        return measured(self.name, logits, places[0], places[1])

    def _along(self, x: Tensor, last: Tensor, *, whole_stream: bool) -> Tensor:
        """Dot products with the direction, [row]."""
        assert self.along is not None
        if self.norm == "frozen":
            normed = unembedding.held(self.model, x, unembedding.final_divisor(self.model, last))
            normed = normed + unembedding.norm_bias(self.model).to(normed) if whole_stream else normed
        else:
            normed = final_norm(self.model, x) if self.norm == "own" else x
        return normed.double() @ self.along.to(normed.device)


def _scores(found: np.ndarray, at: list[list[int]], cells: Cells, tokens: Tokens | None, seed: int, **about: Any) -> Scores:
    """Numbers [cell row] as Scores: rows of an example side by side under `pos` where tokens are given, else averaged."""
    shape = tuple(len(cells.coords[axis]) for axis in cells.axes)
    starts = np.cumsum([0, *(len(row) for row in at)])
    if tokens is None:
        each = np.stack([found[:, a:b].mean(1) for a, b in pairwise(starts)])
        return averaged(each.reshape(-1, *shape), cells.axes, cells.coords, seed, **about)
    each = np.full((len(at), len(found), tokens.width), np.nan)
    for i, row in enumerate(at):
        each[i, :, :len(row)] = found[:, starts[i]:starts[i + 1]]
    labels = tuple(_label(tokens, p) for p in range(tokens.width))
    return averaged(each.reshape(-1, *shape, tokens.width), (*cells.axes, "pos"), {**cells.coords, "pos": labels}, seed,
                    **about)


def _spec(prompt: Any, sites: str | Iterable[str], norm: str | None, name: str, answer: Any, wrong: Any, positions: Any,
          tokens: Tokens) -> str:
    """Text of the language that gives the same numbers; empty where there is none."""
    named = [sites] if isinstance(sites, str) else list(sites)
    beyond = {*ALL, BIAS}.intersection(named) or any(one.endswith("." + ATTENTION_BIAS) or "N" in one for one in named)
    uneven = positions == "each" and len(set(tokens.lengths)) > 1
    if beyond or uneven or not isinstance(positions, str) or name != ("prob" if wrong is None else "logit_diff"):
        return ""
    asking = Asking().prompt("main", prompt).answer(answer, wrong)
    asking.line(f"lens {places(named, positions)}" + ("" if norm == "own" else f" norm={norm or 'none'}"))
    return "" if asking.values else asking.text


def _label(tokens: Tokens, position: int) -> str:
    """A position with its token, where all examples that have it agree."""
    pieces = {row[position] for row in tokens.pieces if position < len(row)}
    return f"{position}: {pieces.pop()}" if len(pieces) == 1 else str(position)
