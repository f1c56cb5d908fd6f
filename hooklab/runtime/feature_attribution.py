"""How much each feature of a dictionary contributes, its error kept, so that features are all that moves.

What a site gets of features `f` is decode(f) + error. A metric's gradient at the site, pulled back through the decoder, is
its gradient at the features; for a transcoder the features come from one site and the gradient from the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..compiler.plan.readings import Reading
from ..compiler.plan.spots import Spot
from ..sae.opening import decoded, encoded, pull_back
from .gradients import gradients
from .passes import tasks_of
from .readings import captured
from .spliced import Spliced
from .store import Block, Store
from .trace import run as run_model

if TYPE_CHECKING:
    from ..model.model import Model

Source = Callable[[Store, Block, Reading, Spot], Tensor]


class Features(NamedTuple):
    """A dictionary's features in one cell.

    Attributes:
        sae: The dictionary.
        read: The whole site that it reads, and `written` the one that it writes to.
        written: See `read`.
        values: [row pos feature], after the cell's edits.
        like: What they were read from, [row pos d].
    """

    sae: Any
    read: Spot
    written: Spot
    values: Tensor
    like: Tensor

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient at the features [row pos feature] from that at the site that they are written to."""
        return pull_back(self.sae, self.values, self.like, gradient)


def features_of(model: Model, store: Store, block: Block, spot: Spot) -> Features:
    """The features of a dictionary as a cell has them.

    Where the pass holds them, they are those held after its last line; else the site is encoded as it stands.
    """
    assert spot.sae is not None
    sae, read = store.saes[spot.sae], Spot(spot.site, spot.layer)
    held = _held(model, store, block, spot.sae) if spot.into is not None else None
    if held is not None and held.read is not None and held.features is not None:
        return Features(sae, read, spot.written, held.features.detach(), held.read.detach())
    whole = captured(model, store, block, (read,))[read].detach()
    return Features(sae, read, spot.written, encoded(sae, whole).detach(), whole)


def _held(model: Model, store: Store, block: Block, name: str) -> Spliced | None:
    """What holds the features of a dictionary in the pass of a cell, after one; None where nothing does."""
    edits = tasks_of(store, [block])
    found = next((task.spliced for tasks in edits.values() for task in tasks
                  if isinstance(getattr(task, "spliced", None), Spliced) and task.spot.sae == name), None)
    if found is None:
        return None

    def serve(place: tuple[str, int | None]) -> Callable[[Tensor, int], None]:
        """What happens at a site: its edits."""

        def call(value: Tensor, step: int) -> None:
            for task in edits[place]:
                task(value)

        return call

    prompts = [store.plan.prompts[block.run.prompt]] * block.run.samples
    run_model(model, "__call__", {model.layout.port(*place).location: [serve(place)] for place in edits}, *prompts)
    return found


# Methods: contributions [row pos feature] ------------------------------------------------------------------------------


def by_gradient(model: Model, store: Store, block: Block, reading: Reading, found: Features, source: Source) -> Tensor:
    """Features times the gradient."""
    return found.values * found.back(_gradient(model, store, block, reading, found))


def by_patching(model: Model, store: Store, block: Block, reading: Reading, found: Features, source: Source) -> Tensor:
    """What features change by from this run to the source, times the gradient."""
    change = _start(store, block, reading, found, source) - found.values
    return change * found.back(_gradient(model, store, block, reading, found))


def by_path(model: Model, store: Store, block: Block, reading: Reading, found: Features, source: Source) -> Tensor:
    """Integrated gradients along the straight line of all features, from zero or from the source's."""
    steps = int(reading.option("steps", 20))
    start = _start(store, block, reading, found, source) if reading.option("source") else torch.zeros_like(found.values)
    whole = captured(model, store, block, (found.written,))[found.written].detach()
    with torch.no_grad():
        error = whole - decoded(found.sae, found.values, found.like)
    total = torch.zeros_like(found.values)
    for step in range(steps):
        between = found._replace(values=start + (step + 0.5) / steps * (found.values - start))
        with torch.no_grad():
            there = (decoded(found.sae, between.values, found.like) + error).to(whole.dtype)
        total += between.back(_gradient(model, store, block, reading, found, there))
    return (found.values - start) * total / steps


def along(found: Features, direction: Tensor) -> Tensor:
    """Each feature's write times a direction [row pos d]."""
    return found.values * found.back(direction)


METHODS = {"grad": by_gradient, "patch": by_patching, "ig": by_path}


def _gradient(model: Model, store: Store, block: Block, reading: Reading, found: Features,
              replaced: Tensor | None = None) -> Tensor:
    """The metric's gradient at the site that features are written to."""
    place = (found.written.site, found.written.layer)
    return gradients(model, store, block, reading, [found.written], None if replaced is None else {place: replaced})[1][0]


def _start(store: Store, block: Block, reading: Reading, found: Features, source: Source) -> Tensor:
    """The source's features."""
    return encoded(found.sae, source(store, block, reading, found.read).to(found.values.device)).detach()


def summed(product: Tensor, columns: Tensor | None, size: int, *, each: bool) -> Tensor:
    """Contributions [row pos feature] summed over positions, or at each: [example (pos) feature], samples averaged."""
    if columns is not None:
        product = product[torch.arange(len(product))[:, None], columns.to(product.device)]
    product = (product if each else product.sum(1)).detach().double().cpu()
    return product.reshape(-1, size, *product.shape[1:]).mean(0)


__all__ = ["METHODS", "Features", "along", "features_of", "summed"]
