"""Attention over all layers together: `attention_rollout`, `attention_flow` and `rollout_by_head`.

A layer passes a token's content on in two ways: the stream keeps it where it is, and heads carry it from token to token.
With a share for the stream, each layer is a table of where every token's content comes from, and the tables multiply. After
Abnar & Zuidema, Quantifying Attention Flow in Transformers (2020, arXiv:2005.00928). MLPs, and what values say, are no part
of it; `weighting="write"` weights attention by the length of what it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import PromptError
from ..positions import resolve
from ..records import Scores
from ..spec.printer import quote
from ..tokens import Tokens
from .patterns import value_norms
from .watching import AttentionError, Seen, check, read, tokens_of, watch

if TYPE_CHECKING:
    from ..model.model import Model

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {"mean": lambda x: x.mean(0), "max": lambda x: x.amax(0),
                                                  "min": lambda x: x.amin(0)}
WEIGHTINGS = ("attention", "write")
WHOLE = 2**40
"""Capacities are counted in this fraction of 1, so that flows are sums of integers."""


def attention_rollout(source: Any, prompt: Any = None, *, residual: float = 0.5, heads: str = "mean",
                      weighting: str = "attention", **inputs: Any) -> Scores:
    """Where each token's content comes from after every layer, if attention moved it: the product of all layers so far.

    Args:
        source: An opened model, or patterns [layer head query_pos key_pos].
        prompt: For a model, one prompt; for patterns, its tokens (`model.tokens(prompt)`) or None.
        residual: The share that stays where it is in each layer.
        heads: How the heads of a layer become one: `"mean"`, `"max"`, `"min"`.
        weighting: `"attention"`, or `"write"`: attention times the length of what each token would write, A · ‖v W_O‖.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [layer query_pos key_pos]; each row adds up to 1.

    Raises:
        AttentionError: there is no such fusion or weighting, the share is not from 0 to 1, or patterns have other axes.
        PromptError: there are several prompts.

    Example:
        >>> import hooklab as hl
        >>> rollout = attention_rollout(hl.load("lab"), "When Mary and John went to the store")
        >>> rollout.axes, bool(abs(rollout.values.sum(-1) - 1).max() < 1e-12)
        (('layer', 'query_pos', 'key_pos'), True)
    """
    tables = _tables(source, prompt, residual, heads, weighting, inputs)
    return tables.scores(_products(tables.mixed), ("layer", "query_pos", "key_pos"), "attention rollout")


def attention_flow(source: Any, prompt: Any = None, positions: Any = "last", *, residual: float = 0.5, heads: str = "mean",
                   weighting: str = "attention", **inputs: Any) -> Scores:
    """The most that could flow from each token of the input to tokens of the last layer, with attention as capacity.

    Where rollout multiplies along every path, flow asks for the narrowest place of the best bundle of paths (a maximum
    flow), so it is never smaller. Flows to one token do not add up to 1: each is the most for itself alone.

    Args:
        source: As in `attention_rollout`.
        prompt: The same.
        positions: Those of the last layer that are asked for; each takes as many maximum flows as there are tokens.
        residual: The share that stays where it is in each layer.
        heads: How the heads of a layer become one.
        weighting: `"attention"` or `"write"`.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [query_pos key_pos].

    Raises:
        AttentionError, PromptError: as `attention_rollout` does; or networkx is not installed.
        PositionError: there is no such position.

    Example:
        >>> import hooklab as hl
        >>> model, prompt = hl.load("lab"), "Mary saw John"
        >>> flow, rollout = attention_flow(model, prompt), attention_rollout(model, prompt)
        >>> bool((flow.values[0] >= rollout.values[-1, -1] - 1e-9).all())
        True
    """
    tables = _tables(source, prompt, residual, heads, weighting, inputs)
    queries = tables.at(positions)
    values = np.stack([_flows(tables.mixed, query) for query in queries])
    return tables.scores(values, ("query_pos", "key_pos"), "attention flow", query_pos=queries)


def rollout_by_head(model: Model, prompt: Any, origin: Any, destination: Any = "last", *, residual: float = 0.5,
                    weighting: str = "attention", **inputs: Any) -> Scores:
    """How much of the rollout from one token to another passes through each head.

    Of all that reaches `destination` in the last layer and comes from `origin` in the input, it is the part that moves with
    a head's attention in its layer. With what stays in the stream, the heads of a layer add up to the whole rollout; the
    note says how much that is.

    Args:
        model: An opened model.
        prompt: One prompt.
        origin: Positions of the input, added up.
        destination: Positions of the last layer, of which the mean is taken.
        residual: The share that stays where it is in each layer.
        weighting: `"attention"` or `"write"`.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [layer head].

    Raises:
        AttentionError, PromptError: as `attention_rollout` does.
        PositionError, TokenError: there is no such position.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> flow = rollout_by_head(model, "When Mary and John went to the store", '"Mary"', "last")
        >>> flow.shape == (model.facts.n_layers, model.facts.n_heads)
        True
    """
    made = read(model, prompt, **inputs)
    tables = _tables(model, made, residual, "mean", weighting, {})
    below, above = _products(tables.mixed), _products(tables.mixed.flip(0).mT)  # both from their end of the stack
    n_layers, start, end = len(tables.mixed), tables.at(origin), tables.at(destination)
    eye = torch.eye(tables.mixed.shape[-1], dtype=torch.float64)
    found = np.zeros((n_layers, model.facts.n_heads))

    def visit(seen: Seen) -> None:
        layer = seen.layer
        before = (below[layer - 1] if layer else eye)[:, start].sum(-1)  # [pos]: what came from the origin so far
        after = (above[n_layers - 2 - layer].mT if layer < n_layers - 1 else eye)[end].mean(0)  # [pos]: what gets there
        shares = _shares(model, seen, weighting) * (1 - residual) / _whole(model, seen, residual, weighting)
        found[layer] = torch.einsum("q,hqk,k->h", after, shares, before).numpy()

    watch(model, made, _sites(weighting), visit)
    whole = float(below[-1][end][:, start].sum(-1).mean())
    spec = f"prompt {quote(prompt)}\n" if isinstance(prompt, str) else ""
    return Scores(found, ("layer", "head"), {}, "share of the destination", "rollout through heads", spec,
                  note=f"of {whole:.4g} that reach {_named(destination)} from {_named(origin)}")


# Tables of one layer ----------------------------------------------------------------------------------------------------


class _Tables:
    """Where each layer takes each token's content from, [layer query_pos key_pos], with the tokens."""

    def __init__(self, mixed: Tensor, tokens: Tokens | None, note: str, spec: str = "") -> None:
        self.mixed, self.tokens, self.note, self.spec = mixed, tokens, note, spec

    def at(self, selector: Any) -> list[int]:
        tokens = self.tokens or Tokens.from_ids([[0] * self.mixed.shape[-1]])
        return resolve(selector, tokens)[0]

    def scores(self, values: Any, axes: tuple[str, ...], name: str, **chosen: list[int]) -> Scores:
        labels: list[Any] = list(range(self.mixed.shape[-1]))
        if self.tokens is not None:
            labels = [f"{i}: {piece}" for i, piece in enumerate(self.tokens.pieces[0])]
        coords = {axis: tuple(labels[i] for i in chosen.get(axis, range(len(labels)))) for axis in axes if axis != "layer"}
        return Scores(np.asarray(values), axes, coords, "share", name, self.spec, note=self.note)


