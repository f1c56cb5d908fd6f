"""What a lens view draws from: a model that reads columns when they are wanted, or numbers that are there already.

    Model + prompt ──▶ `Live` ─┐
    Run, Scores    ──▶ `Held` ─┴─▶ `LensTable` of some columns; probability and rank of any token, as far as it is known
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..analysis.lens_table import Lens, LensTable, token_id
from ..errors import HooklabError, ViewError, did_you_mean
from ..records import Run, Scores
from ..spec import ast
from ..spec.parser import parse
from ..spec.printer import quote
from . import wire
from .axes import Axis, axis, positions
from .lens_again import again
from .spelling import line_for, with_line
from .strip_rows import written
from .text import shown

if TYPE_CHECKING:
    from ..model.model import Model

MODES = ("probability", "rank", "entropy")
_COUNTED = re.compile(r"^-?\d+: (.*)$", re.DOTALL)
NEXT = "the token that came next"


class Source(Protocol):
    """Where the numbers come from.

    Attributes:
        axes: Layers and positions.
        modes: What can be shaded.
        target: What each position is compared with, in words.
        vocabulary: How many tokens there are; how many are kept, where that is not known.
        k: How many of the likeliest tokens.
        lazy: Entropy and ranks of the target take another pass, which is run when they are asked for.
        source: The run that views share a selection by; None where there is none.
    """

    axes: tuple[Axis, Axis]
    modes: tuple[str, ...]
    target: str
    vocabulary: int
    k: int
    lazy: bool
    source: Any

    def table(self, start: int, stop: int) -> LensTable:
        """Columns `start` up to `stop`."""

    def token(self, token: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(probability, rank) of a token, each [layer pos]; nan and -1 where that is not known."""

    def tokens(self, tokens: Sequence[int], start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of one token for each position."""

    def text(self, token: int) -> str:
        """The text of a token."""

    def find(self, token: int | str) -> int:
        """The number under which a token is known here."""

    def more(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(entropy, probability of the target, its rank), each [layer pos]: what a table leaves open where `lazy`."""

    def spell(self, layer: Any, pos: Any) -> str:
        """Spec text that reads one cell."""

    def release(self) -> None:
        """Let go of the data."""


class Live:
    """A prompt on a model."""

    modes: tuple[str, ...] = MODES
    source: Any = None
    lazy = False

    def __init__(self, model: Model, prompt: Any, *, k: int, target: int | str | None) -> None:
        tokens = model.tokens(prompt)
        chosen = token_id(model, target)
        self._lens = Lens(model, tokens, k=k, target=chosen)
        self.k, self.vocabulary = k, model.facts.d_vocab
        self.axes = (axis("layer", self._lens.layers), positions("pos", tokens.pieces[0]))
        self.target = NEXT if chosen is None else self._lens.piece(chosen)
        self._spec = f"prompt {quote(tokens.text[0])}" if written(tokens, 0) else ""

    def table(self, start: int, stop: int) -> LensTable:
        return self._lens.table(range(start, stop))

    def more(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = self.table(start, stop)
        return table.entropy, table.target_prob, table.target_rank

    def token(self, token: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return self._lens.token(token, range(start, stop))

    def tokens(self, tokens: Sequence[int], start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return self._lens.token(tokens, range(start, stop))

    def text(self, token: int) -> str:
        return self._lens.piece(token)

    def find(self, token: int | str) -> int:
        found = token_id(self._lens.model, token)
        assert found is not None
        return found

    def spell(self, layer: Any, pos: Any) -> str:
        return f"{self._spec}\n{_line(layer, pos, self.k)}" if self._spec else ""

    def release(self) -> None:
        self._lens.release()


class Held:
    """Scores (layer, pos[, rank]) whose labels are tokens, and the run that they are from.

    A token that is not among those kept in a cell is looked up on the model of the run, while that is open.
    """

    def __init__(self, scores: Scores, *, run: Run | None = None, name: str = "main", target: str | None = None) -> None:
        found = _ordered(scores)
        self._probs, texts = found
        self.k = self._probs.shape[2]
        known: dict[str, int] = {}
        flat = [known.setdefault(text, len(known)) for text in map(str, texts.reshape(-1).tolist())]
        self._texts, self._ids = list(known), np.array(flat, np.int32).reshape(texts.shape)
        self.axes = (axis("layer", scores.coords["layer"]), _columns(axis("pos", scores.coords["pos"]), run, name))
        self.source: Any = run
        self._name = name
        self._spec = run.spec if run is not None else line_for(scores.spec)
        self._live = again(run, name, self.axes)
        self.lazy = self._live is not None
        self.modes: tuple[str, ...] = MODES if self._live is not None else MODES[:2]
        self.vocabulary = self._live.vocabulary if self._live is not None else self.k
        self._came = self._targets(run, name, scores, target)
        for text in self._came:
            if text is not None and text not in known:
                known[text] = len(self._texts)
                self._texts.append(text)
        self.target = NEXT if target is None else target
        self._target = np.array([-1 if text is None else known[text] for text in self._came], np.int32)

    def _targets(self, run: Run | None, name: str, scores: Scores, target: str | None) -> list[str | None]:
        """The text that each position is compared with."""
        keys = self.axes[1].keys
        if target is not None:
            return [target] * len(keys)
        tokens = None if run is None else run.tokens_of.get(name)
        if tokens is not None and len(tokens) == 1 and all(isinstance(key, int) for key in keys):
            pieces = tokens.pieces[0]
            return [pieces[key + 1] if key + 1 < len(pieces) else None for key in keys]
        labels = [match[1] if (match := _COUNTED.match(str(one))) else None for one in scores.coords["pos"]]
        follows = [isinstance(a, int) and a + 1 == b for a, b in itertools.pairwise(keys)]
        return [labels[i + 1] if i < len(follows) and follows[i] else None for i in range(len(keys))]

    def table(self, start: int, stop: int) -> LensTable:
        ids, probs = self._ids[:, start:stop], self._probs[:, start:stop]
        target = self._target[start:stop]
        prob, rank = self._among(target[None, :, None], start, stop)
        entropy = np.full(ids.shape[:2], np.nan, np.float32)
        used = {int(one) for one in np.unique(ids)} | {int(one) for one in target if one >= 0}
        keys = self.axes
        return LensTable(keys[0].keys, keys[1].keys[start:stop], ids, probs, entropy, target, prob, rank,
                         {one: self._texts[one] for one in used})

    def more(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._live is None:
            table = self.table(start, stop)
            return table.entropy, table.target_prob, table.target_rank
        return self._live.more(self._texts, self._target[start:stop], start, stop)

    def token(self, token: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= token < len(self._texts):
            raise ViewError(f"there is no token {token} in this view")
        prob, rank = self._among(np.int32(token), start, stop)
        if self._live is None or (rank >= 0).all():
            return prob, rank
        return self._live.token_of([self._texts[token]] * (stop - start), start, stop)

    def tokens(self, tokens: Sequence[int], start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        prob, rank = self._among(np.asarray(tokens)[None, :, None], start, stop)
        if self._live is None or (rank >= 0).all():
            return prob, rank
        return self._live.token_of([self._texts[int(one)] for one in tokens], start, stop)

    def text(self, token: int) -> str:
        if not 0 <= token < len(self._texts):
            raise ViewError(f"there is no token {token} in this view")
        return self._texts[token]

    def find(self, token: int | str) -> int:
        if isinstance(token, int):
            self.text(token)
            return token
        if token not in self._texts:
            if self._live is None:
                raise ViewError(f"this lens has no token {token!r} among its likeliest, and no model to ask.")
            self._live.token_of([token] * len(self.axes[1]), 0, len(self.axes[1]))
            self._texts.append(token)
        return self._texts.index(token)

    def _among(self, token: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(probability, rank) of tokens where they are among those kept."""
        ids, probs = self._ids[:, start:stop], self._probs[:, start:stop]
        same = (ids == token) & (np.asarray(token) >= 0)
        rank = np.where(same.any(-1), same.argmax(-1), -1).astype(np.int32)
        return np.where(rank >= 0, np.where(same, probs, 0).sum(-1), np.nan).astype(np.float32), rank

    def spell(self, layer: Any, pos: Any) -> str:
        if not isinstance(pos, int) or not self._spec:
            return ""
        line = _line(layer, pos, self.k)
        return f"{self._spec}\n{line}" if self.source is None else with_line(self._spec, self._name, line)

    def release(self) -> None:
        self._ids, self._probs, self._texts = np.zeros((0, 0, 0), np.int32), np.zeros((0, 0, 0), np.float32), []
        if self._live is not None:
            self._live.release()


def _columns(given: Axis, run: Run | None, name: str) -> Axis:
    """The positions of scores with the tokens as the run has them: labels of scores leave out their spaces."""
    tokens = None if run is None else run.tokens_of.get(name)
    if tokens is None or len(tokens) != 1 or not all(isinstance(key, int) for key in given.keys):
        return given
    return Axis("pos", given.keys, tuple(shown(tokens.pieces[0][key]) for key in given.keys))


def _line(layer: Any, pos: Any, k: int) -> str:
    return f"lens L{layer}.resid_post @{pos}" + (f" top={k}" if k > 1 else "")


def _ordered(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and texts [layer pos rank]. Raises ViewError."""
    if not {"layer", "pos"} <= set(scores.axes) or set(scores.axes) - {"layer", "pos", "rank"}:
        raise ViewError(f"a lens is a table over layer and pos, with a rank axis or without; these scores have "
                        f"{', '.join(scores.axes) or 'none'}: write `lens L*.resid_post @each top=5`, or use .sel(…)")
    if scores.labels is None:
        raise ViewError("these scores have no token in each cell (labels): hl.view.grid draws numbers alone")
    if not scores.values.size:
        raise ViewError("there is nothing to draw: the scores are empty")
    order = [scores.axes.index(word) for word in ("layer", "pos", "rank") if word in scores.axes]
    probs = wire.held(scores.values, "probabilities").transpose(order)
    texts = np.asarray(scores.labels).transpose(order).astype(object)
    if probs.ndim == 2:
        probs, texts = probs[..., None], texts[..., None]
    return np.ascontiguousarray(probs), texts


def of_run(run: Run, key: str | None, target: str | None) -> Held:
    """The lens of a run.

    Raises:
        ViewError: it has none, or there is none of that name.
    """
    lenses = {name: one for name, one in run.scores.items()
              if one.labels is not None and {"layer", "pos"} <= set(one.axes) <= {"layer", "pos", "rank"}}
    if not lenses:
        raise ViewError("this run has no lens over layers and positions: add a line such as "
                        "`lens L*.resid_post @each top=5`, or give a model: hl.view.lens(model, prompt)")
    named = [name for name in lenses if key is None or key in (name, name.partition(".")[0], name.partition(".")[2])]
    if not named:
        raise ViewError(f"this run has no lens {key!r}.{did_you_mean(str(key), lenses)} It has {', '.join(lenses)}.")
    name = named[0].partition(".")[0]
    return Held(lenses[named[0]], run=run, name=name, target=target if target is not None else answer(run))


def answer(run: Run) -> str | None:
    """The first token of the answer that the spec of a run declares as text; None where it declares none."""
    try:
        body = parse(run.spec).body if run.spec else ()
    except HooklabError:
        return None
    for one in body:
        if isinstance(one, ast.Answer):
            first = one.value.items[0] if isinstance(one.value, ast.List) and one.value.items else one.value
            return first.value if isinstance(first, ast.Str) else None
    return None


def rank_scale(vocabulary: int) -> wire.Scale:
    """Ranks, as log10(1 + rank): few are near the top, and those matter."""
    return wire.Scale("linear", 0.0, math.log10(max(2, vocabulary)))
