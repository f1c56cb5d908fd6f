"""Readings of a run: the logit lens, scores of heads, attribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import metrics
from ..compiler.plan.cells import Axis
from ..compiler.plan.readings import Reading
from ..compiler.plan.spots import Spot
from ..errors import HooklabError
from ..model.unembedding import lens_logits
from ..model.writes import heads_written
from .evaluate import columns
from .measure import token_ids
from .store import Block, Store, trouble

if TYPE_CHECKING:
    from ..model.model import Model


@dataclass(frozen=True)
class Found:
    """What a reading found in one cell; `axes` come after those that the reading has itself."""

    name: str
    values: np.ndarray
    unit: str = ""
    axes: tuple[Axis, ...] = ()
    labels: np.ndarray | None = None
    note: str = ""
    examples: np.ndarray | None = None


def read(model: Model, store: Store, block: Block, reading: Reading) -> list[Found]:
    """Do one reading of one cell."""
    from .attribution import attribute

    readers: dict[str, Callable[..., list[Found]]] = {"lens": lens, "score": score, "attribute": attribute,
                                                      "resid": norms}
    return readers[reading.verb](model, store, block, reading)


def captured(model: Model, store: Store, block: Block, spots: tuple[Spot, ...]) -> dict[Spot, Tensor]:
    """Whole sites of a cell, from the store or by one more pass."""
    from .passes import forward

    wanted = {Spot(spot.site, spot.layer) for spot in spots}
    known = store.acts.get(block.key, {})
    if any((spot.site, spot.layer) not in known for spot in wanted):
        run = replace(block.run, captures=block.run.captures | wanted, metrics=())
        forward(model, store, [Block(run, block.number, 0, block.size)])
        known = store.acts[block.key]
    return {spot: known[spot.site, spot.layer] for spot in spots}


def over_examples(value: Tensor) -> np.ndarray:
    """The mean over rows, in double precision."""
    return value.double().mean(0).cpu().numpy()


def position_columns(store: Store, block: Block, at: Any) -> Tensor:
    """Columns of the read positions of each row, [row pos]."""
    tokens = store.plan.prompts[block.run.prompt].tokens
    found = [columns(tokens, at, row % len(tokens)) for row in range(block.size * block.run.samples)]
    if len({len(row) for row in found}) > 1:
        raise trouble("these positions are of different numbers in the examples", text=store.plan.text,
                      hint="name positions that all have, such as @each[subject, last]")
    return torch.tensor(found)


# Lens --------------------------------------------------------------------------------------------------------------


def lens(model: Model, store: Store, block: Block, reading: Reading) -> list[Found]:
    """The stream through the final norm and the unembedding (nostalgebraist 2020): likeliest tokens of each place.

    Probabilities are averaged over examples, and over positions that are read together, before the likeliest tokens are
    taken. What norms and biases are is said in `model.unembedding.lens_logits`.
    """
    top = int(reading.option("top", 1))
    rows, answers, ids = [], [], []
    read_at = _unembedded(model, store, block, reading)
    for spot in reading.spots:
        logits = read_at(spot, True)
        probs = logits.float().softmax(-1).mean(0)
        if not reading.each:
            probs = probs.mean(0, keepdim=True)
        values, chosen = probs.topk(min(top, probs.shape[-1]), dim=-1)
        rows.append(values.double().cpu().numpy())
        ids.append(chosen.cpu().numpy())
        if reading.value is not None:
            single = reading.value.value.other is None
            answers.append(_answer(store, block, reading, logits if single else read_at(spot, False)))
    values_, ids_ = _shaped(reading, np.stack(rows)), _shaped(reading, np.stack(ids))
    pieces = np.array([model_piece(store, int(i)) for i in ids_.reshape(-1)], dtype=object).reshape(ids_.shape)
    axis: tuple[Axis, ...] = (Axis("rank", tuple(range(values_.shape[-1]))),)
    if values_.shape[-1] == 1:
        values_, pieces, axis = values_[..., 0], pieces[..., 0], ()
    found = [Found("lens", values_, "probability", axis, pieces)]
    if answers:
        plan = reading.value
        found.append(Found(f"lens_{plan.name}", _shaped(reading, np.stack(answers)[..., None])[..., 0], plan.unit))
    return found


def _positions(store: Store, block: Block, reading: Reading, whole: Tensor) -> Tensor:
    cols = position_columns(store, block, reading.at)
    return whole[torch.arange(len(whole))[:, None], cols]


def _answer(store: Store, block: Block, reading: Reading, logits: Tensor) -> np.ndarray:
    """The answer's number at every position of a layer, [pos]."""
    value = reading.value.value
    target = token_ids(value.target, len(logits))
    out = []
    for position in range(logits.shape[1]):
        at = logits[:, position:position + 1]
        number = (metrics.prob(at, target) if value.other is None
                  else metrics.logit_diff(at, target, token_ids(value.other, len(logits))))
        out.append(float(number.double().mean()))
    return np.array(out)


def _shaped(reading: Reading, values: np.ndarray) -> np.ndarray:
    """[spot pos …] as [axes of the spots …, pos …]; one position without `@each` has no axis."""
    shape = [len(axis.labels) for axis in reading.axes if axis.name != "pos"]
    positions = values.shape[1:2] if reading.each else ()
    if not reading.each:
        values = values.mean(1) if values.shape[1] > 1 else values[:, 0]
    return values.reshape((*shape, *positions, *values.shape[2 if reading.each else 1:]))