def _tables(source: Any, prompt: Any, residual: float, heads: str, weighting: str, inputs: dict[str, Any]) -> _Tables:
    check("fusion of heads", heads, tuple(FUSIONS))
    check("weighting", weighting, WEIGHTINGS)
    if not 0 <= residual <= 1:
        raise AttentionError(f"residual={residual}: the share that stays in the stream is from 0 to 1")
    note = f"{residual:g} stays in each layer; heads: {heads}; weighted by {weighting}"
    if not hasattr(source, "facts"):
        patterns = torch.as_tensor(source).detach().double().cpu()
        if patterns.ndim != 4 or patterns.shape[-1] != patterns.shape[-2] or weighting != "attention":
            raise AttentionError("patterns [layer head query_pos key_pos] are needed, weighted by attention; not "
                                 f"{tuple(patterns.shape)} weighted by {weighting}")
        tokens = prompt if isinstance(prompt, Tokens) else None
        if tokens is not None and (len(tokens) != 1 or tokens.width != patterns.shape[-1]):
            raise AttentionError(f"{len(tokens)} prompts of {tokens.width} tokens do not fit patterns of "
                                 f"{patterns.shape[-1]}")
        return _Tables(torch.stack([_mixed(FUSIONS[heads](one), residual) for one in patterns]), tokens, note)
    made = read(source, prompt, **inputs)
    if made.size != 1:
        raise PromptError("attention is followed through the layers for one prompt at a time: give one text, or ids of one")
    mixed: list[Tensor] = []

    def visit(seen: Seen) -> None:
        fused = FUSIONS[heads](_weighted(source, seen, weighting))
        mixed.append(_mixed(_rows(fused) if weighting == "write" else fused, residual))

    watch(source, made, _sites(weighting), visit)
    return _Tables(torch.stack(mixed), tokens_of(made), note, f"prompt {quote(prompt)}\n" if isinstance(prompt, str) else "")


