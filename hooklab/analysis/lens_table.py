"""`lens_table`: every layer's stream read as a prediction of the next token (nostalgebraist 2020), as far as is asked for.

    prompt ──a pass, or a run that edits──▶ resid_post [layer pos d_model] ──final norm, unembedding──▶ `LensTable`

Columns are read when they are wanted, so that a long prompt costs what is looked at. Streams that were read are kept on the
CPU while they are small, because the rank of any other token can be asked for afterwards.
"""

from __future__ import annotations

import operator
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HooklabError, PositionError, TokenError
from ..tokens import Tokens
from .predictions import PredictionError, check, pieces, readout

if TYPE_CHECKING:
    from ..model.model import Model

KEPT = 64 * 2**20
"""Bytes of streams that are kept."""
LIMIT = 60.0
"""Seconds that one reading may take."""
GONE = "the model is not open any more, and other numbers than these need it"
BUSY = "The model is busy: a cell of the notebook is using it. Ask again when that is done."

Fetch = Callable[[Sequence[int]], Mapping[int, Tensor]]
"""Gives the stream after each layer at some positions: layer -> [pos d_model]."""


@dataclass(frozen=True)
class LensTable:
    """What each layer predicts at each position.

    Attributes:
        layers, positions: What the axes stand for.
        ids: The likeliest next tokens, [layer pos rank].
        probs: Their probabilities, [layer pos rank].
        entropy: Of each prediction, in nats, [layer pos].
        target: The token that each position is compared with, [pos]; -1 where there is none.
        target_prob: Its probability, [layer pos]; nan where there is none.
        target_rank: How many tokens are likelier, [layer pos]; -1 where there is none.
        pieces: The text of each token by id.
    """

    layers: tuple[int, ...]
    positions: tuple[int, ...]
    ids: np.ndarray
    probs: np.ndarray
    entropy: np.ndarray
    target: np.ndarray
    target_prob: np.ndarray
    target_rank: np.ndarray
    pieces: Mapping[int, str]


