"""The streams of a run, by running it again: for tokens, entropies and ranks that its scores do not have.

    Run ──its text, narrowed, and one more `save` line──▶ streams at some positions ──▶ analysis.lens_table
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..analysis.lens_table import Lens, token_id
from ..analysis.predictions import PredictionError
from ..errors import HooklabError, ViewError
from ..records import Run
from ..tokens import Tokens
from .axes import Axis
from .spelling import with_line


class Again:
    """The streams of a run, by running it again with a line that saves them: for tokens that its scores do not have."""

    def __init__(self, run: Run, name: str, tokens: Tokens, columns: Sequence[int]) -> None:
        self._run, self._name, self._columns = weakref.ref(run), name, list(columns)
        model = run.__dict__["_model"]()
        self._model = weakref.ref(model)
        self.vocabulary = model.facts.d_vocab
        self._lens = Lens(model, tokens, k=1, fetch=self._fetch)

    def _fetch(self, at: Sequence[int]) -> Mapping[int, Any]:
        run, model = self._run(), self._model()
        if run is None or model is None:
            raise ViewError("the model of this run is not open any more, and other tokens than those kept need it")
        text = with_line(run.spec, self._name, f"save L*.resid_post @[{', '.join(map(str, at))}]")
        again = model.run(text, values=dict(run.given))
        return {layer: _lone(again.data[f"{self._name}.L{layer}.resid_post"], len(at)) for layer in self._lens.layers}

    def more(self, texts: Sequence[str], target: np.ndarray, start: int, stop: int
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(entropy, probability of the target, its rank), each [layer pos]."""
        columns = self._columns[start:stop]
        table = self._lens.table(columns)
        prob = np.full(table.entropy.shape, np.nan, np.float32)
        rank = np.full(table.entropy.shape, -1, np.int32)
        known = {int(one): id_ for one in target if one >= 0 and (id_ := self._id(texts[one])) is not None}
        here = [i for i, one in enumerate(target) if int(one) in known]
        if here:
            asked = [known[int(target[i])] for i in here]
            prob[:, here], rank[:, here] = self._lens.token(asked, [columns[i] for i in here])
        return table.entropy, prob, rank

    def token_of(self, texts: Sequence[str], start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(probability, rank) of tokens given by their texts, one for each position."""
        found = [self._id(text) for text in texts]
        if None in found:
            raise ViewError(f"{texts[found.index(None)]!r} is not the text of one token of this model")
        return self._lens.token([one for one in found if one is not None], self._columns[start:stop])

    def _id(self, text: str) -> int | None:
        """The token that a text is; None where it is none by itself, as a part of a character is not."""
        try:
            found = token_id(self._lens.model, text)
        except PredictionError:
            return None
        return found if found is not None and self._lens.piece(found) == text else None

    def release(self) -> None:
        """Let go of what is kept."""
        self._lens.release()


def again(run: Run | None, name: str, axes: tuple[Axis, Axis]) -> Again | None:
    """A way to run a run again; None where the model is gone, or the run is of several prompts or of other places."""
    if run is None:
        return None
    model = run.__dict__.get("_model", lambda: None)()
    tokens = run.tokens_of.get(name)
    layers, columns = axes
    if (model is None or tokens is None or len(tokens) != 1 or layers.keys != tuple(range(model.facts.n_layers))
            or not all(isinstance(key, int) for key in columns.keys)):
        return None
    try:
        return Again(run, name, tokens, columns.keys)
    except HooklabError:
        return None


def _lone(saved: Any, count: int) -> Any:
    """What was saved of one prompt, as [pos d_model]."""
    return saved.reshape(count, saved.shape[-1])