def _sites(weighting: str) -> Sequence[str]:
    return ("pattern",) if weighting == "attention" else ("v", "pattern")


def _weighted(model: Model, seen: Seen, weighting: str) -> Tensor:
    """Attention, or attention times the length of what is written, of the only example [head query_pos key_pos]."""
    _, pattern = next(seen.patterns())
    if weighting == "write":
        pattern = pattern * value_norms(model, {f"L{seen.layer}.v": seen.values["v"]})[seen.layer][0, :, None].to(pattern)
    return pattern.cpu()


def _shares(model: Model, seen: Seen, weighting: str) -> Tensor:
    """What each head has of its layer's attention, [head query_pos key_pos]: the heads' sum is the fused table."""
    each = _weighted(model, seen, weighting)
    return each / len(each) if weighting == "attention" else _rows(each, (0, -1))


def _whole(model: Model, seen: Seen, residual: float, weighting: str) -> Tensor:
    """What each row of a layer adds up to before it is divided, [query_pos 1]."""
    whole = (1 - residual) * _shares(model, seen, weighting).sum((0, -1)) + residual
    return torch.where(whole > 0, whole, torch.ones_like(whole))[:, None]


def _mixed(fused: Tensor, residual: float) -> Tensor:
    """A layer's table [query_pos key_pos], with what stays in the stream; rows add up to 1."""
    return _rows((1 - residual) * fused + residual * torch.eye(fused.shape[-1], dtype=fused.dtype))


def _rows(table: Tensor, axes: Any = -1) -> Tensor:
    """Rows divided by their sum; those of zeros stay."""
    whole = table.sum(axes, keepdim=True)
    return torch.where(whole > 0, table / whole, torch.zeros_like(table))


def _products(mixed: Tensor) -> Tensor:
    """The product of all tables up to each, later ones on the left, [layer query_pos key_pos]."""
    found = [mixed[0]]
    for table in mixed[1:]:
        found.append(table @ found[-1])
    return torch.stack(found)


def _flows(mixed: Tensor, query: int) -> np.ndarray:
    """The maximum flow from a token of the last layer to each of the input, [key_pos]."""
    try:
        import networkx as nx
    except ImportError as error:
        raise AttentionError("attention_flow needs networkx: pip install networkx") from error
    graph = nx.DiGraph()
    layers, n = len(mixed), mixed.shape[-1]
    graph.add_nodes_from([(layers, query), *((0, key) for key in range(n))])
    reached = {query}
    for layer in range(layers, 0, -1):
        capacity = torch.round(mixed[layer - 1] * WHOLE).long()
        for row in reached:
            for key in torch.nonzero(capacity[row])[:, 0].tolist():
                graph.add_edge((layer, row), (layer - 1, key), capacity=int(capacity[row, key]))
        reached = {key for _, key in (edge[1] for edge in graph.edges if edge[0][0] == layer)}
    return np.array([nx.maximum_flow_value(graph, (layers, query), (0, key)) / WHOLE for key in range(n)])


def _named(selector: Any) -> str:
    return selector if isinstance(selector, str) else str(selector)
