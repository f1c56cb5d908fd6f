"""Relations: the directions along which a head matches or moves tokens, and the pairs of tokens that it relates.

A head's QK matrix is a sum of relations, one per singular value: a token with much of `u` on the query side attends to one
with much of `v` on the key side. The same of OV: what has `u` is written as `v`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RecordError, did_you_mean
from ..model.model import Model
from ..records import Scores
from ..runtime.world import ModelWorld
from .composing import moving

if TYPE_CHECKING:
    import networkx

MATRICES = ("QK", "OV")
SIDES = ("query", "key")


def relations(model: Model, layer: int, head: int, *, matrix: str = "QK", top: int = 3,
              fold: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The strongest relations of a head: u [top d_model], strengths [top], v [top d_model].

    `(u * strengths[:, None]).T @ v` is the best matrix of that rank; with `top=d_head` it is the matrix itself.

    Raises:
        RecordError: another matrix than QK and OV, or a count that the rank does not allow.
        LayerError: the layer or head is out of range.
    """
    if matrix not in MATRICES:
        raise RecordError(f"relations are read off QK or OV, not {matrix!r}.{did_you_mean(matrix, MATRICES)}")
    if not 1 <= top <= model.facts.d_head:
        raise RecordError(f"a head has {model.facts.d_head} relations at most, and at least one is needed: top={top}")
    weights = model.W.folded(centre=True) if fold else model.W
    related = moving(model, layer, head, fold=fold) if matrix == "OV" else weights.QK(layer, head)
    u, strengths, vh = related.svd()
    return u.mT[:top], strengths[:top], vh[:top]


def related(model: Model, layer: int, head: int, tokens: Iterable[str | int], *, matrix: str = "QK", top: int | None = 3,
            number: int | None = None, fold: bool = True) -> Scores:
    """How strongly a head relates each token to each, from embeddings alone, in standard deviations over all pairs.

    The embeddings are centred over the tokens first, so that what all of them share relates none of them.

    Args:
        model: An open model.
        layer: The head's layer.
        head: The head.
        tokens: Texts that are one token each, or ids.
        matrix: `QK` (a row looks at a column) or `OV` (a row is written as a column's direction).
        top: How many relations to keep; all of them when None.
        number: One relation alone, counted from 0 for the strongest: the products of what each token has of its `u` and
            each other of its `v`.
        fold: Move the norms' gains into the weights first.

    Returns:
        Scores [query key], z-scores.

    Raises:
        RecordError: fewer than two tokens, texts that are several tokens, or more relations than there are.
    """
    ids, labels = _ids(model, tokens)
    kept = top or model.facts.d_head if number is None else _counted(model, number) + 1
    u, strengths, v = (part[-1:] if number is not None else part
                       for part in relations(model, layer, head, matrix=matrix, top=kept, fold=fold))
    embedded = model.W.E[torch.tensor(ids, device=model.W.E.device)].float()
    embedded = embedded - embedded.mean(0)
    scores = ((embedded @ u.mT.float()) * strengths.float()) @ (embedded @ v.mT.float()).mT
    spread = scores.std(correction=0).clamp_min(torch.finfo(scores.dtype).tiny)
    found = ((scores - scores.mean()) / spread).double().cpu().numpy()
    coords = {"query": labels, "key": labels}
    name = f"L{layer}H{head} {matrix}" + ("" if number is None else f" relation {number}")
    return Scores(found, ("query", "key"), coords, "standard deviations", name)


def token_projections(model: Model, layer: int, head: int, tokens: Iterable[str | int], *, side: str = "query",
                      matrix: str = "QK", top: int = 3, fold: bool = True, normed: bool = False) -> Scores:
    """How much each token's embedding has of the directions that a head matches or moves.

    Args:
        model: An open model.
        layer: The head's layer.
        head: The head.
        tokens: Texts that are one token each, or ids.
        side: `"query"` projects on the `u` of each relation, `"key"` on its `v` (of OV: what is read, what is written).
        matrix: `QK` or `OV`.
        top: How many relations.
        fold: Move the norms' gains into the weights first.
        normed: Project what the norm before attention makes of the embedding, as in the first layer, instead of the
            embedding itself; with `fold` without the norm's gain, which stands in the weights then.

    Returns:
        Scores [token relation].

    Raises:
        RecordError: another side or matrix, fewer than two tokens, texts that are several tokens, or a model that has no
            norm before attention.

    >>> import hooklab as hl
    >>> token_projections(hl.load("lab"), 1, 2, [" Mary", " John"], top=2).axes
    ('token', 'relation')
    """
    if side not in SIDES:
        raise RecordError(f"a relation has a side for queries and one for keys, not {side!r}.{did_you_mean(side, SIDES)}")
    ids, labels = _ids(model, tokens)
    u, _, v = relations(model, layer, head, matrix=matrix, top=top, fold=fold)
    embedded = model.W.E[torch.tensor(ids, device=model.W.E.device)].float()
    if normed:
        embedded = _normed(model, layer, embedded, fold)
    found = embedded @ (u if side == "query" else v).mT.to(embedded)
    return Scores(found.double().cpu().numpy(), ("token", "relation"), {"token": labels}, "dot product",
                  f"L{layer}H{head} {matrix} {side} side")


