"""One pass over one prompt with gradients, and nodes of one kind in it: part of `hl.analysis.nodes`.

There is one prompt, so there is no padding: activations are [pos …].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.plan.spots import Spot
from ..model import ports
from ..model.writes import entering, norm_behind
from .attribute import AttributionError
from .node_table import Kind

if TYPE_CHECKING:
    from ..model.model import Model

Saes = Mapping[str, tuple[Any, str]]
Columns = dict[str, np.ndarray]


class Pass:
    """Values and gradients of one pass over one prompt."""

    def __init__(self, model: Model, tokens: Any, end: Spot, saes: Saes, names: tuple[str, ...] = ()) -> None:
        self.model, self.tokens, self.end, self.saes, self.names = model, tokens, end, saes, names
        self.pieces = tuple(tokens.pieces[0])
        self.values: dict[Spot, Tensor] = {}
        self.grads: dict[Spot, Tensor] = {}
        self.total, self.name, self.note = float("nan"), "", ""

    def fill(self, values: dict[Spot, Tensor], grads: dict[Spot, Tensor], total: float, name: str, note: str) -> None:
        """What the pass gave: whole sites [1 pos …]."""
        self.values = {spot: ports.wide(value[0]) for spot, value in values.items()}
        self.grads = {spot: ports.wide(value[0]) for spot, value in grads.items()}
        self.total, self.name, self.note = total, name, note

    @property
    def goal(self) -> Tensor:
        """The gradient at the stream that the metric or the target reads, [pos d_model]."""
        return self.grads[self.end]

    def attention_layers(self) -> range:
        """Layers whose attention writes before the end."""
        assert self.end.layer is not None
        return range(self.end.layer + (self.end.site != "resid_pre"))

    def mlp_layers(self) -> range:
        """Layers whose MLP writes before the end."""
        assert self.end.layer is not None
        return range(self.end.layer + (self.end.site == "resid_post"))

    def carried(self, layer: int, site: str, whole: Tensor) -> Tensor:
        """What the norm behind attention (or the MLP) multiplies each write by, its divisor as it is, [pos d_model]."""
        if norm_behind(self.model, layer, site) is not None and ports.centres(self.model.layout.family.norm):
            raise AttributionError(f"{self.model.facts.family} writes through a norm that takes a mean away: take attention "
                                   "and mlps in place of heads and neurons")
        return entering(self.model, layer, site, torch.ones_like(whole)[:, None], lambda: whole)[:, 0]


@dataclass(frozen=True)
class Part:
    """Nodes of one kind in one layer.

    Attributes:
        kind: Their name and form.
        places: layer, unit, pos, key of each, [node 4]; -1 for what it does not have.
        numbers: Column -> a function that gives it, [node]; columns that are not there are NaN.
    """

    kind: Kind
    places: np.ndarray
    numbers: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)

    def columns(self, names: tuple[str, ...]) -> Columns:
        """The columns asked for, in double precision."""
        count = len(self.places)
        made = {name: self.numbers[name]().detach().double().cpu().numpy().reshape(-1) if name in self.numbers
                else np.full(count, np.nan) for name in names}
        assert all(len(column) == count for column in made.values())
        return made


@dataclass(frozen=True)
class Family:
    """How a kind of node is had: the sites that it needs, and its parts."""

    spots: Callable[[Pass], list[Spot]]
    parts: Callable[[Pass], Iterator[Part]]


def grid(layer: int, units: Any, pos: Any, key: Any = (-1,)) -> np.ndarray:
    """Every unit at every position, with every key, [node 4], in that order."""
    cells = np.stack(np.meshgrid(np.asarray(units), np.asarray(pos), np.asarray(key), indexing="ij"), -1).reshape(-1, 3)
    return np.insert(cells, 0, layer, axis=1).astype(np.int64)