class Lens:
    """The lens of one prompt on one model, read column by column.

    Args:
        model: An opened model; it is held weakly.
        tokens: The prompt, one example.
        fetch: Gives streams; runs the prompt unless given.
        target: One token to compare every position with, in place of the token that comes next.
        k: How many of the likeliest tokens.
        patience: Seconds to wait for a model that is busy.
    """

    def __init__(self, model: Model, tokens: Tokens, *, fetch: Fetch | None = None, target: int | None = None, k: int = 5,
                 patience: float = 5.0) -> None:
        check(model, k)
        if len(tokens) != 1:
            raise PredictionError(f"the lens is read for one prompt at a time; these are {len(tokens)}: choose one, as in "
                                  "model.tokens(prompts)[0]")
        self.tokens, self.k, self.target = tokens, k, target
        self.layers = tuple(range(model.facts.n_layers))
        self._model, self._fetch, self._patience = weakref.ref(model), fetch, patience
        self._streams: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    @property
    def model(self) -> Model:
        """The model. Raises PredictionError when it is gone."""
        model = self._model()
        if model is None:
            raise PredictionError(GONE)
        return model

    def table(self, positions: Sequence[int]) -> LensTable:
        """All layers at some positions.

        Raises:
            PositionError: there is no such position.
            PredictionError: the model is gone, busy, or too slow.
        """
        at = self._positions(positions)
        target = [self._target(one) for one in at]
        with _Held(self.model, self._patience):
            found = self._read(at, target, self.k)
            known = {int(one) for one in np.unique(found["ids"])} | {one for one in target if one >= 0}
            return LensTable(self.layers, at, target=np.array(target, np.int32), pieces=pieces(self.model, known), **found)

    def token(self, token: int | Sequence[int], positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(probability [layer pos], rank [layer pos]) of a token, or of one for each position. Raises as `table` does."""
        at = self._positions(positions)
        each = [token] * len(at) if isinstance(token, int) else [int(one) for one in token]
        for one in each:
            token_id(self.model, one)
        if len(each) != len(at):
            raise PredictionError(f"{len(each)} tokens do not go with {len(at)} positions")
        with _Held(self.model, self._patience):
            found = self._read(at, each, 1)
        return found["target_prob"], found["target_rank"]

    def piece(self, token: int) -> str:
        """The text of a token."""
        return pieces(self.model, [token])[token]

    def release(self) -> None:
        """Let go of what is kept."""
        self._streams.clear()

    def _read(self, at: tuple[int, ...], target: Sequence[int], k: int) -> dict[str, np.ndarray]:
        stream = self._stream(at)  # [layer pos d_model]
        shape = stream.shape[:2]
        found = readout(self.model, stream.flatten(0, 1), list(target) * shape[0], k, until=time.monotonic() + LIMIT)
        with np.errstate(invalid="ignore"):
            prob = np.exp(found.log_prob)
        return {"ids": found.ids.reshape(*shape, -1), "probs": found.probs.reshape(*shape, -1),
                "entropy": found.entropy.reshape(shape), "target_prob": prob.reshape(shape),
                "target_rank": found.rank.reshape(shape)}

    def _stream(self, at: tuple[int, ...]) -> Tensor:
        for kept, stream in self._streams.items():
            if set(at) <= set(kept):
                self._streams.move_to_end(kept)
                return stream if at == kept else stream[:, [kept.index(one) for one in at]]
        found = (self._fetch or self._pass)(at)
        stream = torch.stack([found[layer].detach().cpu() for layer in self.layers])
        if stream.shape[1] != len(at):
            raise PredictionError(f"{len(at)} positions were asked for, and {stream.shape[1]} came")
        self._streams[at] = stream
        while self._streams and sum(one.nbytes for one in self._streams.values()) > KEPT:
            self._streams.popitem(last=False)
        return stream

    def _pass(self, at: Sequence[int]) -> dict[int, Tensor]:
        acts = self.model.capture(self.tokens, "L*.resid_post", at=list(at))
        return {layer: acts[f"L{layer}.resid_post"] for layer in self.layers}

    def _target(self, position: int) -> int:
        ids = self.tokens.ids[0]
        if self.target is not None:
            return self.target
        return ids[position + 1] if position + 1 < len(ids) else -1

    def _positions(self, positions: Sequence[int]) -> tuple[int, ...]:
        size = self.tokens.lengths[0]
        for one in positions:
            if not -size <= one < size:
                raise PositionError(f"the prompt has {size} tokens, no position {one}")
        if not len(positions):
            raise PositionError("no position was asked for")
        return tuple(one % size for one in positions)


class _Held:
    """The model's lock, waited for so long and no longer."""

    def __init__(self, model: Model, patience: float) -> None:
        self.lock, self.patience = model.interleaver.lock, patience

    def __enter__(self) -> None:
        if not self.lock.acquire(timeout=self.patience):
            raise PredictionError(BUSY)

    def __exit__(self, *_: Any) -> None:
        self.lock.release()


def lens_table(model: Model, prompt: Any, *, positions: Sequence[int] | None = None, k: int = 5,
               target: int | str | None = None) -> LensTable:
    """The stream after every layer through the final norm and the unembedding: likeliest tokens, entropy, ranks.

    Args:
        model: A model that predicts the next token.
        prompt: One text, or the ids of one.
        positions: Which to read; all unless given.
        k: How many of the likeliest tokens to keep.
        target: A token (text or id) to compare every position with; the token that comes next unless given.

    Raises:
        PredictionError: there are several prompts, the model looks both ways, or it takes too long.
        PositionError: there is no such position.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> table = lens_table(model, "When Mary and John went", k=3)
        >>> table.ids.shape, table.entropy.shape
        ((5, 6, 3), (5, 6))
    """
    tokens = model.tokens(prompt)
    lens = Lens(model, tokens, k=k, target=token_id(model, target))
    return lens.table(range(tokens.lengths[0]) if positions is None else positions)


def token_id(model: Model, token: int | str | None, error: type[HooklabError] = PredictionError) -> int | None:
    """The id of a token given by text or id.

    Raises:
        PredictionError: the text is not one token or not in the vocabulary, or there is no such id.
    """
    if token is None:
        return None
    if isinstance(token, str):
        try:
            return model.single_token(token)
        except TokenError as wrong:
            raise error(str(wrong)) from None
    try:
        number = -1 if isinstance(token, bool) else operator.index(token)
    except TypeError:
        number = -1
    if not 0 <= number < model.facts.d_vocab:
        raise error(f"there is no token {token!r}: ids are whole numbers from 0 to {model.facts.d_vocab - 1}")
    return number
