"""`max_activating`: the tokens at which one unit is most active, and what stands around them.

A unit is anything with a number at every token: a neuron, a dimension, a feature of a dictionary, a direction, or what a
function makes of a site, such as the length of a head's write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..address import Place, check_index, parse
from ..errors import RecordError, SiteError
from ..records import Activations
from ..runtime.trace import places
from ..sae import SAE, attach
from ..sites import SITES
from ..tokens import Tokens
from .asking import whole
from .counting import Chunk, First, _slice, chunked, unpadded
from .strongest import Strongest
from .units import DashboardError, Units

if TYPE_CHECKING:
    from ..model.model import Model

PER = ("text", "token")


class Stored(Protocol):
    """What a store of `hooklab.data` is known by here."""

    def tokens_with(self, site: str, model: Model) -> Tokens:
        """The tokens of all examples."""

    def __getitem__(self, site: str) -> Any: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Context:
    """A token at which a feature is active, and what stands around it.

    Attributes:
        text: Which text, counted from 0.
        pos: Which token of it.
        value: The activation there.
        start: The position of the first token of the window.
        pieces: The window's tokens.
        values: Their activations, [pos].
    """

    text: int
    pos: int
    value: float
    start: int
    pieces: tuple[str, ...]
    values: np.ndarray


def contexts(best: Strongest, feature: int, tokens: Tokens) -> list[Context]:
    """The places of one feature with the tokens around them, strongest first."""
    found = []
    for rank in range(best.size(feature)):
        text, pos, value, window = best.entry(feature, rank)
        first, last = max(0, pos - best.window), min(tokens.lengths[text], pos + best.window + 1)
        offset = first - (pos - best.window)
        found.append(Context(text, pos, value, first, tokens.pieces[text][first:last], window[offset:offset + last - first]))
    return found


def max_activating(source: Model | Activations | Stored, unit: Any, texts: Sequence[Any] | Any = None, k: int = 20,
                   window: int = 12, *, at: str | None = None, feature: int | None = None, per: str = "token",
                   special: bool = False, rows: int = 16, model: Model | None = None) -> list[Context]:
    """The `k` tokens at which a unit is most active, strongest first; of equal ones the earlier.

    Args:
        source: An opened model, which is run on `texts`; activations that were captured, with all their positions; or a
            store that `extract` filled, of which the site alone is read, example by example: nothing is run.
        unit: A neuron (`"L2N3"`), or a site with `feature=` for one number of its last axis (`"L1.resid_post"`,
            `"L1H2.z"`); or, with `at=`, a direction [d], a dictionary of features with `feature=`, or a function that
            makes [batch pos] of the site's value.
        texts: Text, ids, or a list of them.
        k: How many; where the unit is exactly 0 it does not count.
        window: Tokens kept on either side.
        at: The site that a direction, a dictionary or a function reads.
        feature: Which of the dictionary's features, or of the site's numbers.
        per: `"token"`: every token counts; `"text"`: each text with its strongest.
        special: Whether special tokens count; in the windows they are shown in any case.
        rows: Most texts of one pass.
        model: With a store: the model whose tokens it holds, which says how they read and which of them are special.

    Raises:
        DashboardError: no single unit, numbers out of range, activations without tokens, or no tokens to count.
        SiteError, LayerError: a site that the model lacks, or that was not captured.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.contexts import max_activating
        >>> found = max_activating(hl.load("lab"), "L2N3", ["Mary went to the store", "The capital of France is"], k=2)
        >>> len(found), found[0].value >= found[1].value
        (2, True)
    """
    for name, value, least in (("k", k, 1), ("window", window, 0), ("rows", rows, 1)):
        whole(name, value, least, error=DashboardError)
    if per not in PER:
        raise DashboardError(f"per={per!r}: contexts are counted per {' or per '.join(map(repr, PER))}")
    opened, source = _source(source, model)
    units = _units(opened, unit, at, feature)
    tokens, chunks = _chunks(source, units, texts, rows, special, model)
    first = First(1, k, window, per)
    for chunk in chunks:
        first.see(chunk)
    if first.odd.any():
        raise DashboardError(f"the unit is no finite number at {int(first.odd.sum())} of {first.count} tokens")
    if not first.count:
        raise DashboardError("these texts have no tokens to count: all are special ones; count them with special=True")
    return contexts(first.best, 0, tokens)


def _source(source: Any, model: Model | None) -> tuple[Any, Any]:
    """What knows the sites, and what has the values."""
    if not hasattr(source, "tokens_with"):
        if model is not None:
            raise DashboardError("model= is for a store; a model that is to be run comes first: max_activating(model, unit, "
                                 "texts)")
        return source, source
    if model is None:
        raise DashboardError("a store holds ids of tokens: say whose they are, max_activating(store, unit, model=model)")
    return model, source


def _chunks(source: Any, units: Units, texts: Any, rows: int, special: bool,
            model: Model | None) -> tuple[Tokens, Iterable[Chunk]]:
    if model is not None:
        if texts is not None:
            raise DashboardError("a store has its own texts: leave texts out, and choose among them with store.where(…)")
        return stored(source, units, model, special)
    if not isinstance(source, Activations):
        if texts is None:
            raise DashboardError("a model needs texts to run on: max_activating(model, unit, texts)")
        tokens = source.tokens(texts)
        return tokens, chunked(source, units, tokens, rows, special, None)
    if texts is not None:
        raise DashboardError("captured activations have their own texts: leave texts out")
    if source.tokens is None:
        raise DashboardError("these activations have no tokens: capture them from text or ids")
    return source.tokens, _captured(source, units, source.tokens, special)


def stored(store: Stored, units: Units, model: Model, special: bool) -> tuple[Tokens, Iterable[Chunk]]:
    """The tokens of a store's examples, and their units, example by example: nothing is run.

    Raises:
        DashboardError: the store was made with another model, or does not hold the whole of the site.
        SiteError: it lacks the site.
    """
    try:
        tokens = store.tokens_with(units.place.key, model)
    except RecordError as error:
        raise DashboardError(str(error)) from error
    return tokens, _stored(store, units, tokens, special)


def _stored(store: Stored, units: Units, tokens: Tokens, special: bool) -> Iterator[Chunk]:
    with torch.no_grad():
        for i in range(len(store)):
            part = _slice(tokens, i, i + 1)
            value = store[units.place.key].mapped(i)[None].to(torch.float32, copy=True)  # what reads it may write into it
            yield unpadded(units.read(value).float().cpu(), part, part, special, i)


def _captured(acts: Activations, units: Units, tokens: Tokens, special: bool) -> Iterator[Chunk]:
    value = acts[units.place.key]
    if value.shape[1 if value.ndim < 4 or SITES[units.place.site].axes[1] == "pos" else -1] != tokens.width:
        raise DashboardError(f"{units.place.key} was captured at some positions only: capture it at all of them")
    with torch.no_grad():
        yield unpadded(units.read(value).float().cpu(), tokens, tokens, special, 0)


# Units ---------------------------------------------------------------------------------------------------------------


def _units(source: Model | Activations, unit: Any, at: str | None, feature: int | None) -> Units:
    """One unit, read as `feature_dashboard` reads many."""
    address = unit if at is None else at
    if not isinstance(address, str):
        raise DashboardError("say with at= which site the unit reads, such as at=\"L2.resid_post\"")
    place = _place(source, address)
    read, key = _site(place, feature) if at is None else _at(place, unit, feature)

    def shaped(x: Tensor) -> Tensor:
        found = read(x)
        if found.ndim != 2 or len(found) != len(x) or found.shape[1] not in x.shape[1:]:
            raise DashboardError(f"a unit has one number per token, [batch pos], and {place} gives it "
                                 f"{list(found.shape)}")
        return found[..., None]

    return Units(str(place), "unit", place, "", (key,), shaped, torch.full((1,), torch.nan), None)


def _place(source: Model | Activations, address: str) -> Place:
    if not isinstance(source, Activations):
        found = places(source, [address])
        if len(found) != 1:
            raise DashboardError(f"{address} names {len(found)} sites: a unit is of one")
        return found[0]
    parsed = parse(address)
    numbers = [text for text in (parsed.layers, parsed.heads, parsed.neurons) if text is not None]
    if not all(text.isdigit() for text in numbers):
        raise SiteError(f"{address}: with captured activations name one layer, and one head or neuron, counted from 0")
    heads, neurons = (None if text is None else (int(text),) for text in (parsed.heads, parsed.neurons))
    return Place(parsed.site, None if parsed.layers is None else int(parsed.layers), heads, neurons)


Read = Callable[[Tensor], Tensor]


def _site(place: Place, feature: int | None) -> tuple[Read, int]:
    """One number of a site's own."""
    if place.neurons is not None:
        if len(place.neurons) != 1 or feature is not None:
            raise DashboardError(f"{place} is one neuron where it names one, without feature=")
        feature = place.neurons[0]
    if feature is None:
        raise DashboardError(f"which number of {place}? name a neuron, such as L2N3, or give feature=")
    axes, number = SITES[place.site].axes, whole("feature", feature, 0, error=DashboardError)
    if axes[1] != "pos" or (len(axes) == 4 and (place.heads is None or len(place.heads) != 1)) or len(axes) < 3:
        raise DashboardError(f"{place} has the axes {' '.join(axes)}: name one head, or give a function of it with at=")
    head = None if place.heads is None else place.heads[0]

    def read(x: Tensor) -> Tensor:
        x = x if head is None else x[:, :, check_index(head, x.shape[2], "head")]
        return x[..., check_index(number, x.shape[-1], axes[-1])]

    return read, number


