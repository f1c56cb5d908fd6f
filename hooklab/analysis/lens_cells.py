"""The places that a lens reads, one vector each: from addresses and two words for them all to `Cell`s with their axes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..address import Place, parse
from ..model import writes
from ..runtime.trace import places
from .asking import listed
from .lens_values import LensError

if TYPE_CHECKING:
    from ..model.model import Model

STREAM = ("resid_pre", "resid_mid", "resid_post")
WRITES = ("embed", "pos_embed", "attn_out", "mlp_out")
PARTS = {"result": "heads", "mlp_post": "neurons"}
"""Sites of which a lens reads parts: what one head, or one neuron, writes."""
ATTENTION_BIAS, BIAS = "b_O", "bias"
"""Rows that are no sites: what attention's output bias writes in a layer; what the last two biases add to the logits."""
ALL = {"components": ("embed", "pos_embed", "L*.attn_out", "L*.mlp_out", BIAS),
       "heads": ("embed", "pos_embed", "L*H*", f"L*.{ATTENTION_BIAS}", "L*.mlp_out", BIAS)}
"""Words for everything that is written to the stream; under the frozen norm its rows add up to the logits."""


@dataclass(frozen=True)
class Cell:
    """One vector: of a site, of a head (`number`), of a neuron, or of a bias."""

    site: str
    layer: int | None = None
    number: int | None = None

    def __str__(self) -> str:
        if self.number is None:
            return self.site if self.layer is None else f"L{self.layer}.{self.site}"
        return f"L{self.layer}{'N' if self.site == 'mlp_post' else 'H'}{self.number}"

    @property
    def in_stream(self) -> bool:
        """Whether it is the stream itself, rather than a part of it."""
        return self.site in STREAM

    @property
    def source(self) -> str | None:
        """The address of the site that has it; None for the last biases."""
        if self.site == BIAS:
            return None
        return Place("result" if self.site == ATTENTION_BIAS else self.site, self.layer).key

    def vectors(self, model: Model, values: Mapping[str, Tensor]) -> Tensor:
        """Its values [row d_model], as they are in the stream, from those of its site."""
        value, layer, number = values[str(self.source)], self.layer or 0, self.number or 0
        if self.site == "result":
            return writes.heads_written(model, layer, value, [number])[..., 0, :]
        if self.site == ATTENTION_BIAS:
            return writes.attention_bias(model, layer, value)
        if self.site == "mlp_post":
            return writes.neurons_written(model, layer, value, [number])[..., 0, :]
        return value


@dataclass(frozen=True)
class Cells:
    """What is read, in row-major order of its axes."""

    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    coords: dict[str, tuple[Any, ...]]


def cells_of(model: Model, sites: str | Iterable[str]) -> Cells:
    """The cells that addresses mean: layer and head for one address, a `site` axis for a list or a word.

    Raises:
        LensError: a place that the unembedding cannot read, or none at all.
        SiteError, LayerError: an address that the model has no such place for.
    """
    names = listed(sites, LensError)
    if len(names) == 1 and names[0] not in (*ALL, BIAS):
        found = _cells(model, names[0])
        shape = _shape(names[0])
        axes = {"layer": list(dict.fromkeys(cell.layer for cell in found)),
                "head": list(dict.fromkeys(cell.number for cell in found)),
                "neuron": list(dict.fromkeys(cell.number for cell in found))}
        return Cells(tuple(found), shape, {axis: tuple(axes[axis]) for axis in shape})
    each = [cell for name in names for cell in (_everything(model, name) if name in ALL else _cells(model, name))]
    kept = tuple(dict.fromkeys(each))
    return Cells(kept, ("site",), {"site": tuple(map(str, kept))})


def _everything(model: Model, word: str) -> list[Cell]:
    """All rows of a word, in the order of a forward pass; the position embedding where there is one."""
    names = [name for name in ALL[word] if name != "pos_embed" or model.sites.missing(name) is None]
    every = [cell for name in names for cell in _cells(model, name)]
    end = model.facts.n_layers
    return sorted(every, key=lambda cell: end if cell.site == BIAS else -1 if cell.layer is None else cell.layer)


def _cells(model: Model, name: str) -> list[Cell]:
    """The cells of one address."""
    if name == BIAS:
        return [Cell(BIAS)]
    biased = re.fullmatch(rf"(L.+)\.{ATTENTION_BIAS}", name)
    found = []
    for place in places(model, [f"{biased[1]}.attn_out" if biased else name]):
        if biased:
            found.append(Cell(ATTENTION_BIAS, place.layer))
        elif place.site in PARTS:
            numbers = place.heads if place.site == "result" else place.neurons
            if numbers is None:
                letter = "H" if place.site == "result" else "N"
                raise LensError(f"{place} is of all {PARTS[place.site]} at once, and a lens reads one at a time: "
                                f"L{place.layer}{letter}* for each of them.")
            found += [Cell(place.site, place.layer, number) for number in numbers]
        elif place.site in (*STREAM, *WRITES):
            found.append(Cell(place.site, place.layer))
        else:
            raise LensError(f"the unembedding cannot read {place}. It reads {', '.join((*STREAM, *WRITES))}, heads (L0H1) "
                            f"and neurons (L0N3).")
    return found


def _shape(name: str) -> tuple[str, ...]:
    """The axes that one address makes: those written as more than one number."""
    parsed = parse(re.sub(rf"\.{ATTENTION_BIAS}$", ".attn_out", name))
    given = {"layer": parsed.layers, "head": parsed.heads, "neuron": parsed.neurons}
    return tuple(axis for axis, text in given.items() if text is not None and not re.fullmatch(r"-?\d+", text))
