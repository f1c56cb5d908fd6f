"""What single nodes do to the metric when they are taken out, and to the nodes after them: `total_effects`, `downstream`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.plan.spots import Spot
from ..runtime.gradients import reached
from ..runtime.trace import run as run_model
from .asking import Asking
from .attribute import AttributionError
from .node_kinds import KINDS
from .node_parts import Pass
from .node_scores import Asked, check_saes, words
from .node_table import Nodes

if TYPE_CHECKING:
    from ..model.model import Model

MOST = 1000
LATER = {"attention": "attn_out", "heads": "z", "mlps": "mlp_out", "neurons": "mlp_post", "pairs": "pattern"}
"""Kinds that may come after a node, and the site that is looked at."""


def total_effects(model: Model, prompt: Any, table: Nodes, metric: str | Callable[[Tensor], Any] | None = None, *,
                  answer: Any = None, wrong: Any = None, saes: Mapping[str, tuple[Any, str]] | None = None) -> Nodes:
    """What each node of a table gives to the metric, exactly: the metric less its value when that node alone is zero.

    Args:
        model: An opened model.
        prompt: The prompt of the table.
        table: Nodes; few of them, each takes a pass: `table.nlargest(20)`.
        metric: As in `attribute`.
        answer: The right next token.
        wrong: The wrong one that it is compared with.
        saes: The dictionaries of `latents`, as in `nodes`.

    Returns:
        The table with a column `total_effect`. Attention of a pair is taken out after the softmax: its row loses it.

    Raises:
        AttributionError: more nodes than 1000, or one that cannot be zero (a bias, positions added up over pairs).
        SpecError: answers or metrics that do not exist.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.node_scores import nodes
        >>> from hooklab.analysis.node_effects import total_effects
        >>> model, text = hl.load("lab"), "When Mary and John went to the store, John gave a drink to"
        >>> asked = dict(answer=" Mary", wrong=" John")
        >>> best = nodes(model, text, kinds="heads", **asked).nlargest(3)
        >>> total_effects(model, text, best, **asked)["total_effect"].shape
        (3,)
    """
    if not isinstance(table, Nodes):
        raise AttributionError(f"table= is what nodes(…) gives, not {type(table).__name__}")
    check_saes(saes)
    if len(table) > MOST:
        raise AttributionError(f"each of these {len(table):,} nodes takes a pass: choose up to {MOST}, with nlargest()")
    asking = Asking(AttributionError).prompt("main", prompt).answer(answer, wrong)
    name = asking.metric(asking.suggested() if metric is None else metric, "main")
    for word, (sae, place) in (saes or {}).items():
        asking.line(f"sae {word} = {asking.value(f'sae_{word}', sae)} at {place}")
    for number, (kind, unit, pos, key) in enumerate(_edited(table)):
        asking.line(f"run without{number} on main:", f"    {_taken(kind, unit, pos, key)}")
    run = model.run(asking.text, values=asking.values)
    whole = run.metrics["main"][name]
    effects = np.array([whole - run.metrics[f"without{number}"][name] for number in range(len(table))])
    return replace(table, columns={**table.columns, "total_effect": effects})


def _edited(table: Nodes) -> list[tuple[str, str, int, int]]:
    """The kind, the address without positions, the position and the key of each node."""
    rows = []
    for number, layer, unit, pos, key in table.index.tolist():
        kind = table.kinds[number]
        rows.append((kind.name, kind.form.format(layer=layer, unit=unit), pos, key))
    return rows


def _taken(kind: str, place: str, pos: int, key: int) -> str:
    """The line that takes a node out. Raises AttributionError where there is none."""
    if kind == "biases" or (kind == "pairs" and key < 0):
        raise AttributionError(f"{place} cannot be taken out alone: leave {kind} out of the table"
                               + (", or do not add them up" if kind == "pairs" else ""))
    if kind == "pairs":
        return f"cut {place} @{key} -> @{pos} renorm=false"
    return f"zero {place}" + ("" if pos < 0 else f" @{pos}")


# Downstream -----------------------------------------------------------------------------------------------------------


def downstream(model: Model, prompt: Any, node: str, kinds: str | Sequence[str] = ("heads", "neurons")) -> Nodes:
    """What the nodes after a node get from it: their derivative by the node's size, from one pass.

    The derivative is by a factor on the node, at 1: to first order, what each later node loses when the node is taken out.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        node: `"L0H3 @2"`, `"L1N17 @4"`, `"embed @2"`, `"L0H3.pattern[4,2]"`, or a place at all positions, `"L0H3 @all"`.
        kinds: Of the later nodes: `heads`, `neurons`, `attention`, `mlps`, `pairs`.

    Returns:
        Nodes with the columns `change`, of what is one number (a neuron, a pair's attention), and `write_change`, the length
        of the change of what is written; NaN where heads or neurons write through a norm, and for pairs.

    Raises:
        AttributionError: other kinds, or several prompts.
        SpecError: there is no such node.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.node_effects import downstream
        >>> later = downstream(hl.load("lab"), "When Mary and John went to the store", "L0H1 @2", kinds="neurons")
        >>> int(later.filter(pos=[0, 1]).sum("change", absolute=True))
        0
    """
    names = words(kinds, LATER, "kind of later node")
    if not isinstance(node, str):
        raise AttributionError(f'a node is an address such as "L0H3 @2", not {node!r}')
    whole = node if "[" in node else (node, lambda x: x.flatten(1).sum(1))
    asked = Asked(model, prompt, None, target=whole)
    place = Spot("z" if asked.aim.spot.site == "result" else asked.aim.spot.site, asked.aim.spot.layer)
    seen = Pass(model, asked.tokens, Spot("resid_post", model.facts.n_layers - 1), {})
    spots = list(dict.fromkeys(spot for name in names for spot in KINDS[name].spots(seen)))
    tangents = _tangents(asked, place, spots)
    seen.fill(tangents, tangents, float("nan"), node, f"what later nodes get from {node}, to first order")
    found, index, kinds_ = [], [], []
    for name in names:
        for part in KINDS[name].parts(seen):
            if Spot(LATER[name], int(part.places[0, 0])).order <= place.order:
                continue
            if part.kind not in kinds_:
                kinds_.append(part.kind)
            columns = part.columns(("activation", "write_norm"))
            if _normed(model, name):
                columns["write_norm"][:] = np.nan
            found.append(columns)
            index.append(np.insert(part.places, 0, kinds_.index(part.kind), axis=1))
    columns = {new: np.concatenate([np.zeros(0), *(one[old] for one in found)])
               for new, old in (("change", "activation"), ("write_change", "write_norm"))}
    ranked = columns if set(names) & {"neurons", "pairs"} else dict(reversed(columns.items()))
    return Nodes(tuple(kinds_), np.concatenate([np.zeros((0, 5), dtype=np.int64), *index]), ranked, seen.pieces,
                 note=seen.note)


def _normed(model: Model, kind: str) -> bool:
    """Whether the change of what is written is not linear in the change of the site that is looked at."""
    family = model.layout.family
    return kind == "pairs" or (kind == "heads" and family.post_attn is not None) or (
        kind == "neurons" and family.post_mlp is not None)


def _tangents(asked: Asked, place: Spot, spots: list[Spot]) -> dict[Spot, Tensor]:
    """The derivative of whole sites by a factor on the node: the gradient of a gradient that is linear in its weights."""
    model, values = asked.model, {}
    for spot in (place, *spots):
        model.sites.check(spot.site)
    factor = torch.ones((), device=model.device, requires_grad=True)

    def serve(spot: Spot) -> Callable[[Tensor, int], Tensor]:
        def call(value: Tensor, step: int) -> Tensor:
            if spot == place:
                value = value + (factor.to(value) - 1) * (value * _mask(asked, place, value))
            values[spot] = value
            return value

        return call

    callbacks: dict[str, list[Any]] = {}
    for spot in dict.fromkeys((place, *spots)):
        callbacks.setdefault(model.layout.port(spot.site, spot.layer).location, []).append(serve(spot))
    with torch.inference_mode(False), torch.enable_grad(), _differentiable():
        run_model(model, "__call__", callbacks, asked.plan.prompts[asked.run.prompt], grad=True)
        weights = {spot: torch.zeros_like(values[spot], requires_grad=True) for spot in spots}
        there = [spot for spot in spots if values[spot].requires_grad]
        total = sum(((weights[spot] * values[spot]).sum() for spot in there), torch.zeros(()).to(factor))
        first = torch.autograd.grad(total, factor, create_graph=True, allow_unused=True)[0] if there else None
        if first is None or not first.requires_grad:
            return {spot: torch.zeros_like(values[spot]) for spot in spots}
        found = torch.autograd.grad(first, [weights[spot] for spot in spots], allow_unused=True)
    return {spot: (torch.zeros_like(values[spot]) if one is None else one).detach()
            for spot, one in zip(spots, found, strict=True)}


def _mask(asked: Asked, place: Spot, value: Tensor) -> Tensor:
    """1 where the node is, 0 elsewhere."""
    aim = replace(asked.aim, spot=replace(asked.aim.spot, site=place.site))
    ones = torch.ones_like(value.detach()).requires_grad_()
    return torch.autograd.grad(reached(asked.store, asked.block, aim, ones).sum(), ones)[0]


def _differentiable() -> Any:
    """Attention by a kernel that can be differentiated twice."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return nullcontext()
    return sdpa_kernel(SDPBackend.MATH)