def _at(place: Place, unit: Any, feature: int | None) -> tuple[Read, int]:
    """A direction, a feature or a function of a site."""
    if place.heads is not None or place.neurons is not None:
        raise DashboardError(f"at={str(place)!r} names a part of a site: give the whole site, {place.key}")
    if isinstance(unit, (Tensor, np.ndarray)):
        direction = torch.as_tensor(unit).detach()
        if direction.ndim != 1 or feature is not None:
            raise DashboardError(f"a direction is one vector, without feature=, not of shape {tuple(direction.shape)}")
        return partial(_along, place, direction), 0
    if callable(unit) and not callable(getattr(unit, "encode", None)):
        return partial(_made, place, unit), 0
    sae = attach(unit)
    if feature is None:
        raise DashboardError("which feature of the dictionary? give feature=")
    number = check_index(feature, sae.n_features, "feature")
    if isinstance(sae, SAE):
        return lambda x: sae.encode(x, [number])[..., 0], number
    return lambda x: sae.encode(x)[..., number], number


def _made(place: Place, unit: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    made = unit(x)
    if not isinstance(made, (Tensor, np.ndarray, int, float)):
        raise DashboardError(f"a unit has one number per token, [batch pos], and the function of {place} gives "
                             f"{type(made).__name__}")
    return torch.as_tensor(made)


def _along(place: Place, direction: Tensor, x: Tensor) -> Tensor:
    if x.shape[-1:] != direction.shape:
        raise DashboardError(f"the direction has {len(direction)} numbers, and {place} {x.shape[-1]}")
    return x.float() @ direction.to(x.device).float()
