"""Attention as it is watched: one layer at a time, one example at a time, without padding; for every analysis of heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import HooklabError, PromptError, did_you_mean
from ..model.inputs import INPUT_NAMES, Prompt
from ..model.opened import needs_opened
from ..records import Scores
from ..runtime.trace import capture
from ..sites import ORDER
from ..statistics import interval
from ..tokens import Tokens
from .asking import whole

if TYPE_CHECKING:
    from ..model.model import Model

ROOM = 2**28
"""Bytes that one layer's attention may take; examples are run some at a time where it would take more."""


class AttentionError(HooklabError, ValueError):
    """A question about attention that makes no sense, or does not fit the model or the prompt."""


@dataclass(frozen=True)
class Seen:
    """Values of one layer in some examples, padded.

    Attributes:
        layer: Which layer.
        first: The number of the first of these examples.
        spans: The columns of each example's tokens.
        values: Site -> tensor, axes as in `hooklab.sites`.
    """

    layer: int
    first: int
    spans: tuple[slice, ...]
    values: dict[str, Tensor] = field(default_factory=dict)

    @property
    def examples(self) -> range:
        """The numbers of these examples."""
        return range(self.first, self.first + len(self.spans))

    def patterns(self) -> Iterator[tuple[int, Tensor]]:
        """Each example's number and its pattern [head query_pos key_pos] without padding, float64."""
        for i, span in enumerate(self.spans):
            yield self.first + i, self.values["pattern"][i, :, span, span].double()

    def of(self, site: str, example: int) -> Tensor:
        """A site [pos …] of one example without padding, float64."""
        i = example - self.first
        return self.values[site][i, self.spans[i]].double()


def read(model: Model, prompts: Any, **inputs: Any) -> Prompt:
    """Prompts made ready to run.

    Raises:
        PromptError: they are embeddings, which have no tokens; or there is no such input, which is how a misspelt option
            of an analysis ends up here.
    """
    needs_opened(model)
    known = model.reader.options | INPUT_NAMES
    if other := [name for name in inputs if name not in known]:
        raise PromptError(f"there is no option {other[0]!r}, and the model takes no such input."
                          + did_you_mean(other[0], ("positions", "direction", "seed", "by", *sorted(INPUT_NAMES))))
    made = model.reader.read(prompts, **inputs)
    if made.tokens is None:
        raise PromptError("embeddings have no tokens that positions could be counted on: give text or ids")
    return made


def tokens_of(prompt: Prompt) -> Tokens:
    """The tokens of a prompt that `read` has made."""
    assert prompt.tokens is not None
    return prompt.tokens


def watch(model: Model, prompt: Prompt, sites: Sequence[str], visit: Callable[[Seen], None]) -> None:
    """Run prompts, some at a time, and call `visit` with the values of each layer as soon as it has gone by.

    Raises:
        SiteError: the model lacks one of the sites.
    """
    tokens, facts = tokens_of(prompt), model.facts
    rows = max(1, ROOM // (4 * facts.n_heads * tokens.width**2))
    wanted = sorted(sites, key=ORDER.__getitem__)
    for start in range(0, prompt.size, prompt.size if prompt.extras else rows):
        part, some = prompt, tokens
        if prompt.size > rows and not prompt.extras:
            some = replace(Tokens.from_ids(tokens.ids[start:start + rows]), padding_side=model.reader.side)
            part = Prompt(some, {}, len(some))
        first = [some.column(i, 0, model.reader.side) for i in range(len(some))]
        spans = tuple(slice(column, column + n) for column, n in zip(first, some.lengths, strict=True))
        edits: dict[str, Callable[[Tensor], None]] = {}
        for layer in range(facts.n_layers):
            seen = Seen(layer, start, spans)
            edits |= {f"L{layer}.{site}": _keeper(seen, site, visit if site == wanted[-1] else None) for site in wanted}
        capture(model, part, f"L{facts.n_layers - 1}.{wanted[-1]}", edits=edits, at=0)


def _keeper(seen: Seen, site: str, visit: Callable[[Seen], None] | None) -> Callable[[Tensor], None]:
    def keep(value: Tensor) -> None:
        seen.values[site] = value.detach()
        if visit is not None:
            visit(seen)
            seen.values.clear()

    return keep


def averaged(examples: np.ndarray, axes: tuple[str, ...], coords: dict[str, tuple[Any, ...]], seed: int = 0,
             **about: Any) -> Scores:
    """Scores of a mean over examples [batch, *axes] with its interval; where an example is nan, it is left out."""
    whole("seed", seed, 0, error=AttentionError)
    there = ~np.isnan(examples)
    count = there.sum(0)
    values = np.where(count > 0, np.where(there, examples, 0.0).sum(0) / np.maximum(count, 1), np.nan)
    if len(examples) < 2:
        return Scores(values, axes, coords, examples=None, **about)
    flat, present = examples.reshape(len(examples), -1), there.reshape(len(examples), -1)
    bounds = np.full((2, flat.shape[1]), np.nan)
    for mask in np.unique(present, axis=1).T:
        cells = (present == mask[:, None]).all(0)
        bounds[:, cells] = interval(flat[mask][:, cells], seed=seed)
    low, high = bounds.reshape(2, *values.shape)
    return Scores(values, axes, coords, examples=examples, low=low, high=high, **about)


def check(what: str, given: Any, known: Sequence[str]) -> None:
    """Refuse a word that is none of a few. Raises AttentionError with the nearest one and all there are."""
    if given not in known:
        raise AttentionError(f"there is no {what} {given!r}.{did_you_mean(given, known)} There are {', '.join(known)}.")