def relation_graph(scores: Scores, threshold: float = 3.0) -> networkx.DiGraph:
    """The pairs above a threshold as a directed graph: tokens with an edge, its `weight` the score and its `relation` the
    name of the scores, so that graphs of several heads can be put together. See `relation_json` for a text of it.

    Raises:
        RecordError: the scores are no pairs of tokens.
    """
    import networkx

    graph: Any = networkx.DiGraph(name=scores.name, threshold=float(threshold))
    for source, target, weight in _pairs(scores, threshold):
        graph.add_edge(source, target, weight=weight, relation=scores.name)
    return graph


def relation_json(scores: Scores, threshold: float = 3.0) -> str:
    """The same graph as JSON, without networkx: `nodes` with an `id`, `links` with `source`, `target`, `weight` and
    `relation`, which `networkx.node_link_graph(…, edges="links")` and most drawing programs read.

    Raises:
        RecordError: the scores are no pairs of tokens.
    """
    pairs = _pairs(scores, threshold)
    links = [{"source": source, "target": target, "weight": weight, "relation": scores.name}
             for source, target, weight in pairs]
    nodes = dict.fromkeys(token for source, target, _ in pairs for token in (source, target))
    return json.dumps({"directed": True, "multigraph": False, "graph": {"name": scores.name, "threshold": float(threshold)},
                       "nodes": [{"id": token} for token in nodes], "links": links}, ensure_ascii=False, indent=1)


def _pairs(scores: Scores, threshold: float) -> list[tuple[str, str, float]]:
    if scores.axes != ("query", "key"):
        raise RecordError(f"a graph of relations is made of scores [query key], such as `related` gives, not "
                          f"[{' '.join(scores.axes)}]")
    return [(scores.coords["query"][i], scores.coords["key"][j], float(scores.values[i, j]))
            for i, j in np.argwhere(scores.values > threshold)]


def _counted(model: Model, number: int) -> int:
    if not 0 <= number < model.facts.d_head:
        raise RecordError(f"a head has {model.facts.d_head} relations, counted from 0: there is no number {number}")
    return number


def _normed(model: Model, layer: int, rows: Tensor, fold: bool) -> Tensor:
    """Rows [token d_model] as the norm before attention gives them, its gain and bias taken off again with `fold`."""
    if (reason := model.sites.missing("ln1")) is not None:
        raise RecordError(f"there is no norm before attention: {reason}. Leave normed= out")
    norm, weights = model.layout.role(layer, "ln1"), model.W
    with torch.no_grad():
        out = norm(rows.to(weights.E.dtype)).float()
    if not fold:
        return out
    bias = weights.b_ln1[layer].float() if weights.missing("b_ln1") is None else torch.zeros(())
    return (out - bias.to(out)) / weights.ln1[layer].float().to(out)


def _ids(model: Model, tokens: Iterable[str | int]) -> tuple[list[int], tuple[str, ...]]:
    """Ids and names of tokens; equal names are counted apart."""
    ids, tokens, world = [], list(tokens), ModelWorld(model)
    for token in tokens:
        found = [token] if isinstance(token, int) else world.token_ids(token)
        if len(found) != 1:
            raise RecordError(f"{token!r} is {len(found)} tokens, not one: {[world.piece(one) for one in found]}")
        ids.append(int(found[0]))
    if len(set(ids)) < 2:
        raise RecordError("relations hold between tokens: give two or more different ones")
    names = [str(token) for token in tokens] if all(isinstance(token, str) for token in tokens) else [f"#{i}" for i in ids]
    return ids, tuple(name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names))
