"""`features`: at every token of a text, the strongest features of a dictionary; `feature_writes`: what each one writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..address import Place
from ..records import Scores
from ..records.drawn import Drawn, Part
from ..sae import attach, sparse
from ..tokens import Tokens
from .asking import whole
from .counting import chunked
from .units import DashboardError, Units, units_of

if TYPE_CHECKING:
    from ..model.model import Model


MOST_TEXTS, MOST_FEATURES = 6, 24
"""What is drawn where nothing is chosen."""


@dataclass(frozen=True, repr=False, eq=False)
class TokenFeatures(Drawn):
    """The strongest features at every token of some texts.

    Attributes:
        place: The address of the site that the dictionary reads.
        tokens: The texts.
        ids: Per text, the numbers of the strongest features, [pos rank]; -1 where fewer are active, and at special tokens
            that are left out.
        values: Per text, their activations, largest first, [pos rank]; 0 where fewer are active, nan at special tokens
            that are left out.
        active: Per text, every feature that is among the strongest of a token, the one with the largest value first.
        table: Per text, the activations of those at every token, [pos feature]; nan at special tokens that are left out.
        n_features: How many features the dictionary has.
    """

    place: Place
    tokens: Tokens
    ids: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    active: tuple[tuple[int, ...], ...]
    table: tuple[np.ndarray, ...]
    n_features: int

    def top(self, text: int = 0) -> Scores:
        """The strongest features of each token of a text: Scores [pos rank], each cell with its feature in `labels`.

        Raises:
            DashboardError: there is no such text.
        """
        ids, values = self.ids[self._checked(text)], self.values[text]
        labels = np.array([f"F{i}" if i >= 0 else "" for i in ids.reshape(-1)], dtype=object).reshape(ids.shape)
        return Scores(values, ("pos", "rank"), {"pos": self._labels(text)}, "activation", "features", labels=labels,
                      note=f"strongest of {self.n_features} features at {self.place}")

    def scores(self, features: Iterable[int] | None = None, text: int = 0) -> Scores:
        """Features at every token of a text: Scores [feature pos], which `hl.view.tokens` draws as coloured text.

        Args:
            features: Which; by default all that are among the strongest of a token, the largest first.
            text: Which text, counted from 0.

        Raises:
            DashboardError: there is no such text, or one of the features is nowhere among the strongest.
        """
        known = self.active[self._checked(text)]
        chosen = known if features is None else tuple(features) if isinstance(features, Iterable) else (features,)
        if missing := [one for one in chosen if one not in known]:
            raise DashboardError(f"feature {', '.join(map(str, missing))} is not among the strongest of any token of text "
                                 f"{text}: ask for more with k=")
        columns = [known.index(one) for one in chosen]
        return Scores(self.table[text][:, columns].T, ("feature", "pos"), {"feature": chosen, "pos": self._labels(text)},
                      "activation", "feature", note=f"features at {self.place}")

    def pictures(self) -> dict[str, Part]:
        """The strongest features of the first texts, at every token: Scores [feature pos]."""
        found: dict[str, Part] = {}
        for text, active in enumerate(self.active[:MOST_TEXTS]):
            found[f"text {text}"] = self.scores(active[:MOST_FEATURES], text) if active else "no feature is active"
        left = len(self.tokens) - MOST_TEXTS
        return found | ({"more": f"{left} texts more: choose with scores(text=…)"} if left > 0 else {})

    def _checked(self, text: int) -> int:
        if text not in range(len(self.tokens)):
            raise DashboardError(f"there is no text {text!r}: there are {len(self.tokens)}, counted from 0")
        return text

    def _labels(self, text: int) -> tuple[str, ...]:
        return tuple(f"{i}: {piece}" for i, piece in enumerate(self.tokens.pieces[text]))

    def __repr__(self) -> str:
        return f"TokenFeatures({self.n_features} features at {self.place} · {len(self.tokens)} texts, " \
               f"{sum(self.tokens.lengths)} tokens)"


def features(model: Model, source: Any, text: Any, k: int = 10, *, at: str, special: bool = False,
             rows: int = 16) -> TokenFeatures:
    """At every token, the `k` strongest features of a dictionary, and how strong they are.

    Args:
        model: An opened model.
        source: A dictionary of features: a path, or an object that encodes and decodes.
        text: Text, ids, or a list of them.
        k: Features of each token; those that are 0 are left out.
        at: The site that the dictionary reads: `"L2.resid_post"`.
        special: Whether special tokens (begin of text …) count. The stream is often many times as long at the first
            token as elsewhere, so its features would outshine all others; left out, their cells are nan.
        rows: Most texts of one pass.

    Raises:
        DashboardError: `k` or `rows` is no number from 1 up, the dictionary does not fit the site, or all tokens are
            special ones.
        SiteError, LayerError: a site that the model lacks.
        PromptError: a text that the model cannot take.

    Example:
        >>> import torch, hooklab as hl
        >>> from hooklab.analysis.feature_rows import features
        >>> model = hl.load("lab")
        >>> d = model.facts.d_model
        >>> sae = hl.sae.SAE(torch.eye(d), torch.zeros(d), torch.eye(d), torch.zeros(d))
        >>> found = features(model, sae, "Mary went to the store", k=3, at="L2.resid_post")
        >>> found.top().axes, found.scores().axes
        (('pos', 'rank'), ('feature', 'pos'))
    """
    for name, value in (("k", k), ("rows", rows)):
        whole(name, value, error=DashboardError)
    units = _whole(model, source, at)
    tokens = model.tokens(text)
    if not special and all(role == "special" for roles in tokens.roles for role in roles):
        raise DashboardError("these texts have no tokens to look at: all are special ones; look at them with special=True")
    found = [_strongest(chunk.values[i, :n], k, chunk.counted[i, :n])
             for chunk in chunked(model, units, tokens, rows, special, None)
             for i, n in enumerate(tokens.lengths[chunk.first:chunk.first + len(chunk.values)])]
    ids, values, active, table = zip(*found, strict=True)
    return TokenFeatures(units.place, tokens, ids, values, active, table, attach(source).n_features)


def _whole(model: Model, source: Any, at: str) -> Units:
    """All features of a dictionary at a site."""
    if isinstance(source, (Tensor, np.ndarray)):
        raise DashboardError("these are directions, and features come from a dictionary: "
                             "model.capture(…) @ directions.T gives their dot products")
    return units_of(model, attach(source), at, None)


def _strongest(table: Tensor, k: int, counted: Tensor) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], np.ndarray]:
    """The strongest features of one text, from those of all, [pos feature], at the tokens that are `counted`, [pos]."""
    found = sparse(table, k)
    ids = found.indices.masked_fill(~counted[:, None], -1)
    values = found.values.masked_fill(~counted[:, None], float("nan"))
    most = table.masked_fill(~counted[:, None], float("-inf")).amax(0)
    active = sorted({int(i) for i in ids.reshape(-1) if i >= 0}, key=lambda i: (-float(most[i]), i))
    shown = table[:, active].masked_fill(~counted[:, None], float("nan"))
    return ids.numpy(), values.numpy(), tuple(active), shown.numpy()


def feature_writes(model: Model, source: Any, at: str) -> Tensor:
    """What the stream gets of each feature at an activation of 1, [feature d_model].

    That is the decoder's row where the dictionary reads the stream or what is written to it, and the row times the MLP's
    output weights where it reads `mlp_post`. A dictionary that brings inputs to one scale writes this times their scale.

    Raises:
        DashboardError: what is written at this site does not reach the stream as it is.

    Example:
        >>> import torch, hooklab as hl
        >>> from hooklab.analysis.feature_rows import feature_writes
        >>> model = hl.load("lab")
        >>> d = model.facts.d_mlp
        >>> sae = hl.sae.SAE(torch.eye(d), torch.zeros(d), torch.eye(d), torch.zeros(d))
        >>> feature_writes(model, sae, "L2.mlp_post").shape == (d, model.facts.d_model)
        True
    """
    units = _whole(model, source, at)
    if units.writes is None:
        raise DashboardError(f"there is no write vector{units.note or f': {at} does not write to the stream'}")
    return torch.as_tensor(units.writes)
