"""`feature_dashboard`: what features, neurons or directions respond to over many texts, and what they write.

Texts go through the model in batches. A first pass over the activations finds each feature's range and its strongest
places, a second one counts the histogram and draws examples from every part of the range. What is kept of an activation
is a count, or a window around a token: memory grows with the features, not with the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..model import ports
from ..records.drawn import Viewed
from ..tokens import Tokens
from .asking import whole
from .contexts import Context, contexts, stored
from .counting import Chunk, First, Second, chunked
from .strongest import Strongest
from .units import DashboardError, Units, units_of

if TYPE_CHECKING:
    from ..model.model import Model

KEPT = 256 * 2**20
"""Bytes of activations up to which the second pass needs no second run of the model."""
PER = ("text", "token")


@dataclass(frozen=True)
class Extremes:
    """The tokens that a feature's write raises and lowers most, strongest first; all [feature rank].

    Attributes:
        up: Ids of raised tokens.
        up_values: By how much, for an activation of 1.
        down: Ids of lowered tokens.
        down_values: By how much.
    """

    up: np.ndarray
    up_values: np.ndarray
    down: np.ndarray
    down_values: np.ndarray


@dataclass(frozen=True, repr=False, eq=False)
class FeatureDashboard(Viewed):
    """What `feature_dashboard` found. Arrays have the features that were asked for on their first axis.

    Attributes:
        name: What was looked at: `L2.mlp_post`, `dictionary at L2.resid_post`.
        word: The axis word: `feature`, `neuron`, `dims`.
        place: The address of the site.
        origin: How a spec names the dictionary: `"path"`, `{sae}`; empty for a site's own units.
        keys: The number of each feature.
        tokens: The texts.
        count: Tokens that were counted.
        zero: Share of them at which the feature is exactly 0, [feature].
        density: Share at which it is above 0, [feature].
        odd: Tokens at which it is not finite, which are left out everywhere else, [feature].
        low: Smallest activation, [feature].
        high: Largest activation, [feature].
        edges: Ends of the histogram's bins, from the smaller of 0 and `low` to `high`, [feature bins + 1].
        counts: Activations in each bin but those that are exactly 0, [feature bins].
        norms: Length of the decoder's row (of a neuron: of its output weights), [feature].
        logits: `plain`: the write times the unembedding; `normed`: the same through the gain of the final norm, its mean
            removed where the norm removes it, which is what reaches the logits up to the norm's divisor. Empty where what
            is looked at does not write to the stream.
        vocabulary: Text of the tokens in `logits`.
        note: What a reader should know.
        strongest: The strongest places, before they are put into words by `top`.
        drawn: Places from each part of the range, the lowest first, as `ranges` gives them.
    """

    name: str
    word: str
    place: str
    origin: str
    keys: tuple[int, ...]
    tokens: Tokens
    count: int
    zero: np.ndarray
    density: np.ndarray
    odd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    edges: np.ndarray
    counts: np.ndarray
    norms: np.ndarray
    logits: dict[str, Extremes]
    vocabulary: dict[int, str]
    note: str
    strongest: Strongest
    drawn: tuple[Strongest, ...]

    @property
    def window(self) -> int:
        """Tokens that are kept on either side of a place."""
        return self.strongest.window

    def index(self, key: int) -> int:
        """Where a feature stands in the arrays.

        Raises:
            DashboardError: it is not among those looked at.
        """
        try:
            return self.keys.index(key)
        except ValueError:
            raise DashboardError(f"{self.word} {key} was not looked at: there are {_some(self.keys)}") from None

    def top(self, key: int) -> list[Context]:
        """The strongest places of a feature, strongest first; of equal ones the earlier comes first."""
        return self._contexts(self.strongest, self.index(key))

    def ranges(self, key: int) -> list[tuple[float, float, list[Context]]]:
        """Equal parts of the range from 0 to the largest activation, upper first: (low, high, places drawn from there)."""
        i = self.index(key)
        ends = np.linspace(0, max(float(self.high[i]), 0), len(self.drawn) + 1)
        found = [(float(ends[r]), float(ends[r + 1]), self._contexts(part, i)) for r, part in enumerate(self.drawn)]
        return found[::-1]

    def _contexts(self, best: Strongest, i: int) -> list[Context]:
        return contexts(best, i, self.tokens)

    def __repr__(self) -> str:
        return f"FeatureDashboard({self.name} · {self.word} {len(self.keys)} · {self.note})"


def feature_dashboard(model: Model, source: Any, texts: Sequence[Any] | Any, *, at: str | None = None,
                      features: Iterable[int] | None = None, top: int = 20, window: int = 12, bins: int = 40,
                      ranges: int = 4, examples: int = 3, per: str = "text", special: bool = False, logits: int = 10,
                      rows: int = 16, progress: Callable[[int, int, str], None] | None = None) -> FeatureDashboard:
    """Histograms, strongest contexts, examples of every strength, and logits, for features over texts.

    Args:
        model: An opened model.
        source: A dictionary of features (a path, or an object that encodes and decodes) together with `at=`; a site whose
            units are looked at, such as `"L2.mlp_post"` or `"L2N[3,17]"`; or directions, [d] or [feature d], with `at=`:
            their activation is the dot product.
        texts: Text, ids, or a list of them; or a store that `hl.extract` filled with the whole of the site, which is read
            example by example, so that nothing is run.
        at: The site that a dictionary reads, or directions are held against: `"L2.resid_post"`.
        features: Which, by number; all unless given.
        top: Strongest contexts to keep of each.
        window: Tokens kept on either side.
        bins: Of the histogram.
        ranges: Equal parts of the range from 0 to the maximum, from each of which examples are drawn.
        examples: How many of each; they are drawn by a fixed rule, so the same texts give the same ones.
        per: `"text"`: each text counts with its strongest token; `"token"`: every token counts.
        special: Whether special tokens (begin of text …) count; in the windows they are shown in any case.
        logits: Raised and lowered tokens to keep; 0 for none.
        rows: Most texts of one pass.
        progress: Called with (done, total, what).

    Raises:
        DashboardError: a source without its site, features that do not exist, numbers out of range, no tokens to count; a
            store of another model, or with some positions only.
        SiteError, LayerError: a site that the model lacks.
        PromptError: a text that the model cannot take.

    Example:
        >>> import hooklab as hl
        >>> found = feature_dashboard(hl.load("lab"), "L2.mlp_post", ["Mary went to the store", "The capital of France is"],
        ...                           features=[3, 17], logits=2)
        >>> found.keys, found.counts.shape, len(found.top(3))
        ((3, 17), (2, 40), 2)
    """
    _check(top=top, window=window, bins=bins, ranges=ranges, examples=examples, logits=logits, rows=rows)
    if per not in PER:
        raise DashboardError(f"per={per!r}: contexts are counted per {' or per '.join(map(repr, PER))}")
    units = units_of(model, source, at, features)
    tokens, again = _reading(model, units, texts, rows, special, progress)
    size = sum(tokens.lengths) * len(units.keys) * 4
    kept = list(again()) if size <= KEPT else None

    def chunks() -> Iterable[Chunk]:
        return kept if kept is not None else again()

    first = First(len(units.keys), top, window, per)
    for chunk in chunks():
        first.see(chunk)
    if not first.count:
        raise DashboardError("these texts have no tokens to count: all are special ones; count them with special=True")
    second = Second(first, bins, ranges, examples, window)
    for chunk in chunks():
        second.see(chunk)
    tables = _logits(model, units.writes, logits)
    note = f"{first.count:,} tokens of {len(tokens)} texts" + ("" if special else "; special tokens left out")
    return FeatureDashboard(
        units.name, units.word, units.place.key, units.origin, units.keys, tokens,
        first.count, (first.zero / first.count).numpy(), (first.above / first.count).numpy(), first.odd.numpy(),
        first.low.numpy(), first.high.numpy(), second.edges, second.counts.numpy(), units.norms.numpy(), tables,
        _vocabulary(model, tables), note + units.note, first.best, second.parts)


def _reading(model: Model, units: Units, texts: Any, rows: int, special: bool,
             progress: Callable[[int, int, str], None] | None) -> tuple[Tokens, Callable[[], Iterable[Chunk]]]:
    """The tokens of texts, or of a store, and a way to go through their features, as often as it is called."""
    if hasattr(texts, "tokens_with"):
        return stored(texts, units, model, special)[0], lambda: stored(texts, units, model, special)[1]
    tokens = model.tokens(texts)
    return tokens, lambda: chunked(model, units, tokens, rows, special, progress)


def _logits(model: Model, writes: Tensor | None, most: int) -> dict[str, Extremes]:
    """The tokens that each write moves most, as it stands and through the final norm."""
    if writes is None or not most or model.W.missing("U") is not None:
        return {}
    plain, folded = model.W, model.W.folded(centre=True)
    return {name: _extremes(writes, ports.wide(weights.U).cpu(), most)
            for name, weights in (("plain", plain), ("normed", folded))}


def _extremes(writes: Tensor, unembedding: Tensor, most: int) -> Extremes:
    most = min(most, unembedding.shape[1])
    found: list[list[np.ndarray]] = []
    for part in writes.split(256):
        logits = part @ unembedding.to(part)
        up, down = logits.topk(most), logits.topk(most, largest=False)
        found.append([one.numpy() for one in (up.indices, up.values, down.indices, down.values)])
    return Extremes(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _vocabulary(model: Model, tables: dict[str, Extremes]) -> dict[int, str]:
    ids = sorted({int(i) for table in tables.values() for side in (table.up, table.down) for i in side.reshape(-1)})
    if not ids:
        return {}
    pieces = Tokens.from_ids([[i] for i in ids], model.tokenizer).pieces
    return {i: "".join(piece) for i, piece in zip(ids, pieces, strict=True)}


def _check(**counts: int) -> None:
    least = {"window": 0, "logits": 0}
    for name, value in counts.items():
        whole(name, value, least.get(name, 1), error=DashboardError)


def _some(keys: Sequence[int]) -> str:
    return ", ".join(map(str, keys[:6])) + (f" … {keys[-1]} ({len(keys)} in all)" if len(keys) > 6 else "")
