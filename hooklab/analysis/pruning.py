"""Pruning: a model without its weakest heads or neurons, and what a measure says as more of them go.

The pruned model is a second one (see `surgery`): it shares every weight with the first but the output projections that
lost something, so the first stays as it is, to the bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import nn

from ..address import check_index, indices, parse
from ..errors import RecordError, SiteError
from ..model import linear
from ..model.model import Model
from ..records import Scores
from .surgery import counterpart, opened, sharing

Unit = str | tuple[int, int]
KINDS = ("head", "neuron")
EXAMPLES = {"head": "L1H3", "neuron": "L1N3"}


def prune(model: Model, *, heads: Unit | Iterable[Unit] = (), neurons: Unit | Iterable[Unit] = ()) -> Model:
    """The model with heads and neurons that write nothing. Biases of the output projections stay.

    Args:
        model: An open model; it is not changed.
        heads: Addresses such as `"L1H3"`, `"L2H[0,1]"`, or pairs (layer, head).
        neurons: Addresses such as `"L0N17"`, or pairs (layer, neuron).

    >>> import hooklab as hl
    >>> with prune(hl.load("lab"), heads=["L2H0", (3, 1)]) as pruned:
    ...     bool(pruned.W.O[2, 0].any())
    False

    Raises:
        LayerError: there is no such layer, head or neuron.
        SiteError: an address names something else, or the layer has no neurons.
    """
    other = sharing(model)
    for kind, role, units in (("head", "o", heads), ("neuron", "down", neurons)):
        for layer, gone in by_layer(model, kind, units).items():
            module = counterpart(other, model, layer, role)
            if module is None:
                raise SiteError(f"layer {layer} has no neurons of its own: {model.layout.family.missing('mlp_post')}")
            _silence(module, gone, model.facts.n_heads if kind == "head" else None)
    return opened(model, other)


def pruning_curve(model: Model, scores: Scores, measure: Callable[[Model], float], *,
                  shares: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)) -> Scores:
    """What a measure says as the units with the weakest scores go, more and more of them.

    Args:
        model: An open model.
        scores: One number per head [layer head] or neuron [layer neuron]; the smallest in magnitude go first, and of
            equal ones the first.
        measure: A function of a model that gives a number, such as its loss on a text.
        shares: The fractions of units that go, from 0 to 1.

    Returns:
        Scores [share]: the measure; `labels` has how many units went.

    Raises:
        RecordError: the scores have other axes, hold what is not a number, or a share is not between 0 and 1.
    """
    kind = next((kind for kind in KINDS if scores.axes == ("layer", kind)), None)
    if kind is None:
        raise RecordError(f"pruning needs scores of [layer head] or [layer neuron]; these have {', '.join(scores.axes)}")
    if np.isnan(scores.values).any():
        raise RecordError("some scores are not numbers, so it is not known which units are weakest")
    if any(not 0 <= share <= 1 for share in shares):
        raise RecordError(f"shares lie between 0 and 1: {list(shares)}")
    order = np.argsort(np.abs(scores.values), axis=None, kind="stable")
    places = [np.unravel_index(cell, scores.shape) for cell in order]
    units = [(int(scores.coords["layer"][i]), int(scores.coords[kind][j])) for i, j in places]
    counts = [round(share * len(units)) for share in shares]
    found = []
    for gone in counts:
        with prune(model, **{f"{kind}s": units[:gone]}) as pruned:
            found.append(float(measure(pruned)))
    return Scores(np.array(found), ("share",), {"share": tuple(map(float, shares))}, name="measure",
                  labels=np.array([f"{gone} of {len(units)} {kind}s" for gone in counts]))


def by_layer(model: Model, kind: str, units: Any) -> dict[int, set[int]]:
    """Layer -> the heads or neurons that addresses or pairs name.

    Raises:
        LayerError: there is no such layer, head or neuron.
        SiteError: an address names something else, or the model has no neurons.
    """
    single = isinstance(units, str) or (isinstance(units, tuple) and len(units) == 2 and isinstance(units[0], int))
    if not single and not isinstance(units, Iterable):
        raise SiteError(f'{units!r} names no {kind}: write "{EXAMPLES[kind]}", or (layer, {kind}).')
    units = [units] if single else list(units)
    found: dict[int, set[int]] = defaultdict(set)
    size = model.facts.n_heads if kind == "head" else model.facts.d_mlp
    if units and not size:
        raise SiteError(f"this model has no {kind}s of its own: {model.sites.missing('mlp_post')}")
    for unit in units:
        if not isinstance(unit, str) and not (isinstance(unit, tuple) and len(unit) == 2):
            raise SiteError(f'{unit!r} names no {kind}: write "{EXAMPLES[kind]}", or (layer, {kind}).')
        for layer, one in [unit] if isinstance(unit, tuple) else _named(model, kind, unit):
            found[check_index(layer, model.facts.n_layers, "layer")].add(check_index(one, size or 0, kind))
    return found


def _named(model: Model, kind: str, address: str) -> list[tuple[int, int]]:
    """The (layer, unit) pairs of an address."""
    place = parse(address if "." in address else f"{address}.{'z' if kind == 'head' else 'mlp_post'}")
    chosen = place.heads if kind == "head" else place.neurons
    if place.layers is None or chosen is None:
        raise SiteError(f'"{address}" names no {kind}: write "{EXAMPLES[kind]}", say.')
    size = model.facts.n_heads if kind == "head" else model.facts.d_mlp or 0
    return [(layer, one) for layer in indices(place.layers, model.facts.n_layers, "layer")
            for one in indices(chosen, size, kind)]


def _silence(module: Any, gone: set[int], n_heads: int | None) -> None:
    """Give a projection a weight of its own in which units, rows of [d_in d_out] or groups of them, are zero."""
    module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=module.weight.requires_grad)
    with torch.no_grad():
        rows = linear.matrix(module)
        if n_heads is not None:
            rows = rearrange(rows, "(head d_head) d_model -> head d_head d_model", head=n_heads)
        rows[sorted(gone)] = 0