def model_piece(store: Store, token: int) -> str:
    """The text of a token."""
    return str(store.plan.about.piece(token))


def _unembedded(model: Model, store: Store, block: Block, reading: Reading) -> Callable[[Spot, bool], Tensor]:
    """Gives the logits of a place, [row pos d_vocab]; as a prediction, or as what adds up."""
    asked = str(reading.option("norm", "own"))
    norm = None if asked == "none" else asked
    last = Spot("resid_post", model.facts.n_layers - 1)
    whole = captured(model, store, block, (*reading.spots, *([last] if norm == "frozen" else [])))
    source = reading.option("tuned")
    tuned = store.plan.values[source] if source else None

    def read_at(spot: Spot, prediction: bool) -> Tensor:
        stream = spot.site.startswith("resid_")
        if norm == "frozen" and not model.layout.family.adds_up and not stream:
            raise trouble(f"{model.facts.family} puts the stream through a norm after every addition, so {spot} has no "
                          "share of its own in the last stream", reading.span, "leave norm=frozen out", store.plan.text)
        value = whole[spot]
        if spot.heads is not None:
            value = heads_written(model, spot.layer or 0, value, list(spot.heads))[..., 0, :]
        x = _positions(store, block, reading, value)
        if tuned is not None:
            x = _translated(model, store, reading, tuned, x, str(spot))
        end = _positions(store, block, reading, whole[last]) if norm == "frozen" else None
        return lens_logits(model, x, norm, end, stream=stream, whole=prediction)

    def quietly(spot: Spot, prediction: bool) -> Tensor:
        with torch.no_grad():
            return read_at(spot, prediction)

    return quietly


def _translated(model: Model, store: Store, reading: Reading, tuned: Any, x: Tensor, address: str) -> Tensor:
    """Vectors as a tuned lens translates them."""
    try:
        if hasattr(tuned, "check"):
            tuned.check(model)
        moved: Tensor = tuned(x, address)
        return moved
    except HooklabError as error:
        raise trouble(str(error), reading.span, text=store.plan.text) from error


# Scores of heads ---------------------------------------------------------------------------------------------------


def score(model: Model, store: Store, block: Block, reading: Reading) -> list[Found]:
    """Mean attention from each token to where a kind of head would look.

    `previous`: the token before; `current`: itself; `first`: position 0; `duplicate`: the last earlier occurrence of the
    same token; `induction`: the token after that occurrence (Olsson et al. 2022, arXiv:2209.11895). Tokens without such a
    place are left out.
    """
    tokens = store.plan.prompts[block.run.prompt].tokens
    source = reading.option("source_text")
    out = []
    for spot, whole in captured(model, store, block, reading.spots).items():
        assert spot.heads is not None
        head = whole[:, spot.heads[0]]
        if source:
            out.append(_called(store, source, head, tokens))
        else:
            out.append(_looked(store, head, tokens, str(reading.option("method"))))
    shape = [len(axis.labels) for axis in reading.axes]
    return [Found(reading.name, np.array(out).reshape(shape), "" if source else "attention")]


def _called(store: Store, source: str, head: Tensor, tokens: Any) -> float:
    try:
        return float(store.plan.values[source](head, tokens))
    except Exception as error:
        raise trouble(f"the score {{{source}}} failed: {type(error).__name__}: {error}", text=store.plan.text) from error


def _looked(store: Store, head: Tensor, tokens: Any, method: str) -> float:
    total, count = 0.0, 0
    for row in range(len(head)):
        example = row % len(tokens)
        for query, key in TARGETS[method](tokens.ids[example]):
            total += float(head[row, tokens.column(example, query), tokens.column(example, key)])
            count += 1
    if not count:
        raise trouble(f"no token of the prompt has a place that a head of kind {method} would look at",
                      hint="induction and duplicate need tokens that come twice: prompt rep = repeat_random(20)",
                      text=store.plan.text)
    return total / count


def _earlier(ids: tuple[int, ...]) -> list[tuple[int, int]]:
    """Each repeated token with its last earlier occurrence."""
    seen: dict[int, int] = {}
    found = []
    for position, token in enumerate(ids):
        if token in seen:
            found.append((position, seen[token]))
        seen[token] = position
    return found


TARGETS: dict[str, Callable[[tuple[int, ...]], list[tuple[int, int]]]] = {
    "previous": lambda ids: [(p, p - 1) for p in range(1, len(ids))],
    "current": lambda ids: [(p, p) for p in range(len(ids))],
    "first": lambda ids: [(p, 0) for p in range(1, len(ids))],
    "duplicate": _earlier,
    "induction": lambda ids: [(p, before + 1) for p, before in _earlier(ids) if before + 1 < p],
}


def norms(model: Model, store: Store, block: Block, reading: Reading) -> list[Found]:
    """The length of the stream at every layer and position."""
    rows = []
    for whole in captured(model, store, block, reading.spots).values():
        rows.append(over_examples(_positions(store, block, reading, whole).float().norm(dim=-1)))
    return [Found("resid", _shaped(reading, np.stack(rows)), "")]
